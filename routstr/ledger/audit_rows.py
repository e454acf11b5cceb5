"""The invariants that no query can tell: a token must open, and a charge must be its price's.

Rows are read in pages by key, so that an audit of a running node never holds its event loop up.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from routstr.core.money import msat_from_unit
from routstr.core.pricing import Usage, cost_of
from routstr.core.quote import from_snapshot
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.errors import RoutstrError
from routstr.ledger.audit_queries import Window
from routstr.ledger.columns import as_json
from routstr.ledger.vault import CannotOpen, Vault

PAGE_ROWS: Final = 100

UNCLAIMED: Final = """
SELECT id, token, amount, unit, mint_url FROM withdrawals
WHERE status = 'completed' AND way = 'token' AND token IS NOT NULL AND id > :after {recent}
ORDER BY id LIMIT :page
"""
EXACT: Final = """
SELECT t.id, t.operation_id, t.amount, t.request_data, r.price_snapshot
FROM recent t JOIN reservation r ON r.id = substr(t.operation_id, 5)
WHERE t.type = 'usage' AND t.request_data ->> 'evidence' = 'exact' AND t.id > :after
ORDER BY t.id LIMIT :page
"""


async def bad_tokens(connection: AsyncConnection, window: Window, vault: Vault) -> list[str]:
    """Withdrawals whose stored token does not open, or is not worth what was debited (I-11)."""
    sql = UNCLAIMED.format(recent="AND created_at >= :since" if window.since else "")
    bad: list[str] = []
    after = ""
    while True:
        statement = window.statement(sql, after=after, page=PAGE_ROWS)
        rows = (await connection.execute(statement)).all()
        for row in rows:
            try:
                text = vault.open(row.token, table="withdrawal", column="token", row_id=row.id)
                token = decode_token(text, bytes_max=BODY_BYTES_MAX)
                worth = token.mint_url, token.unit, msat_from_unit(token.amount, token.unit)
            except (CannotOpen, RoutstrError):
                bad.append(row.id)
                continue
            if worth != (row.mint_url, row.unit, row.amount):
                bad.append(row.id)
        if len(rows) < PAGE_ROWS:
            return bad
        after = rows[-1].id


async def bad_prices(connection: AsyncConnection, window: Window) -> list[str]:
    """Exact charges that are not usage x pinned prices = charged + absorbed (I-14)."""
    bad: list[str] = []
    after = 0
    while True:
        statement = window.statement(EXACT, after=after, page=PAGE_ROWS)
        rows = (await connection.execute(statement)).all()
        bad += [
            row.operation_id
            for row in rows
            if not _is_priced(row.amount, _json(row.request_data), _json(row.price_snapshot))
        ]
        if len(rows) < PAGE_ROWS:
            return bad
        after = rows[-1].id


def _is_priced(
    amount_msat: int, said: Mapping[str, object], snapshot: Mapping[str, object]
) -> bool:
    absorbed_msat = said.get("absorbed_msat")
    usage = _usage(said.get("usage"))
    if usage is None or not isinstance(absorbed_msat, int):
        return False
    try:
        price = from_snapshot(snapshot).price
    except RoutstrError:
        return False
    return cost_of(usage, price).total_msat == absorbed_msat - amount_msat


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = {name: value.get(name, 0) for name in Usage.__slots__}
    if not all(isinstance(count, int) for count in counts.values()):
        return None
    usage = Usage(**counts)
    return usage if usage.is_sane else None


def _json(value: object) -> Mapping[str, object]:
    parsed = as_json(value)
    return parsed if isinstance(parsed, dict) else {}
