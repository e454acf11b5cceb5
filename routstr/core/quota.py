"""How often a key may ask, and how it is told: requests and tokens a minute, requests at once.

Minutes are those of the clock (UTC), the same for every key. A request counts when its money is
held, its tokens when it is settled, so a minute's tokens may pass the limit by what was running.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE: Final = timedelta(minutes=1)


def minute_of(now: datetime) -> int:
    """The number of the minute since 1970 that `now` lies in."""
    return (now - _EPOCH) // _MINUTE


def seconds_left(now: datetime, minute: int) -> int:
    """Whole seconds, at least 1, until that minute is over."""
    left = _EPOCH + (minute + 1) * _MINUTE - now
    return max(1, -(-left // timedelta(seconds=1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The limits of a key; 0 is none."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_max: int = 0


UNLIMITED: Final = Rates()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit of this minute and what is left of it."""

    limit: int
    remaining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateView:
    """What a key may still ask in `minute`; None where it has no such limit."""

    minute: int
    requests: Quota | None
    tokens: Quota | None

    def after_one(self) -> "RateView":
        """The same once one more request was taken."""
        if self.requests is None:
            return self
        left = max(0, self.requests.remaining - 1)
        return replace(self, requests=replace(self.requests, remaining=left))


def tightest(pairs: list[tuple[int, int]]) -> Quota | None:
    """Of (limit, used) pairs the one that leaves least; a limit of 0 is none."""
    quotas = [Quota(limit=limit, remaining=max(0, limit - used)) for limit, used in pairs if limit]
    return min(quotas, key=lambda quota: quota.remaining, default=None)


def rate_headers(view: RateView | None, now: datetime) -> dict[str, str]:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` (contract, section 1)."""
    headers: dict[str, str] = {}
    if view is None:
        return headers
    reset = f"{seconds_left(now, view.minute)}s"
    for name, quota in (("requests", view.requests), ("tokens", view.tokens)):
        if quota is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(quota.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(quota.remaining)
            headers[f"x-ratelimit-reset-{name}"] = reset
    return headers
