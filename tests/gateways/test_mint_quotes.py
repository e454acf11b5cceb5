"""Mint and melt quotes: the whole road at the real mint, and answers that no mint should give."""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

import orjson
import pytest

from demo.mint import RealMint
from routstr.ecash.bdhke import public_key, y_of
from routstr.ecash.outputs import (
    BLANK,
    Output,
    blinded_messages_json,
    make_outputs,
    proofs_json,
    unblind_all,
    unblind_change,
)
from routstr.ecash.p2pk import sign_quote
from routstr.ecash.proof import Keyset, Proof
from routstr.errors import UntrustedMint
from routstr.gateways.mint import MintClient, MintQuote, Priority, ProofState, QuoteState
from routstr.gateways.mint_failure import MintLimited, MintRefused, MintUnknown, Refusal
from routstr.gateways.mint_quotes import melt_quote_from_json, mint_quote_from_json
from tests.fakes.clock import FakeClock
from tests.fakes.invoices import invoice
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate
from tests.gateways.swapping import FREE, client_of

KEY = "07" * 32
PUBKEY = public_key(KEY)


# ── at the real mint ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def real(real_mint: RealMint) -> AsyncIterator[MintClient]:
    async with MintClient(
        mint_urls=[real_mint.url], clock=FakeClock(), limits=FREE, allow_loopback_http=True
    ) as opened:
        yield opened


@dataclass(frozen=True)
class Purse:
    """A node of its own at the shared mint: a seed that nobody else has."""

    client: MintClient
    url: str
    keyset: Keyset
    seed: bytes

    def outputs(self, first: int, *amounts: int) -> tuple[Output, ...]:
        return make_outputs(self.seed, self.keyset.id, first, amounts)

    async def paid_quote(self, amount: int) -> MintQuote:
        """Asking for it is what pays it at this mint."""
        asked = await self.client.request_mint_quote(
            self.url, amount=amount, unit="sat", pubkey=PUBKEY
        )
        assert (asked.amount, asked.unit, asked.pubkey) == (amount, "sat", PUBKEY)
        assert asked.bolt11.startswith("lnbc")
        quote = await self.client.mint_quote(self.url, asked.quote_id)
        assert (quote.state, quote.bolt11) == (QuoteState.PAID, asked.bolt11)
        return quote

    def mint_body(self, quote: MintQuote, outputs: tuple[Output, ...]) -> bytes:
        signature = sign_quote(quote.quote_id, [each.message() for each in outputs], KEY)
        return orjson.dumps(
            {
                "quote": quote.quote_id,
                "outputs": blinded_messages_json(outputs),
                "signature": signature,
            }
        )

    async def mint(self, *amounts: int) -> tuple[Proof, ...]:
        outputs = self.outputs(0, *amounts)
        body = self.mint_body(await self.paid_quote(sum(amounts)), outputs)
        signatures = await self.client.mint(self.url, body, priority=Priority.RECEIVE)
        return unblind_all(outputs, signatures, self.keyset, require_dleq=True)


@pytest.fixture
async def purse(real_mint: RealMint, real: MintClient) -> Purse:
    keyset = next(each for each in await real.load_keysets(real_mint.url) if each.active)
    return Purse(real, real_mint.url, keyset, secrets.token_bytes(64))


async def test_a_paid_quote_is_minted_once(purse: Purse) -> None:
    outputs = purse.outputs(0, 1, 4, 16)
    quote = await purse.paid_quote(21)
    body = purse.mint_body(quote, outputs)

    stolen = body.replace(b'"signature":"', b'"signature":"00')
    with pytest.raises(MintRefused):
        await purse.client.mint(purse.url, stolen, priority=Priority.RECEIVE)
    signatures = await purse.client.mint(purse.url, body, priority=Priority.RECEIVE)
    minted = unblind_all(outputs, signatures, purse.keyset, require_dleq=True)
    assert [each.amount for each in minted] == [1, 4, 16]

    after = await purse.client.mint_quote(purse.url, quote.quote_id)
    assert after.state is QuoteState.ISSUED
    with pytest.raises(MintRefused) as caught:
        await purse.client.mint(purse.url, body, priority=Priority.RECEIVE)
    assert caught.value.refusal is Refusal.OUTPUTS_SIGNED


