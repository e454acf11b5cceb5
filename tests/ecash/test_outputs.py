from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routstr.ecash import bdhke
from routstr.ecash.errors import BadSignature, InvalidCounter, UnsupportedKeyset
from routstr.ecash.outputs import (
    BLANK,
    SIGNATURES_MAX,
    Output,
    blinded_messages_json,
    make_outputs,
    proofs_json,
    signatures_from_json,
    unblind_all,
    unblind_change,
)
from routstr.ecash.proof import BlindSignature, Dleq
from routstr.ecash.secret import derive
from tests.ecash.conftest import SigningKeyset

SEED = bytes(range(64))
AMOUNTS = (1, 2, 8, 8)


def exchange(signer: SigningKeyset) -> tuple[tuple[Output, ...], tuple[BlindSignature, ...]]:
    outputs = make_outputs(SEED, signer.keyset.id, 7, AMOUNTS)
    return outputs, tuple(signer.sign(each.amount, each.b_) for each in outputs)


def test_outputs_follow_from_seed_and_counters(signer: SigningKeyset) -> None:
    outputs, _ = exchange(signer)
    assert outputs == exchange(signer)[0]
    assert [each.counter for each in outputs] == [7, 8, 9, 10]
    assert [each.amount for each in outputs] == list(AMOUNTS)
    for each in outputs:
        assert (each.secret, each.r) == derive(SEED, signer.keyset.id, each.counter)
        assert each.b_ == bdhke.blind(each.secret, each.r)
        assert each.secret not in repr(each)
        assert each.r not in repr(each)


def test_outputs_need_a_known_keyset_version_and_a_counter() -> None:
    with pytest.raises(UnsupportedKeyset):
        make_outputs(SEED, "02" + "ab" * 32, 0, [1])
    with pytest.raises(InvalidCounter):
        make_outputs(SEED, "00" + "ab" * 7, 2**31 - 1, [1, 1])


def test_a_complete_answer_becomes_proofs(signer: SigningKeyset) -> None:
    outputs, signatures = exchange(signer)
    proofs = unblind_all(outputs, signatures, signer.keyset, require_dleq=True)
    assert [proof.amount for proof in proofs] == list(AMOUNTS)
    for proof in proofs:
        assert bdhke.verify(proof.secret, proof.c, signer.private_keys[proof.amount])
        assert bdhke.dleq_ok_for_proof(proof, signer.keyset.keys[proof.amount])


def test_absent_dleqs_pass_only_where_they_may(signer: SigningKeyset) -> None:
    outputs, signatures = exchange(signer)
    bare = [replace(each, dleq=None) for each in signatures]
    proofs = unblind_all(outputs, bare, signer.keyset, require_dleq=False)
    assert all(proof.dleq is None for proof in proofs)
    for position in range(len(AMOUNTS)):
        partly = [*signatures[:position], bare[position], *signatures[position + 1 :]]
        with pytest.raises(BadSignature, match="no DLEQ"):
            unblind_all(outputs, partly, signer.keyset, require_dleq=True)


@pytest.mark.parametrize("require_dleq", [True, False])
def test_any_mismatch_gives_nothing(signer: SigningKeyset, *, require_dleq: bool) -> None:
    outputs, good = exchange(signer)
    last = good[-1]
    assert last.dleq is not None
    other_key = signer.sign(4, outputs[-1].b_)  # a cheaper key under the right amount
    wrong: list[tuple[BlindSignature, ...]] = [
        (),
        good[:-1],
        (*good, last),
        (good[1], good[0], *good[2:]),
        (*good[:2], good[3], good[2]),  # equal amounts in the wrong order
        (*good[:-1], replace(last, amount=4)),
        (*good[:-1], replace(last, keyset_id="00" + "ab" * 7)),
        (*good[:-1], replace(other_key, amount=8)),
        (*good[:-1], replace(last, c_=outputs[0].b_)),
        (*good[:-1], replace(last, c_="02" + "ff" * 32)),
        (*good[:-1], replace(last, dleq=good[0].dleq)),
        (*good[:-1], replace(last, dleq=Dleq(e=last.dleq.e, s=last.dleq.e))),
    ]
    for signatures in wrong:
        with pytest.raises(BadSignature):
            unblind_all(outputs, signatures, signer.keyset, require_dleq=require_dleq)


def test_a_keyset_must_be_the_outputs_own(signer: SigningKeyset) -> None:
    outputs, signatures = exchange(signer)
    for other in (
        replace(signer.keyset, id="00" + "ab" * 7),
        replace(signer.keyset, keys={1: signer.keyset.keys[1]}),
        replace(signer.keyset, keys=dict.fromkeys(signer.keyset.keys, "nonsense")),
    ):
        for bare in (False, True):
            given_ = [replace(each, dleq=None) if bare else each for each in signatures]
            with pytest.raises(BadSignature):
                unblind_all(outputs, given_, other, require_dleq=False)


