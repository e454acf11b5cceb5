"""Receipts over real HTTP: what came with an answer is what can be had later, by who paid alone.

What each outcome's receipt says, `test_proxy_billing` asks.
"""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from routstr.flows.expire import expire
from tests.fakes.mint import FakeMint
from tests.fakes.upstream_script import Gate, Script
from tests.harness.kiosk import COST_MSAT, Kiosk, open_kiosk
from tests.harness.receipts import document_in, sound_receipt
from tests.harness.shop import PATH, order
from tests.harness.till import ON_SQLITE

Headers = dict[str, str]


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def kiosk(database_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Kiosk]:
    async with open_kiosk(database_url, mint, tmp_path) as kiosk:
        yield kiosk


async def new_key(kiosk: Kiosk) -> Headers:
    body = {"initial_balance_token": kiosk.mint.issue(21)}
    created = await kiosk.http.post("/v1/balance/create", json=body)
    return {"authorization": f"Bearer {created.json()['api_key']}"}


async def ask(kiosk: Kiosk, request_id: str, headers: Headers) -> httpx.Response:
    return await kiosk.http.get(f"/v1/receipts/{request_id}", headers=headers)


def shown_in(answer: httpx.Response) -> bytes:
    if "x-routstr-receipt" in answer.headers:
        return document_in(answer.headers["x-routstr-receipt"])
    [comment] = [line for line in answer.text.split("\n") if line.startswith(": routstr ")]
    return document_in(comment)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_can_have_its_copy_again(kiosk: Kiosk, stream: bool) -> None:
    pubkey = (await kiosk.http.get("/v1/info")).json()["receipt_pubkey"]
    key, token = await new_key(kiosk), kiosk.mint.issue(21)
    for payment in (key, {"x-cashu": token}):
        answer = await kiosk.http.post(PATH, headers=payment, json=order(stream=stream))
        assert answer.status_code == 200, answer.text
        document = shown_in(answer)
        receipt = sound_receipt(document, pubkey)
        assert receipt.text("request_id") == answer.headers["x-request-id"]
        assert receipt.text("request_sha256") == hashlib.sha256(answer.request.content).hexdigest()
        assert receipt.number("charged_msats") == COST_MSAT
        assert receipt.number("balance_after_msats") == 21_000 - COST_MSAT
        ways = [payment]
        if payment is not key:
            secret = answer.headers["x-routstr-claim-secret"]
            ways.append({"authorization": f"Bearer {secret}"})
        for headers in ways:
            again = await ask(kiosk, receipt.text("request_id"), headers)
            assert (again.status_code, again.content) == (200, document)
            assert again.headers["cache-control"] == "no-store"


@ON_SQLITE
async def test_nobody_else_can(kiosk: Kiosk) -> None:
    key, token = await new_key(kiosk), kiosk.mint.issue(21)
    mine = (await kiosk.http.post(PATH, headers=key, json=order())).headers["x-request-id"]
    once = (await kiosk.buy(token)).headers["x-request-id"]
    strangers = [
        (mine, await new_key(kiosk)),
        (mine, {"authorization": f"Bearer sk-{'0' * 64}"}),
        (mine, {"authorization": f"Bearer clm_{'0' * 64}"}),
        (mine, {"authorization": "Bearer something"}),
        (mine, {"authorization": f"Bearer {kiosk.mint.issue(1)}"}),
        (mine, {"x-cashu": token}),
        (once, key),
        (once, {"x-cashu": kiosk.mint.issue(1)}),
        ("req_" + "0" * 32, key),
        ("something", key),
    ]
    said = set()
    for request_id, headers in strangers:
        refused = await ask(kiosk, request_id, headers)
        said.add((refused.status_code, str(refused.json()["error"])))
    assert len(said) == 1
    assert next(iter(said))[0] == 404
    assert (await ask(kiosk, mine, {})).status_code == 401
    for _ in range(60):
        kiosk.ctx.misses.note("receipt")
    assert (await ask(kiosk, once, key)).status_code == 429
    assert (await ask(kiosk, mine, key)).status_code == 200


@ON_SQLITE
async def test_a_childs_is_the_parents_too_and_hides_the_balance(kiosk: Kiosk) -> None:
    parent = await new_key(kiosk)
    made = await kiosk.http.post("/v1/balance/child-key", headers=parent, json={"count": 2})
    child, sibling = ({"authorization": f"Bearer {key}"} for key in made.json()["api_keys"])
    answer = await kiosk.http.post(PATH, headers=child, json=order())
    document = shown_in(answer)
    receipt = sound_receipt(document, kiosk.ctx.receipt_key.public)
    assert receipt.number("charged_msats") == COST_MSAT
    assert "balance_after_msats" not in receipt.members
    request_id = receipt.text("request_id")
    for headers in (child, parent):
        assert (await ask(kiosk, request_id, headers)).content == document
    assert (await ask(kiosk, request_id, sibling)).status_code == 404


async def test_a_hold_that_expired_has_one_too(kiosk: Kiosk) -> None:
    key, gate = await new_key(kiosk), Gate()
    kiosk.upstream.script(Script(gate=gate))
    request = kiosk.http.build_request("POST", PATH, headers=key, json=order(stream=True))
    answer = await kiosk.http.send(request, stream=True)
    request_id = answer.headers["x-request-id"]
    running = await ask(kiosk, request_id, key)
    assert (running.status_code, running.json()["error"]["code"]) == (425, "operation_in_progress")
    beside = await kiosk.http.post(PATH, headers=key, json=order())  # some of the balance is held
    assert (await ask(kiosk, beside.headers["x-request-id"], key)).content == shown_in(beside)
    assert await expire(kiosk.ctx, orphaned=True) == 1
    gate.open_for_ever()
    await answer.aread()
    assert '"receipt"' not in answer.text  # its settlement was too late to know the balance
    found = await ask(kiosk, request_id, key)
    receipt = sound_receipt(found.content, kiosk.ctx.receipt_key.public)
    assert receipt.text("outcome") == "node_crashed"
    assert (receipt.number("charged_msats"), receipt.members["lines"]) == (0, [])
    assert receipt.text("request_sha256") == hashlib.sha256(request.content).hexdigest()