async def test_a_melt_pays_and_gives_back_the_rest(purse: Purse) -> None:
    proofs = await purse.mint(16, 16)
    bolt11 = invoice(21_000, payment_hash=os.urandom(32))
    asked = await purse.client.request_melt_quote(purse.url, bolt11=bolt11, unit="sat")
    assert (asked.amount, asked.unit, asked.fee_reserve) == (21, "sat", 2)
    assert (asked.state, asked.preimage, asked.change) == (QuoteState.UNPAID, None, ())

    blanks = purse.outputs(100, *[BLANK] * (32 - 21).bit_length())
    body = orjson.dumps(
        {
            "quote": asked.quote_id,
            "inputs": proofs_json(proofs),
            "outputs": blinded_messages_json(blanks),
        }
    )
    melted = await purse.client.melt(purse.url, body)
    assert melted.state is QuoteState.PAID
    assert melted.preimage is not None
    change = unblind_change(blanks, melted.change, purse.keyset, require_dleq=True)
    assert sum(each.amount for each in change) == 32 - 21 - 1  # the fee paid, not the reserve

    again = await purse.client.melt_quote(purse.url, asked.quote_id)
    assert (again.state, again.change) == (QuoteState.PAID, melted.change)
    states = await purse.client.check_state(purse.url, [y_of(each.secret) for each in proofs])
    assert set(states.values()) == {ProofState.SPENT}
    with pytest.raises(MintRefused) as caught:
        await purse.client.melt(purse.url, body)
    assert caught.value.refusal in (Refusal.SPENT, Refusal.QUOTE_PAID)


async def test_a_quote_that_the_mint_does_not_know(purse: Purse) -> None:
    unknown = "019f0000-0000-7000-8000-000000000000"
    with pytest.raises(MintRefused) as caught:
        await purse.client.mint_quote(purse.url, unknown)
    assert caught.value.code == 0
    with pytest.raises(MintRefused) as caught:
        await purse.client.melt_quote(purse.url, unknown)
    assert caught.value.code == 0
    with pytest.raises(MintRefused):
        await purse.client.request_melt_quote(purse.url, bolt11="lnbc1nonsense", unit="sat")


# ── answers that no mint should give ──────────────────────────────────────────────────────────

QUOTE_ID = "019f1234-0000-7000-8000-000000000001"
BOLT11 = invoice(21_000)
MINT_QUOTE: Mapping[str, object] = {
    "quote": QUOTE_ID,
    "request": BOLT11,
    "amount": 21,
    "unit": "sat",
    "state": "UNPAID",
    "expiry": 1_800_003_600,
    "pubkey": PUBKEY,
}
MELT_QUOTE: Mapping[str, object] = {
    "quote": QUOTE_ID,
    "request": BOLT11,
    "amount": 21,
    "unit": "sat",
    "fee_reserve": 2,
    "state": "UNPAID",
    "expiry": 1_800_003_600,
    "payment_preimage": None,
    "change": None,
}
ODD_FOR_BOTH: Mapping[str, tuple[object, ...]] = {
    "quote": (None, "", 7, "a/b", "..", "a?b", "a%2fb", "a#b", "ä", "a\n", "x" * 257, ["x"]),
    "amount": (0, -1, True, 21.0, "21", 2**53 + 1, [21]),
    "unit": ("", 1, "s" * 21, ["sat"]),
    "state": (None, "", "paid", "EXPIRED", 1, True, ["PAID"]),
    "expiry": (-1, True, 1.5, "1800000000", 2**53 + 1),
}
ODD_FOR_MINT: Mapping[str, tuple[object, ...]] = {
    **ODD_FOR_BOTH,
    "request": (None, "", 5, "creqA1", "lnbc1 x", "lnbc1\n", "lnbc" + "q" * 4_096, [BOLT11]),
    "pubkey": ("", "02", "02" + "00" * 32, PUBKEY.upper(), 2),
}
ODD_FOR_MELT: Mapping[str, tuple[object, ...]] = {
    **ODD_FOR_BOTH,
    "amount": (*ODD_FOR_BOTH["amount"], None),
    "fee_reserve": (None, -1, True, 2.0, "2", 2**53 + 1),
    "state": (*ODD_FOR_BOTH["state"], "ISSUED"),
    "payment_preimage": (1, True, "a b", "ä", "0" * 257, ["00"]),
    "change": ({}, "[]", [None], [{"amount": 1}]),
}