def test_change_names_its_own_amounts(signer: SigningKeyset) -> None:
    blanks = make_outputs(SEED, signer.keyset.id, 0, [BLANK] * 4)
    signatures = [signer.sign(amount, blank.b_) for amount, blank in zip((4, 1), blanks)]  # noqa: B905 - fewer signatures than blanks is the point
    proofs = unblind_change(blanks, signatures, signer.keyset, require_dleq=True)
    assert [proof.amount for proof in proofs] == [4, 1]
    assert unblind_change(blanks, [], signer.keyset, require_dleq=True) == ()
    with pytest.raises(BadSignature):
        unblind_change(blanks[:1], signatures, signer.keyset, require_dleq=True)
    with pytest.raises(BadSignature):
        unblind_change(blanks[1:], signatures, signer.keyset, require_dleq=True)
    with pytest.raises(BadSignature):
        unblind_all(blanks[:2], signatures, signer.keyset, require_dleq=True)


# ── the wire ──────────────────────────────────────────────────────────────────────────────────


def test_a_mint_sees_no_r_and_no_dleq(signer: SigningKeyset) -> None:
    outputs, signatures = exchange(signer)
    messages = blinded_messages_json(outputs)
    assert outputs[0].message().b_ == messages[0]["B_"]
    assert messages[0] == {"amount": 1, "id": signer.keyset.id, "B_": outputs[0].b_}
    proofs = unblind_all(outputs, signatures, signer.keyset, require_dleq=True)
    inputs = proofs_json([proofs[0], replace(proofs[1], witness="{}")])
    assert [set(each) for each in inputs] == [
        {"amount", "id", "secret", "C"},
        {"amount", "id", "secret", "C", "witness"},
    ]
    shown = repr(messages) + repr(inputs)
    for output, proof in zip(outputs, proofs, strict=True):
        assert proof.dleq is not None
        assert output.r not in shown
        assert proof.dleq.e not in shown
        assert proof.dleq.s not in shown


def test_signatures_are_read(signer: SigningKeyset) -> None:
    _, signatures = exchange(signer)
    wire = []
    for each in signatures:
        assert each.dleq is not None
        dleq = {"e": each.dleq.e, "s": each.dleq.s}
        entry = {"amount": each.amount, "id": each.keyset_id, "C_": each.c_, "dleq": dleq}
        wire.append(entry | {"unknown": [1]})
    assert signatures_from_json(wire) == signatures
    without = [{name: each[name] for name in ("amount", "id", "C_")} for each in wire]
    assert [each.dleq for each in signatures_from_json(without)] == [None] * 4
    assert signatures_from_json([]) == ()


POINT = bdhke.hash_to_curve(b"")
GOOD: dict[str, object] = {"amount": 1, "id": "00" + "ab" * 7, "C_": POINT}


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        "x",
        [1],
        [[]],
        [{}],
        [GOOD] * (SIGNATURES_MAX + 1),
        [GOOD | {"amount": 0}],
        [GOOD | {"amount": -1}],
        [GOOD | {"amount": True}],
        [GOOD | {"amount": 1.0}],
        [GOOD | {"amount": 2**53 + 1}],
        [GOOD | {"id": 1}],
        [GOOD | {"id": ""}],
        [GOOD | {"id": "01" + "ab" * 7}],
        [GOOD | {"id": "02" + "ab" * 32}],
        [GOOD | {"C_": None}],
        [GOOD | {"C_": "02" + "ff" * 32}],
        [GOOD | {"dleq": []}],
        [GOOD | {"dleq": {}}],
        [GOOD | {"dleq": {"e": "11" * 32}}],
        [GOOD | {"dleq": {"e": 1, "s": "11" * 32}}],
        [GOOD | {"dleq": {"e": "11" * 31, "s": "11" * 32}}],
        [GOOD, GOOD | {"C_": 1}],
    ],
)
def test_hostile_signatures(value: object) -> None:
    with pytest.raises(BadSignature):
        signatures_from_json(value)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = LEAVES | st.just(POINT) | st.just("00" + "ab" * 7)
ENTRIES = st.dictionaries(
    st.sampled_from(["amount", "id", "C_", "dleq"]), VALUES | st.dictionaries(st.just("e"), VALUES)
)


@settings(max_examples=150, deadline=None)
@given(VALUES | st.lists(VALUES | ENTRIES, max_size=3))
def test_only_a_typed_error_escapes(value: object) -> None:
    try:
        signatures_from_json(value)
    except BadSignature:
        return
