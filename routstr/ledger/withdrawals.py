"""The commands of a withdrawal: begin, issue, fail. Algorithm D of the design.

Debit, chosen proofs and the sealed token are one commit when the purse has the exact coins; else
the debit and a prepared swap are, and the swap's result stores the token. A token is stored before
it is shown, so a lost answer loses nothing. The fee of such a swap is the withdrawer's, as a `fee`
row of its own: a node without profit has nothing but other users' money to pay it from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import bindparam, update

from routstr.core.money import msat_from_unit, unit_from_msat
from routstr.ecash.amounts import FloatGoal, split
from routstr.ecash.errors import InvalidAmount
from routstr.ecash.proof import Proof
from routstr.ecash.selection import choose_cover, choose_exact, worth
from routstr.ecash.token import PROOFS_MAX
from routstr.errors import (
    BalanceTooSmall,
    InvalidParameter,
    KeyRevoked,
    MintShort,
    NoBalance,
    RequestsInFlight,
)
from routstr.ledger.allowance import insufficient
from routstr.ledger.book import Account, KeyRef
from routstr.ledger.commands import LostRace, RowCommand, Transaction
from routstr.ledger.issued import (
    Debit,
    WithdrawalStatus,
    WithdrawalView,
    Withdrawing,
    existing_withdrawal,
    finish_withdrawal,
    lock_hour,
    post_debit,
    seal_token,
    token_of,
    view_withdrawal,
)
from routstr.ledger.purse import Drawn, draw, give_back, look, pick
from routstr.ledger.sagas import (
    PROOF,
    Operation,
    OperationState,
    Plan,
    move_operation,
    prepare,
    spend_inputs,
    store_proofs,
)

SWAP_INPUTS_MAX: Final = 500
"""A stock mint takes 1000 proofs in a request, and tells the states of as many."""

# Coins that another process took meanwhile are not unspent any more, and so are not counted.
ISSUE: Final = (
    update(PROOF)
    .where(PROOF.c.y.in_(bindparam("ys", expanding=True)), PROOF.c.state == "unspent")
    .values(state="issued", withdrawal_id=bindparam("issued_by"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginWithdrawal(RowCommand[Withdrawing]):
    """Debit a key and give out ecash of one mint; `amount` is in its unit, None empties the key.

    Refuses with InvalidApiKey, KeyRevoked (change alone), NoBalance, BalanceTooSmall,
    RequestsInFlight (emptying while holds exist), InsufficientBalance, InvalidParameter,
    IdempotencyMismatch, MintShort, and Paused when the hour has no room for it. The same
    idempotency key yields the withdrawal there is. With `if_expired` only a key that has.
    """

    withdrawal_id: str
    caller: KeyRef
    amount: int | None
    unit: str
    mint_id: str
    mint_url: str
    keyset_id: str
    goal: FloatGoal
    owner: str
    lease_s: float
    idempotency_key: str | None = None
    fingerprint: str | None = None
    at_once: bool = False
    if_expired: bool = False
    is_change: bool = False
    hourly_msat_max: int = 0

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key to debit."""
        return (self.caller,)

    async def run(self, transaction: Transaction) -> Withdrawing:
        """Find the coins, post the debit, store the token or prepare the swap."""
        account = transaction.book.account(self.caller)
        if self.is_change and account.revoked_at is not None:
            raise KeyRevoked
        existing = await existing_withdrawal(
            transaction,
            account,
            withdrawal_id=self.withdrawal_id,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
        )
        if existing is not None:
            return existing
        if self.if_expired and not account.has_expired(transaction.book.now):
            raise InvalidParameter("The key has not expired.", param="expires_at")
        self._check(account)
        await lock_hour(transaction, 0 if self.is_change else self.hourly_msat_max)
        wanted = self.amount or unit_from_msat(account.available_msat, self.unit)
        exact = await self._exact(transaction, wanted)
        if exact is not None:
            return await self._issue_now(transaction, account, exact)
        if self.at_once:
            raise MintShort
        purse, fee_ppk = await look(transaction, self.mint_id, self.unit)
        return await self._swap(transaction, account, purse, fee_ppk, wanted)

    async def _exact(self, transaction: Transaction, wanted: int) -> Drawn | None:
        """Coins worth exactly that, the largest first; None when there are none.

        With a coin of each power of two in it they are those, so nothing need be counted.
        """
        powers = dict.fromkeys(split(wanted), 1)
        picked = await pick(transaction, self.mint_id, self.unit, powers, lasting=True)
        if picked is not None:
            return picked
        lasting, _ = await look(transaction, self.mint_id, self.unit, lasting=True)
        counts = choose_exact(lasting, wanted, proofs_max=PROOFS_MAX)
        if counts is None:
            return None
        return await pick(transaction, self.mint_id, self.unit, counts, lasting=True)

    def _check(self, account: Account) -> None:
        if self.amount is None:
            if account.reserved_msat:
                raise RequestsInFlight
            if account.available_msat == 0:
                raise NoBalance
            if unit_from_msat(account.available_msat, self.unit) == 0:
                raise BalanceTooSmall
        elif self.amount < 1:
            raise InvalidParameter("A withdrawal is of at least 1.", param="amount")
        elif msat_from_unit(self.amount, self.unit) > account.available_msat:
            raise insufficient(account, msat_from_unit(self.amount, self.unit))

    async def _issue_now(
        self, transaction: Transaction, account: Account, drawn: Drawn
    ) -> Withdrawing:
        token = token_of(self.mint_url, self.unit, drawn.proofs)
        sealed = seal_token(transaction, self.withdrawal_id, token)
        account = await self._debit(transaction, account, drawn.amount, 0, "completed", sealed)
        issued = await transaction.connection.execute(
            ISSUE, {"ys": drawn.ys, "issued_by": self.withdrawal_id}
        )
        if issued.rowcount != len(drawn.ys):
            raise LostRace
        view = WithdrawalView(
            id=self.withdrawal_id,
            api_key_id=account.id,
            status="completed",
            amount_msat=msat_from_unit(drawn.amount, self.unit),
            fee_msat=0,
            unit=self.unit,
            mint_url=self.mint_url,
            token=token,
            error_message=None,
            available_msat=account.available_msat,
        )
        return Withdrawing(withdrawal=view, operation=None)

    async def _swap(
        self,
        transaction: Transaction,
        account: Account,
        purse: Mapping[int, int],
        fee_ppk: int,
        wanted: int,
    ) -> Withdrawing:
        spendable = unit_from_msat(account.available_msat, self.unit)
        cover = choose_cover(purse, wanted, fee_ppk=fee_ppk)
        if cover is None and self.amount is None:
            cover = dict(purse) if worth(purse) >= wanted else None
        if cover is None or sum(cover.values()) > SWAP_INPUTS_MAX:
            raise MintShort
        drawn = await draw(transaction, self.mint_id, self.unit, cover)
        amount = wanted if self.amount is not None else min(wanted, spendable - drawn.fee_amount)
        if amount < 1:
            raise BalanceTooSmall("The mint's fee is higher than the balance.")
        if amount + drawn.fee_amount > spendable:
            raise insufficient(account, msat_from_unit(amount + drawn.fee_amount, self.unit))
        kept = drawn.amount - amount - drawn.fee_amount
        if kept < 0:
            raise MintShort
        left = {coin: count - cover.get(coin, 0) for coin, count in purse.items()}
        try:
            change = self.goal.split(kept, left)
        except InvalidAmount as error:
            raise MintShort("The mint's denominations do not fit the change.") from error
        account = await self._debit(transaction, account, amount, drawn.fee_amount, "pending", None)
        operation = await prepare(
            transaction,
            Plan(
                kind="swap",
                mint_id=self.mint_id,
                keyset_id=self.keyset_id,
                unit=self.unit,
                inputs=drawn.proofs,
                outputs=[
                    *((part, "send") for part in split(amount)),
                    *((part, "keep") for part in change),
                ],
                input_amount=drawn.amount,
                fee_amount=drawn.fee_amount,
                owner=self.owner,
                lease_s=self.lease_s,
                withdrawal_id=self.withdrawal_id,
            ),
        )
        await transaction.connection.execute(
            update(PROOF).where(PROOF.c.y.in_(drawn.ys)).values(operation_id=operation.id)
        )
        view = await view_withdrawal(transaction, self.withdrawal_id, account)
        return Withdrawing(withdrawal=view, operation=operation)

    async def _debit(
        self,
        transaction: Transaction,
        account: Account,
        amount: int,
        fee_amount: int,
        status: WithdrawalStatus,
        token: str | None,
    ) -> Account:
        debit = Debit(
            withdrawal_id=self.withdrawal_id,
            way="token",
            amount=amount,
            fee_amount=fee_amount,
            unit=self.unit,
            mint_url=self.mint_url,
            status=status,
            sealed_token=token,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
            is_change=self.is_change,
            hourly_msat_max=self.hourly_msat_max,
        )
        return await post_debit(transaction, account, debit)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueWithdrawal(RowCommand[WithdrawalView]):
    """The swap is done: spend its inputs, store its outputs and the token, in one commit."""

    operation: Operation = field(repr=False)
    api_key_id: str
    proofs: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key that was debited."""
        return (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> WithdrawalView:
        """sent → done, pending → completed."""
        account = transaction.book.account(KeyRef(id=self.api_key_id))
        withdrawal_id = self.operation.withdrawal_id
        assert withdrawal_id is not None
        view = await view_withdrawal(transaction, withdrawal_id, account)
        if view.status != "pending":
            return view
        await move_operation(transaction, self.operation.id, OperationState.DONE)
        await spend_inputs(transaction, self.operation.id)
        await store_proofs(
            transaction, self.operation, self.proofs, self.ys, withdrawal_id=withdrawal_id
        )
        sent = [
            proof
            for proof, purpose in zip(self.proofs, self.operation.purposes, strict=True)
            if purpose == "send"
        ]
        token = seal_token(transaction, withdrawal_id, token_of(view.mint_url, view.unit, sent))
        await finish_withdrawal(transaction, withdrawal_id, {"status": "completed", "token": token})
        return await view_withdrawal(transaction, withdrawal_id, account)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailWithdrawal(RowCommand[WithdrawalView]):
    """A safe refusal of the mint: the coins go back to the purse, the money to the key.

    So it does when the mint went back on some of the coins, which are `lost` then: the loss is the
    operator's. Its idempotency key is free again: nothing was paid, so a repeat may run anew.
    """

    operation: Operation = field(repr=False)
    api_key_id: str
    code: str
    message: str
    lost: Sequence[str] = field(default=(), repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key to refund."""
        return (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> WithdrawalView:
        """sent → failed, pending → failed, one refund row."""
        account = transaction.book.account(KeyRef(id=self.api_key_id))
        withdrawal_id = self.operation.withdrawal_id
        assert withdrawal_id is not None
        view = await view_withdrawal(transaction, withdrawal_id, account)
        if view.status != "pending":
            return view
        failing = self.operation
        await move_operation(
            transaction,
            failing.id,
            OperationState.FAILED,
            code=self.code,
            owner=failing.lease_owner,
        )
        await give_back(transaction, failing.id, to="unspent", lost=self.lost)
        account = transaction.book.post(
            account,
            view.amount_msat + view.fee_msat,
            "refund",
            f"refund:{withdrawal_id}",
            description="Withdrawal failed",
        )
        await finish_withdrawal(
            transaction,
            withdrawal_id,
            {"status": "failed", "error_message": self.message, "idempotency_key": None},
        )
        return await view_withdrawal(transaction, withdrawal_id, account)
