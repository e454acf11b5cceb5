"""The commands of upstreams and their models: what the operator says, and what upstreams list.

Laws
- A key is stored sealed, and only for its row.
- What an upstream lists never touches what the operator said: his prices, names, fees and switches.
- A model that is listed no more is marked, not deleted; it comes back as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Table, Update, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from routstr.errors import InvalidParameter, NotFound
from routstr.ledger.columns import Sealed
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.engine import Dialect
from routstr.ledger.tables import table_of
from routstr.ledger.tables_house import ModelRow, PricedRoute, Upstream
from routstr.ledger.vault import Vault

UPSTREAM = table_of(Upstream)
MODEL = table_of(ModelRow)
ROUTE = table_of(PricedRoute)

KEY_PLACE: Final = {"table": "upstream", "column": "api_key"}
BY_OPERATOR: Final = "operator"


def insert_new(table: Table, dialect: Dialect) -> Any:
    """An INSERT that leaves alone what is there already."""
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


# ── upstreams ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class AddUpstream(RowCommand[str]):
    """Keep a new upstream; yields its id. Refuses a slug that is taken with InvalidParameter."""

    upstream_id: str
    slug: str
    provider_type: str
    base_url: str
    api_key: str = field(repr=False)
    api_version: str | None = None
    fee_ppm: int = 0
    weight: int = 0
    sells_new: bool = True
    provider_settings: Mapping[str, object] | None = None

    async def run(self, transaction: Transaction) -> str:
        """Insert it once."""
        connection, now = transaction.connection, transaction.book.now
        holder = await connection.scalar(select(UPSTREAM.c.id).where(UPSTREAM.c.slug == self.slug))
        if holder is not None and holder != self.upstream_id:
            raise InvalidParameter("There is an upstream of that name already.", param="slug")
        if holder is None:
            settings = self.provider_settings
            await connection.execute(
                insert(UPSTREAM).values(
                    id=self.upstream_id,
                    slug=self.slug,
                    provider_type=self.provider_type,
                    base_url=self.base_url,
                    api_key=_sealed(transaction.wallet.vault, self.api_key, self.upstream_id),
                    api_version=self.api_version,
                    enabled=True,
                    fee_ppm=self.fee_ppm,
                    weight=self.weight,
                    sells_new=self.sells_new,
                    provider_settings=None if settings is None else dict(settings),
                    created_at=now,
                    updated_at=now,
                )
            )
        return self.upstream_id


UPSTREAM_FIELDS: Final = frozenset(
    {"slug", "provider_type", "base_url", "api_version", "enabled", "fee_ppm", "weight"}
    | {"sells_new", "provider_settings"}
)


# Whoever is reached in another way may be somebody else: its list is due at once.
REACHED_BY: Final = frozenset({"provider_type", "base_url", "api_version", "api_key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeUpstream(RowCommand[None]):
    """Change fields of an upstream, and its key unless that is None.

    Refuses with NotFound, and with InvalidParameter for a slug that another one has.
    """

    slug: str
    changes: Mapping[str, object]
    api_key: str | None = field(default=None, repr=False)

    async def run(self, transaction: Transaction) -> None:
        """Update the row; a repeat changes nothing."""
        assert set(self.changes) <= UPSTREAM_FIELDS
        connection, vault = transaction.connection, transaction.wallet.vault
        new_slug = self.changes.get("slug", self.slug)
        by_slug = {
            row.slug: row
            for row in await connection.execute(
                select(UPSTREAM).where(UPSTREAM.c.slug.in_({self.slug, new_slug}))
            )
        }
        row = by_slug.get(self.slug)
        if row is None and not (new_slug != self.slug and new_slug in by_slug):
            raise NotFound("There is no upstream of that name.", param="slug")
        if row is None:  # it was renamed by this very command before
            row = by_slug[str(new_slug)]
        elif new_slug != self.slug and new_slug in by_slug:
            raise InvalidParameter("There is an upstream of that name already.", param="slug")
        values = {name: v for name, v in self.changes.items() if getattr(row, name) != v}
        if self.api_key is not None and opened_key(vault, row.id, row.api_key) != self.api_key:
            values["api_key"] = _sealed(vault, self.api_key, row.id)
        if values.keys() & REACHED_BY:
            values["listed_at"] = None
        if values:
            await connection.execute(
                update(UPSTREAM)
                .where(UPSTREAM.c.id == row.id)
                .values(updated_at=transaction.book.now, **values)
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveUpstream(RowCommand[bool]):
    """Forget an upstream and its models; one that priced routes need is only switched off.

    True when it is gone, also if it was before.
    """

    slug: str

    async def run(self, transaction: Transaction) -> bool:
        """Delete or disable."""
        connection = transaction.connection
        found = await connection.scalar(select(UPSTREAM.c.id).where(UPSTREAM.c.slug == self.slug))
        if found is None:
            return True
        needed = await connection.scalar(select(ROUTE.c.id).where(ROUTE.c.upstream_id == found))
        if needed is not None:
            await connection.execute(
                update(UPSTREAM)
                .where(UPSTREAM.c.id == found, UPSTREAM.c.enabled)
                .values(enabled=False, updated_at=transaction.book.now)
            )
            return False
        await connection.execute(delete(MODEL).where(MODEL.c.upstream_id == found))
        await connection.execute(delete(UPSTREAM).where(UPSTREAM.c.id == found))
        return True


def opened_key(vault: Vault, upstream_id: str, sealed: str | None) -> str:
    """The node's key at an upstream; empty if it has none. Raises CannotOpen."""
    return "" if sealed is None else vault.open(sealed, **KEY_PLACE, row_id=upstream_id)


