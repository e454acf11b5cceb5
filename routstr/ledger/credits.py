"""The money of a deposit: what its token is worth, on the key it is for, once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, bindparam, select, update

from routstr.ledger.accounts import APIKEY, NewKey, open_account
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import LostRace, Transaction
from routstr.ledger.tables import Deposit, table_of

DEPOSIT = table_of(Deposit)
# Made once: making a statement costs more than running it.
END: Final = (
    update(DEPOSIT)
    .where(DEPOSIT.c.id == bindparam("ended_id"), DEPOSIT.c.state == "pending")
    .values(
        state="credited",
        api_key_id=bindparam("credited_key_id"),
        credited_at=bindparam("ended_at"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credited:
    """A credit that is durable; `available_msat` is what the key may spend right after."""

    deposit_id: str
    api_key_id: str
    credit_msat: int
    available_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What of a pending deposit's row its credit is made of."""

    id: str
    api_key_id: str | None
    credit_msat: int
    new_key: Mapping[str, Any] | None = field(repr=False)


async def credit(transaction: Transaction, deposit: Row[Any] | Due) -> Credited:
    """pending → credited, and the money, on the deposit's key or on the one it opens."""
    book = transaction.book
    if deposit.api_key_id is None:
        assert deposit.new_key is not None
        account = await open_account(transaction, NewKey.from_terms(deposit.new_key))
    else:
        account = book.account(KeyRef(id=deposit.api_key_id))
    account = account._replace(
        total_deposited_msat=account.total_deposited_msat + deposit.credit_msat
    )
    account = book.post(
        account,
        deposit.credit_msat,
        "deposit",
        f"deposit:{deposit.id}",
        description="Cashu token",
    )
    credited = await transaction.connection.execute(
        END, {"ended_id": deposit.id, "credited_key_id": account.id, "ended_at": book.now}
    )
    if credited.rowcount != 1:
        raise LostRace
    return Credited(
        deposit_id=deposit.id,
        api_key_id=account.id,
        credit_msat=deposit.credit_msat,
        available_msat=account.available_msat,
    )


async def first_credit(transaction: Transaction, deposit_id: str) -> Credited:
    """What a deposit that is credited was credited with."""
    row = (
        await transaction.connection.execute(
            select(DEPOSIT.c.api_key_id, DEPOSIT.c.credit_msat, APIKEY.c.balance, APIKEY.c.reserved)
            .join(APIKEY, APIKEY.c.id == DEPOSIT.c.api_key_id)
            .where(DEPOSIT.c.id == deposit_id)
        )
    ).one()
    available_msat = row.balance - row.reserved
    if transaction.book.has(row.api_key_id):  # the book is ahead of the row until the batch ends
        available_msat = transaction.book.account(KeyRef(id=row.api_key_id)).available_msat
    return Credited(
        deposit_id=deposit_id,
        api_key_id=row.api_key_id,
        credit_msat=row.credit_msat,
        available_msat=available_msat,
    )
