"""Whatever a mint answers, reading it gives a value or one of the mint's failures."""

import contextlib
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.ecash.proof import BlindedMessage
from routstr.gateways.mint_failure import MintFailure, MintLimited, MintUnknown
from routstr.gateways.mint_wire import (
    ProofState,
    check_status,
    info_from_json,
    keys_from_json,
    keysets_from_json,
    parsed,
    restored_from_json,
    signatures_from_answer,
    states_from_json,
)

POINT = "02a9acc1e48c25eeeb9289b5031cc57da9fe72f3fe2861d264bdc074209b107ba2"
ID = "00ad268c4d1f5826"
LISTED = {"id": ID, "unit": "sat", "active": True, "input_fee_ppk": 100, "final_expiry": None}
Y1, Y2 = "02" + "11" * 32, "02" + "22" * 32

NAMES = """
keysets keys id unit active input_fee_ppk final_expiry nuts name states Y state signatures outputs
B_ C_ amount dleq e s 1
"""
WORDS = st.sampled_from(NAMES.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)
READERS: list[Callable[[object], object]] = [
    info_from_json,
    keysets_from_json,
    lambda value: keys_from_json(value, ID),
    signatures_from_answer,
    lambda value: restored_from_json(value, []),
    lambda value: states_from_json(value, [Y1]),
]


@given(JSON, st.sampled_from(READERS))
def test_no_json_is_an_exception(value: object, read: Callable[[object], object]) -> None:
    with contextlib.suppress(MintFailure):
        read(value)


@given(st.integers(201, 599), st.binary(max_size=60), st.none() | st.text(max_size=9))
def test_no_status_but_200_is_good(status: int, body: bytes, retry_after: str | None) -> None:
    with pytest.raises(MintFailure):
        check_status(status, body, retry_after)


@pytest.mark.parametrize(
    "body", [b"", b"nan", b"NaN", b"\xff", b"[" * 100_000, b'"\\ud800"', b"{} {}"]
)
def test_what_is_no_json_is_unknown(body: bytes) -> None:
    with pytest.raises(MintUnknown):
        parsed(body)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [(None, 1), ("0", 1), ("7", 7), ("99999999999999999999", 3600), ("-7", 1), ("٣", 1), ("x", 1)],
)
def test_retry_after_is_bounded(retry_after: str | None, seconds: int) -> None:
    with pytest.raises(MintLimited) as caught:
        check_status(429, b"", retry_after)
    assert caught.value.retry_after_s == seconds


def test_supported_nuts_in_all_their_spellings() -> None:
    nuts = {
        "4": {"methods": [], "disabled": False},
        "5": {"methods": [], "disabled": True},
        "7": {"supported": True},
        "8": {"supported": False},
        "9": {},
        "10": True,
        "17": {"supported": [{"method": "bolt11"}]},
        "15": {"supported": []},
        "x": {"supported": True},
        "٣": {"supported": True},
        "-1": {"supported": True},
    }
    assert info_from_json({"nuts": nuts}).nuts == {4, 7, 9, 17}


@pytest.mark.parametrize(("name", "shown"), [("A mint", "A mint"), (7, ""), ("a\nb", "")])
def test_a_name_is_printable_or_absent(name: object, shown: str) -> None:
    assert info_from_json({"nuts": {}, "name": name}).name == shown
    assert len(info_from_json({"nuts": {}, "name": "x" * 999}).name) == 100


def test_a_listed_keyset() -> None:
    [info] = keysets_from_json({"keysets": [LISTED]})
    assert (info.id, info.unit, info.active) == (ID, "sat", True)
    assert (info.input_fee_ppk, info.final_expiry) == (100, None)
    [info] = keysets_from_json({"keysets": [{"id": ID, "unit": "sat", "active": False}]})
    assert (info.input_fee_ppk, info.active) == (0, False)
    [info] = keysets_from_json({"keysets": [{**LISTED, "final_expiry": 0}]})
    assert info.final_expiry == 0