def odd(table: Mapping[str, tuple[object, ...]]) -> list[tuple[str, object]]:
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), odd(ODD_FOR_MINT))
def test_an_odd_mint_quote_is_unknown(name: str, value: object) -> None:
    with pytest.raises(MintUnknown) as caught:
        mint_quote_from_json({**MINT_QUOTE, name: value})
    assert caught.value.was_sent


@pytest.mark.parametrize(("name", "value"), odd(ODD_FOR_MELT))
def test_an_odd_melt_quote_is_unknown(name: str, value: object) -> None:
    with pytest.raises(MintUnknown) as caught:
        melt_quote_from_json({**MELT_QUOTE, name: value})
    assert caught.value.was_sent


@pytest.mark.parametrize("value", [None, [], "{}", 1])
def test_a_quote_is_an_object(value: object) -> None:
    with pytest.raises(MintUnknown):
        mint_quote_from_json(value)
    with pytest.raises(MintUnknown):
        melt_quote_from_json(value)


def test_what_a_mint_may_leave_out() -> None:
    terse = {each: MINT_QUOTE[each] for each in ("quote", "request", "state")}
    quote = mint_quote_from_json(terse)
    assert (quote.amount, quote.unit, quote.expiry_s, quote.pubkey) == (None, None, None, None)
    terse = {each: MELT_QUOTE[each] for each in ("quote", "amount", "fee_reserve", "state")}
    melt = melt_quote_from_json(terse)
    assert (melt.unit, melt.expiry_s, melt.preimage, melt.change) == (None, None, None, ())
    never = mint_quote_from_json({**MINT_QUOTE, "expiry": 0})
    assert never.expiry_s is None
    assert melt_quote_from_json({**MELT_QUOTE, "payment_preimage": ""}).preimage is None


def test_a_quote_answers_for_what_was_asked() -> None:
    other = {"quote": "another"}
    with pytest.raises(MintUnknown, match="another quote"):
        mint_quote_from_json({**MINT_QUOTE, **other}, quote_id=QUOTE_ID)
    with pytest.raises(MintUnknown, match="another quote"):
        melt_quote_from_json({**MELT_QUOTE, **other}, quote_id=QUOTE_ID)
    with pytest.raises(MintUnknown, match="another invoice"):
        melt_quote_from_json(MELT_QUOTE, bolt11=invoice(22_000))
    assert melt_quote_from_json(MELT_QUOTE, bolt11=BOLT11).quote_id == QUOTE_ID


def test_nothing_worth_money_is_in_a_repr() -> None:
    paid = {**MELT_QUOTE, "payment_preimage": "birdsong"}
    shown = repr(mint_quote_from_json(MINT_QUOTE)) + repr(melt_quote_from_json(paid))
    assert QUOTE_ID not in shown
    assert BOLT11 not in shown
    assert "birdsong" not in shown


# ── at a mint that misbehaves ─────────────────────────────────────────────────────────────────

MELT_BODY = orjson.dumps({"quote": QUOTE_ID, "inputs": [], "outputs": []})


def answering(answer: object, *, status: int = 200) -> Trouble:
    body = json.dumps(answer).encode()
    return Trouble(path="/v1/", processed=False, status=status, body=body)


@pytest.mark.parametrize("quote_id", ["", "../../swap", "a/b", "a?b", "ä", "x" * 257, ".."])
async def test_no_path_is_made_of_what_is_no_quote_id(
    mint: FakeMint, mint_client: MintClient, quote_id: str
) -> None:
    for ask in (mint_client.mint_quote, mint_client.melt_quote):
        with pytest.raises(MintUnknown) as caught:
            await ask(mint.url, quote_id)
        assert not caught.value.was_sent
    assert mint.calls == []


async def test_the_requests_are_those_of_the_nuts(mint: FakeMint, mint_client: MintClient) -> None:
    mint.trouble(answering(MINT_QUOTE), answering(MELT_QUOTE), answering(MELT_QUOTE))
    await mint_client.request_mint_quote(mint.url, amount=21, unit="sat", pubkey=PUBKEY)
    await mint_client.request_melt_quote(mint.url, bolt11=BOLT11, unit="sat")
    await mint_client.melt(mint.url, MELT_BODY)
    new_mint, new_melt, melt = mint.calls
    assert new_mint.path == "/v1/mint/quote/bolt11"
    assert new_mint.json == {"amount": 21, "unit": "sat", "pubkey": PUBKEY}
    assert new_melt.path == "/v1/melt/quote/bolt11"
    assert new_melt.json == {"request": BOLT11, "unit": "sat"}
    assert (melt.path, melt.body) == ("/v1/melt/bolt11", MELT_BODY)
    assert melt.headers["prefer"] == "respond-async"


