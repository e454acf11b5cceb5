"""What the operator may change while the node runs: limits, what it says of itself, switches.

One object for the whole process; a reader always gets one consistent `InForce`, and a change
replaces it whole, so no request sees half of one.
"""

from dataclasses import dataclass

from routstr.flows.limits import Limits, NodeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """What may happen at all (SR-16); a ceiling of 0 is none.

    `withdrawn_sats_per_hour_max` counts what leaves the node in any hour, `wallet_sats_max` is the
    most it may hold at mints: beyond it nobody pays in. With `needs_invite` a key is made only by
    who has a code.
    """

    deposits: bool = True
    spending: bool = True
    withdrawals: bool = True
    withdrawn_sats_per_hour_max: int = 0
    wallet_sats_max: int = 0
    needs_invite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """All of it, as it is at one moment; `version` is that of the newest change."""

    limits: Limits
    facts: NodeFacts
    switches: Switches = Switches()
    version: int = 0


class Live:
    """What is in force: the settings of the start, until the operator has changed something."""

    def __init__(self, now: InForce) -> None:
        """These are in force, and these are what taking a change back leads to."""
        self.started_with = now
        self._now = now

    @property
    def now(self) -> InForce:
        """Those in force."""
        return self._now

    def replace(self, now: InForce) -> None:
        """From now on those."""
        self._now = now
