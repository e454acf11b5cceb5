import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.ecash import cbor
from routstr.ecash.cbor import DEPTH_MAX, FIELDS_MAX, InvalidCbor

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=12,
)


def depth(value: object) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(PLAIN)
def test_plain_values_come_back(value: object) -> None:
    data = cbor.encode(value)
    if depth(value) > DEPTH_MAX:
        with pytest.raises(InvalidCbor):
            cbor.decode(data)
    else:
        assert cbor.decode(data) == value


@given(st.binary(max_size=64))
def test_only_a_typed_error_escapes(data: bytes) -> None:
    try:
        cbor.decode(data)
    except InvalidCbor:
        return


@given(PLAIN, st.binary(min_size=1, max_size=4))
def test_cut_or_prolonged_values_are_refused(value: object, tail: bytes) -> None:
    data = cbor.encode(value)
    for wrong in (data[:-1], data + tail):
        with pytest.raises(InvalidCbor):
            cbor.decode(wrong)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "c074323031332d30332d32315432303a30343a30305a",  # tag 0: a date
        "c24101",  # tag 2: a big number
        "d8236161",  # tag 35: a regular expression
        "f93c00",  # half float
        "fb3ff199999999999a",  # double
        "f820",  # a simple value in two bytes
        "e0",  # a simple value without meaning
        "ff",  # a break outside
        "5f4101ff",  # indefinite bytes
        "7f6161ff",  # indefinite text
        "9f01ff",  # indefinite list
        "bf616101ff",  # indefinite map
        "1c",  # reserved length
        "62c328",  # broken UTF-8
        "63eda080",  # a surrogate in UTF-8
        "a2616101616102",  # one name twice
        "a2010102",  # map ends early
        "5bffffffffffffffff",  # bytes of 2**64 - 1
        "9bffffffffffffffff",  # list of 2**64 - 1
        "bbffffffffffffffff",  # map of 2**64 - 1
        "1b0000",  # number ends early
    ],
)
def test_what_is_not_plain_is_refused(data: str) -> None:
    with pytest.raises(InvalidCbor):
        cbor.decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    "data",
    ["c000", "8201c24101", "d8236161", "9f01ff", "5f4101ff", "1c" + "00" * 16, "1e" + "00" * 64],
)
def test_tags_and_lengths_without_end_never_reach_cbor2(data: str) -> None:
    with pytest.raises(InvalidCbor, match="tags and indefinite"):
        cbor.check_shape(bytes.fromhex(data))


def test_depth_ends_at_8() -> None:
    assert cbor.decode(b"\x81" * DEPTH_MAX + b"\x00") is not None
    with pytest.raises(InvalidCbor, match="deep"):
        cbor.decode(b"\x81" * (DEPTH_MAX + 1) + b"\x00")


def test_maps_are_small() -> None:
    cbor.decode(cbor2.dumps({str(number): 0 for number in range(FIELDS_MAX)}))
    with pytest.raises(InvalidCbor, match="large"):
        cbor.decode(cbor2.dumps({str(number): 0 for number in range(FIELDS_MAX + 1)}))


def test_undefined_is_an_absent_field() -> None:
    value = cbor.decode(bytes.fromhex("a26161f76162f5"))
    assert isinstance(value, dict)
    assert cbor.field(value, "a") is None
    assert cbor.field(value, "b") is True
    assert cbor.field(value, "c") is None


def test_lone_surrogates_are_not_written() -> None:
    with pytest.raises(InvalidCbor):
        cbor.encode("\ud800")
