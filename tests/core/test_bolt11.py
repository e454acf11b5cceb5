"""Invoices: the examples of BOLT-11, what an attacker would try, and a fuzz of the words."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from routstr.core.bolt11 import (
    AMOUNT_MSAT_MAX,
    INVOICE_CHARS_MAX,
    BadInvoice,
    decode_invoice,
)
from routstr.ecash.bech32 import Checksum, encode_words
from tests.fakes.invoices import (
    CREATED_AT,
    KEY,
    field,
    invoice,
    number_words,
    signed,
    words_of,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "bolt11.json").read_bytes())
READABLE = VECTORS["valid"] + VECTORS["valid_to_read"]
HASH = b"\x07" * 32
ENOUGH = number_words(CREATED_AT, 7) + field("p", words_of(HASH))


@pytest.mark.parametrize("vector", READABLE, ids=lambda vector: vector["name"])
def test_the_examples_of_the_bolt(vector: Mapping[str, Any]) -> None:
    read = decode_invoice(vector["invoice"])
    for name in vector.keys() - {"name", "invoice"}:
        assert getattr(read, name) == vector[name], name
    assert read.expires_at == vector["created_at"] + vector["expiry_s"]


@pytest.mark.parametrize("text", VECTORS["invalid"].values(), ids=VECTORS["invalid"].keys())
def test_the_invalid_examples_of_the_bolt(text: str) -> None:
    with pytest.raises(BadInvoice):
        decode_invoice(text)


@pytest.mark.parametrize("prefix", ["lnbc", "lntb", "lntbs", "lnbcrt"])
def test_networks_and_amounts(prefix: str) -> None:
    for amount_msat in (None, 1, 21_000, AMOUNT_MSAT_MAX):
        read = decode_invoice(invoice(amount_msat, prefix=prefix, description="tea"))
        assert (read.prefix, read.amount_msat, read.description) == (prefix, amount_msat, "tea")


@pytest.mark.parametrize(
    ("amount", "amount_msat"),
    [("1", 10**11), ("21m", 21 * 10**8), ("21u", 21 * 10**5), ("21n", 2_100), ("210p", 21)],
)
def test_every_multiplier(amount: str, amount_msat: int) -> None:
    assert decode_invoice(signed(f"lnbc{amount}", ENOUGH)).amount_msat == amount_msat


@pytest.mark.parametrize(
    "human",
    ["ln", "lnbc0", "lnbc0p", "lnbc021n", "lnbc21p", "lnbc21k", "lnbc-1n", "lnbc1.5m", "lnbc21m1",
     "lnbc21000001", "lnbc99999999999999999999", "lnbc999999999999999999990p", "lnbcm", "lnxx1n",
     "lnsb1n", "bc1n", "lnbcrt0n", "lno"],
)  # fmt: skip
def test_other_networks_and_odd_amounts_are_refused(human: str) -> None:
    with pytest.raises(BadInvoice):
        decode_invoice(signed(human, ENOUGH))


def test_a_description_may_be_a_hash() -> None:
    digest = hashlib.sha256(b"[]").digest()
    read = decode_invoice(invoice(1, description=digest, expiry_s=0))
    assert (read.description, read.description_hash) == (None, digest.hex())
    assert read.expires_at == CREATED_AT
    assert decode_invoice(signed("lnbc", ENOUGH)).description is None


@pytest.mark.parametrize(
    "more",
    [
        field("p", words_of(b"\x08" * 32)),  # one reader takes the first, another the last
        field("x", [1]) + field("x", [2]),
        field("d", words_of(b"a")) + field("d", words_of(b"b")),
        field("h", words_of(HASH)) + field("h", words_of(HASH)),
        field("x", [31] * 7),
        field("x", [31] * 1_023),
        field("d", words_of(b"\xff")),
        field("d", [1, 2, 3])[:-1],
        [1],
        [1, 2],
        [1, 31, 31],
        field("n", words_of(b"\x02" * 33)),  # another key than the signature's
        field("n", words_of(b"\x05" * 33)),  # no key at all
    ],
)
def test_odd_fields_are_refused(more: list[int]) -> None:
    with pytest.raises(BadInvoice):
        decode_invoice(signed("lnbc", ENOUGH + more))


def test_the_key_named_is_the_key_that_signed() -> None:
    named = field("n", words_of(KEY.public_key.format()))
    assert decode_invoice(signed("lnbc", ENOUGH + named)).payment_hash == HASH.hex()


def test_what_is_missing_is_refused() -> None:
    with pytest.raises(BadInvoice, match="payment hash"):
        decode_invoice(signed("lnbc", number_words(CREATED_AT, 7)))
    with pytest.raises(BadInvoice, match="cut off"):
        decode_invoice(encode_words("lnbc", [0] * 110, Checksum.BECH32))
    with pytest.raises(BadInvoice, match="mistyped"):
        decode_invoice(encode_words("lnbc", ENOUGH, Checksum.BECH32M))
    with pytest.raises(BadInvoice, match="too long"):
        decode_invoice("lnbc1" + "q" * INVOICE_CHARS_MAX)


@pytest.mark.parametrize("text", ["", "1", "ln", "lnbc", "lnbc1", "lightning:lnbc1", "ä", "\ud800"])
def test_what_is_no_invoice(text: str) -> None:
    with pytest.raises(BadInvoice):
        decode_invoice(text)


def test_no_error_and_no_repr_holds_the_invoice() -> None:
    text = invoice(21_000, description="birdsong", payment_hash=HASH)
    read = decode_invoice(text)
    assert "birdsong" not in repr(read)
    assert HASH.hex() not in repr(read)
    with pytest.raises(BadInvoice) as caught:
        decode_invoice(text[:-1] + ("q" if text[-1] != "q" else "p"))
    assert text[:20] not in repr(caught.value) + repr(caught.value.__cause__)


WORDS = st.lists(st.integers(0, 31), max_size=300)


@settings(max_examples=150, deadline=None)
@given(human=st.sampled_from(["lnbc", "lntb21u", "lnbc10p"]), words=WORDS, is_signed=st.booleans())
@example(human="lnbc", words=[0] * 7, is_signed=True)
def test_nothing_else_escapes(human: str, words: list[int], is_signed: bool) -> None:
    text = signed(human, words) if is_signed else encode_words(human, words, Checksum.BECH32)
    judge(text)
    judge(signed(human, ENOUGH + words))


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 300), put=st.text(max_size=3))
def test_nothing_else_escapes_from_text(at: int, put: str) -> None:
    text = invoice(21_000, description="tea")
    changed = text[:at] + put + text[at + len(put) :]
    if changed.lower() != text:
        with pytest.raises(BadInvoice):
            decode_invoice(changed)


def judge(text: str) -> None:
    try:
        read = decode_invoice(text)
    except BadInvoice:
        return
    assert len(read.payment_hash) == 64
    assert read.amount_msat is None or 0 < read.amount_msat <= AMOUNT_MSAT_MAX
