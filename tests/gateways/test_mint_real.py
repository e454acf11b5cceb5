"""The mint mint_client against nutshell: what a real mint answers is what we read."""

from collections.abc import AsyncIterator

import orjson
import pytest

from demo.mint import RealMint
from routstr.ecash.bdhke import y_of
from routstr.ecash.outputs import (
    Output,
    blinded_messages_json,
    make_outputs,
    proofs_json,
    unblind_all,
)
from routstr.ecash.proof import Keyset, Proof
from routstr.ecash.token import decode_token, resolve_ids
from routstr.gateways.mint import MintClient, Priority, ProofState
from routstr.gateways.mint_failure import MintRefused, Refusal
from routstr.gateways.mint_limits import LaneLimits
from tests.fakes.clock import FakeClock
from tests.harness.mint import OpenWallet, StartMint

SEED = b"\x09" * 64
FREE = LaneLimits(rate_per_minute=10**9, burst=10**6, failures_max=100)


@pytest.fixture
async def mint_client(real_mint: RealMint) -> AsyncIterator[MintClient]:
    async with MintClient(
        mint_urls=[real_mint.url], clock=FakeClock(), limits=FREE, allow_loopback_http=True
    ) as opened:
        yield opened


@pytest.fixture
async def keyset(real_mint: RealMint, mint_client: MintClient) -> Keyset:
    return next(each for each in await mint_client.load_keysets(real_mint.url) if each.active)


@pytest.fixture
async def proofs(real_mint: RealMint, open_wallet: OpenWallet, keyset: Keyset) -> tuple[Proof, ...]:
    """21 sat of a customer's."""
    wallet = await open_wallet(real_mint)
    await wallet.mint(21)
    token = decode_token(await wallet.send(21), bytes_max=10_000)
    return resolve_ids(token, [keyset]).proofs


def outputs_for(keyset: Keyset, proofs: tuple[Proof, ...]) -> tuple[Output, ...]:
    """Outputs that no other test of this mint has asked for."""
    first = int(y_of(proofs[0].secret)[2:10], 16)
    return make_outputs(SEED, keyset.id, first, [1, 4, 16])


def swap_body(proofs: tuple[Proof, ...], outputs: tuple[Output, ...]) -> bytes:
    return orjson.dumps({"inputs": proofs_json(proofs), "outputs": blinded_messages_json(outputs)})


async def test_its_info_and_keysets(real_mint: RealMint, mint_client: MintClient) -> None:
    assert (await mint_client.get_info(real_mint.url)).nuts >= {4, 5, 7, 8, 9, 10, 11, 12, 20}
    [keyset] = await mint_client.load_keysets(real_mint.url)
    assert (keyset.unit, keyset.active, len(keyset.keys)) == ("sat", True, 64)


async def test_a_swap_a_replay_and_a_restore(
    real_mint: RealMint, mint_client: MintClient, keyset: Keyset, proofs: tuple[Proof, ...]
) -> None:
    url, outputs = real_mint.url, outputs_for(keyset, proofs)
    ys, messages = [y_of(p.secret) for p in proofs], [o.message() for o in outputs]
    assert set((await mint_client.check_state(url, ys)).values()) == {ProofState.UNSPENT}
    assert await mint_client.restore(url, messages) == {}

    signatures = await mint_client.swap(url, swap_body(proofs, outputs), priority=Priority.RECEIVE)
    unblinded = unblind_all(outputs, signatures, keyset, require_dleq=True)
    assert sum(p.amount for p in unblinded) == 21

    assert set((await mint_client.check_state(url, ys)).values()) == {ProofState.SPENT}
    restored = await mint_client.restore(url, messages)
    again = unblind_all(outputs, [restored[o.b_] for o in outputs], keyset, require_dleq=True)
    assert [p.c for p in again] == [p.c for p in unblinded]
    with pytest.raises(MintRefused) as caught:
        await mint_client.swap(url, swap_body(proofs, outputs), priority=Priority.RECEIVE)
    assert caught.value.refusal in (Refusal.SPENT, Refusal.OUTPUTS_SIGNED)


async def test_its_refusals_are_in_the_table(
    real_mint: RealMint, mint_client: MintClient, keyset: Keyset, proofs: tuple[Proof, ...]
) -> None:
    async def refusal_of(body: bytes) -> Refusal:
        with pytest.raises(MintRefused) as caught:
            await mint_client.swap(real_mint.url, body, priority=Priority.RECEIVE)
        return caught.value.refusal

    outputs = outputs_for(keyset, proofs)
    unbalanced = swap_body(proofs, outputs[:1])
    assert await refusal_of(unbalanced) is Refusal.SAFE_REFRESH
    forged = swap_body(proofs, outputs).replace(proofs[0].c.encode(), outputs[0].b_.encode())
    assert await refusal_of(forged) is Refusal.SAFE
    assert await refusal_of(b'{"inputs": []}') is Refusal.SAFE_OUR_BUG
    assert await refusal_of(b"{") is Refusal.SAFE_OUR_BUG
    with pytest.raises(MintRefused) as caught:
        await mint_client.get_keys(real_mint.url, "00" + "ab" * 7)
    assert caught.value.refusal is Refusal.SAFE_REFRESH


async def test_both_units_and_the_fee_are_read(start_mint: StartMint) -> None:
    mint = start_mint(fee_ppk=100, units=("sat", "msat"))
    async with MintClient(
        mint_urls=[mint.url], clock=FakeClock(), limits=FREE, allow_loopback_http=True
    ) as mint_client:
        keysets = await mint_client.load_keysets(mint.url)
    assert sorted((each.unit, each.input_fee_ppk) for each in keysets) == [
        ("msat", 100),
        ("sat", 100),
    ]
