"""The mint client against the model mint, which signs, lies, stalls and drops lines."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest

from routstr.core.url import BadUrl
from routstr.ecash.bdhke import public_key, y_of
from routstr.ecash.errors import BadSignature, UnsupportedKeyset
from routstr.ecash.outputs import (
    Output,
    blinded_messages_json,
    make_outputs,
    proofs_json,
    unblind_all,
)
from routstr.ecash.p2pk import sign_secret
from routstr.ecash.proof import BlindedMessage, BlindSignature, Keyset, Proof
from routstr.ecash.token import decode_token
from routstr.errors import UntrustedMint
from routstr.gateways.mint import MintClient, Priority, ProofState
from routstr.gateways.mint_failure import (
    MintLimited,
    MintMisbehaved,
    MintRefused,
    MintUnknown,
    Refusal,
)
from routstr.gateways.mint_limits import LaneLimits
from tests.fakes.clock import FakeClock
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.mint_ledger import JsonObject
from tests.fakes.upstream_script import Gate

SEED = b"\x07" * 64
FREE = LaneLimits(rate_per_minute=10**9, burst=10**6, failures_max=100)


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint(units=("sat", "msat")) as model:
        yield model


@pytest.fixture
async def client(mint: FakeMint) -> AsyncIterator[MintClient]:
    async with client_of(mint) as opened:
        yield opened


@asynccontextmanager
async def client_of(
    *mints: FakeMint, limits: LaneLimits = FREE, total_s: float = 10, clock: FakeClock | None = None
) -> AsyncIterator[MintClient]:
    async with MintClient(
        mint_urls=[each.url for each in mints],
        clock=clock or FakeClock(),
        limits=limits,
        allow_loopback_http=True,
        total_s=total_s,
    ) as opened:
        yield opened


class Swap:
    """One swap of a fresh token of 21 sat, as the node would make it."""

    def __init__(self, mint: FakeMint, keyset: Keyset) -> None:
        self.mint = mint
        self.keyset = keyset
        self.proofs: tuple[Proof, ...] = decode_token(mint.issue(21), bytes_max=10_000).proofs
        self.proofs = tuple(  # tokens carry short ids
            Proof(amount=p.amount, keyset_id=keyset.id, secret=p.secret, c=p.c) for p in self.proofs
        )
        self.outputs: tuple[Output, ...] = make_outputs(SEED, keyset.id, 0, [1, 4, 16])

    @property
    def body(self) -> bytes:
        return orjson.dumps(
            {
                "inputs": proofs_json(self.proofs),
                "outputs": blinded_messages_json(self.outputs),
            }
        )

    async def send(self, client: MintClient) -> tuple[BlindSignature, ...]:
        return await client.swap(self.mint.url, self.body, priority=Priority.RECEIVE)

    def unblind(self, signatures: tuple[BlindSignature, ...]) -> int:
        proofs = unblind_all(self.outputs, signatures, self.keyset, require_dleq=True)
        return sum(proof.amount for proof in proofs)


@pytest.fixture
async def swap(mint: FakeMint, client: MintClient) -> Swap:
    keysets = await client.load_keysets(mint.url)
    return Swap(mint, next(each for each in keysets if each.unit == "sat"))


# ── who is asked ──────────────────────────────────────────────────────────────────────────────


async def test_a_mint_off_the_list_is_never_called(mint: FakeMint, client: MintClient) -> None:
    async with FakeMint() as other:
        for url in (other.url, mint.url + "/", mint.url.upper(), "https://mint.example"):
            with pytest.raises(UntrustedMint):
                await client.get_info(url)
            with pytest.raises(UntrustedMint):
                await client.swap(url, b"{}", priority=Priority.RECEIVE)
        assert other.calls == []
    assert mint.calls == []


async def test_the_allow_list_can_change(mint: FakeMint, client: MintClient) -> None:
    client.allow([])
    with pytest.raises(UntrustedMint):
        await client.get_info(mint.url)
    client.allow([mint.url])
    assert (await client.get_info(mint.url)).name == "Model mint"
    with pytest.raises(BadUrl):
        client.allow([mint.url + "/"])


def test_the_list_is_canonical_from_the_start() -> None:
    for url in ("https://Mint.example", "http://127.0.0.1:3338", "https://mint.example/?x"):
        with pytest.raises(BadUrl):
            MintClient(mint_urls=[url], clock=FakeClock())


async def test_what_a_mint_sees_of_us(mint: FakeMint, client: MintClient) -> None:
    mint.trouble(Trouble(path="/v1/info", headers={"Set-Cookie": "track=1; Path=/"}))
    await client.get_info(mint.url)
    await client.check_state(mint.url, ["02" + "11" * 32])
    names = {name: value for name, value in mint.calls[1].headers.items() if name != "host"}
    assert names == {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "routstr",
        "connection": "keep-alive",
        "content-length": str(len(mint.calls[1].body)),
    }


# ── what a mint offers ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", ["00", "01"])
async def test_keysets_are_loaded_with_their_keys(version: str) -> None:
    async with FakeMint(fee_ppk=100, units=("sat", "msat"), version=version) as mint:
        old = mint.ledger.active("sat").keyset.id
        new = mint.rotate("sat", fee_ppk=200)
        async with client_of(mint) as client:
            keysets = {each.id: each for each in await client.load_keysets(mint.url)}
            assert (keysets[old].active, keysets[old].input_fee_ppk) == (False, 100)
            assert (keysets[new].active, keysets[new].input_fee_ppk) == (True, 200)
            assert sorted(each.unit for each in keysets.values()) == ["msat", "sat", "sat"]
            assert keysets[new].keys == mint.ledger.keysets[new].keyset.keys
            before = len(mint.calls)
            again = await client.load_keysets(mint.url, known=keysets)
            assert {each.id: each for each in again} == keysets
            assert len(mint.calls) == before + 2  # info and the list, no keys


@pytest.mark.parametrize("missing", [7, 9, 12])
async def test_a_mint_without_the_nuts_we_need_is_refused(missing: int) -> None:
    async with FakeMint(nuts={7, 9, 10, 11, 12} - {missing}) as mint, client_of(mint) as client:
        with pytest.raises(MintMisbehaved, match="lacks"):
            await client.load_keysets(mint.url)


async def test_other_units_and_versions_are_left_out(mint: FakeMint, client: MintClient) -> None:
    def add(answer: JsonObject) -> JsonObject:
        entries = answer["keysets"]
        assert isinstance(entries, list)
        for keyset_id, unit in (("I2yN+iRYfkzT", "sat"), ("02" + "ab" * 32, "sat")):
            entries.append({**entries[0], "id": keyset_id, "unit": unit})
        entries.append({**entries[0], "id": "00" + "ab" * 7, "unit": "usd"})
        return answer

    mint.trouble(Trouble(path="/v1/keysets", tamper=add))
    assert len(await client.load_keysets(mint.url)) == 2


def other_key(answer: JsonObject) -> JsonObject:
    entries = answer["keysets"]
    assert isinstance(entries, list)
    entries[0]["keys"]["1"] = public_key("11" * 32)
    return answer


def more_fee(answer: JsonObject) -> JsonObject:
    entries = answer["keysets"]
    assert isinstance(entries, list)
    entries[0]["input_fee_ppk"] = 1
    return answer


def great_fee(answer: JsonObject) -> JsonObject:
    entries = answer["keysets"]
    assert isinstance(entries, list)
    entries[0]["input_fee_ppk"] = 1_001
    return answer


def twice(answer: JsonObject) -> JsonObject:
    entries = answer["keysets"]
    assert isinstance(entries, list)
    return {"keysets": [*entries, entries[0]]}


@pytest.mark.parametrize(
    ("path", "lie", "why"),
    [
        ("/v1/keys/", other_key, "id"),
        ("/v1/keysets", more_fee, "id"),
        ("/v1/keysets", great_fee, "bound"),
        ("/v1/keysets", twice, "twice"),
    ],
)
async def test_a_keyset_that_lies_condemns_its_mint(
    mint: FakeMint,
    client: MintClient,
    path: str,
    lie: Callable[[JsonObject], object],
    why: str,
) -> None:
    mint.trouble(Trouble(path=path, tamper=lie))
    with pytest.raises(MintMisbehaved, match=why):
        await client.load_keysets(mint.url)


async def test_an_odd_keyset_id_never_reaches_the_network(
    mint: FakeMint, client: MintClient
) -> None:
    for keyset_id in ("", "../info", "00" + "A" * 14, "01" + "a" * 14, "00/../../x"):
        with pytest.raises(UnsupportedKeyset):
            await client.get_keys(mint.url, keyset_id)
    assert mint.calls == []


# ── swap, restore, checkstate ─────────────────────────────────────────────────────────────────


async def test_a_swap_sends_the_exact_bytes_and_yields_proofs(
    mint: FakeMint, client: MintClient, swap: Swap
) -> None:
    assert swap.unblind(await swap.send(client)) == 21
    assert mint.calls[-1].body == swap.body
    assert mint.unspent_total() == 21
    ys = decode_ys(swap)
    assert set((await client.check_state(mint.url, ys)).values()) == {ProofState.SPENT}


async def test_states_come_back_by_y(mint: FakeMint, client: MintClient, swap: Swap) -> None:
    first, second, third = decode_ys(swap)
    mint.set_pending([second])
    mint.set_spent([third])
    assert await client.check_state(mint.url, [third, first, second]) == {
        first: ProofState.UNSPENT,
        second: ProofState.PENDING,
        third: ProofState.SPENT,
    }


@pytest.mark.parametrize("half", [False, True])
async def test_a_lost_answer_is_unknown_and_restore_finds_it(
    mint: FakeMint, client: MintClient, swap: Swap, half: bool
) -> None:
    before = len(mint.calls)
    mint.trouble(Trouble(path="/v1/swap", cut=not half, half=half))
    with pytest.raises(MintUnknown) as caught:
        await swap.send(client)
    assert caught.value.was_sent
    assert len(mint.calls) == before + 1  # never resent
    messages = [output.message() for output in swap.outputs]
    restored = await client.restore(mint.url, [*messages, stranger(swap)])
    assert set(restored) == {output.b_ for output in swap.outputs}
    assert swap.unblind(tuple(restored[output.b_] for output in swap.outputs)) == 21


async def test_a_lost_request_leaves_nothing_to_restore(
    mint: FakeMint, client: MintClient, swap: Swap
) -> None:
    mint.lose_next_request("/v1/swap")
    with pytest.raises(MintUnknown):
        await swap.send(client)
    assert await client.restore(mint.url, [o.message() for o in swap.outputs]) == {}
    assert swap.unblind(await swap.send(client)) == 21


async def test_restore_believes_amounts_of_signatures_only(
    mint: FakeMint, client: MintClient, swap: Swap
) -> None:
    await swap.send(client)
    blanks = make_outputs(SEED, swap.keyset.id, 0, [0, 0, 0])  # same secrets, amount unknown
    restored = await client.restore(mint.url, [each.message() for each in blanks])
    assert [restored[each.b_].amount for each in blanks] == [1, 4, 16]


def stranger(swap: Swap) -> BlindedMessage:
    return make_outputs(SEED, swap.keyset.id, 900, [1])[0].message()


def decode_ys(swap: Swap) -> list[str]:
    return [y_of(proof.secret) for proof in swap.proofs]


async def test_refusals_are_definite(mint: FakeMint, client: MintClient, swap: Swap) -> None:
    await swap.send(client)
    with pytest.raises(MintRefused) as caught:
        await swap.send(client)
    assert (caught.value.code, caught.value.refusal) == (11001, Refusal.SPENT)
    other = Swap(mint, swap.keyset)
    with pytest.raises(MintRefused) as caught:
        await other.send(client)
    assert (caught.value.code, caught.value.refusal) == (11003, Refusal.OUTPUTS_SIGNED)
    other.outputs = make_outputs(SEED, swap.keyset.id, 10, [1, 4])
    with pytest.raises(MintRefused) as caught:
        await other.send(client)
    assert (caught.value.code, caught.value.refusal) == (11005, Refusal.SAFE_REFRESH)
    mint.set_pending(decode_ys(other))
    with pytest.raises(MintRefused) as caught:
        await other.send(client)
    assert (caught.value.code, caught.value.refusal) == (11002, Refusal.PENDING)
    with pytest.raises(MintRefused) as caught:
        await client.swap(mint.url, b'{"inputs": 1}', priority=Priority.RECEIVE)
    assert (caught.value.code, caught.value.detail_kind) == (422, "list")
    assert caught.value.refusal.is_safe


async def test_a_locked_token_needs_its_key(mint: FakeMint, client: MintClient, swap: Swap) -> None:
    key = "22" * 32
    token = decode_token(mint.issue(21, lock_to=public_key(key)), bytes_max=20_000)
    swap.proofs = tuple(
        Proof(amount=p.amount, keyset_id=swap.keyset.id, secret=p.secret, c=p.c)
        for p in token.proofs
    )
    with pytest.raises(MintRefused) as caught:
        await swap.send(client)
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
    assert swap.unblind(await swap.send(client)) == 21


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
    mint: FakeMint, client: MintClient, swap: Swap, lie: Callable[[JsonObject], object]
) -> None:
    mint.trouble(Trouble(path="/v1/swap", tamper=lie))
    signatures = await swap.send(client)
    with pytest.raises(BadSignature):
        swap.unblind(signatures)


# ── everything else is unknown ────────────────────────────────────────────────────────────────

UNKNOWN = {
    "500": Trouble(status=500, code=11001),
    "503": Trouble(processed=False, status=503),
    "302": Trouble(status=302, headers={"Location": "/v1/info"}),
    "404": Trouble(status=404, code=11001),
    "201": Trouble(status=201),
    "400 without a code": Trouble(status=400),
    "400 in HTML": Trouble(status=400, body=b"<html>"),
    "400 with a list": Trouble(status=400, body=b"[]"),
    "422 with a text": Trouble(status=422, detail="text"),
    "no JSON": Trouble(body=b"{"),
    "empty": Trouble(body=b""),
    "list": Trouble(body=b"[]"),
    "no signatures": Trouble(body=b"{}"),
    "odd signatures": Trouble(body=b'{"signatures": [{"amount": true}]}'),
    "too large": Trouble(body=b'{"signatures": [], "x": "' + b"x" * 1_100_000 + b'"}'),
    "gzip": Trouble(headers={"Content-Encoding": "gzip"}),
    "cut": Trouble(cut=True),
    "half": Trouble(half=True),
}


@pytest.mark.parametrize("trouble", UNKNOWN.values(), ids=UNKNOWN.keys())
async def test_no_usable_answer_is_unknown(
    mint: FakeMint, client: MintClient, swap: Swap, trouble: Trouble
) -> None:
    before = len(mint.calls)
    mint.trouble(trouble)
    with pytest.raises(MintUnknown) as caught:
        await swap.send(client)
    assert caught.value.was_sent
    assert not isinstance(caught.value, MintLimited)
    assert len(mint.calls) == before + 1


@pytest.mark.parametrize("code", ["11001", 1.5, True, None])
async def test_a_code_is_a_number(
    mint: FakeMint, client: MintClient, swap: Swap, code: object
) -> None:
    body = json.dumps({"detail": "x", "code": code}).encode()
    mint.trouble(Trouble(status=400, body=body))
    with pytest.raises(MintUnknown):
        await swap.send(client)


async def test_a_code_outside_the_table_proves_nothing(
    mint: FakeMint, client: MintClient, swap: Swap
) -> None:
    mint.trouble(Trouble(processed=False, status=400, code=99_999))
    with pytest.raises(MintRefused) as caught:
        await swap.send(client)
    assert caught.value.refusal is Refusal.UNKNOWN
    assert not caught.value.refusal.is_safe


async def test_a_429_is_unknown_and_says_when(
    mint: FakeMint, client: MintClient, swap: Swap
) -> None:
    mint.limit_next("/v1/swap", retry_after="7")
    with pytest.raises(MintLimited) as caught:
        await swap.send(client)
    assert (caught.value.retry_after_s, caught.value.was_sent) == (7, True)


async def test_a_silent_mint_is_unknown_in_time(mint: FakeMint, swap: Swap) -> None:
    mint.trouble(Trouble(path="/v1/swap", gate=Gate()))
    async with client_of(mint, total_s=0.1) as hasty:
        with pytest.raises(MintUnknown) as caught:
            await swap.send(hasty)
    assert caught.value.was_sent


async def test_a_mint_that_is_down_was_not_asked() -> None:
    async with FakeMint() as gone:
        url = gone.url
        async with client_of(gone) as client:
            await gone.__aexit__(None, None, None)
            with pytest.raises(MintUnknown) as caught:
                await client.get_info(url)
    assert not caught.value.was_sent


async def test_five_failures_stop_the_asking(mint: FakeMint, swap: Swap) -> None:
    clock = FakeClock()
    limits = LaneLimits(rate_per_minute=10**9, burst=10**6)
    async with client_of(mint, limits=limits, clock=clock) as client:
        mint.trouble(*(Trouble(path="/v1/", status=500) for _ in range(5)))
        for _ in range(5):
            with pytest.raises(MintUnknown):
                await client.get_info(mint.url)
        before = len(mint.calls)
        with pytest.raises(MintUnknown) as caught:
            await swap.send(client)
        assert not caught.value.was_sent
        assert len(mint.calls) == before
        await clock.advance(10)
        assert swap.unblind(await swap.send(client)) == 21


async def test_refusals_do_not_stop_the_asking(mint: FakeMint, client: MintClient) -> None:
    for _ in range(120):
        with pytest.raises(MintRefused):
            await client.swap(mint.url, b"{}", priority=Priority.RECEIVE)


async def test_at_most_four_calls_run_at_one_mint(mint: FakeMint, client: MintClient) -> None:
    gate = Gate()
    mint.trouble(*(Trouble(path="/v1/info", gate=gate) for _ in range(9)))
    asking = [asyncio.create_task(client.get_info(mint.url)) for _ in range(9)]
    await mint.called(4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(mint.calls) == 4
    gate.open_for_ever()
    await asyncio.gather(*asking)


async def test_a_cancelled_call_gives_its_place_back(mint: FakeMint, client: MintClient) -> None:
    mint.trouble(*(Trouble(path="/v1/info", gate=Gate()) for _ in range(4)))
    asking = [asyncio.create_task(client.get_info(mint.url)) for _ in range(4)]
    await mint.called(4)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert (await client.get_info(mint.url)).name == "Model mint"


async def test_no_error_repeats_what_the_mint_said(
    mint: FakeMint, client: MintClient, swap: Swap
) -> None:
    for trouble in (
        Trouble(status=400, code=10001, detail="birdsong"),
        Trouble(status=500, detail="birdsong"),
        Trouble(body=b'{"signatures": "birdsong"}'),
        Trouble(status=422, detail=[{"input": "birdsong"}]),
    ):
        mint.trouble(trouble)
        with pytest.raises((MintRefused, MintUnknown)) as caught:
            await swap.send(client)
        error: BaseException | None = caught.value
        while error is not None:
            assert "birdsong" not in repr(error) + str(error) + repr(vars(error))
            error = error.__cause__
