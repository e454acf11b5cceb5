"""What the operator may change while the node runs: limits, what it says of itself, switches.

One object for the whole process; a reader always gets one consistent `InForce`, and a change
replaces it whole, so no request sees half of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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

    @property
    def paused(self) -> tuple[str, ...]:
        """What the operator has switched off."""
        names = ("deposits", "spending", "withdrawals")
        return tuple(name for name in names if not getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """All of it, as it is at one moment; `version` is that of the newest change.

    `former_mints` are mints whose ecash is not taken any more; what is held there can still go out.
    """

    limits: Limits
    facts: NodeFacts
    switches: Switches = Switches()
    version: int = 0
    former_mints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What some changes lead to, and what they say, as JSON, once they are read."""

    in_force: InForce
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings of the start: each as JSON with secrets masked, and those that were given.

    `bounds` is a JSON schema by name. `change` says what follows from saying some of them anew; it
    raises ConfigError for what they would not have been allowed to be at the start either.
    """

    told: Mapping[str, object] = field(default_factory=dict)
    given: frozenset[str] = frozenset()
    bounds: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    change: Callable[[Mapping[str, object]], Changed]


class Live:
    """What is in force: the settings of the start, until the operator has changed something."""

    def __init__(self, now: InForce, rules: Rules | None = None) -> None:
        """These are in force, and these are what taking a change back leads to.

        Without `rules` nothing can be changed.
        """
        self.started_with = now
        self.rules = rules or Rules(change=lambda _: Changed(in_force=now, values={}))
        self._now = now

    @property
    def now(self) -> InForce:
        """Those in force."""
        return self._now

    def replace(self, now: InForce) -> None:
        """From now on those."""
        self._now = now