async def test_a_melt_taken_on_is_an_answer_to_a_melt_only(
    mint: FakeMint, mint_client: MintClient
) -> None:
    pending = {**MELT_QUOTE, "state": "PENDING"}
    mint.trouble(answering(pending, status=202), answering(pending, status=202))
    assert (await mint_client.melt(mint.url, MELT_BODY)).state is QuoteState.PENDING
    with pytest.raises(MintUnknown):
        await mint_client.melt_quote(mint.url, QUOTE_ID)


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(path="/v1/melt", cut=True),
        Trouble(path="/v1/melt", status=500, code=20004),
        answering({}),
        answering({**MELT_QUOTE, "quote": "x"}),
        answering({**MELT_QUOTE, "state": "SETTLED"}),
    ],
)
async def test_a_melt_is_sent_once_and_its_odd_answer_is_unknown(
    mint: FakeMint, mint_client: MintClient, trouble: Trouble
) -> None:
    mint.trouble(trouble)
    with pytest.raises(MintUnknown) as caught:
        await mint_client.melt(mint.url, MELT_BODY)
    assert caught.value.was_sent
    assert len(mint.calls) == 1
    error: BaseException | None = caught.value
    while error is not None:
        assert QUOTE_ID not in repr(error) + str(error) + repr(vars(error))
        error = error.__cause__


async def test_a_melt_has_a_deadline_of_its_own(mint: FakeMint) -> None:
    gate = Gate()
    mint.trouble(Trouble(path="/v1/melt", gate=gate))
    async with client_of(mint, total_s=30) as patient:
        with pytest.raises(MintUnknown) as caught:
            await patient.melt(mint.url, MELT_BODY, total_s=0.05)
    assert caught.value.was_sent


async def test_a_melt_may_outlast_every_other_call(mint: FakeMint) -> None:
    gate = Gate()
    paid = answering({**MELT_QUOTE, "state": "PAID"})
    mint.trouble(replace(paid, gate=gate), Trouble(path="/v1/mint", gate=Gate()))
    async with client_of(mint, total_s=0.05) as hasty:
        melting = asyncio.create_task(hasty.melt(mint.url, MELT_BODY))
        await mint.called()
        with pytest.raises(MintUnknown):
            await hasty.mint_quote(mint.url, QUOTE_ID)
        gate.open_for_ever()
        assert (await melting).state is QuoteState.PAID


async def test_slow_melts_leave_room_for_recovery(mint: FakeMint, mint_client: MintClient) -> None:
    gate = Gate()
    mint.trouble(*(Trouble(path="/v1/melt/bolt11", gate=gate, status=500) for _ in range(9)))
    melts = [asyncio.create_task(mint_client.melt(mint.url, MELT_BODY)) for _ in range(9)]
    await mint.called(2)
    mint.trouble(answering(MINT_QUOTE))
    assert (await mint_client.mint_quote(mint.url, QUOTE_ID)).state is QuoteState.UNPAID
    assert [each.path for each in mint.calls].count("/v1/melt/bolt11") == 2
    gate.open_for_ever()
    ended = await asyncio.gather(*melts, return_exceptions=True)
    assert {type(each) for each in ended} == {MintUnknown}


async def test_a_melt_that_never_gets_its_turn_was_not_sent(mint: FakeMint) -> None:
    gate = Gate()
    limits = replace(FREE, wait_s=0.05)
    mint.trouble(*(Trouble(path="/v1/melt", gate=gate) for _ in range(2)))
    async with client_of(mint, limits=limits) as client:
        running = [asyncio.create_task(client.melt(mint.url, MELT_BODY)) for _ in range(2)]
        await mint.called(2)
        with pytest.raises(MintLimited) as caught:
            await client.melt(mint.url, MELT_BODY)
        assert not caught.value.was_sent
        gate.open_for_ever()
        await asyncio.gather(*running, return_exceptions=True)
    assert len(mint.calls) == 2


async def test_a_mint_that_is_not_listed_is_not_asked(mint_client: MintClient) -> None:
    with pytest.raises(UntrustedMint):
        await mint_client.melt("http://127.0.0.1:1", MELT_BODY)
    with pytest.raises(UntrustedMint):
        await mint_client.request_mint_quote(
            "http://127.0.0.1:1", amount=1, unit="sat", pubkey=PUBKEY
        )
