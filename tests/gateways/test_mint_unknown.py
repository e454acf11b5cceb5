"""Answers that prove nothing, against a model mint that stalls and drops lines."""

import asyncio
import json

import pytest

from routstr.gateways.mint import MintClient, Priority
from routstr.gateways.mint_failure import (
    MintLimited,
    MintRefused,
    MintUnknown,
    Refusal,
)
from routstr.gateways.mint_limits import LaneLimits
from tests.fakes.clock import FakeClock
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate
from tests.gateways.swapping import Swap, client_of

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
    mint: FakeMint, mint_client: MintClient, swap: Swap, trouble: Trouble
) -> None:
    before = len(mint.calls)
    mint.trouble(trouble)
    with pytest.raises(MintUnknown) as caught:
        await swap.send(mint_client)
    assert caught.value.was_sent
    assert not isinstance(caught.value, MintLimited)
    assert len(mint.calls) == before + 1


@pytest.mark.parametrize("code", ["11001", 1.5, True, None])
async def test_a_code_is_a_number(
    mint: FakeMint, mint_client: MintClient, swap: Swap, code: object
) -> None:
    body = json.dumps({"detail": "x", "code": code}).encode()
    mint.trouble(Trouble(status=400, body=body))
    with pytest.raises(MintUnknown):
        await swap.send(mint_client)


async def test_a_code_outside_the_table_proves_nothing(
    mint: FakeMint, mint_client: MintClient, swap: Swap
) -> None:
    mint.trouble(Trouble(processed=False, status=400, code=99_999))
    with pytest.raises(MintRefused) as caught:
        await swap.send(mint_client)
    assert caught.value.refusal is Refusal.UNKNOWN
    assert not caught.value.refusal.is_safe


async def test_a_429_is_unknown_and_says_when(
    mint: FakeMint, mint_client: MintClient, swap: Swap
) -> None:
    mint.limit_next("/v1/swap", retry_after="7")
    with pytest.raises(MintLimited) as caught:
        await swap.send(mint_client)
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
        async with client_of(gone) as mint_client:
            await gone.__aexit__(None, None, None)
            with pytest.raises(MintUnknown) as caught:
                await mint_client.get_info(url)
    assert not caught.value.was_sent


async def test_five_failures_stop_the_asking(mint: FakeMint, swap: Swap) -> None:
    clock = FakeClock()
    limits = LaneLimits(rate_per_minute=10**9, burst=10**6)
    async with client_of(mint, limits=limits, clock=clock) as mint_client:
        mint.trouble(*(Trouble(path="/v1/", status=500) for _ in range(5)))
        for _ in range(5):
            with pytest.raises(MintUnknown):
                await mint_client.get_info(mint.url)
        before = len(mint.calls)
        with pytest.raises(MintUnknown) as caught:
            await swap.send(mint_client)
        assert not caught.value.was_sent
        assert len(mint.calls) == before
        await clock.advance(10)
        assert swap.unblind(await swap.send(mint_client)) == 21


async def test_refusals_do_not_stop_the_asking(mint: FakeMint, mint_client: MintClient) -> None:
    for _ in range(120):
        with pytest.raises(MintRefused):
            await mint_client.swap(mint.url, b"{}", priority=Priority.RECEIVE)


async def test_at_most_four_calls_run_at_one_mint(mint: FakeMint, mint_client: MintClient) -> None:
    gate = Gate()
    mint.trouble(*(Trouble(path="/v1/info", gate=gate) for _ in range(9)))
    asking = [asyncio.create_task(mint_client.get_info(mint.url)) for _ in range(9)]
    await mint.called(4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(mint.calls) == 4
    gate.open_for_ever()
    await asyncio.gather(*asking)


async def test_a_cancelled_call_gives_its_place_back(
    mint: FakeMint, mint_client: MintClient
) -> None:
    mint.trouble(*(Trouble(path="/v1/info", gate=Gate()) for _ in range(4)))
    asking = [asyncio.create_task(mint_client.get_info(mint.url)) for _ in range(4)]
    await mint.called(4)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert (await mint_client.get_info(mint.url)).name == "Model mint"


async def test_no_error_repeats_what_the_mint_said(
    mint: FakeMint, mint_client: MintClient, swap: Swap
) -> None:
    for trouble in (
        Trouble(status=400, code=10001, detail="birdsong"),
        Trouble(status=500, detail="birdsong"),
        Trouble(body=b'{"signatures": "birdsong"}'),
        Trouble(status=422, detail=[{"input": "birdsong"}]),
    ):
        mint.trouble(trouble)
        with pytest.raises((MintRefused, MintUnknown)) as caught:
            await swap.send(mint_client)
        error: BaseException | None = caught.value
        while error is not None:
            assert "birdsong" not in repr(error) + str(error) + repr(vars(error))
            error = error.__cause__


async def test_how_much_is_read_is_the_operators_choice(mint: FakeMint) -> None:
    async with MintClient(
        mint_urls=[mint.url], clock=FakeClock(), allow_loopback_http=True, answer_bytes_max=100
    ) as modest:
        with pytest.raises(MintUnknown, match="too large"):
            await modest.load_keysets(mint.url)