@pytest.mark.parametrize(
    "change",
    [
        {"unit": ""},
        {"unit": None},
        {"unit": "x" * 21},
        {"active": 1},
        {"active": None},
        {"input_fee_ppk": -1},
        {"input_fee_ppk": True},
        {"input_fee_ppk": 1.0},
        {"input_fee_ppk": "1"},
        {"input_fee_ppk": 2**40},
        {"final_expiry": -1},
        {"final_expiry": "0"},
    ],
)
def test_a_malformed_listing_is_unknown(change: dict[str, object]) -> None:
    with pytest.raises(MintUnknown):
        keysets_from_json({"keysets": [{**LISTED, **change}]})


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"1": POINT.upper()},
        {"1": "04" + POINT[2:]},
        {"1": POINT[:-2]},
        {"1": "02" + "ff" * 32},
        {"1": None},
        {"01": POINT},
        {"+1": POINT},
        {"1_0": POINT},
        {"0": POINT},
        {"-1": POINT},
        {"1.0": POINT},
        {"٣": POINT},
        {"1" * 21: POINT},
        {str(n): POINT for n in range(1, 258)},
    ],
)
def test_malformed_keys_are_unknown(keys: dict[str, object]) -> None:
    with pytest.raises(MintUnknown):
        keys_from_json({"keysets": [{"id": ID, "keys": keys}]}, ID)


def test_keys_are_of_the_keyset_that_was_asked_for() -> None:
    entry = {"id": ID, "keys": {"1": POINT, str(2**63): POINT}}
    assert keys_from_json({"keysets": [entry]}, ID) == {1: POINT, 2**63: POINT}
    for answer in ([], [entry, entry], [{**entry, "id": "00" + "0" * 14}]):
        with pytest.raises(MintUnknown):
            keys_from_json({"keysets": answer}, ID)


@pytest.mark.parametrize(
    "states",
    [
        [],
        [{"Y": Y1, "state": "SPENT"}],
        [{"Y": Y2, "state": "SPENT"}, {"Y": Y1, "state": "SPENT"}],
        [{"Y": Y1, "state": "SPENT"}, {"Y": Y1, "state": "SPENT"}],
        [{"Y": Y1, "state": "SPENT"}, {"Y": Y2, "state": "spent"}],
        [{"Y": Y1, "state": "SPENT"}, {"Y": Y2}],
        [{"Y": Y1, "state": "SPENT"}, {"Y": Y2, "state": "SPENT"}, {"Y": Y2, "state": "SPENT"}],
    ],
)
def test_states_are_counted_ordered_and_echoed(states: list[object]) -> None:
    with pytest.raises(MintUnknown):
        states_from_json({"states": states}, [Y1, Y2])
    good = [{"Y": Y1, "state": "UNSPENT"}, {"Y": Y2, "state": "PENDING"}]
    assert states_from_json({"states": good}, [Y1, Y2]) == {
        Y1: ProofState.UNSPENT,
        Y2: ProofState.PENDING,
    }


ASKED = [BlindedMessage(amount=0, keyset_id=ID, b_=b_) for b_ in (Y1, Y2)]
SIGNED = {"id": ID, "amount": 4, "C_": POINT, "dleq": None}


def test_restored_signatures_are_told_apart_by_their_echo() -> None:
    answer = {"outputs": [{"B_": Y2}], "signatures": [SIGNED]}
    restored = restored_from_json(answer, ASKED)
    assert list(restored) == [Y2]
    assert restored[Y2].amount == 4


@pytest.mark.parametrize(
    ("outputs", "signatures"),
    [
        ([{"B_": Y1}], []),
        ([], [SIGNED]),
        ([{"B_": Y1}, {"B_": Y1}], [SIGNED, SIGNED]),
        ([{"B_": Y1}, {"B_": Y2}, {"B_": Y1}], [SIGNED, SIGNED, SIGNED]),
        ([{"B_": POINT}], [SIGNED]),
        ([{}], [SIGNED]),
        ([Y1], [SIGNED]),
        ([{"B_": Y1}], [{**SIGNED, "id": "00" + "0" * 14}]),
        ([{"B_": Y1}], [{**SIGNED, "amount": 0}]),
        ([{"B_": Y1}], None),
    ],
)
def test_a_restore_that_does_not_fit_is_unknown(outputs: object, signatures: object) -> None:
    with pytest.raises(MintUnknown):
        restored_from_json({"outputs": outputs, "signatures": signatures}, ASKED)


def test_a_code_counts_with_status_400_only() -> None:
    for status in (401, 403, 404, 409, 422, 500, 503):
        with pytest.raises(MintUnknown):
            check_status(status, b'{"detail": "spent", "code": 11001}', None)


def test_orjson_reads_amounts_as_whole_numbers() -> None:
    assert parsed(b"9223372036854775808") == 2**63
    assert orjson.loads(b"1.0") == 1.0
    with pytest.raises(MintUnknown):  # beyond 64 bits orjson gives a float, which is no number here
        keysets_from_json({"keysets": [{**LISTED, "input_fee_ppk": parsed(b"1" + b"0" * 30)}]})
