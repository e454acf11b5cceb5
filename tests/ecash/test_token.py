import base64
import json
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from routstr.ecash import bdhke, p2pk
from routstr.ecash.proof import Dleq, Proof
from routstr.ecash.token import (
    BODY_BYTES_MAX,
    PROOFS_MAX,
    Token,
    decode_token,
    encode_token_v3,
    encode_token_v4,
)
from routstr.errors import InvalidToken, TokenZeroValue

Fields = dict[str, Any]
POINT = bdhke.hash_to_curve(b"")
ID = "009a1f293253e41e"
DLEQ = Dleq(e="11" * 32, s="22" * 32, r="33" * 32)


def read(text: str) -> Token:
    return decode_token(text, bytes_max=BODY_BYTES_MAX)


def v3(fields: object) -> str:
    return raw_v3(json.dumps(fields))


def raw_v3(text: str) -> str:
    return "cashuA" + base64.urlsafe_b64encode(text.encode()).decode()


def v4(fields: object) -> str:
    return "cashuB" + base64.urlsafe_b64encode(cbor2.dumps(fields)).decode()


def proof_v3(**fields: object) -> Fields:
    return {"amount": 2, "id": ID, "secret": "s", "C": POINT} | fields


def token_v3(*proofs: Fields, **fields: object) -> Fields:
    given = list(proofs or (proof_v3(),))
    return {"token": [{"mint": "https://m", "proofs": given}], "unit": "sat"} | fields


def proof_v4(**fields: object) -> Fields:
    return {"a": 2, "s": "s", "c": bytes.fromhex(POINT)} | fields


def token_v4(*proofs: Fields, **fields: object) -> Fields:
    entries = list(proofs or (proof_v4(),))
    return {"t": [{"i": bytes.fromhex(ID), "p": entries}], "m": "https://m", "u": "sat"} | fields


def proofs(count: int, keyset_id: str = ID) -> tuple[Proof, ...]:
    return tuple(
        Proof(amount=1, keyset_id=keyset_id, secret=f"s{number}", c=POINT)
        for number in range(count)
    )


# ── vectors ───────────────────────────────────────────────────────────────────────────────────


def test_vectors_in_order(nut: Any) -> None:
    vectors = nut("00")
    texts = vectors["tokens_in_order"]
    assert len(texts) == 8
    first = read(texts[0])
    assert (first.mint_url, first.unit, first.memo) == (
        "https://8333.space:3338",
        "sat",
        "Thank you.",
    )
    assert [proof.amount for proof in first.proofs] == [2, 8]
    assert encode_token_v3(first) == texts[0]
    for refused in (texts[1], texts[2]):
        with pytest.raises(InvalidToken, match="starts with"):
            read(refused)
    assert read(texts[3]) == first
    assert read(texts[4]) == read(texts[5])
    assert read(texts[4]).memo == "Thank you very much."

    single = read(texts[6])
    assert (single.amount, single.memo, single.mint_url) == (
        1,
        "Thank you",
        "http://localhost:3338",
    )
    assert encode_token_v4(single) == texts[6].rstrip("=")
    raw = bytes.fromhex(vectors["raw_token_v4_hex"])
    assert raw.startswith(b"crawB")
    assert read("cashuB" + base64.urlsafe_b64encode(raw[5:]).decode()) == single

    several = read(texts[7])
    assert [proof.keyset_id for proof in several.proofs] == [
        "00ffd48b8f5ecf80",
        "00ad268c4d1f5826",
        "00ad268c4d1f5826",
    ]
    assert several.amount == 4
    assert encode_token_v4(several) == texts[7]


# ── in and out ────────────────────────────────────────────────────────────────────────────────


def test_round_trips_with_and_without_dleq() -> None:
    given = tuple(replace(proof, dleq=DLEQ) for proof in proofs(3))
    token = Token(mint_url="https://m", unit="msat", proofs=given, memo="語")
    bare = replace(token, proofs=proofs(3))
    for encode in (encode_token_v3, encode_token_v4):
        assert read(encode(token, include_dleq=True)) == token
        assert read(encode(token)) == bare
        assert read("cashu:" + encode(token)) == bare


def test_a_dleq_without_r_and_a_witness_stay_behind() -> None:
    given = replace(proofs(1)[0], dleq=replace(DLEQ, r=None), witness="{}")
    token = Token(mint_url="https://m", unit="sat", proofs=(given,))
    for encode in (encode_token_v3, encode_token_v4):
        back = read(encode(token, include_dleq=True)).proofs[0]
        assert (back.dleq, back.witness) == (None, None)


def test_incoming_witnesses_and_unknown_fields_are_dropped() -> None:
    wanted = read(v3(token_v3()))
    assert read(v3(token_v3(proof_v3(witness="{}", x=[1]), x=None))) == wanted
    assert read(v4(token_v4(proof_v4(w="{}", pe=b"x"), x=b""))) == wanted


