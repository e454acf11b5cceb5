"""The price before the request: the 402 that a wallet can pay, and `/v1/quote`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from routstr.ecash.request import decode_request
from routstr.flows.offer import with_redemption_fee
from routstr.flows.refresh import refresh
from routstr.flows.upstreams import RouteWish, set_route
from tests.fakes.mint import FakeMint
from tests.fakes.upstream_script import Script
from tests.harness.kiosk import Kiosk, open_kiosk
from tests.harness.shop import PATH, order
from tests.harness.till import worth, ys_of

MAX_MSAT = 792  # 100 a request, 96 bytes at 2 msat, 100 tokens at 5


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint(fee_ppk=600) as mint:
        yield mint


@pytest.fixture
async def kiosk(sqlite_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Kiosk]:
    async with open_kiosk(sqlite_url, mint, tmp_path) as kiosk:
        yield kiosk


async def test_a_request_without_money_is_told_how_to_pay(kiosk: Kiosk, mint: FakeMint) -> None:
    await kiosk.buy(mint.issue(8))  # from now on the mint's fee is known
    body = order(max_tokens=1_000)
    asked = await kiosk.http.post(PATH, json=body)
    assert (asked.status_code, asked.headers["x-should-retry"]) == (402, "false")
    error = asked.json()["error"]
    assert (error["type"], error["code"]) == ("payment_required", "payment_required")
    details = error["details"]
    assert details["payment_request"] == asked.headers["x-cashu"]
    assert details["mints"] == [mint.url]
    request = decode_request(asked.headers["x-cashu"])
    assert request == decode_request(details["payment_request_bech32"])
    assert (request.unit, request.mints, request.transports) == ("sat", (mint.url,), ())
    assert request.id is not None
    # 5 294 msat are 6 sat, in two coins, whose redemption takes 2; 8 is one coin, which takes 1.
    assert (details["amount_required_msat"], request.amount) == (5_294, 8)
    paid = await kiosk.http.post(PATH, json=body, headers={"x-cashu": mint.issue(8)})
    assert paid.status_code == 200
    assert "x-routstr-output-limit" not in paid.headers


async def test_locked_ecash_is_taken_without_the_mint(kiosk: Kiosk, mint: FakeMint) -> None:
    """What the 402 asks for: the mint first hears of it when its coins are wanted for change."""
    await kiosk.buy(mint.issue(8))  # from now on the mint and what it can are known
    asked = decode_request((await kiosk.http.post(PATH, json=order())).headers["x-cashu"])
    assert asked.lock is not None
    assert asked.lock.kind == "P2PK"
    token = mint.issue(16, lock_to=asked.lock.data)
    called = len(mint.calls)
    kiosk.marks.at["forward.answered"] = lambda: kiosk.marks.passed.append(
        f"{len(mint.calls) - called} calls before the answer"
    )
    answers = await asyncio.gather(*(kiosk.buy(token) for _ in range(5)))
    assert "0 calls before the answer" in kiosk.marks.passed
    [answer] = [each for each in answers if each.status_code == 200]
    assert len(kiosk.upstream.calls) == 2
    change = answer.headers["x-cashu"]
    assert set(mint.state_of(ys_of(change)).values()) == {"UNSPENT"}
    assert worth(change) == 14  # 16, less 1 for the redemption, less what it cost


@pytest.mark.parametrize("amount", [1, 3, 6, 7, 1023, 2**20 - 1])
@pytest.mark.parametrize("fee_ppk", [0, 1, 100, 999, 5000])
def test_what_is_asked_for_is_enough(amount: int, fee_ppk: int) -> None:
    total = with_redemption_fee(amount, fee_ppk)
    assert total - (total.bit_count() * fee_ppk + 999) // 1000 >= amount


async def test_a_quote_says_the_price_and_holds_nothing(kiosk: Kiosk, mint: FakeMint) -> None:
    by_body = await kiosk.http.post("/v1/quote", json=order())
    told = by_body.json()
    request = decode_request(told.pop("payment_request"))
    assert decode_request(told.pop("payment_request_bech32")) == request
    assert told == {
        "model": "fake-model",
        "amount_msat": MAX_MSAT,
        "minimum_msat": MAX_MSAT - 84 * 5,
        "amount": 1,
        "unit": "sat",
        "price_version": told["price_version"],
        "input_tokens_max": 96,
        "output_limit": 100,
        "stream": False,
        "mints": [mint.url],
    }
    asked = "model=fake-model&max_tokens=100&input_tokens=96&stream=true"
    by_numbers = (await kiosk.http.get(f"/v1/quote?{asked}")).json()
    assert (by_numbers["amount_msat"], by_numbers["stream"]) == (MAX_MSAT, True)
    whole = (await kiosk.http.get("/v1/quote", params={"model": "fake-model"})).json()
    assert (whole["input_tokens_max"], whole["output_limit"]) == (10_000, 2_000)
    assert mint.calls == []


async def test_a_quote_refuses_what_the_road_would(kiosk: Kiosk) -> None:
    wrong = [
        (400, "invalid_json", await kiosk.http.post("/v1/quote", json=[])),
        (415, "unsupported_media_type", await kiosk.http.post("/v1/quote", content=b"{}")),
        (400, "invalid_model", await kiosk.http.post("/v1/quote", json=order(model="x"))),
        (400, "invalid_parameter", await kiosk.http.get("/v1/quote")),
        (
            400,
            "invalid_parameter",
            await kiosk.http.get("/v1/quote", params={"model": "fake-model", "max_tokens": 9_999}),
        ),
        (405, "not_found", await kiosk.http.delete("/v1/quote")),
    ]
    for status, code, answer in wrong:
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


async def test_a_route_is_quoted_and_paid_by_a_token(kiosk: Kiosk, mint: FakeMint) -> None:
    wish = RouteWish(path="/v1/weather", method="GET", upstream_path="/sky", price_msat=2_500)
    await set_route(kiosk.ctx, wish)
    await refresh(kiosk.ctx)
    told = (await kiosk.http.post("/v1/quote?path=/v1/weather&method=get")).json()
    assert (told["model"], told["amount_msat"], told["amount"]) == ("GET /v1/weather", 2_500, 3)
    kiosk.upstream.script(Script(body=b"rain"))
    paid = await kiosk.http.get("/v1/weather?q=x", headers={"x-cashu": mint.issue(16)})
    assert (paid.status_code, paid.content) == (200, b"rain")
    assert kiosk.upstream.calls[-1].path == "/v1/sky?q=x"
    assert worth(paid.headers["x-cashu"]) == 12  # less 1 for the redemption, and 2.5 sat
    for path in ("/v1/nowhere", "/v1/quote", "/v1/weather/x"):
        assert (await kiosk.http.put(path)).status_code in (404, 405)


async def test_a_stream_of_a_route_leaves_change(kiosk: Kiosk, mint: FakeMint) -> None:
    await set_route(kiosk.ctx, RouteWish(path="/v1/ticker", price_msat=2_500))
    await refresh(kiosk.ctx)
    kiosk.upstream.script(Script(events=[b"data: 1\n\n", b"data: 2\n\n"]))
    token = mint.issue(16)
    ticked = await kiosk.http.post("/ticker", headers={"x-cashu": token}, json={"stream": True})
    assert (ticked.status_code, ticked.content) == (200, b"data: 1\n\ndata: 2\n\n")
    change = (await kiosk.change(ticked.headers["x-routstr-change"], token=token)).json()
    assert (change["status"], worth(change["token"]), change["cost"]) == ("ready", 12, 2_500)
