"""Whatever arrives, nothing but InvalidToken or TokenZeroValue escapes."""

import base64
import json

import cbor2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from routstr.ecash import bdhke
from routstr.ecash.proof import Dleq, Proof
from routstr.ecash.token import (
    BODY_BYTES_MAX,
    Token,
    decode_token,
    encode_token_v3,
    encode_token_v4,
    resolve_ids,
)
from routstr.errors import InvalidToken, TokenZeroValue

POINT = bdhke.hash_to_curve(b"")
NAMES = ["token", "mint", "proofs", "unit", "memo", "amount", "id", "secret", "C", "dleq"]
NAMES += ["t", "m", "u", "d", "i", "p", "a", "s", "c", "e", "r", "w", "x"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**64 - 1)
    | st.text(max_size=8)
    | st.sampled_from(["sat", "https://m", POINT, "009a1f293253e41e", "11" * 32, "[", "\ud800"])
)
BINARY_LEAVES = (
    LEAVES.filter(lambda leaf: leaf != "\ud800")
    | st.floats()
    | st.binary(max_size=34)
    | st.sampled_from([bytes.fromhex(POINT), bytes(8), bytes(32), cbor2.undefined])
)


def tree(leaves: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
        ),
        max_leaves=20,
    )


def judge(text: str) -> None:
    try:
        token = decode_token(text, bytes_max=BODY_BYTES_MAX)
    except (InvalidToken, TokenZeroValue):
        return
    assert 0 < token.amount <= 2**53
    assert len(set(token.ys())) == len(token.proofs) <= 100
    try:
        resolve_ids(token, [])
    except InvalidToken:
        return


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(st.sampled_from(["", "cashu:", "cashuA", "cashuB", "cashu:cashuB"]), st.text(max_size=60))
def test_any_text(prefix: str, text: str) -> None:
    judge(prefix + text)


@FUZZ
@given(st.sampled_from(["cashuA", "cashuB"]), st.binary(max_size=200))
@example("cashuB", b"\xa1\x61t\x81\xa1\x61p\x80")
def test_any_bytes(prefix: str, data: bytes) -> None:
    judge(prefix + base64.urlsafe_b64encode(data).decode())


@FUZZ
@given(tree(LEAVES))
def test_any_json(value: object) -> None:
    judge("cashuA" + base64.urlsafe_b64encode(json.dumps(value).encode()).decode())


@FUZZ
@given(tree(BINARY_LEAVES))
def test_any_cbor(value: object) -> None:
    try:
        data = cbor2.dumps(value)
    except cbor2.CBOREncodeError:  # a lone surrogate of Hypothesis's own
        return
    judge("cashuB" + base64.urlsafe_b64encode(data).decode())


def valid() -> list[bytes]:
    proof = Proof(
        amount=2,
        keyset_id="009a1f293253e41e",
        secret="secret",
        c=POINT,
        dleq=Dleq(e="11" * 32, s="22" * 32, r="33" * 32),
    )
    token = Token(mint_url="https://m", unit="sat", proofs=(proof,), memo="memo")
    texts = (encode_token_v3(token, include_dleq=True), encode_token_v4(token, include_dleq=True))
    return [base64.urlsafe_b64decode(text[6:] + "=" * (-len(text[6:]) % 4)) for text in texts]


@FUZZ
@given(st.integers(0, 1), st.integers(0, 500), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_token(version: int, at: int, inserted: bytes, removed: int) -> None:
    data = valid()[version]
    at %= len(data)
    damaged = data[:at] + inserted + data[at + removed :]
    judge("cashuAB"[:5] + "AB"[version] + base64.urlsafe_b64encode(damaged).decode())


def test_every_single_bit_flip_of_a_v4_token() -> None:
    data = valid()[1]
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            judge("cashuB" + base64.urlsafe_b64encode(damaged).decode())