def _sealed(vault: Vault, api_key: str, upstream_id: str) -> Sealed | None:
    return vault.seal(api_key, **KEY_PLACE, row_id=upstream_id) if api_key else None


# ── models ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A model as its upstream and the price list have it; a length of 0 is unknown.

    `usd` is exact decimal text by the names of `core.prices.CLASSES`, from `usd_source`.
    """

    forwarded_model_id: str
    name: str
    context_length: int
    max_output_tokens: int
    usd: Mapping[str, str]
    usd_source: str | None
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveModels(RowCommand[None]):
    """Make an upstream's list of models the one that is known, in a few statements for all.

    New ones are on sale if the upstream sells new ones; those that are missing are gone, except
    what the operator added himself.
    """

    upstream_id: str
    models: Sequence[FoundModel]

    async def run(self, transaction: Transaction) -> None:
        """Insert, update what differs, mark what is gone."""
        connection, now = transaction.connection, transaction.book.now
        chosen = select(UPSTREAM.c.sells_new).where(UPSTREAM.c.id == self.upstream_id)
        sells_new = await connection.scalar(chosen)
        if sells_new is None:
            return  # removed meanwhile
        rows = await connection.execute(
            select(MODEL).where(MODEL.c.upstream_id == self.upstream_id)
        )
        known = {row.forwarded_model_id: row for row in rows}
        taken = {row.model_id for row in known.values()}
        found = {each.forwarded_model_id: each for each in self.models}
        new, changed = [], []
        for name, each in found.items():
            values = _discovered(each)
            row = known.get(name)
            if row is None and name not in taken:
                new.append({**values, "model_id": name, "enabled": bool(sells_new)})
            elif row is not None and any(getattr(row, key) != v for key, v in values.items()):
                changed.append({"row_id": row.id, **{f"new_{key}": values[key] for key in values}})
        if new:
            await self._insert(transaction, new)
        if changed:
            columns: dict[str, Any] = {key: bindparam(f"new_{key}") for key in DISCOVERED}
            await connection.execute(_by_id(**columns, updated_at=now), changed)
        gone = [
            {"row_id": row.id}
            for name, row in known.items()
            if name not in found and not row.is_gone and row.usd_source != BY_OPERATOR
        ]
        if gone:
            await connection.execute(_by_id(is_gone=True, updated_at=now), gone)
        await connection.execute(
            update(UPSTREAM).where(UPSTREAM.c.id == self.upstream_id).values(listed_at=now)
        )

    async def _insert(self, transaction: Transaction, new: list[dict[str, object]]) -> None:
        now, new_id = transaction.book.now, transaction.wallet.new_id
        own = {"upstream_id": self.upstream_id, "created_at": now, "updated_at": now}
        rows = [{**each, **own, "is_free": False, "id": new_id("model")} for each in new]
        await transaction.connection.execute(insert_new(MODEL, transaction.dialect), rows)


DISCOVERED: Final = (
    *("forwarded_model_id", "name", "context_length", "max_output_tokens"),
    *("usd", "usd_source", "facts", "is_gone"),
)


def _by_id(**values: Any) -> Update:
    return update(MODEL).where(MODEL.c.id == bindparam("row_id")).values(**values)


def _discovered(model: FoundModel) -> dict[str, object]:
    return {
        "forwarded_model_id": model.forwarded_model_id,
        "name": model.name,
        "context_length": model.context_length,
        "max_output_tokens": model.max_output_tokens,
        "usd": dict(model.usd),
        "usd_source": model.usd_source,
        "facts": dict(model.facts),
        "is_gone": False,
    }


MODEL_FIELDS: Final = frozenset(
    {"model_id", "forwarded_model_id", "fee_ppm", "own_usd", "is_free", "enabled", "aliases"}
    | {"own_context_length", "own_max_output_tokens", "name"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetModel(RowCommand[None]):
    """Change what the operator says of a model of an upstream; with `adds` make it if need be.

    Refuses with NotFound, and with InvalidParameter for a name another one of the upstream has.
    """

    slug: str
    model_id: str
    changes: Mapping[str, object]
    adds: bool = False

    async def run(self, transaction: Transaction) -> None:
        """Update or insert; a repeat changes nothing."""
        assert set(self.changes) <= MODEL_FIELDS
        connection, now = transaction.connection, transaction.book.now
        upstream_id = await connection.scalar(
            select(UPSTREAM.c.id).where(UPSTREAM.c.slug == self.slug)
        )
        if upstream_id is None:
            raise NotFound("There is no upstream of that name.", param="slug")
        rows = await connection.execute(select(MODEL).where(MODEL.c.upstream_id == upstream_id))
        by_name = {row.model_id: row for row in rows}
        row, new_name = by_name.get(self.model_id), self.changes.get("model_id", self.model_id)
        if row is None and not self.adds and (new_name == self.model_id or new_name not in by_name):
            raise NotFound("That upstream has no such model.", param="model")
        if row is not None and new_name != self.model_id and new_name in by_name:
            raise InvalidParameter("That upstream has a model of that name.", param="model_id")
        if row is None and new_name in by_name:
            row = by_name[str(new_name)]  # it was renamed by this very command before
        if row is None:
            await self._add(transaction, upstream_id)
            return
        values = {name: v for name, v in self.changes.items() if getattr(row, name) != v}
        if values:
            await connection.execute(
                update(MODEL).where(MODEL.c.id == row.id).values(updated_at=now, **values)
            )

    async def _add(self, transaction: Transaction, upstream_id: str) -> None:
        now = transaction.book.now
        own = {
            "model_id": self.model_id,
            "forwarded_model_id": self.model_id,
            "context_length": 0,
            "max_output_tokens": 0,
            "usd_source": BY_OPERATOR,
            "enabled": True,
            "is_free": False,
            "is_gone": False,
        }
        await transaction.connection.execute(
            insert(MODEL).values(
                id=transaction.wallet.new_id("model"),
                upstream_id=upstream_id,
                created_at=now,
                updated_at=now,
                **{**own, **self.changes},
            )
        )
