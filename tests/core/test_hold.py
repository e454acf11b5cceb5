from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.hold import MOVES, HoldEvent, HoldState, IllegalMove, charge, move

LEGAL = [
    (HoldState.HELD, HoldEvent.EXTEND, HoldState.HELD),
    (HoldState.HELD, HoldEvent.SETTLE, HoldState.SETTLED),
    (HoldState.HELD, HoldEvent.RELEASE, HoldState.RELEASED),
    (HoldState.HELD, HoldEvent.EXPIRE, HoldState.EXPIRED),
]
ILLEGAL = [(s, e) for s in HoldState for e in HoldEvent if (s, e) not in {m[:2] for m in LEGAL}]
MSAT = st.integers(min_value=0, max_value=2**62)


@pytest.mark.parametrize(("state", "event", "after"), LEGAL)
def test_a_hold_moves(state: HoldState, event: HoldEvent, after: HoldState) -> None:
    assert move(state, event) is after


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_an_ended_hold_never_moves(state: HoldState, event: HoldEvent) -> None:
    with pytest.raises(IllegalMove) as refusal:
        move(state, event)
    assert (refusal.value.state, refusal.value.event) == (state, event)
    assert refusal.value.status == 500


def test_the_table_is_whole() -> None:
    assert MOVES.keys() == set(HoldState)
    assert len(ILLEGAL) == len(HoldState) * len(HoldEvent) - len(LEGAL)


@given(MSAT, MSAT, MSAT, MSAT)
def test_a_charge_keeps_each_of_its_bounds(cost: int, quote: int, hold: int, free: int) -> None:
    charged, absorbed = astuple(
        charge(cost_msat=cost, quote_msat=quote, hold_msat=hold, available_msat=free)
    )
    assert 0 <= charged <= min(cost, quote, hold + free)
    assert charged in {cost, quote, hold + free}
    assert absorbed == cost - charged
