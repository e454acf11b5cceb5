import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.signed_receipt import (
    NoReceipt,
    Settlement,
    UnsoundReceipt,
    canonical,
    check_sums,
    read_receipt,
    signed_receipt,
)
from routstr.ecash.receipt_key import is_signed, receipt_key

KEY = receipt_key(bytes(64))
LINES = (
    ("request", 1, 100, 1),
    ("input", 10, 2_000_000, 1_000_000),
    ("output", 5, 5_000_001, 10**6),
)
SETTLEMENT = Settlement(
    request_id="req_1",
    request_sha256="ab" * 32,
    model_id='maker/modèle\u2028 "4.1"',
    price_version="v7",
    lines=LINES,
    outcome="completed",
    evidence="exact",
    quote_msat=600,
    charged_msat=146,
    absorbed_msat=0,
    balance_after_msat=999_854,
    settled_at=1_795_276_800,
)


def sealed(settlement: Settlement = SETTLEMENT) -> Any:
    return signed_receipt(settlement, pubkey=KEY.public, sign=KEY.sign)


def is_sound(text: bytes) -> bool:
    receipt = read_receipt(text)
    assert is_signed(receipt.digest, receipt.signature, KEY.public)
    try:
        check_sums(receipt)
    except UnsoundReceipt:
        return False
    return True


def test_both_forms_say_the_same() -> None:
    made = sealed()
    payload, _, signature = made.compact.partition(".")
    signed = base64.urlsafe_b64decode(payload + "==")
    assert json.loads(made.document) == {**json.loads(signed), "signature": signature}
    assert made == sealed()  # made again, it is the same
    spread = json.dumps(json.loads(made.document), indent=4).encode()
    for text in (made.document, made.compact.encode() + b"\n", spread):
        assert is_sound(text)


@pytest.mark.parametrize(
    "member", sorted(json.loads(sealed().document).keys() - {"signature", "v"})
)
def test_any_change_breaks_the_signature(member: str) -> None:
    said = json.loads(sealed().document)
    match said[member]:
        case int() as number:
            said[member] = number + 1
        case "exact":
            said[member] = "none"
        case list() as lines:
            lines[2]["rate_msats"] -= 1
        case str() as text:
            said[member] = ("0" if text[0] != "0" else "1") + text[1:]
    receipt = read_receipt(json.dumps(said).encode())
    assert not is_signed(receipt.digest, receipt.signature, KEY.public)


# Each is signed by the node, and each is a lie, or was one before the change behind it.
@pytest.mark.parametrize(
    ("change", "sound"),
    [
        ({}, True),
        ({"charged_msat": 145}, False),  # 145.000005 is 146
        ({"charged_msat": 147}, False),
        ({"lines": LINES[:2]}, False),
        ({"absorbed_msat": 1}, False),
        ({"charged_msat": 100, "absorbed_msat": 46}, True),
        ({"quote_msat": 146}, True),
        ({"quote_msat": 145}, False),
        ({"evidence": "estimated", "charged_msat": 90}, True),
        ({"evidence": "estimated", "charged_msat": 147}, False),
        ({"evidence": "none"}, False),
        ({"balance_after_msat": None}, True),
        ({"evidence": "none", "charged_msat": 0, "lines": ()}, True),
        ({"lines": (("second", 438, 1, 3),)}, True),
        ({"lines": (("second", 1, 1, 3),) * 438}, True),
        ({"lines": (("second", 1, 1, 3),) * 439}, False),
    ],
)
def test_a_signed_lie_does_not_add_up(change: dict[str, Any], sound: bool) -> None:
    made = sealed(replace(SETTLEMENT, **change))
    assert is_sound(made.document) is is_sound(made.compact.encode()) is sound


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ('"v":1', '"v":2'),
        ('"v":1', '"v":true'),
        ('"v":1', '"v":1,"v":1'),
        ('"v":1', '"v":1,"w":1'),
        ('"quote_msats":600,', ""),
        ("600", "600.0"),
        ("600", "-600"),
        ("600", "NaN"),
        ("600", "6" * 30),
        ("600", '"600"'),
        ('"per":1,', '"per":0,'),
        ('"count":5', '"count":-5'),
        ("999854", "-1"),
        ("req_1", "\\ud800"),
        ("ab" * 32, "AB" * 32),
        ('"exact"', '"believed"'),
        ('"signature":"', '"signature":"0'),
        ('"signature"', '"seal"'),
        ("}", ""),
        ("{", " " * 2**16 + "{"),
    ],
)
def test_a_spoilt_receipt_is_none(was: str, is_now: str) -> None:
    text = sealed().document.decode()
    assert was in text
    with pytest.raises(NoReceipt):
        read_receipt(text.replace(was, is_now).encode())


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 60_000, sealed().compact[1:], "a" + sealed().compact[1:]], ids=range(5)
)
def test_what_was_never_a_receipt(text: str) -> None:
    with pytest.raises(NoReceipt):
        read_receipt(text.encode())


NAMES = st.sampled_from(["_", "B", "a", "a1", "aa", "z"])
VALUES = st.recursive(
    st.integers(0, 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES))
def test_canonical_is_what_any_other_program_makes_of_it(members: dict[str, object]) -> None:
    other = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical(members) == other.encode()
