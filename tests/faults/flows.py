"""The flows of the fault matrix: what a customer does while the mint's calls are being broken.

To add a row, write a class with the shape of `Flow` and put it into `tests.faults.matrix.FLOWS`:

- `endpoints` are those of its mint calls that the matrix is to break, as `FaultProxy` spells them.
- `primers` name, for an endpoint that is called only after a fault, the fault that leads there;
  it happens once, in `act`, before the fault that is being tried.
- `prepare` runs on a healthy mint, up to the request. It may break calls itself; it must heal.
- `act` is the request, while calls are broken. Whatever RoutstrError it raises is an answer.
- `outcome` runs healed, with nothing open any more: the customer repeats the request as a client
  does (`stand.repeated`), and the flow tells what it came to. It ends with all money back in the
  customer's wallet, so that the next case finds the node's purse empty, as this one did.

The matrix does the rest: the count of all money at the mint, the audit, and that no proof was ever
sent in two bodies.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from routstr.errors import RoutstrError
from routstr.flows.keys import Created, Terms, create_key, topup
from routstr.flows.pay import PayWish, pay
from routstr.flows.resume import resume
from routstr.flows.withdraw import Wish, WithdrawalView, withdraw
from routstr.ledger.book import KeyRef
from tests.fakes.invoices import invoice
from tests.faults.proxy import Fault
from tests.faults.stand import MSAT, Stand

INFO: Final = "GET /v1/info"
KEYSETS: Final = "GET /v1/keysets"
KEYS: Final = "GET /v1/keys/*"
SWAP: Final = "POST /v1/swap"
RESTORE: Final = "POST /v1/restore"
STATES: Final = "POST /v1/checkstate"
MELT_QUOTE: Final = "POST /v1/melt/quote/bolt11"
MELT: Final = "POST /v1/melt/bolt11"
MELT_STATE: Final = "GET /v1/melt/quote/bolt11/*"

Primers = Mapping[str, tuple[str, Fault]]

# Nobody restores before an answer was lost, nor asks for states before that.
SWAP_PRIMERS: Final[Primers] = {
    RESTORE: (SWAP, Fault.PROCESSED_THEN_LOST),
    STATES: (SWAP, Fault.DROP),
}
TOKEN_SAT: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the customer should have and has, and how often something was credited or paid out.

    `earned_msat` is what the node keeps of it for a request it served.
    """

    due_msat: int
    found_msat: int
    credits: int = 1
    earned_msat: int = 0

    @property
    def lost_msat(self) -> int:
        return self.due_msat - self.found_msat


class Flow(Protocol):
    """One row of the matrix; an object serves one case."""

    name: str
    endpoints: Sequence[str]
    primers: Primers

    async def prepare(self, stand: Stand) -> None:
        """Everything up to the request."""

    async def act(self, stand: Stand) -> None:
        """The request, once."""

    async def outcome(self, stand: Stand) -> Outcome:
        """The repeat, and what it all came to."""


@dataclass(slots=True, kw_only=True)
class Create:
    """A key from a token."""

    name: str = "create"
    endpoints: Sequence[str] = (INFO, KEYSETS, KEYS, SWAP, RESTORE, STATES)
    primers: Primers = field(default_factory=lambda: SWAP_PRIMERS)
    token: str = field(default="", repr=False)
    repeat: str = field(default_factory=lambda: secrets.token_hex(8))
    credits_before: int = 0

    async def prepare(self, stand: Stand) -> None:
        self.token = await stand.coin(TOKEN_SAT)
        self.credits_before = await credits_so_far(stand)

    async def act(self, stand: Stand) -> None:
        await self.create(stand)

    async def outcome(self, stand: Stand) -> Outcome:
        created = await stand.repeated(lambda: self.create(stand))
        found_msat = await stand.balance_msat(created.key_id)
        credited = await credits_so_far(stand) - self.credits_before
        await stand.empty(created.key_id)
        return Outcome(due_msat=stand.net_msat(self.token), found_msat=found_msat, credits=credited)

    async def create(self, stand: Stand) -> Created:
        return await create_key(stand.ctx, self.token, Terms(), idempotency_key=self.repeat)


