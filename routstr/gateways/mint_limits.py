"""One lane per mint: how many calls at once, how often, in which order, and when to stop asking.

Laws: at most `calls_max` calls run; among those waiting the most urgent goes first, then the
oldest. A 429 halves the rate and pauses the lane, longer each time. After `failures_max` failures
in a row the lane is closed, and one probe at a time may reopen it. Source: ecash.md section 7.

There is no task of its own here: whoever stands at the head of the queue waits for the clock.
"""

import asyncio
import heapq
import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Protocol

from routstr.gateways.mint_failure import MintLimited, MintUnknown

PAUSE_GROWTH: Final = 4
_WHOLE: Final = 1 - 1e-9  # a token, allowing for the rounding of seconds


class Clock(Protocol):
    """The time that limits are measured in."""

    def monotonic(self) -> float:
        """Seconds from some fixed moment, never backwards."""

    async def sleep(self, delay_s: float) -> None:
        """Return when `delay_s` seconds have passed."""


class Priority(IntEnum):
    """Who goes first at a mint; the smaller, the more urgent."""

    RECOVERY = 0
    RECEIVE = 1
    ISSUE = 2
    REDEEM = 3
    FLOAT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """Limits towards one mint; the defaults suit a stock mint, which allows 60 calls a minute."""

    calls_max: int = 4
    waiting_max: int = 1_000
    rate_per_minute: int = 60
    rate_per_minute_min: int = 2
    burst: int = 20
    pause_s_min: int = 1
    pause_s_max: int = 60
    failures_max: int = 5
    probe_after_s: int = 10
    wait_s: float = 30.0  # a pause longer than this is answered at once


@dataclass(order=True, slots=True)
class _Waiter:
    priority: Priority
    number: int
    turn: asyncio.Event = field(default_factory=asyncio.Event, compare=False)


class Lane:
    """The way to one mint. `acquire`, do the call, report how it went, `release`."""

    def __init__(self, clock: Clock, limits: LaneLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._waiting: list[_Waiter] = []
        self._number = 0
        self._running = 0
        self._rate_per_minute = limits.rate_per_minute
        self._tokens = float(limits.burst)
        self._filled_at = clock.monotonic()
        self._paused_until = self._filled_at
        self._pause_s = 0
        self._failures = 0
        self._failed_at = self._filled_at
        self._is_probing = False

    async def acquire(self, priority: Priority) -> None:
        """Wait for a turn. Raises MintLimited or MintUnknown (nothing sent) if none will come."""
        if len(self._waiting) >= self._limits.waiting_max:
            raise MintLimited("too many calls wait for this mint", retry_after_s=1, was_sent=False)
        self._refuse_if_closed()
        self._number += 1
        waiter = _Waiter(priority, self._number)
        heapq.heappush(self._waiting, waiter)
        self._wake_head()
        try:
            await self._turn_of(waiter)
            self._running += 1
            self._tokens -= 1
            self._is_probing = self._is_closed()
        finally:
            self._waiting.remove(waiter)
            heapq.heapify(self._waiting)
            self._wake_head()

    def release(self) -> None:
        """The call is over, whatever came of it."""
        self._running -= 1
        self._is_probing = False
        self._wake_head()

    def succeeded(self) -> None:
        """The mint answered, yes or no: reopen the lane and speed up a little."""
        self._failures = 0
        self._pause_s = 0
        self._rate_per_minute = min(self._rate_per_minute + 1, self._limits.rate_per_minute)

    def failed(self) -> None:
        """No usable answer; enough of these in a row close the lane."""
        self._failures += 1
        self._failed_at = self._clock.monotonic()

    def limited(self, retry_after_s: int) -> None:
        """The mint said 429: half the rate, and a pause that grows fourfold with each in a row.

        A stock mint's window begins anew with every call it refuses, so small steps prolong it.
        """
        now = self._clock.monotonic()
        if now < self._paused_until:
            return  # an answer to a call that left before the pause says nothing new
        limits = self._limits
        self._refill()
        self._rate_per_minute = max(self._rate_per_minute // 2, limits.rate_per_minute_min)
        self._tokens = min(self._tokens, 1.0)
        self._pause_s = min(
            max(PAUSE_GROWTH * self._pause_s, limits.pause_s_min), limits.pause_s_max
        )
        pause_s = min(max(self._pause_s, retry_after_s), limits.pause_s_max)
        self._paused_until = now + pause_s

    async def _turn_of(self, waiter: _Waiter) -> None:
        while True:
            if self._waiting[0] is not waiter or self._running >= self._limits.calls_max:
                waiter.turn.clear()
                await waiter.turn.wait()
                continue
            self._refuse_if_closed()
            delay_s = self._delay_s()
            if delay_s <= 0:
                return
            if delay_s > self._limits.wait_s:
                raise MintLimited(
                    "this mint is paused", retry_after_s=math.ceil(delay_s), was_sent=False
                )
            await self._clock.sleep(delay_s)

    def _delay_s(self) -> float:
        self._refill()
        pause_s = self._paused_until - self._filled_at
        missing = 1 - self._tokens if self._tokens < _WHOLE else 0.0
        return max(pause_s, missing * 60 / self._rate_per_minute)

    def _refill(self) -> None:
        now = self._clock.monotonic()
        gained = (now - self._filled_at) * self._rate_per_minute / 60
        self._tokens = min(self._tokens + gained, float(self._limits.burst))
        self._filled_at = now

    def _is_closed(self) -> bool:
        return self._failures >= self._limits.failures_max

    def _refuse_if_closed(self) -> None:
        if not self._is_closed():
            return
        probe_at = self._failed_at + self._limits.probe_after_s
        if self._is_probing or self._clock.monotonic() < probe_at:
            raise MintUnknown("this mint failed too often just now", was_sent=False)

    def _wake_head(self) -> None:
        if self._waiting:
            self._waiting[0].turn.set()
