"""A withdrawal as it stands, and its token: sealed for its row, opened for its owner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sqlalchemy import select

from routstr.ecash.proof import Proof
from routstr.ecash.token import Token, encode_token_v4
from routstr.ledger.book import Account
from routstr.ledger.commands import Transaction
from routstr.ledger.tables import Withdrawal, table_of

WITHDRAWAL = table_of(Withdrawal)

WithdrawalStatus = Literal["pending", "completed", "failed", "claimed", "reclaimed"]
TOKEN_PLACE: Final[Mapping[str, str]] = {"table": "withdrawal", "column": "token"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalView:
    """A withdrawal as it stands; `amount_msat` is the token's face value, `token` its text."""

    id: str
    api_key_id: str
    status: WithdrawalStatus
    amount_msat: int
    fee_msat: int
    unit: str
    mint_url: str
    token: str | None = field(repr=False)
    error_message: str | None
    available_msat: int
    is_replay: bool = False


def seal_token(
    transaction: Transaction,
    withdrawal_id: str,
    mint_url: str,
    unit: str,
    proofs: Sequence[Proof],
) -> str:
    """The token of those proofs, DLEQs included, sealed for its withdrawal's row."""
    ordered = tuple(sorted(proofs, key=lambda proof: proof.amount))
    token = Token(mint_url=mint_url, unit=unit, proofs=ordered, memo=None)
    text = encode_token_v4(token, include_dleq=True)
    return transaction.wallet.vault.seal(text, **TOKEN_PLACE, row_id=withdrawal_id)


async def view_withdrawal(
    transaction: Transaction, withdrawal_id: str, account: Account
) -> WithdrawalView:
    """The withdrawal with its token opened."""
    row = (
        await transaction.connection.execute(
            select(WITHDRAWAL).where(WITHDRAWAL.c.id == withdrawal_id)
        )
    ).one()
    token = None
    if row.token is not None:
        token = transaction.wallet.vault.open(row.token, **TOKEN_PLACE, row_id=row.id)
    return WithdrawalView(
        id=row.id,
        api_key_id=row.api_key_id,
        status=row.status,
        amount_msat=row.amount,
        fee_msat=row.fee_amount,
        unit=row.unit,
        mint_url=row.mint_url,
        token=token,
        error_message=row.error_message,
        available_msat=account.available_msat,
    )
