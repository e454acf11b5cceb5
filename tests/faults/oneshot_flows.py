"""The flows of the fault matrix that pay for one request by the token it brings.

The upstream answers always; the customer has the change from the answer, or claims it after it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from routstr.core.dialects import CHAT
from routstr.core.quote import quote_of
from routstr.errors import RefundKeyNotFound, RefundNotFound
from routstr.flows.change import Change, change_by_token
from routstr.flows.exchange import Answer
from routstr.flows.oneshot import check_payment
from routstr.flows.purchase import Purchase
from routstr.flows.redeem import redeem
from routstr.flows.road import begin
from tests.core.ordering import parse_chat_order
from tests.faults.ecash_flows import all_redeemed, locked_coin
from tests.faults.flows import (
    RESTORE,
    STATES,
    SWAP,
    SWAP_PRIMERS,
    TOKEN_SAT,
    Outcome,
    Primers,
    credits_so_far,
)
from tests.faults.proxy import Fault
from tests.faults.stand import Stand
from tests.harness.kiosk import COST_MSAT
from tests.harness.shop import order

LEFT: Final = "SELECT balance FROM apikey WHERE id = 'key_' || :change_id"


@dataclass(slots=True, kw_only=True)
class XCashu:
    """A token swapped at its mint, then a request, then what is left of it."""

    name: str = "x-cashu"
    endpoints: Sequence[str] = (SWAP, RESTORE, STATES)
    primers: Primers = field(default_factory=lambda: SWAP_PRIMERS)
    token: str = field(default="", repr=False)
    credits_before: int = 0
    answer: Answer | None = None

    async def prepare(self, stand: Stand) -> None:
        self.token = await self.new_token(stand)
        self.credits_before = await credits_so_far(stand)

    async def act(self, stand: Stand) -> None:
        ctx = stand.ctx
        body = json.dumps(order()).encode()
        asked = parse_chat_order(body)
        listing = ctx.catalog.listing(asked.model_id)
        quote = quote_of(asked, listing.model)
        credential = await check_payment(ctx, self.token, quote)
        purchase = Purchase(
            headers={},
            credential=credential,
            dialect=CHAT,
            order=asked,
            quote=quote,
            candidates=listing.candidates,
            request_sha256=sha256(body).hexdigest(),
        )
        exchange = begin(ctx, purchase, request_id=ctx.new_id("req"))
        self.answer = await exchange.answer()

    async def outcome(self, stand: Stand) -> Outcome:
        await all_redeemed(stand)
        due_msat = stand.net_msat(self.token)
        earned_msat = 0 if self.answer is None else COST_MSAT
        change = await stand.repeated(lambda: self.change(stand))
        if change is None:  # it was never taken: it is the customer's still
            await stand.claim(self.token)
            return Outcome(due_msat=due_msat, found_msat=due_msat)
        told = None if self.answer is None else self.answer.headers.get("X-Cashu")
        assert told in {None, change.token}, "change was given out twice"
        paid_msat = await stand.claim(change.token)
        left_msat = await stand.value(LEFT, change_id=change.id.removeprefix("chg_"))
        return Outcome(
            due_msat=due_msat - earned_msat,
            found_msat=paid_msat + left_msat,
            credits=await credits_so_far(stand) - self.credits_before,
            earned_msat=earned_msat,
        )

    async def new_token(self, stand: Stand) -> str:
        return await stand.coin(TOKEN_SAT)

    async def change(self, stand: Stand) -> Change | None:
        """What is left of the token, for whoever shows it; None if the node never took it."""
        try:
            return await change_by_token(stand.ctx, self.token)
        except (RefundKeyNotFound, RefundNotFound):
            return None


@dataclass(slots=True, kw_only=True)
class XCashuLocked(XCashu):
    """A token locked to the node: taken at once, redeemed for its change's sake, or by the job."""

    name: str = "x-cashu, locked"
    primers: Primers = field(default_factory=lambda: {RESTORE: (SWAP, Fault.PROCESSED_THEN_LOST)})

    async def new_token(self, stand: Stand) -> str:
        return await locked_coin(stand)

    async def act(self, stand: Stand) -> None:
        await XCashu.act(self, stand)
        await redeem(stand.ctx)
