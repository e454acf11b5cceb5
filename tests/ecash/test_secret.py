import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.ecash.errors import (
    EcashError,
    InvalidCounter,
    InvalidMnemonic,
    InvalidSecret,
    UnsupportedKeyset,
)
from routstr.ecash.secret import (
    Nut10Secret,
    PlainSecret,
    check_mnemonic,
    derive,
    deriver,
    new_mnemonic,
    parse_secret,
    seed_from_mnemonic,
)

WORDS = "half depart obvious quality work element tank gorilla view sugar picture humble"


def test_00_vectors(nut: Any) -> None:
    head, words, secrets, rs, _ = nut("13")["v1"]
    seed = seed_from_mnemonic(words["mnemonic"])
    for counter in range(5):
        secret, r = derive(seed, head["keyset_id"], counter)
        assert secret == secrets[f"secret_{counter}"]
        assert r == rs[f"r_{counter}"]


def test_01_vectors(nut: Any) -> None:
    given_ = nut("13")["v2"]
    seed = seed_from_mnemonic(given_["mnemonic"])
    derive_one = deriver(seed, given_["keyset_id"])
    for counter in range(5):
        secret, r = derive_one(counter)
        assert secret == given_["secrets"][f"secret_{counter}"]
        assert r == given_["rs"][f"r_{counter}"]


def test_the_seed_is_bip39s() -> None:
    # BIP-39's first published vector, passphrase TREZOR.
    words = new_mnemonic(bytes(16))
    assert words == "abandon " * 11 + "about"
    assert seed_from_mnemonic(words, "TREZOR").hex().startswith("c55257c360c07c72029aebc1b53c05ed")


def test_mnemonics_are_checked() -> None:
    assert check_mnemonic(WORDS)
    assert not check_mnemonic(WORDS.replace("half", "humble"))
    assert not check_mnemonic("")
    with pytest.raises(InvalidMnemonic):
        seed_from_mnemonic("half depart")
    with pytest.raises(InvalidMnemonic):
        new_mnemonic(bytes(15))
    assert len(new_mnemonic(bytes(32)).split()) == 24


@pytest.mark.parametrize(
    ("keyset_id", "end"), [("009a1f293253e41e", 2**31), ("01" + "ab" * 32, 2**64)]
)
def test_counters_stay_in_range(keyset_id: str, end: int) -> None:
    derive(bytes(64), keyset_id, end - 1)
    for counter in (-1, end):
        with pytest.raises(InvalidCounter):
            derive(bytes(64), keyset_id, counter)


def test_unknown_keyset_versions_have_no_secrets() -> None:
    for keyset_id in ("02" + "ab" * 32, "01" + "ab" * 7, "I2yN+iRYfkzT"):
        with pytest.raises(UnsupportedKeyset):
            derive(bytes(64), keyset_id, 0)


# ── NUT-10 ────────────────────────────────────────────────────────────────────────────────────


def test_a_plain_secret_is_any_text() -> None:
    for text in ("", "ab" * 32, '{"a":1}', ' ["P2PK",{}]', "語"):
        assert parse_secret(text) == PlainSecret(text=text)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('["P2PK",{"nonce":"n","data":"d"}]', ()),
        ('["P2PK", {"data": "d", "nonce": "n", "tags": []}]', ()),
        (
            '["P2PK",{"nonce":"n","data":"d","tags":[["sigflag","SIG_INPUTS"],["refund","a","b"]]}]',
            (("sigflag", "SIG_INPUTS"), ("refund", "a", "b")),
        ),
    ],
)
def test_a_nut10_secret_is_read(text: str, tags: tuple[tuple[str, ...], ...]) -> None:
    wanted = Nut10Secret(text=text, kind="P2PK", nonce="n", data="d", tags=tags)
    assert parse_secret(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        '["P2PK"]',
        '["P2PK",[]]',
        '["",{"nonce":"n","data":"d"}]',
        '[1,{"nonce":"n","data":"d"}]',
        '["P2PK",{"nonce":"n","data":"d"},1]',
        '["P2PK",{"nonce":"n","data":"d"}] x',
        '["P2PK",{"nonce":"n"}]',
        '["P2PK",{"data":"d"}]',
        '["P2PK",{"nonce":"","data":"d"}]',
        '["P2PK",{"nonce":"n","data":""}]',
        '["P2PK",{"nonce":"n","data":1}]',
        '["P2PK",{"nonce":"n","data":"d","more":"x"}]',
        '["P2PK",{"nonce":"n","data":"d","data":"e"}]',
        '["P2PK",{"nonce":"n","data":"d","tags":null}]',
        '["P2PK",{"nonce":"n","data":"d","tags":{}}]',
        '["P2PK",{"nonce":"n","data":"d","tags":["a"]}]',
        '["P2PK",{"nonce":"n","data":"d","tags":[[]]}]',
        '["P2PK",{"nonce":"n","data":"d","tags":[["a"]]}]',
        '["P2PK",{"nonce":"n","data":"d","tags":[["a",1]]}]',
        '["P2PK",{"nonce":"n","data":"d","tags":[["a",""]]}]',
        '["P2PK",{"nonce":"n","data":"d","tags":[["a","1"],["a","2"]]}]',
        '["P2PK",{"nonce":"\\ud800","data":"d"}]',
        '["P2PK",{"nonce":"n","data":NaN}]',
        "[" * 500,
    ],
)
def test_what_is_only_nearly_a_nut10_secret_is_refused(text: str) -> None:
    with pytest.raises(InvalidSecret):
        parse_secret(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=3).map(json.dumps) | st.text().map("[".__add__))
def test_only_a_typed_error_escapes(text: str) -> None:
    try:
        parse_secret(text)
    except EcashError:
        return