def test_absent_and_undefined_are_alike() -> None:
    wanted = read(v3(token_v3()))
    assert read(v4(token_v4(proof_v4(d=cbor2.undefined), d=cbor2.undefined))) == wanted
    assert read(v4(token_v4(proof_v4(d=None), d=None))) == wanted
    assert read(v3(token_v3(proof_v3(dleq=None), memo=None, unit=None))) == wanted
    assert read(v3(token_v3(memo=""))) == wanted


def test_hex_in_upper_case_names_the_same_proof() -> None:
    upper = proof_v3(C=POINT.upper(), id=ID.upper(), dleq={"e": "AA" * 32, "s": "BB" * 32})
    proof = read(v3(token_v3(upper))).proofs[0]
    assert (proof.c, proof.keyset_id) == (POINT, ID)
    assert proof.dleq == Dleq(e="aa" * 32, s="bb" * 32)


def test_groups_of_one_mint_are_one_token() -> None:
    groups = [{"mint": "https://m", "proofs": [proof_v3(secret=name)]} for name in ("a", "b")]
    assert read(v3({"token": groups})).amount == 4
    groups[1]["mint"] = "https://n"
    with pytest.raises(InvalidToken, match="several mints"):
        read(v3({"token": groups}))


def test_the_names_keep_the_tokens_order() -> None:
    token = Token(mint_url="https://m", unit="sat", proofs=proofs(4))
    assert token.ys() == tuple(bdhke.y_of(f"s{number}") for number in range(4))
    assert token.ys() == read(encode_token_v4(token)).ys()


def test_a_token_shows_no_secret() -> None:
    token = Token(mint_url="https://m", unit="sat", proofs=proofs(1), memo="private")
    assert "s0" not in repr(token)
    assert POINT not in repr(token)
    assert "private" not in repr(token)


# ── limits ────────────────────────────────────────────────────────────────────────────────────


def test_size_is_judged_before_anything_is_read() -> None:
    text = v3(token_v3())
    assert decode_token(text, bytes_max=len(text)).amount == 2
    with pytest.raises(InvalidToken, match="too large"):
        decode_token(text, bytes_max=len(text) - 1)


def test_at_most_100_proofs() -> None:
    token = Token(mint_url="https://m", unit="sat", proofs=proofs(PROOFS_MAX))
    more = replace(token, proofs=proofs(PROOFS_MAX + 1))
    for encode in (encode_token_v3, encode_token_v4):
        assert read(encode(token)).amount == PROOFS_MAX
        with pytest.raises(InvalidToken, match="at most 100"):
            read(encode(more))


def test_secrets_up_to_512_characters() -> None:
    assert read(v3(token_v3(proof_v3(secret="x" * 512)))).amount == 2
    for secret in ("x" * 513, ""):
        with pytest.raises(InvalidToken, match="empty or too long"):
            read(v3(token_v3(proof_v3(secret=secret))))
        with pytest.raises(InvalidToken, match="empty or too long"):
            read(v4(token_v4(proof_v4(s=secret))))


def test_no_proof_twice() -> None:
    with pytest.raises(InvalidToken, match="twice"):
        read(v3(token_v3(proof_v3(), proof_v3(amount=4))))
    with pytest.raises(InvalidToken, match="twice"):
        read(v4(token_v4(proof_v4(), proof_v4(a=4))))


@pytest.mark.parametrize(
    "text",
    [
        v3({"token": []}),
        v3({"token": [{"mint": "https://m", "proofs": []}]}),
        v3(token_v3(proof_v3(amount=0))),
        v4(token_v4(t=[])),
        v4(token_v4(proof_v4(a=0))),
    ],
)
def test_no_value(text: str) -> None:
    with pytest.raises(TokenZeroValue):
        read(text)


@pytest.mark.parametrize("amount", [-1, 2**53 + 1, True, "2", None, 1.0, 10**40])
def test_amounts_are_integers_up_to_2_to_the_53(amount: object) -> None:
    with pytest.raises(InvalidToken):
        read(v3(token_v3(proof_v3(amount=amount))))
    with pytest.raises(InvalidToken):
        read(v4(token_v4(proof_v4(a=amount))))


