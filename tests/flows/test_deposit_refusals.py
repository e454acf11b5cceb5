"""Tokens that are refused: most of them before the mint hears a word."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from routstr.ecash.bdhke import public_key
from routstr.ecash.keyset import UnknownKeyset
from routstr.ecash.proof import Proof
from routstr.ecash.token import (
    BODY_BYTES_MAX,
    Token,
    decode_token,
    encode_token_v3,
    encode_token_v4,
)
from routstr.errors import (
    InvalidApiKey,
    InvalidToken,
    MintRateLimited,
    RoutstrError,
    TokenAlreadySpent,
    TokenRedemptionFailed,
    TokenZeroValue,
    UntrustedMint,
)
from routstr.flows.deposit import redeem_bearer
from tests.fakes.mint import FakeMint
from tests.harness.till import Till, open_till, ys_of


@pytest.fixture
async def till(sqlite_url: str, mint: FakeMint) -> AsyncIterator[Till]:
    async with open_till(sqlite_url, mint) as till:
        yield till


def changed(token: str, **changes: object) -> str:
    decoded = decode_token(token, bytes_max=BODY_BYTES_MAX)
    return encode_token_v4(replace(decoded, **changes), include_dleq=True)  # type: ignore[arg-type]  # the test's own


def proofs_of(token: str) -> Sequence[Proof]:
    return decode_token(token, bytes_max=BODY_BYTES_MAX).proofs


async def test_an_unlisted_mint_is_never_called(till: Till) -> None:
    async with FakeMint() as other:
        with pytest.raises(UntrustedMint) as caught:
            await till.create(other.issue(21))
        with pytest.raises(UntrustedMint):
            await redeem_bearer(till.ctx, other.issue(21))
        assert other.calls == []
        assert caught.value.details == {"mints": [till.mint.url]}


@pytest.mark.parametrize(
    "url",
    [
        "{mint}/other",
        "{mint}?a=b",
        "http://user@127.0.0.1:{port}",
        "http://127.0.0.1:{port}#x",
        "http://localhost:{port}",
        "http://127.0.0.1:1",
        "ftp://127.0.0.1",
        "x",
    ],
)
async def test_a_url_that_is_not_exactly_the_listed_one(till: Till, url: str) -> None:
    shown = url.format(mint=till.mint.url, port=till.mint.url.rpartition(":")[2])
    with pytest.raises(UntrustedMint):
        await till.create(changed(till.mint.issue(1), mint_url=shown))
    assert till.mint.calls == []


async def test_other_spellings_of_the_listed_url_are_it(till: Till) -> None:
    key = await till.create(changed(till.mint.issue(1), mint_url=till.mint.url + "/"))
    assert await till.balance(key) == 1_000


@pytest.mark.parametrize("unit", ["usd", "SAT", "auth"])
async def test_a_unit_that_is_no_bitcoin_is_refused_unasked(till: Till, unit: str) -> None:
    with pytest.raises(InvalidToken):
        await till.create(changed(till.mint.issue(1), unit=unit))
    assert till.mint.calls == []


async def test_a_unit_that_is_not_the_keysets(till: Till) -> None:
    with pytest.raises(InvalidToken):
        await till.create(changed(till.mint.issue(1), unit="msat"))
    assert await till.operations() == []


@pytest.mark.parametrize(
    "text",
    ["", "cashuB", "cashuA", "cashuC" + "o" * 20, "cashuB" + "/" * 8, "sk-" + "0" * 64, "\ud800"],
)
async def test_what_is_no_token_is_refused_unasked(till: Till, text: str) -> None:
    with pytest.raises(RoutstrError) as caught:
        await till.create(text)
    assert isinstance(caught.value, InvalidToken | TokenZeroValue)
    assert till.mint.calls == []


async def test_the_same_proof_twice_in_a_token(till: Till) -> None:
    proofs = proofs_of(till.mint.issue(1))
    with pytest.raises(InvalidToken):
        await till.create(changed(till.mint.issue(1), proofs=(*proofs, *proofs)))
    assert till.mint.calls == []


async def test_too_many_proofs_or_bytes(till: Till) -> None:
    many = tuple(proof for _ in range(101) for proof in proofs_of(till.mint.issue(1)))
    with pytest.raises(InvalidToken):
        await till.create(changed(till.mint.issue(1), proofs=many))
    with pytest.raises(InvalidToken):
        await till.create("cashuB" + "A" * till.ctx.limits.token_body_bytes_max)
    with pytest.raises(InvalidToken):
        await redeem_bearer(till.ctx, "cashuB" + "A" * till.ctx.limits.token_header_bytes_max)
    assert till.mint.calls == []


async def test_an_amount_the_keyset_does_not_have(till: Till) -> None:
    proof = replace(proofs_of(till.mint.issue(1))[0], amount=3, dleq=None)
    with pytest.raises(InvalidToken):
        await till.create(changed(till.mint.issue(1), proofs=(proof,)))
    assert await till.operations() == []


def forged(proof: Proof) -> Proof:
    assert proof.dleq is not None
    return replace(proof, dleq=replace(proof.dleq, s="22" * 32))


def dearer(proof: Proof) -> Proof:
    return replace(proof, amount=2)


def foreign(proof: Proof) -> Proof:
    """A signature on another secret, with that one's DLEQ."""
    return replace(proof, secret="aa" * 32)


