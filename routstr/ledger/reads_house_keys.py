"""The operator's view of keys: found by what is known of them, listed newest first.

Lists go by (created_at, id), which has an index; a filter that few keys pass reads past the others,
which the keys of a big node (100,000) allow. Totals are sums over keys, never over their rows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, or_, select

from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import KEY, KeyView, key_view
from routstr.ledger.reads_house_lists import is_behind

KeyFilter = Literal["all", "funded", "children", "expired", "revoked"]
KEY_FILTERS: Final[tuple[KeyFilter, ...]] = ("all", "funded", "children", "expired", "revoked")
ID_CHARS: Final = len(OWNER_KEY_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key as the operator sees it; amounts in msat. `rows` is how many its audit chain has."""

    key: KeyView
    total_deposited_msat: int
    last_used_at: datetime | None
    rows: int


def _key_row(row: Row[Any]) -> KeyRow:
    return KeyRow(
        key=key_view(row),
        total_deposited_msat=row.total_deposited,
        last_used_at=row.last_used_at,
        rows=row.version,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySearch:
    """Which keys are meant: of one hash, or whose id or preview begins with a text, and a filter.

    `now` says which have expired.
    """

    now: datetime
    shown: KeyFilter = "all"
    text: str | None = None
    hash: str | None = None
    parent_id: str | None = None


def _meant(search: KeySearch) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [KEY.c.id != OWNER_KEY_ID]
    if search.hash is not None:
        conditions.append(KEY.c.key_hash == search.hash)
    if search.text:
        columns = (KEY.c.id, KEY.c.preview)
        starts = [column.startswith(search.text, autoescape=True) for column in columns]
        is_whole = len(search.text) == ID_CHARS
        conditions.append(KEY.c.id == search.text if is_whole else or_(*starts))
    if search.parent_id is not None:
        conditions.append(KEY.c.parent_id == search.parent_id)
    match search.shown:
        case "funded":
            conditions.append(KEY.c.balance > 0)
        case "children":
            conditions.append(KEY.c.parent_id.is_not(None))
        case "expired":
            conditions.append(KEY.c.expires_at <= search.now)
        case "revoked":
            conditions.append(KEY.c.revoked_at.is_not(None))
        case "all":
            pass
    return and_(*conditions)


def keys_query(search: KeySearch, *, limit: int, after: KeyView | None) -> Select[Any]:
    """The keys meant, newest first, from behind `after`."""
    wanted = select(KEY).where(_meant(search))
    if after is not None:
        wanted = wanted.where(is_behind(KEY.c.created_at, KEY.c.id, after.created_at, after.id))
    return wanted.order_by(KEY.c.created_at.desc(), KEY.c.id.desc()).limit(limit)


async def find_keys(
    connection: ReadConnection, search: KeySearch, *, limit: int, after: KeyView | None
) -> list[KeyRow]:
    """A page of the keys meant, newest first."""
    rows = await connection.execute(keys_query(search, limit=limit, after=after))
    return [_key_row(row) for row in rows]


async def find_key_row(connection: ReadConnection, key_id: str) -> KeyRow | None:
    """One key."""
    row = (await connection.execute(select(KEY).where(KEY.c.id == key_id))).one_or_none()
    return None if row is None else _key_row(row)


async def count_keys(connection: ReadConnection, search: KeySearch) -> int:
    """How many keys are meant."""
    return int(await connection.scalar(select(func.count()).where(_meant(search))) or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTotals:
    """All keys of users together; amounts in msat. `rows` is the length of the audit chain."""

    keys: int
    funded: int
    children: int
    balance_msat: int
    reserved_msat: int
    spent_msat: int
    requests: int
    rows: int


async def key_totals(connection: ReadConnection) -> KeyTotals:
    """Stored totals of the keys, added up: as exact as the chain, and a fiftieth of its length.

    A parent's totals include its children's, so only keys with a balance of their own are added.
    """
    own = KEY.c.parent_id.is_(None)
    row = (
        await connection.execute(
            select(
                func.count().label("keys"),
                func.sum(case((KEY.c.balance > 0, 1), else_=0)).label("funded"),
                func.sum(case((own, 0), else_=1)).label("children"),
                func.sum(KEY.c.balance).label("balance"),
                func.sum(KEY.c.reserved).label("reserved"),
                func.sum(case((own, KEY.c.total_spent), else_=0)).label("spent"),
                func.sum(case((own, KEY.c.total_requests), else_=0)).label("requests"),
                func.sum(KEY.c.version).label("rows"),
            ).where(KEY.c.id != OWNER_KEY_ID)
        )
    ).one()
    return KeyTotals(
        keys=int(row.keys),
        funded=int(row.funded or 0),
        children=int(row.children or 0),
        balance_msat=int(row.balance or 0),
        reserved_msat=int(row.reserved or 0),
        spent_msat=int(row.spent or 0),
        requests=int(row.requests or 0),
        rows=int(row.rows or 0),
    )
