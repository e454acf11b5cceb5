"""A token against its mint's keysets: short ids, unit, amounts."""

from dataclasses import replace

import pytest

from routstr.ecash import bdhke
from routstr.ecash.proof import Keyset, Proof
from routstr.ecash.token import (
    BODY_BYTES_MAX,
    Token,
    UnknownKeyset,
    decode_token,
    encode_token_v4,
    resolve_ids,
)
from routstr.errors import InvalidToken

POINT = bdhke.hash_to_curve(b"")
ID = "009a1f293253e41e"
LONG_ID = "01" + "ab" * 32


def proofs(count: int, keyset_id: str = ID) -> tuple[Proof, ...]:
    return tuple(
        Proof(amount=1, keyset_id=keyset_id, secret=f"s{number}", c=POINT)
        for number in range(count)
    )


def keyset(name: str, *, unit: str = "sat") -> Keyset:
    return Keyset(
        id=name,
        unit=unit,
        active=False,
        input_fee_ppk=0,
        final_expiry=None,
        keys={1: POINT, 2: POINT},
    )


def test_short_ids_become_full_ones() -> None:
    token = Token(mint_url="https://m", unit="sat", proofs=proofs(2, LONG_ID) + proofs(3)[2:])
    short = decode_token(encode_token_v4(token, short_ids=True), bytes_max=BODY_BYTES_MAX)
    assert [proof.keyset_id for proof in short.proofs] == [LONG_ID[:16], LONG_ID[:16], ID]
    assert resolve_ids(short, [keyset(ID), keyset(LONG_ID)]) == token
    assert resolve_ids(token, [keyset(ID), keyset(LONG_ID)]) == token


def test_keysets_that_are_not_known_are_a_class_of_their_own() -> None:
    token = Token(mint_url="https://m", unit="sat", proofs=proofs(1, LONG_ID[:16]))
    with pytest.raises(UnknownKeyset):
        resolve_ids(token, [keyset(ID)])
    with pytest.raises(UnknownKeyset):
        resolve_ids(replace(token, proofs=proofs(1)), [])
    with pytest.raises(InvalidToken, match="several"):
        resolve_ids(token, [keyset(LONG_ID), keyset(LONG_ID[:16] + "cd" * 25)])


def test_unit_and_amounts_are_the_keysets() -> None:
    token = Token(mint_url="https://m", unit="sat", proofs=proofs(1))
    assert resolve_ids(token, [keyset(ID)]) == token
    with pytest.raises(InvalidToken, match="unit"):
        resolve_ids(token, [keyset(ID, unit="msat")])
    four = replace(token, proofs=(replace(token.proofs[0], amount=4),))
    with pytest.raises(InvalidToken, match="amount"):
        resolve_ids(four, [keyset(ID)])