@dataclass(slots=True, kw_only=True)
class TopUp:
    """More money on a key that has some."""

    name: str = "top-up"
    endpoints: Sequence[str] = (INFO, KEYSETS, KEYS, SWAP, RESTORE, STATES)
    primers: Primers = field(default_factory=lambda: SWAP_PRIMERS)
    token: str = field(default="", repr=False)
    key_id: str = ""
    due_msat: int = 0
    credits_before: int = 0

    async def prepare(self, stand: Stand) -> None:
        key = await open_key(stand)
        self.key_id = key.key_id
        self.token = await stand.coin(TOKEN_SAT)
        self.due_msat = key.available_msat + stand.net_msat(self.token)
        self.credits_before = await credits_so_far(stand)
        await stand.later(60)  # so that the keysets are asked for again

    async def act(self, stand: Stand) -> None:
        await topup(stand.ctx, KeyRef(id=self.key_id), self.token, idempotency_key=None)

    async def outcome(self, stand: Stand) -> Outcome:
        await stand.repeated(lambda: self.act(stand))
        found_msat = await stand.balance_msat(self.key_id)
        credited = await credits_so_far(stand) - self.credits_before
        await stand.empty(self.key_id)
        return Outcome(due_msat=self.due_msat, found_msat=found_msat, credits=credited)


@dataclass(slots=True, kw_only=True)
class RecoverUnsent(Create):
    """The job that ends a deposit whose swap never reached the mint."""

    name: str = "recover, unsent"
    endpoints: Sequence[str] = (SWAP, RESTORE, STATES)
    primers: Primers = field(default_factory=dict)
    lost: Fault = Fault.DROP

    async def prepare(self, stand: Stand) -> None:
        await Create.prepare(self, stand)
        stand.proxy.inject(SWAP, self.lost)
        stand.proxy.inject(RESTORE, Fault.DROP)
        with suppress(RoutstrError):
            await self.create(stand)
        stand.proxy.heal()

    async def act(self, stand: Stand) -> None:
        await stand.later(60)
        await resume(stand.ctx)


@dataclass(slots=True, kw_only=True)
class RecoverSigned(RecoverUnsent):
    """The job that ends a deposit whose swap was signed and never answered."""

    name: str = "recover, signed"
    endpoints: Sequence[str] = (RESTORE, STATES)
    lost: Fault = Fault.PROCESSED_THEN_LOST


@dataclass(slots=True, kw_only=True)
class WithdrawBySwap:
    """Ecash out of a key, when the coins at hand do not make the amount."""

    name: str = "withdraw by swap"
    endpoints: Sequence[str] = (SWAP, RESTORE, STATES)
    primers: Primers = field(default_factory=lambda: SWAP_PRIMERS)
    key_id: str = ""
    before_msat: int = 0
    repeat: str = field(default_factory=lambda: secrets.token_hex(8))

    async def prepare(self, stand: Stand) -> None:
        """Coins of 1, 2, 4 and 8 are all there is; without the 2 there is no 3."""
        key = await open_key(stand)
        self.key_id = key.key_id
        without = await withdraw(stand.ctx, KeyRef(id=self.key_id), Wish(amount_sat=2))
        await stand.claim(without.token)
        self.before_msat = await stand.balance_msat(self.key_id)

    async def act(self, stand: Stand) -> None:
        await self.withdraw(stand)

    async def outcome(self, stand: Stand) -> Outcome:
        view = await stand.repeated(lambda: self.withdraw(stand))
        paid_msat = await stand.claim(view.token)
        after_msat = await stand.balance_msat(self.key_id)
        paid = await payments(stand, self.key_id)
        await stand.empty(self.key_id)
        return Outcome(
            due_msat=self.before_msat - MSAT,  # the mint's fee for few coins: one sat, rounded up
            found_msat=after_msat + paid_msat,
            credits=paid - 1,
        )

    async def withdraw(self, stand: Stand) -> WithdrawalView:
        wish = Wish(amount_sat=3, idempotency_key=self.repeat, fingerprint="3")
        return await withdraw(stand.ctx, KeyRef(id=self.key_id), wish)


