"""The operator's view of the money: what is held at each mint, what is owed, what is profit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select, text

from routstr.core.money import msat_from_unit
from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.audit_ecash import PURSES
from routstr.ledger.columns import as_time
from routstr.ledger.engine import ReadConnection
from routstr.ledger.profit import SURPLUS
from routstr.ledger.sagas import KEYSET, MINT
from routstr.ledger.tables import Withdrawal, table_of

WITHDRAWAL = table_of(Withdrawal)

COINS: Final = f"""
SELECT m.url, c.unit, c.state, sum(c.amount) AS amount FROM ({PURSES}) AS c
JOIN mint m ON m.id = c.mint_id GROUP BY m.url, c.unit, c.state HAVING sum(c.amount) > 0
"""
OWED: Final = """
SELECT (SELECT coalesce(sum(balance), 0) FROM apikey WHERE id <> :owner) AS users,
  (SELECT coalesce(sum(balance), 0) FROM apikey WHERE id = :owner) AS owner,
  (SELECT coalesce(sum(amount + fee_amount), 0) FROM withdrawal WHERE status = 'pending') AS pending
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coins:
    """The node's ecash of one mint and unit, in that unit.

    `unspent` is free, `reserved` in an operation under way, `locked` to be redeemed yet, `issued`
    given out and not claimed as far as is known.
    """

    mint_url: str
    unit: str
    unspent: int
    reserved: int
    locked: int
    issued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseMoney:
    """What is owed and to whom, in msat. `surplus` is profit not taken, `taken` profit on its way.

    `surplus` may be below 0 while locked ecash waits: that does not count before it is redeemed.
    """

    users_msat: int
    pending_msat: int
    surplus_msat: int
    taken_msat: int


async def coins(connection: ReadConnection) -> list[Coins]:
    """What is held, by mint and unit."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for row in await connection.execute(text(COINS)):
        found.setdefault((row.url, row.unit), {})[row.state] = int(row.amount)
    return coins_of(found)


def coins_of(found: Mapping[tuple[str, str], Mapping[str, int]]) -> list[Coins]:
    """Amounts by state, of each mint and unit, in the order of the mints."""
    return [
        Coins(
            mint_url=url,
            unit=unit,
            unspent=amounts.get("unspent", 0),
            reserved=amounts.get("reserved", 0),
            locked=amounts.get("locked", 0),
            issued=amounts.get("issued", 0),
        )
        for (url, unit), amounts in sorted(found.items())
    ]


async def house_money(connection: ReadConnection) -> HouseMoney:
    """What is owed, and what is left of it."""
    owed = (await connection.execute(text(OWED), {"owner": OWNER_KEY_ID})).one()
    surplus = (await connection.execute(text(SURPLUS))).scalar_one()
    return HouseMoney(
        users_msat=int(owed.users),
        pending_msat=int(owed.pending),
        surplus_msat=int(surplus),
        taken_msat=int(owed.owner),
    )


async def held_at_mints_msat(connection: ReadConnection) -> int:
    """What the node holds at all its mints together, what is under way there included."""
    return sum(
        msat_from_unit(each.unspent + each.reserved + each.locked, each.unit)
        for each in await coins(connection)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetSeen:
    """A keyset as its mint last told it; `final_expiry` in Unix s."""

    mint_url: str
    id: str
    unit: str
    active: bool
    input_fee_ppk: int
    final_expiry: int | None
    next_counter: int
    seen_at: datetime
    held: int


async def keysets_seen(connection: ReadConnection) -> list[KeysetSeen]:
    """Every keyset of every mint, with what is held of it in its unit."""
    held = text(
        "SELECT keyset_id, sum(amount) AS amount FROM proof"
        " WHERE state IN ('unspent', 'reserved', 'locked') GROUP BY keyset_id"
    )
    amounts = {row.keyset_id: int(row.amount) for row in await connection.execute(held)}
    rows = await connection.execute(
        select(KEYSET, MINT.c.url)
        .join(MINT, MINT.c.id == KEYSET.c.mint_id)
        .order_by(MINT.c.url, KEYSET.c.unit, KEYSET.c.active.desc(), KEYSET.c.id)
    )
    return [
        KeysetSeen(
            mint_url=row.url,
            id=row.id,
            unit=row.unit,
            active=row.active,
            input_fee_ppk=row.input_fee_ppk,
            final_expiry=row.final_expiry,
            next_counter=row.next_counter,
            seen_at=as_time(row.updated_at),
            held=amounts.get(row.id, 0),
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout:
    """Something paid out of the profit; amounts in msat."""

    id: str
    way: str
    status: str
    amount_msat: int
    fee_msat: int
    unit: str
    mint_url: str
    created_at: datetime


async def pending_payments(connection: ReadConnection, *, limit: int) -> list[str]:
    """The ids of payouts over Lightning that are under way, the oldest first."""
    rows = await connection.execute(
        select(WITHDRAWAL.c.id)
        .where(
            WITHDRAWAL.c.api_key_id == OWNER_KEY_ID,
            WITHDRAWAL.c.way == "lightning",
            WITHDRAWAL.c.status == "pending",
        )
        .order_by(WITHDRAWAL.c.created_at, WITHDRAWAL.c.id)
        .limit(limit)
    )
    return list(rows.scalars())


async def payouts(connection: ReadConnection, *, limit: int) -> list[Payout]:
    """The newest payouts of the profit."""
    rows = await connection.execute(
        select(WITHDRAWAL)
        .where(WITHDRAWAL.c.api_key_id == OWNER_KEY_ID)
        .order_by(WITHDRAWAL.c.created_at.desc(), WITHDRAWAL.c.id)
        .limit(limit)
    )
    return [
        Payout(
            id=row.id,
            way=row.way,
            status=row.status,
            amount_msat=row.amount,
            fee_msat=row.fee_amount - row.fee_returned,
            unit=row.unit,
            mint_url=row.mint_url,
            created_at=row.created_at,
        )
        for row in rows
    ]
