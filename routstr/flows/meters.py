"""What this process has counted since its start, for `/metrics`; the ledger has the truth.

Counting costs a dictionary and an addition, and never waits. The words are those of the billing
contract (guarantees, section 2); `refused` and `replayed` exist here alone, because such requests
hold nothing and so have no row.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from routstr.core.histogram import DURATIONS_US, Histogram
from routstr.core.outcome import Outcome
from routstr.flows.watch import Times

US_PER_MS: Final = 1_000


@dataclass(slots=True)
class Ended:
    """The requests of one outcome; amounts in msat."""

    requests: int = 0
    charged_msat: int = 0
    absorbed_msat: int = 0
    at_risk_msat: int = 0


class Meters:
    """One for the process, made by the composition root."""

    def __init__(self) -> None:
        """Nothing was counted yet."""
        self.ended: defaultdict[str, Ended] = defaultdict(Ended)
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.replayed = 0
        self.total_us: Final = Histogram(DURATIONS_US)
        self.first_us: Final = Histogram(DURATIONS_US)
        self.added_us: Final = Histogram(DURATIONS_US)

    def note_ended(
        self,
        outcome: Outcome,
        times: Times,
        *,
        charged_msat: int,
        absorbed_msat: int,
        at_risk_msat: int,
    ) -> None:
        """A hold was ended by this process."""
        ended = self.ended[outcome.value]
        ended.requests += 1
        ended.charged_msat += charged_msat
        ended.absorbed_msat += absorbed_msat
        ended.at_risk_msat += at_risk_msat
        self.total_us.note(times.total_ms * US_PER_MS)
        if times.first_ms is not None:
            self.first_us.note(times.first_ms * US_PER_MS)
        if times.added_us is not None:
            self.added_us.note(times.added_us)

    def note_expired(self, requests: int) -> None:
        """Holds were ended whose owner is gone."""
        self.ended[Outcome.NODE_CRASHED.value].requests += requests

    def note_refused(self, code: str) -> None:
        """A request to buy was refused before its hold."""
        self.refused[code] += 1

    def note_replayed(self) -> None:
        """A repeat was given what the first one bought."""
        self.replayed += 1