def test_the_sum_of_amounts_has_the_same_limit() -> None:
    assert read(v3(token_v3(proof_v3(amount=2**53)))).amount == 2**53
    with pytest.raises(InvalidToken, match="out of range"):
        read(v3(token_v3(proof_v3(amount=2**53), proof_v3(amount=1, secret="t"))))
    with pytest.raises(InvalidToken, match="out of range"):
        read(v3(token_v3(proof_v3(), proof_v3(amount=0, secret="t"))))


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {},
        {"token": {}},
        {"token": [[]]},
        {"token": [{"mint": "https://m"}]},
        {"token": [{"proofs": [proof_v3()]}]},
        {"token": [{"mint": 1, "proofs": [proof_v3()]}]},
        {"token": [{"mint": "x" * 513, "proofs": [proof_v3()]}]},
        token_v3(unit=1),
        token_v3(unit=""),
        token_v3(memo=1),
        token_v3(memo="\ud800"),
        token_v3([]),  # type: ignore[arg-type]  # the wrong type is the test
        token_v3(proof_v3(secret=1)),
        token_v3(proof_v3(secret="\ud800")),
        token_v3(proof_v3(secret='["P2PK",{"data":"d"}]')),
        token_v3(proof_v3(C=1)),
        token_v3(proof_v3(C="02" + "ff" * 32)),
        token_v3(proof_v3(C=POINT[2:])),
        token_v3(proof_v3(id="02" + "ab" * 32)),
        token_v3(proof_v3(id="I2yN+iRYfkzT")),
        token_v3(proof_v3(id=ID + "00")),
        token_v3(proof_v3(dleq=[])),
        token_v3(proof_v3(dleq={"e": "11" * 32})),
        token_v3(proof_v3(dleq={"e": "11" * 31, "s": "22" * 32})),
        token_v3(proof_v3(dleq={"e": "11" * 32, "s": "22" * 32, "r": 1})),
    ],
)
def test_malformed_v3(fields: object) -> None:
    with pytest.raises(InvalidToken):
        read(v3(fields))


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {},
        token_v4(m=None),
        token_v4(m=b"https://m"),
        token_v4(u=""),
        token_v4(d=1),
        token_v4(t=None),
        token_v4(t=[1]),
        token_v4(t=[{"i": bytes.fromhex(ID)}]),
        token_v4(t=[{"i": ID, "p": [proof_v4()]}]),
        token_v4(t=[{"i": bytes(9), "p": [proof_v4()]}]),
        token_v4(t=[{"i": b"\x02" + bytes(32), "p": [proof_v4()]}]),
        token_v4(t=[{"i": bytes.fromhex(ID), "p": [1]}]),
        token_v4(proof_v4(s=b"s")),
        token_v4(proof_v4(c=POINT)),
        token_v4(proof_v4(c=b"\x02" + b"\xff" * 32)),
        token_v4(proof_v4(c=bytes(33))),
        token_v4(proof_v4(d=[])),
        token_v4(proof_v4(d={"e": bytes(32), "s": bytes(32)})),
        token_v4(proof_v4(d={"e": bytes(32), "s": bytes(32), "r": bytes(31)})),
        token_v4(proof_v4(x=1.5)),
    ],
)
def test_malformed_v4(fields: object) -> None:
    with pytest.raises(InvalidToken):
        read(v4(fields))


@pytest.mark.parametrize(
    "text",
    [
        raw_v3('{"token":[],"token":[]}'),
        raw_v3(json.dumps(token_v3())[:-1] + ',"x":NaN}'),
        raw_v3(json.dumps(token_v3())[:-1] + ',"x":1e3}'),
        raw_v3("\ufeff" + json.dumps(token_v3())),
        raw_v3(json.dumps(token_v3()) + "x"),
        raw_v3("[" * 60_000),
        raw_v3('{"a":' * 10_000),
        raw_v3("1" * 5000),
        "cashuA" + base64.urlsafe_b64encode(b'{"a":"\xff"}').decode(),
        "cashuB" + base64.urlsafe_b64encode(b"\x81" * 60_000).decode(),
    ],
)
def test_json_and_cbor_that_parsers_disagree_about(text: str) -> None:
    with pytest.raises(InvalidToken, match="valid"):
        read(text)


def test_base64url_is_strict() -> None:
    bare = v3(token_v3(memo="?" * 8)).rstrip("=")
    padding = "=" * (-len(bare[6:]) % 4)
    assert padding
    wanted = read(bare + padding)
    assert read(bare) == wanted
    for wrong in (
        bare + "===",
        bare + "=" * (3 - len(padding)),
        bare + "\n",
        " " + bare,
        bare[:20] + "*" + bare[20:],
        bare[:20] + "\n" + bare[20:],
        bare[:20] + "=" + bare[20:],
        bare[:20] + "é" + bare[20:],
        bare[:20] + "+" + bare[21:],
        bare.replace("cashuA", "cashuA+"),
        bare.replace("cashuA", "CASHUA"),
        "cashu:cashu:" + bare,
        "cashuA",
        "cashuB",
        "cashuA" + "A" * 5,
        "cashu:",
        "",
        "cashuC" + bare[6:],
    ):
        with pytest.raises(InvalidToken):
            read(wrong)


def test_messages_never_hold_the_token() -> None:
    hidden = "hidden-" * 5
    for text in (
        v3(token_v3(proof_v3(secret=f'["{hidden}'))),
        v3(token_v3(proof_v3(C=hidden))),
        raw_v3('{"' + hidden),
        v4(token_v4(proof_v4(a=hidden))),
        hidden,
    ):
        with pytest.raises(InvalidToken) as caught:
            read(text)
        assert hidden not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_locked_secret_passes() -> None:
    secret = p2pk.lock_secret(bdhke.public_key("11" * 32), nonce="n")
    assert read(v3(token_v3(proof_v3(secret=secret)))).proofs[0].secret == secret
