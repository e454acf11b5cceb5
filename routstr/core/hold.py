"""The life of a hold, and what leaves it: the two rules every balance rests on.

Laws: a hold ends exactly once; what it charges is never more than its cost, than the quote the
client was shown, or than the key can pay. An undefined move raises and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from routstr.errors import RoutstrError


class HoldState(StrEnum):
    """Where a reservation stands; the values are those of its row."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class HoldEvent(StrEnum):
    """What can happen to a reservation."""

    EXTEND = "extend"
    SETTLE = "settle"
    RELEASE = "release"
    EXPIRE = "expire"


MOVES: Final[Mapping[HoldState, Mapping[HoldEvent, HoldState]]] = {
    HoldState.HELD: {
        HoldEvent.EXTEND: HoldState.HELD,
        HoldEvent.SETTLE: HoldState.SETTLED,
        HoldEvent.RELEASE: HoldState.RELEASED,
        HoldEvent.EXPIRE: HoldState.EXPIRED,
    },
    # Final: no event leads out.
    HoldState.SETTLED: {},
    HoldState.RELEASED: {},
    HoldState.EXPIRED: {},
}


class IllegalMove(RoutstrError):
    """The hold has already ended."""

    def __init__(self, state: HoldState, event: HoldEvent) -> None:
        """Keep both, so that a log line says what met what."""
        super().__init__()
        self.state = state
        self.event = event


def move(state: HoldState, event: HoldEvent) -> HoldState:
    """The state after `event`. Raises IllegalMove, and then nothing has changed."""
    if event not in MOVES[state]:
        raise IllegalMove(state, event)
    return MOVES[state][event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a cost comes to: the client's part and the operator's."""

    charged_msat: int
    absorbed_msat: int


def charge(*, cost_msat: int, quote_msat: int, hold_msat: int, available_msat: int) -> Charge:
    """Share `cost_msat` between client and operator (guarantees, section 2).

    All in msat, at least 0; `available_msat` is what the key may still spend besides this hold.
    charged = min(cost, quote, hold + available); the operator absorbs the rest.
    """
    assert min(cost_msat, quote_msat, hold_msat, available_msat) >= 0
    charged_msat = min(cost_msat, quote_msat, hold_msat + available_msat)
    return Charge(charged_msat=charged_msat, absorbed_msat=cost_msat - charged_msat)
