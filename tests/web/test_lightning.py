"""`/lightning/*` over HTTP: names, codes, and who is shown which key."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from routstr.flows.context import Context
from routstr.flows.invoice import look_at_invoices
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.desk import Desk, open_desk

PREFIXES = ("/lightning", "/v1/balance/lightning", "/v1/wallet/lightning", "/v2/lightning")
NOBODY = "sk-" + "0" * 64


@pytest.fixture
async def desk(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    # The watcher sleeps, so that each look is one that the test asked for.
    async with (
        FakeMint() as mint,
        open_desk(sqlite_url, mint, tmp_path / "data", invoices_every_s=3600) as desk,
    ):
        yield desk


async def invoice(desk: Desk, prefix: str = "/lightning", **body: object) -> dict[str, Any]:
    answer = await desk.http.post(f"{prefix}/invoice", json={"amount_sats": 21, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


async def paid(desk: Desk, made: dict[str, Any]) -> dict[str, Any]:
    """Pay it, and let the watcher see it."""
    desk.mint.quotes.pay(made["bolt11"])
    await due_now(desk.ctx)
    await look_at_invoices(desk.ctx)
    answer = await desk.http.get(f"/lightning/invoice/{made['invoice_id']}/status")
    shown: dict[str, Any] = answer.json()
    assert shown["status"] == "paid", answer.text
    return shown


async def due_now(ctx: Context) -> None:
    async with ctx.database.writer.begin() as connection:
        await connection.execute(text("UPDATE lightning_invoice SET next_poll_at = created_at"))


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_key_by_lightning(desk: Desk, prefix: str) -> None:
    made = await invoice(desk, prefix, balance_limit=5_000, balance_limit_reset="daily")
    assert made.keys() == {"invoice_id", "bolt11", "amount_sats", "expires_at", "payment_hash"}
    assert len(made["invoice_id"]) == 32
    path = f"{prefix}/invoice/{made['invoice_id']}/status"
    before = (await desk.http.get(path)).json()
    assert before == {
        "status": "pending",
        "api_key": None,
        "amount_sats": 21,
        "paid_at": None,
        "created_at": before["created_at"],
        "expires_at": made["expires_at"],
    }
    assert abs(before["expires_at"] - before["created_at"] - 3600) <= 1
    shown = await paid(desk, made)
    assert shown["paid_at"] >= before["created_at"]
    recovered = await desk.http.post(f"{prefix}/recover", json={"bolt11": made["bolt11"]})
    assert recovered.json() == shown
    assert recovered.headers["cache-control"] == "no-store"
    headers = {"authorization": f"Bearer {shown['api_key']}"}
    info = (await desk.http.get("/v1/balance/info", headers=headers)).json()
    assert (info["balance"], info["balance_limit"]) == (21_000, 5_000)
    assert (await desk.http.get(path)).json() == {**shown, "api_key": None}
    history = (await desk.http.get("/v1/balance/history", headers=headers)).json()
    [entry] = history["transactions"]
    assert (entry["source"], entry["amount"], entry["collected"]) == ("lightning", 21, True)
    assert made["invoice_id"] not in str(history)


async def test_a_topup_by_header_and_by_body(desk: Desk) -> None:
    customer = await desk.create(1)
    by_body = await invoice(desk, purpose="topup", api_key=customer.key)
    answer = await desk.http.post(
        "/lightning/invoice", json={"amount_sats": 4, "purpose": "topup"}, headers=customer.headers
    )
    for made in (by_body, answer.json()):
        assert (await paid(desk, made))["api_key"] == customer.key
        recovered = await desk.http.post("/lightning/recover", json={"bolt11": made["bolt11"]})
        assert recovered.json()["api_key"] is None
    assert await customer.balance() == 26_000


async def test_a_token_may_stand_for_the_key_it_opened(desk: Desk) -> None:
    customer = await desk.create(1)
    made = await invoice(desk, purpose="topup", api_key=customer.token)
    assert (await paid(desk, made))["api_key"] is None
    assert await customer.balance() == 22_000


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"purpose": "topup"}, (401, "topup_authorization_required")),
        ({"purpose": "topup", "api_key": "sk-123"}, (400, "topup_invalid_api_key_format")),
        ({"purpose": "topup", "api_key": NOBODY}, (404, "topup_api_key_not_found")),
        ({"amount_sats": 0}, (400, "invalid_parameter")),
        ({"amount_sats": 1_000_001}, (400, "invalid_parameter")),
        ({"amount_sats": "21"}, (400, "invalid_parameter")),
        ({"purpose": "gift"}, (400, "invalid_parameter")),
        ({"balance_limit": 0}, (400, "invalid_parameter")),
        ({"validity_date": 1}, (400, "invalid_parameter")),
    ],
)
async def test_what_is_refused_costs_no_call(
    desk: Desk, body: dict[str, object], wanted: tuple[int, str]
) -> None:
    answer = await desk.http.post("/lightning/invoice", json={"amount_sats": 21, **body})
    assert refused(answer) == wanted
    said = answer.json()
    detailed = {"error": said["error"]} if wanted[0] == 401 else said["error"]["message"]
    assert said["detail"] == detailed
    assert desk.mint.calls == []


async def test_a_mint_that_is_down(desk: Desk) -> None:
    body = {"amount_sats": 21}
    desk.mint.trouble(Trouble(path="/v1/info", status=500))
    answer = await desk.http.post("/lightning/invoice", json=body)
    assert refused(answer) == (503, "lightning_mint_unreachable")
    assert "retry-after" in answer.headers
    desk.mint.trouble(Trouble(path="/v1/mint/quote", processed=False, status=429))
    answer = await desk.http.post("/lightning/invoice", json=body)
    assert refused(answer) == (503, "lightning_mint_rate_limited")


async def test_misses_look_all_the_same(desk: Desk) -> None:
    made = await invoice(desk)
    misses = [
        await desk.http.get(f"/lightning/invoice/{name}/status")
        for name in ("0" * 32, "x", "inv_" + "0" * 32, made["payment_hash"])
    ]
    misses.append(await desk.http.post("/lightning/recover", json={"bolt11": "lnbc1"}))
    bodies = [{**each.json(), "request_id": ""} for each in misses]
    assert {each.status_code for each in misses} == {404}
    assert all(body == bodies[0] for body in bodies)
    assert bodies[0]["error"]["code"] == "invoice_not_found"


async def test_bodies_are_bounded_as_those_of_the_balance(desk: Desk) -> None:
    for path in ("invoice", "recover"):
        answer = await desk.http.post(f"/lightning/{path}", json={"bolt11": "x" * 200_000})
        assert refused(answer) == (413, "request_too_large")
        answer = await desk.http.post(f"/lightning/{path}", content=b"amount_sats=1")
        assert refused(answer) == (415, "unsupported_media_type")
