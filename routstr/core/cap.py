"""How much a key may spend in all, or in each day, week or month (contract, section 4: `L`).

What was used is what was spent less what had been spent when the period began, so a reset moves
one number and nothing is ever counted twice. Periods begin at midnight UTC: of each day, of Monday,
of the first of the month. What is held when a period ends is charged in the next one.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

RESETS: Final = ("daily", "weekly", "monthly")


def period_start(now: datetime, reset: str) -> datetime:
    """When the period began that `now` (aware, UTC) lies in; `reset` is one of RESETS."""
    assert reset in RESETS
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if reset == "monthly":
        return midnight.replace(day=1)
    return midnight - timedelta(days=midnight.weekday() if reset == "weekly" else 0)


def next_period(now: datetime, reset: str) -> datetime:
    """When the next one begins."""
    start = period_start(now, reset)
    if reset == "monthly":
        return (start + timedelta(days=31)).replace(day=1)
    return start + timedelta(days=7 if reset == "weekly" else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """A key's limit and what counts towards it, in msat.

    `spent_msat` is since ever, `base_msat` what of it lies before the period that began at `since`.
    """

    limit_msat: int
    reset: str | None
    spent_msat: int
    held_msat: int
    base_msat: int = 0
    since: datetime | None = None

    def at(self, now: datetime) -> "Cap":
        """The cap as it is then: itself, or with nothing used if a new period has begun.

        A clock that goes back, as another node's may seem to, begins no period again.
        """
        if self.reset is None:
            return self
        start = period_start(now, self.reset)
        if self.since is not None and start <= self.since:
            return self
        return replace(self, base_msat=self.spent_msat, since=start)

    @property
    def used_msat(self) -> int:
        """What was spent in this period."""
        return self.spent_msat - self.base_msat

    @property
    def left_msat(self) -> int:
        """What may still be promised in it."""
        return max(0, self.limit_msat - self.used_msat - self.held_msat)
