"""The commands of prices: exchange rates, price versions, and routes that are sold by the request.

A price version is named after its content, so it is written once and never changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, insert, select, update

from routstr.errors import NotFound
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.tables import table_of
from routstr.ledger.tables_house import ExchangeRate, PriceVersion
from routstr.ledger.upstreams import ROUTE, UPSTREAM, insert_new

RATE = table_of(ExchangeRate)
VERSION = table_of(PriceVersion)

RATES_KEPT: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRate(RowCommand[None]):
    """Keep a rate that sources agreed on at `taken_at`; decimals as text. Old ones are dropped."""

    btc_usd: str
    in_force: str
    sources: Mapping[str, str]
    taken_at: datetime

    async def run(self, transaction: Transaction) -> None:
        """Insert it once."""
        connection = transaction.connection
        known = await connection.scalar(select(RATE.c.id).where(RATE.c.taken_at == self.taken_at))
        if known is not None:
            return
        await connection.execute(
            insert(RATE).values(
                btc_usd=self.btc_usd,
                in_force=self.in_force,
                sources=dict(self.sources),
                taken_at=self.taken_at,
            )
        )
        await connection.execute(delete(RATE).where(RATE.c.taken_at < self.taken_at - RATES_KEPT))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """The integer rates of a model, by their names in `core.pricing.Price`."""

    id: str
    model_id: str
    rates: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavePriceVersions(RowCommand[None]):
    """Keep the price versions that are not known yet, in one statement."""

    versions: Sequence[NewVersion]
    btc_usd: str | None

    async def run(self, transaction: Transaction) -> None:
        """Insert what is new."""
        if not self.versions:
            return
        now = transaction.book.now
        await transaction.connection.execute(
            insert_new(VERSION, transaction.dialect),
            [
                {
                    "id": each.id,
                    "model_id": each.model_id,
                    "rates": dict(each.rates),
                    "btc_usd": self.btc_usd,
                    "created_at": now,
                }
                for each in self.versions
            ],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRoute(RowCommand[str]):
    """Sell a path by the request, or change how; yields the route's id.

    `upstream_slug` None is the upstream of the settings. Exactly one price is set. Refuses with
    NotFound when there is no such upstream.
    """

    route_id: str
    method: str
    path: str
    upstream_slug: str | None
    upstream_path: str
    price_msat: int | None
    price_usd: str | None
    enabled: bool = True

    async def run(self, transaction: Transaction) -> str:
        """Insert it, or update the one of that method and path."""
        connection, upstream_id = transaction.connection, None
        if self.upstream_slug is not None:
            upstream_id = await connection.scalar(
                select(UPSTREAM.c.id).where(UPSTREAM.c.slug == self.upstream_slug)
            )
            if upstream_id is None:
                raise NotFound("There is no upstream of that name.", param="upstream")
        values = {
            "upstream_id": upstream_id,
            "upstream_path": self.upstream_path,
            "price_msat": self.price_msat,
            "price_usd": self.price_usd,
            "enabled": self.enabled,
        }
        is_it = (ROUTE.c.method == self.method) & (ROUTE.c.path == self.path)
        known = await connection.scalar(select(ROUTE.c.id).where(is_it))
        if known is not None:
            await connection.execute(update(ROUTE).where(is_it).values(**values))
            return str(known)
        await connection.execute(
            insert(ROUTE).values(
                id=self.route_id,
                method=self.method,
                path=self.path,
                created_at=transaction.book.now,
                **values,
            )
        )
        return self.route_id


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRoute(RowCommand[None]):
    """Sell a path no more."""

    method: str
    path: str

    async def run(self, transaction: Transaction) -> None:
        """Delete it."""
        await transaction.connection.execute(
            delete(ROUTE).where(ROUTE.c.method == self.method, ROUTE.c.path == self.path)
        )
