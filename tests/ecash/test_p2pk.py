import json
from typing import Any

import pytest

from routstr.ecash import p2pk
from routstr.ecash.bdhke import public_key
from routstr.ecash.errors import InvalidPoint, InvalidScalar, InvalidSecret
from routstr.ecash.proof import BlindedMessage
from routstr.ecash.secret import Nut10Secret, parse_secret

PRIVATE = "11" * 32
KEY = public_key(PRIVATE)
OTHER = public_key("22" * 32)
HOUR_S = 3600


def locked(*tags: list[str], key: str = KEY) -> Nut10Secret:
    secret = parse_secret(p2pk.lock_secret(key, nonce="ab" * 16, tags=tags))
    assert isinstance(secret, Nut10Secret)
    return secret


def test_quote_vectors(nut: Any) -> None:
    vectors = nut("20")
    for name in ("valid", "invalid"):
        case = vectors[name]
        outputs = [
            BlindedMessage(amount=each["amount"], keyset_id=each["id"], b_=each["B_"])
            for each in case["outputs"]
        ]
        args = (case["quote"], outputs, case["signature"], vectors["pubkey"])
        assert p2pk.verify_quote(*args) == (name == "valid")
        assert not p2pk.verify_quote(*args, message=p2pk.QuoteMessage.TAGGED)


@pytest.mark.parametrize("message", list(p2pk.QuoteMessage))
def test_a_quote_signature_covers_id_outputs_and_order(message: p2pk.QuoteMessage) -> None:
    outputs = [BlindedMessage(amount=1, keyset_id="00", b_=b_) for b_ in (KEY, OTHER)]
    signature = p2pk.sign_quote("quote", outputs, PRIVATE, message=message)
    assert signature == p2pk.sign_quote("quote", outputs, PRIVATE, message=message)
    assert p2pk.verify_quote("quote", outputs, signature, KEY, message=message)
    assert not p2pk.verify_quote("quotes", outputs, signature, KEY, message=message)
    assert not p2pk.verify_quote("quote", outputs[::-1], signature, KEY, message=message)
    assert not p2pk.verify_quote("quote", outputs, signature, OTHER, message=message)
    assert not p2pk.verify_quote("quote", outputs, "00", KEY, message=message)
    assert not p2pk.verify_quote("quote", outputs, signature, "key", message=message)


@pytest.mark.parametrize("message", list(p2pk.QuoteMessage))
def test_hostile_quotes_are_typed_errors(message: p2pk.QuoteMessage) -> None:
    bad = [BlindedMessage(amount=1, keyset_id="00", b_="02")]
    with pytest.raises(InvalidSecret):
        p2pk.sign_quote("\ud800", [], PRIVATE, message=message)
    with pytest.raises(InvalidPoint):
        p2pk.sign_quote("quote", bad, PRIVATE, message=message)
    with pytest.raises(InvalidScalar):
        p2pk.sign_quote("quote", [], "00" * 32, message=message)
    assert not p2pk.verify_quote("\ud800", [], "ab" * 64, KEY, message=message)
    assert not p2pk.verify_quote("quote", bad, "ab" * 64, KEY, message=message)


def test_the_witness_of_a_locked_proof() -> None:
    text = locked().text
    witness = p2pk.sign_secret(text, PRIVATE)
    assert list(json.loads(witness)) == ["signatures"]
    assert p2pk.verify_secret(text, witness, KEY)
    assert p2pk.verify_secret(text, witness, "03" + KEY[2:])
    assert p2pk.verify_secret(text, witness, "02" + KEY[2:])
    assert not p2pk.verify_secret(text, witness, OTHER)
    assert not p2pk.verify_secret(text + " ", witness, KEY)
    hostile = ("", "{}", "[]", "null", '{"signatures":1}', '{"signatures":[1,"x"]}', "[" * 9999)
    for nonsense in hostile:
        assert not p2pk.verify_secret(text, nonsense, KEY)
    with pytest.raises(InvalidSecret):
        p2pk.sign_secret("\ud800", PRIVATE)
    with pytest.raises(InvalidScalar):
        p2pk.sign_secret(text, "")


def test_keys_compare_by_x() -> None:
    assert p2pk.same_key("02" + KEY[2:], "03" + KEY[2:])
    assert not p2pk.same_key(KEY, OTHER)
    assert not p2pk.same_key("nonsense", "nonsense")


def test_the_conditions_of_a_lock() -> None:
    lock = p2pk.lock_of(
        locked(
            ["sigflag", "SIG_ALL"],
            ["n_sigs", "2"],
            ["locktime", "1700000000"],
            ["refund", OTHER],
            ["pubkeys", OTHER, KEY],
            ["colour", "red"],
        )
    )
    assert lock == p2pk.P2pkLock(
        key=KEY,
        sigflag="SIG_ALL",
        n_sigs=2,
        locktime=1_700_000_000,
        refund_keys=(OTHER,),
        more_keys=(OTHER, KEY),
        unknown_tags=("colour",),
    )


@pytest.mark.parametrize(
    "secret",
    [
        locked(["locktime", "-1"]),
        locked(["locktime", "1.5"]),
        locked(["locktime", "٣"]),
        locked(["locktime", "1", "2"]),
        locked(["locktime", "9" * 17]),
        locked(["n_sigs", "01"]),
        locked(["sigflag", "SIG_INPUTS", "SIG_ALL"]),
        locked(["refund", "nobody"]),
        locked(["pubkeys", KEY, "02" + "ff" * 32]),
        Nut10Secret(text="", kind="HTLC", nonce="n", data=KEY, tags=()),
        Nut10Secret(text="", kind="P2PK", nonce="n", data="me", tags=()),
    ],
)
def test_unclear_locks_are_refused(secret: Nut10Secret) -> None:
    with pytest.raises(InvalidSecret):
        p2pk.lock_of(secret)


@pytest.mark.parametrize(
    ("tags", "held"),
    [
        ([], True),
        ([["sigflag", "SIG_INPUTS"], ["n_sigs", "1"]], True),
        ([["locktime", str(HOUR_S)], ["refund", OTHER]], True),
        ([["refund", OTHER]], True),
        ([["locktime", str(HOUR_S - 1)]], False),
        ([["locktime", "0"]], False),
        ([["sigflag", "SIG_ALL"]], False),
        ([["sigflag", "sig_inputs"]], False),
        ([["n_sigs", "0"]], False),
        ([["n_sigs", "2"]], False),
        ([["pubkeys", OTHER]], False),
        ([["n_sigs_refund", "1"]], False),
        ([["colour", "red"]], False),
    ],
)
def test_who_holds_a_lock(tags: list[list[str]], *, held: bool) -> None:
    lock = p2pk.lock_of(locked(*tags))
    assert lock.is_held_by(KEY, locktime_min=HOUR_S) == held
    assert not lock.is_held_by(OTHER, locktime_min=HOUR_S)
    assert not lock.is_held_by(("03" if KEY[1] == "2" else "02") + KEY[2:], locktime_min=0)


def test_only_points_can_hold_a_lock() -> None:
    with pytest.raises(InvalidPoint):
        p2pk.lock_secret("me", nonce="n")
