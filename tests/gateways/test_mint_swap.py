"""Swap, restore and checkstate at a model mint that signs, refuses and lies."""

from collections.abc import Callable

import pytest

from routstr.ecash.bdhke import public_key
from routstr.ecash.errors import BadSignature
from routstr.ecash.outputs import make_outputs
from routstr.ecash.p2pk import sign_secret
from routstr.ecash.proof import BlindedMessage, Proof
from routstr.ecash.token import decode_token
from routstr.gateways.mint import MintClient, Priority, ProofState
from routstr.gateways.mint_failure import (
    MintRefused,
    MintUnknown,
    Refusal,
)
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.mint_ledger import JsonObject
from tests.gateways.swapping import SEED, Swap

# ── swap, restore, checkstate ─────────────────────────────────────────────────────────────────


async def test_a_swap_sends_the_exact_bytes_and_yields_proofs(
    mint: FakeMint, mint_client: MintClient, swap: Swap
) -> None:
    assert swap.unblind(await swap.send(mint_client)) == 21
    assert mint.calls[-1].body == swap.body
    assert mint.unspent_total() == 21
    ys = swap.ys
    assert set((await mint_client.check_state(mint.url, ys)).values()) == {ProofState.SPENT}


async def test_states_come_back_by_y(mint: FakeMint, mint_client: MintClient, swap: Swap) -> None:
    first, second, third = swap.ys
    mint.set_pending([second])
    mint.set_spent([third])
    assert await mint_client.check_state(mint.url, [third, first, second]) == {
        first: ProofState.UNSPENT,
        second: ProofState.PENDING,
        third: ProofState.SPENT,
    }


@pytest.mark.parametrize("half", [False, True])
async def test_a_lost_answer_is_unknown_and_restore_finds_it(
    mint: FakeMint, mint_client: MintClient, swap: Swap, half: bool
) -> None:
    before = len(mint.calls)
    mint.trouble(Trouble(path="/v1/swap", cut=not half, half=half))
    with pytest.raises(MintUnknown) as caught:
        await swap.send(mint_client)
    assert caught.value.was_sent
    assert len(mint.calls) == before + 1  # never resent
    messages = [output.message() for output in swap.outputs]
    restored = await mint_client.restore(mint.url, [*messages, stranger(swap)])
    assert set(restored) == {output.b_ for output in swap.outputs}
    assert swap.unblind(tuple(restored[output.b_] for output in swap.outputs)) == 21


async def test_a_lost_request_leaves_nothing_to_restore(
    mint: FakeMint, mint_client: MintClient, swap: Swap
) -> None:
    mint.lose_next_request("/v1/swap")
    with pytest.raises(MintUnknown):
        await swap.send(mint_client)
    assert await mint_client.restore(mint.url, [o.message() for o in swap.outputs]) == {}
    assert swap.unblind(await swap.send(mint_client)) == 21


async def test_restore_believes_amounts_of_signatures_only(
    mint: FakeMint, mint_client: MintClient, swap: Swap
) -> None:
    await swap.send(mint_client)
    blanks = make_outputs(SEED, swap.keyset.id, 0, [0, 0, 0])  # same secrets, amount unknown
    restored = await mint_client.restore(mint.url, [each.message() for each in blanks])
    assert [restored[each.b_].amount for each in blanks] == [1, 4, 16]


def stranger(swap: Swap) -> BlindedMessage:
    return make_outputs(SEED, swap.keyset.id, 900, [1])[0].message()


async def test_refusals_are_definite(mint: FakeMint, mint_client: MintClient, swap: Swap) -> None:
    await swap.send(mint_client)
    with pytest.raises(MintRefused) as caught:
        await swap.send(mint_client)
    assert (caught.value.code, caught.value.refusal) == (11001, Refusal.SPENT)
    other = Swap(mint, swap.keyset)
    with pytest.raises(MintRefused) as caught:
        await other.send(mint_client)
    assert (caught.value.code, caught.value.refusal) == (11003, Refusal.OUTPUTS_SIGNED)
    other.outputs = make_outputs(SEED, swap.keyset.id, 10, [1, 4])
    with pytest.raises(MintRefused) as caught:
        await other.send(mint_client)
    assert (caught.value.code, caught.value.refusal) == (11005, Refusal.SAFE_REFRESH)
    mint.set_pending(other.ys)
    with pytest.raises(MintRefused) as caught:
        await other.send(mint_client)
    assert (caught.value.code, caught.value.refusal) == (11002, Refusal.PENDING)
    with pytest.raises(MintRefused) as caught:
        await mint_client.swap(mint.url, b'{"inputs": 1}', priority=Priority.RECEIVE)
    assert (caught.value.code, caught.value.detail_kind) == (422, "list")
    assert caught.value.refusal.is_safe


async def test_a_locked_token_needs_its_key(
    mint: FakeMint, mint_client: MintClient, swap: Swap
) -> None:
    key = "22" * 32
    token = decode_token(mint.issue(21, lock_to=public_key(key)), bytes_max=20_000)
    swap.proofs = tuple(
        Proof(amount=p.amount, keyset_id=swap.keyset.id, secret=p.secret, c=p.c)
        for p in token.proofs
    )
    with pytest.raises(MintRefused) as caught:
        await swap.send(mint_client)
    assert caught.value.code == 11000
    swap.proofs = tuple(
        Proof(
            amount=p.amount,
            keyset_id=p.keyset_id,
            secret=p.secret,
            c=p.c,
            witness=sign_secret(p.secret, key),
        )
        for p in swap.proofs
    )
    assert swap.unblind(await swap.send(mint_client)) == 21


def drop_signature(answer: JsonObject) -> JsonObject:
    signatures = answer["signatures"]
    assert isinstance(signatures, list)
    return {"signatures": signatures[:-1]}


def drop_dleq(answer: JsonObject) -> JsonObject:
    signatures = answer["signatures"]
    assert isinstance(signatures, list)
    del signatures[0]["dleq"]
    return answer


def swap_dleqs(answer: JsonObject) -> JsonObject:
    signatures = answer["signatures"]
    assert isinstance(signatures, list)
    first, second = signatures[:2]
    first["dleq"], second["dleq"] = second["dleq"], first["dleq"]
    return answer


@pytest.mark.parametrize("lie", [drop_signature, drop_dleq, swap_dleqs])
async def test_well_formed_lies_are_left_to_the_protocol(
    mint: FakeMint, mint_client: MintClient, swap: Swap, lie: Callable[[JsonObject], object]
) -> None:
    mint.trouble(Trouble(path="/v1/swap", tamper=lie))
    signatures = await swap.send(mint_client)
    with pytest.raises(BadSignature):
        swap.unblind(signatures)
