"""The flows of the fault matrix that the node begins by itself, or that an invoice begins.

Redeeming locked ecash, taking what an invoice paid, and following the tokens that were given out
(`tests.faults.flows` tells the shape).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from routstr.flows.invoice import InvoiceWish, create_invoice, invoice_status, look_at_invoices
from routstr.flows.keys import Terms, create_key
from routstr.flows.mints import known_mint
from routstr.flows.reconcile import reconcile
from routstr.flows.redeem import redeem
from routstr.flows.withdraw import Wish, withdraw
from routstr.ledger.book import KeyRef
from tests.faults.flows import (
    RESTORE,
    STATES,
    SWAP,
    Outcome,
    Primers,
    credits_so_far,
    open_key,
    payments,
)
from tests.faults.proxy import Fault
from tests.faults.stand import MSAT, Stand

MINT_QUOTE: Final = "POST /v1/mint/quote/bolt11"
MINT_STATE: Final = "GET /v1/mint/quote/bolt11/*"
MINT: Final = "POST /v1/mint/bolt11"

LOCKED_SAT: Final = 15  # four proofs
REDEEM_EVERY_S: Final = 15
LOOK_EVERY_S: Final = 5
LOOKS_MAX: Final = 8  # 40 s: a mint that limits is asked again after 30
MINTING: Final = "SELECT id FROM mint_operation WHERE kind = 'mint' AND state <> 'done'"
REFUNDS: Final = (
    "SELECT count(*) FROM \"transaction\" WHERE type = 'refund' AND api_key_id = :key_id"
)
LOCKED: Final = "SELECT count(*) FROM proof WHERE state = 'locked'"


@dataclass(slots=True, kw_only=True)
class Redeem:
    """The job that redeems locked ecash, which was credited long before."""

    name: str = "redeem"
    endpoints: Sequence[str] = (STATES, SWAP, RESTORE)
    primers: Primers = field(default_factory=lambda: {RESTORE: (SWAP, Fault.PROCESSED_THEN_LOST)})
    token: str = field(default="", repr=False)
    key_id: str = ""
    due_msat: int = 0

    async def prepare(self, stand: Stand) -> None:
        self.token = await locked_coin(stand)
        key = await create_key(stand.ctx, self.token, Terms(), idempotency_key=None)
        assert await stand.value(LOCKED), "it was not taken at once"
        self.key_id, self.due_msat = key.key_id, stand.net_msat(self.token)

    async def act(self, stand: Stand) -> None:
        await redeem(stand.ctx)

    async def outcome(self, stand: Stand) -> Outcome:
        await all_redeemed(stand)
        found_msat = await stand.balance_msat(self.key_id)
        await stand.empty(self.key_id)
        return Outcome(due_msat=self.due_msat, found_msat=found_msat)


@dataclass(slots=True, kw_only=True)
class Mint:
    """A key topped up by an invoice; this mint's invoices pay themselves when they are asked for.

    An answer with another quote's id in it makes an invoice that nobody can look at, nor pay: then
    the customer asks for another one.
    """

    name: str = "mint"
    endpoints: Sequence[str] = (MINT_QUOTE, MINT_STATE, MINT, RESTORE)
    primers: Primers = field(default_factory=lambda: {RESTORE: (MINT, Fault.PROCESSED_THEN_LOST)})
    key_id: str = ""
    due_msat: int = 0
    credits_before: int = 0
    invoice_id: str = field(default="", repr=False)
    looks: int = 0

    async def prepare(self, stand: Stand) -> None:
        key = await open_key(stand)
        self.key_id = key.key_id
        self.due_msat = key.available_msat + LOCKED_SAT * MSAT
        self.credits_before = await credits_so_far(stand)

    async def act(self, stand: Stand) -> None:
        await self.ask(stand)
        await stand.later(LOOK_EVERY_S)
        await look_at_invoices(stand.ctx)

    async def outcome(self, stand: Stand) -> Outcome:
        if not self.invoice_id:
            await stand.repeated(lambda: self.ask(stand))

        async def is_credited() -> bool:
            return await credits_so_far(stand) > self.credits_before

        await stand.worked_until(is_credited, lambda: self.look(stand), every_s=LOOK_EVERY_S)
        credited = await credits_so_far(stand) - self.credits_before
        found_msat = await stand.balance_msat(self.key_id)
        await stand.empty(self.key_id)
        return Outcome(due_msat=self.due_msat, found_msat=found_msat, credits=credited)

    async def ask(self, stand: Stand) -> None:
        wish = InvoiceWish(amount_sat=LOCKED_SAT, target=KeyRef(id=self.key_id))
        self.invoice_id = (await create_invoice(stand.ctx, wish)).invoice_id

    async def look(self, stand: Stand) -> None:
        self.looks += 1
        if self.looks == LOOKS_MAX and not await stand.rows(MINTING):
            await stand.repeated(lambda: self.ask(stand))
        await look_at_invoices(stand.ctx)
        await invoice_status(stand.ctx, self.invoice_id)  # the job looks ever more seldom


@dataclass(slots=True, kw_only=True)
class Reclaim:
    """A token that nobody claimed goes back to its key."""

    name: str = "reclaim"
    endpoints: Sequence[str] = (STATES, SWAP, RESTORE)
    primers: Primers = field(default_factory=lambda: {RESTORE: (SWAP, Fault.PROCESSED_THEN_LOST)})
    key_id: str = ""
    due_msat: int = 0

    async def prepare(self, stand: Stand) -> None:
        key = await open_key(stand)
        self.key_id = key.key_id
        view = await withdraw(stand.ctx, KeyRef(id=self.key_id), Wish())
        assert view.token is not None
        self.due_msat = stand.net_msat(view.token)  # the mint's fee is the key's to bear
        await stand.later(stand.ctx.limits.refund_ttl_s + 1)

    async def act(self, stand: Stand) -> None:
        await reconcile(stand.ctx)

    async def outcome(self, stand: Stand) -> Outcome:
        await settled(stand, self.key_id, "reclaimed")
        found_msat = await stand.balance_msat(self.key_id)
        refunds = await stand.value(REFUNDS, key_id=self.key_id)
        await stand.empty(self.key_id)
        return Outcome(due_msat=self.due_msat, found_msat=found_msat, credits=refunds)


@dataclass(slots=True, kw_only=True)
class MarkClaimed:
    """A token that was claimed is known to be, and its key gets nothing back, however late."""

    name: str = "mark claimed"
    endpoints: Sequence[str] = (STATES,)
    primers: Primers = field(default_factory=dict)
    key_id: str = ""
    due_msat: int = 0
    claimed_msat: int = 0

    async def prepare(self, stand: Stand) -> None:
        key = await open_key(stand)
        self.key_id, self.due_msat = key.key_id, key.available_msat
        view = await withdraw(stand.ctx, KeyRef(id=self.key_id), Wish())
        self.claimed_msat = await stand.claim(view.token)
        await stand.later(stand.ctx.limits.refund_ttl_s + 1)

    async def act(self, stand: Stand) -> None:
        await reconcile(stand.ctx)

    async def outcome(self, stand: Stand) -> Outcome:
        await settled(stand, self.key_id, "claimed")
        return Outcome(
            due_msat=self.due_msat,
            found_msat=self.claimed_msat + await stand.balance_msat(self.key_id),
            credits=await payments(stand, self.key_id),
        )


async def locked_coin(stand: Stand) -> str:
    """A token for this node alone, whose mint the node has just heard of."""
    await known_mint(stand.ctx, stand.proxy.url)
    return await stand.coin(LOCKED_SAT, lock=stand.ctx.acceptance.current)


async def all_redeemed(stand: Stand) -> None:
    """The job redeems all that is locked. Raises StillOpen."""

    async def is_redeemed() -> bool:
        return not await stand.value(LOCKED)

    await stand.worked_until(is_redeemed, lambda: redeem(stand.ctx), every_s=REDEEM_EVERY_S)


async def settled(stand: Stand, key_id: str, status: str) -> None:
    """The job finds out what became of the key's token. Raises StillOpen."""
    sql = "SELECT status FROM withdrawal WHERE api_key_id = :key_id"

    async def is_settled() -> bool:
        return bool(await stand.value(sql, key_id=key_id) == status)

    await stand.worked_until(is_settled, lambda: reconcile(stand.ctx), every_s=REDEEM_EVERY_S)