@dataclass(slots=True, kw_only=True)
class WithdrawAll:
    """All of a key, from coins at hand, and again by a client that lost the answer."""

    name: str = "withdraw all, twice"
    endpoints: Sequence[str] = (STATES,)
    primers: Primers = field(default_factory=dict)
    key_id: str = ""
    before_msat: int = 0

    async def prepare(self, stand: Stand) -> None:
        key = await open_key(stand)
        self.key_id, self.before_msat = key.key_id, key.available_msat

    async def act(self, stand: Stand) -> None:
        for _ in range(2):
            await self.withdraw(stand)

    async def outcome(self, stand: Stand) -> Outcome:
        view = await stand.repeated(lambda: self.withdraw(stand))
        paid_msat = await stand.claim(view.token)
        return Outcome(
            due_msat=self.before_msat,
            found_msat=paid_msat + await stand.balance_msat(self.key_id),
            credits=await payments(stand, self.key_id),
        )

    async def withdraw(self, stand: Stand) -> WithdrawalView:
        return await withdraw(stand.ctx, KeyRef(id=self.key_id), Wish())


@dataclass(slots=True, kw_only=True)
class PayInvoice:
    """A Lightning invoice out of a balance: the mint's own books tell how often it was paid."""

    name: str = "pay"
    endpoints: Sequence[str] = (MELT_QUOTE, MELT, MELT_STATE, STATES, SWAP)
    primers: Primers = field(
        default_factory=lambda: {
            STATES: (MELT, Fault.PROCESSED_THEN_LOST),
            SWAP: (MELT, Fault.DROP),
        }
    )
    bolt11: str = field(default="", repr=False)
    key_id: str = ""
    before_msat: int = 0

    async def prepare(self, stand: Stand) -> None:
        key = await open_key(stand)
        self.key_id, self.before_msat = key.key_id, key.available_msat
        self.bolt11 = invoice(
            5 * MSAT, created_at=int(time.time()), payment_hash=secrets.token_bytes(32)
        )

    async def act(self, stand: Stand) -> None:
        await self.pay(stand)

    async def outcome(self, stand: Stand) -> Outcome:
        """The first try may have failed for good, or been called back: then the repeat pays."""
        view = await stand.repeated(lambda: self.pay(stand))
        await stand.drain()
        debited_msat = await stand.value(DEBITED, key_id=self.key_id)
        found_msat = await stand.balance_msat(self.key_id)
        assert (await self.pay(stand)).id == view.id
        await stand.empty(self.key_id)
        return Outcome(
            due_msat=self.before_msat - debited_msat,
            found_msat=found_msat,
            credits=stand.paid(self.bolt11),
        )

    async def pay(self, stand: Stand) -> WithdrawalView:
        wish = PayWish(invoice=self.bolt11, idempotency_key=self.bolt11[-30:], fingerprint="pay")
        return await pay(stand.ctx, KeyRef(id=self.key_id), wish)


# What payments cost: their amount if they were made, and what did not come back of their fee.
DEBITED: Final = (
    "SELECT sum(CASE status WHEN 'failed' THEN 0 ELSE amount END + fee_amount - fee_returned)"
    " FROM withdrawal WHERE way = 'lightning' AND api_key_id = :key_id"
)


async def open_key(stand: Stand) -> Created:
    """A key with money, made while all is well."""
    token = await stand.coin(TOKEN_SAT)
    return await create_key(stand.ctx, token, Terms(), idempotency_key=None)


async def credits_so_far(stand: Stand) -> int:
    """How many deposits the ledger has credited in all."""
    return int(await stand.value("SELECT count(*) FROM \"transaction\" WHERE type = 'deposit'"))


async def payments(stand: Stand, key_id: str) -> int:
    """How many withdrawals of a key were paid out."""
    sql = "SELECT count(*) FROM withdrawal WHERE status <> 'failed' AND api_key_id = :key_id"
    return int(await stand.value(sql, key_id=key_id))
