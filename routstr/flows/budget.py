"""The rolling hold of a stream: extended ahead, so that the stream never waits for a commit.

Laws: a stream is handed on only while its hold covers the estimate of its output; a hold that
covers the whole quote covers whatever the upstream may still send.
"""

import asyncio
from typing import Final

import structlog

from routstr.core.quote import Quote
from routstr.errors import (
    BalanceLimitExceeded,
    InsufficientBalance,
    KeyRevoked,
    RoutstrError,
)
from routstr.flows.context import Context
from routstr.ledger.holds import Extend, Hold

log = structlog.get_logger()

# The part of what is covered that may be used before more is asked for.
AHEAD_NUMERATOR: Final = 3
AHEAD_DENOMINATOR: Final = 4

_OUT_OF_FUNDS: Final = (BalanceLimitExceeded, InsufficientBalance, KeyRevoked)


class Budget:
    """What one stream may still use. `hold` is the hold as it is now."""

    def __init__(self, ctx: Context, hold: Hold, quote: Quote) -> None:
        """`quote` is the one that the key could pay at admission."""
        self._ctx = ctx
        self._quote = quote
        self._extension: asyncio.Task[None] | None = None
        self._was_refused = False
        self._cover(hold)

    def is_roomy_for(self, output_tokens: int) -> bool:
        """Whether `covers` would say yes without doing anything."""
        ahead_tokens = self._covered_tokens * AHEAD_NUMERATOR
        return self._covers_all or output_tokens * AHEAD_DENOMINATOR < ahead_tokens

    async def covers(self, output_tokens: int) -> bool:
        """Whether the hold covers so many tokens of all choices together, extended if need be.

        Waits only when they are used up already; asks ahead, without waiting, at 3/4 of them.
        """
        if self.is_roomy_for(output_tokens):
            return True
        if self._is_covered(output_tokens):
            if self._extension is None and not self._was_refused:
                self._extension = self._ctx.tasks.start(self._extend(output_tokens), name="extend")
            return True
        await self.settled_down()
        if not self._is_covered(output_tokens):
            await self._extend(output_tokens)  # money may have come free since it was refused
        return self._is_covered(output_tokens)

    async def settled_down(self) -> None:
        """Wait for an extension that is on its way, so that `hold` is final."""
        if self._extension is not None:
            await self._extension

    async def _extend(self, output_tokens: int) -> None:
        slice_tokens = self._ctx.limits.output_slice_tokens * self._quote.n
        wanted_tokens = max(output_tokens, self._covered_tokens) + slice_tokens
        try:
            self._ctx.failpoint("extend.before")
            hold = await self._ctx.ledger.submit(
                Extend(
                    hold_id=self.hold.id,
                    api_key_id=self.hold.api_key_id,
                    spender_id=self.hold.spender_id,
                    amount_msat=self._quote.msat_for(wanted_tokens),
                )
            )
            self._ctx.failpoint("extend.after")
        except RoutstrError as error:
            self._was_refused = True
            if not isinstance(error, _OUT_OF_FUNDS):
                log.warning("extension_refused", hold_id=self.hold.id, code=error.code)
        else:
            self._was_refused = False
            self._cover(hold)
        finally:
            self._extension = None

    def _is_covered(self, output_tokens: int) -> bool:
        return self._covers_all or output_tokens <= self._covered_tokens

    def _cover(self, hold: Hold) -> None:
        self.hold = hold
        self._covers_all = hold.amount_msat >= self._quote.total_msat
        self._covered_tokens = self._quote.output_limit_for(hold.amount_msat) * self._quote.n