def unreduced(proof: Proof) -> Proof:
    assert proof.dleq is not None
    return replace(proof, dleq=replace(proof.dleq, r="ff" * 32))


@pytest.mark.parametrize("forge", [forged, dearer, foreign, unreduced])
async def test_a_forged_dleq_is_refused(till: Till, forge: Callable[[Proof], Proof]) -> None:
    proof = forge(proofs_of(till.mint.issue(1))[0])
    with pytest.raises(InvalidToken):
        await till.create(changed(till.mint.issue(1), proofs=(proof,)))
    assert [call.path for call in till.mint.calls if call.method == "POST"] == []


async def test_many_forged_dleqs_are_found_in_a_thread(till: Till) -> None:
    fine = [proof for _ in range(30) for proof in proofs_of(till.mint.issue(1))]
    with pytest.raises(InvalidToken):
        await till.create(changed(till.mint.issue(1), proofs=(*fine, forged(fine.pop()))))
    key = await till.create(changed(till.mint.issue(1), proofs=tuple(fine)))
    assert await till.balance(key) == 29_000


async def test_without_dleq_the_mint_judges(till: Till) -> None:
    key = await till.create(till.mint.issue(21, include_dleq=False))
    assert await till.balance(key) == 21_000
    false = replace(proofs_of(till.mint.issue(1))[0], secret="aa" * 32, dleq=None)
    with pytest.raises(TokenRedemptionFailed):
        await till.create(changed(till.mint.issue(1), proofs=(false,)))
    assert await till.value("SELECT count(*) FROM deposit WHERE state = 'failed'") == 1


async def test_locked_ecash_is_refused_unasked(till: Till) -> None:
    locked = till.mint.issue(1, lock_to=public_key("11" * 32))
    with pytest.raises(InvalidToken):
        await till.create(locked)
    assert till.mint.calls == []


async def test_a_token_reencoded_is_the_same_token(till: Till) -> None:
    token = till.mint.issue(21)
    await till.create(token)
    decoded = decode_token(token, bytes_max=BODY_BYTES_MAX)
    backwards = replace(decoded, proofs=tuple(reversed(decoded.proofs)), memo="again")
    for text in (encode_token_v3(decoded), encode_token_v4(backwards), "cashu:" + token):
        with pytest.raises(TokenAlreadySpent):
            await till.create(text)
    assert await till.value("SELECT count(*) FROM deposit") == 1


async def test_some_known_proofs_spoil_a_token(till: Till) -> None:
    known, fresh = proofs_of(till.mint.issue(3)), proofs_of(till.mint.issue(8))
    key = await till.create(_token(till, known))
    for proofs in ((*known, *fresh), known[:1], (*known[:1], *fresh)):
        with pytest.raises(TokenAlreadySpent):
            await till.create(_token(till, proofs))
        with pytest.raises(TokenAlreadySpent):
            await till.topup(key, _token(till, proofs))
        with pytest.raises(TokenAlreadySpent):
            await redeem_bearer(till.ctx, _token(till, proofs))
    assert await till.balance(key) == 3_000
    assert await till.balance(await till.create(_token(till, fresh))) == 8_000


async def test_proofs_of_two_tokens_are_not_one_token(till: Till) -> None:
    first, second = till.mint.issue(1), till.mint.issue(2)
    key = await till.create(first)
    await till.topup(key, second)
    both = _token(till, (*proofs_of(first), *proofs_of(second)))
    with pytest.raises(TokenAlreadySpent):
        await till.topup(key, both)
    with pytest.raises(TokenAlreadySpent):
        await redeem_bearer(till.ctx, both)


async def test_a_topup_of_nobodys_key_leaves_the_token_alone(till: Till) -> None:
    key = await till.create(till.mint.issue(1))
    token = till.mint.issue(21)
    with pytest.raises(InvalidApiKey):
        await till.topup(replace(key, key_id="key_unknown"), token)
    assert set(till.mint.state_of(ys_of(token)).values()) == {"UNSPENT"}


async def test_unknown_keysets_do_not_make_the_node_hammer_the_mint(till: Till) -> None:
    await till.create(till.mint.issue(1))
    proof = replace(proofs_of(till.mint.issue(1))[0], keyset_id="01" + "ab" * 32, dleq=None)
    calls, bad = len(till.mint.calls), _token(till, (proof,))
    await till.later(10)
    with pytest.raises(InvalidToken):
        await till.create(bad)
    for _ in range(20):  # not invalid for sure: the mint may have made it this very moment
        with pytest.raises(MintRateLimited):
            await till.create(bad)
    assert len(till.mint.calls) - calls == 3
    await till.later(10)
    refusals = await asyncio.gather(*(till.create(bad) for _ in range(20)), return_exceptions=True)
    assert {UnknownKeyset} <= {type(each) for each in refusals} <= {UnknownKeyset, MintRateLimited}
    assert len(till.mint.calls) - calls == 6


async def test_a_keyset_made_meanwhile_is_asked_for_once(till: Till) -> None:
    await till.create(till.mint.issue(1))
    till.mint.rotate()
    await till.later(60)
    assert await till.balance(await till.create(till.mint.issue(21))) == 21_000


def _token(till: Till, proofs: Sequence[Proof]) -> str:
    token = Token(mint_url=till.mint.url, unit="sat", proofs=tuple(proofs))
    return encode_token_v4(token, include_dleq=True)
