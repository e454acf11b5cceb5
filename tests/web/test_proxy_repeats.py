"""Paid requests with an Idempotency-Key, over real HTTP: one call upstream, one charge."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from routstr.core.signed_receipt import read_receipt
from routstr.flows.repeat import comparable, forget_answers
from tests.fakes.mint import FakeMint
from tests.fakes.upstream_script import EMPTY, Gate, Script, failure
from tests.harness.funding import FundedKey, balance_msat, usage_rows
from tests.harness.kiosk import COST_MSAT, open_kiosk
from tests.harness.shop import PATH, PROMPT, Shop, open_shop, order, until
from tests.harness.till import ON_SQLITE
from tests.ledger.lossy import lossy_line
from tests.web.test_proxy_leaving import half_a_body

FUNDS_MSAT = 1_000_000
NAME = "order 66"
BIG = json.dumps(
    {
        "choices": [{"index": 0, "message": {"content": "x" * 2**20}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
).encode()


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


async def ask(shop: Shop, key: FundedKey, name: str = NAME, **more: object) -> httpx.Response:
    headers = {**key.headers, "idempotency-key": name}
    return await shop.http.post(PATH, headers=headers, json=order(**more))


def facts(answer: httpx.Response) -> dict[str, str]:
    """What a repeat says in the same headers."""
    mine = ("x-routstr-", "content-type", "openai-")
    headers = {n: v for n, v in answer.headers.items() if n.startswith(mine)}
    return headers | {"x-routstr-request-id": "each its own"}


def was_replayed(answer: httpx.Response) -> bool:
    return bool(answer.headers.get("idempotent-replayed") == "true")


async def stored(shop: Shop) -> str:
    async with shop.ctx.database.reading() as connection:
        rows = (await connection.execute(text("SELECT * FROM idempotency"))).mappings().all()
    return json.dumps([dict(row) for row in rows], default=str)


async def change(shop: Shop, assignment: str) -> None:
    async with shop.ctx.database.writer.begin() as connection:
        await connection.execute(text(f"UPDATE idempotency SET {assignment}"))


async def assert_charged(shop: Shop, key: FundedKey, times: int) -> None:
    await shop.quiet()
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - times * COST_MSAT


# ── the first answer again ────────────────────────────────────────────────────────────────────


async def test_a_repeat_gets_the_first_answer_and_later_its_receipt(shop: Shop) -> None:
    key, other = await shop.key(FUNDS_MSAT), await shop.key(FUNDS_MSAT)
    first = await ask(shop, key)
    assert (first.status_code, was_replayed(first)) == (200, False)
    await ask(shop, key, "another")
    again = await ask(shop, key)
    assert (again.status_code, was_replayed(again)) == (200, True)
    assert (again.content, facts(again)) == (first.content, facts(first))
    assert again.json()["usage"]["remaining_balance_msats"] == FUNDS_MSAT - COST_MSAT
    assert not was_replayed(await ask(shop, other))
    await assert_charged(shop, key, 2)

    changed = await ask(shop, key, max_tokens=99)
    assert changed.status_code == 422
    assert changed.headers["x-should-retry"] == "false"
    assert changed.json()["error"]["code"] == "idempotency_mismatch"

    kept = await stored(shop)
    for secret in ("one two three", PROMPT, NAME, key.text, "prompt_tokens", "openai-processing"):
        assert secret not in kept

    await change(shop, "answer_expires_at = created_at")
    await assert_gone(await ask(shop, key), first)
    assert await forget_answers(shop.ctx) == 3
    assert "v1|" not in await stored(shop)
    await assert_gone(await ask(shop, key), first)
    await assert_charged(shop, key, 2)
    assert len(shop.upstream.calls) == 3


async def assert_gone(answer: httpx.Response, first: httpx.Response) -> None:
    assert answer.status_code == 410
    assert answer.headers["x-should-retry"] == "false"
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("gone", "answer_gone")
    request_id = first.headers["x-request-id"]
    assert error["details"] == {"request_id": request_id, "cost_msats": COST_MSAT}
    receipt = read_receipt(answer.headers["x-routstr-receipt"].encode())
    assert receipt.text("request_id") == request_id


async def test_twenty_at_once_are_one_request(shop: Shop) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    shop.upstream.default = Script(gate=gate)
    asking = [asyncio.create_task(ask(shop, key)) for _ in range(20)]
    await shop.upstream.called()
    gate.open_for_ever()
    answers = await asyncio.gather(*asking)
    assert len(shop.upstream.calls) == 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum(map(was_replayed, answers)) == 19
    await assert_charged(shop, key, 1)


async def test_two_nodes_buy_it_once(postgres_url: str) -> None:
    async with open_shop(postgres_url) as one, open_shop(postgres_url) as two:
        key, gate = await one.key(FUNDS_MSAT), Gate()
        one.upstream.default = two.upstream.default = Script(gate=gate)
        asking = [asyncio.create_task(ask(shop, key)) for shop in (one, two) * 5]
        await until(lambda: bool(one.upstream.calls or two.upstream.calls))
        gate.open_for_ever()
        answers = await asyncio.gather(*asking)
        assert len(one.upstream.calls) + len(two.upstream.calls) == 1
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        await assert_charged(one, key, 1)

        gate = Gate()
        one.upstream.default = Script(gate=gate)
        one.marks.passed.clear()
        first = asyncio.create_task(ask(one, key, "next"))
        await one.marks.reached("forward.answered")
        waits = asyncio.create_task(ask(two, key, "next"))
        await until(lambda: bool(two.ctx.shelf.errands))
        two.ctx.holds.stop()
        assert (await waits).json()["error"]["code"] == "not_ready"
        gate.open_for_ever()
        assert (await first).status_code == 200


async def test_who_waits_while_the_database_goes_away_may_come_again(postgres_url: str) -> None:
    async with lossy_line(postgres_url) as line, open_shop(line.url) as shop:
        key, gate = await shop.key(FUNDS_MSAT), Gate()
        shop.upstream.default = Script(gate=gate)
        first = asyncio.create_task(ask(shop, key))
        await shop.marks.reached("forward.answered")
        waits = asyncio.create_task(ask(shop, key))
        await until(lambda: bool(shop.ctx.shelf.errands))
        line.is_down = True
        line.cut()
        early = await waits
        assert (early.status_code, early.headers["x-should-retry"]) == (503, "true")
        assert early.json()["error"]["code"] == "not_ready"
        line.is_down = False
        gate.open_for_ever()
        assert (await first).status_code == 200
        assert was_replayed(await ask(shop, key))
        await assert_charged(shop, key, 1)


async def test_who_left_with_the_answer_paid_for_gets_it_later(database_url: str) -> None:
    rest = asyncio.Event()
    async with half_a_body(rest) as url, open_shop(database_url, base_url=url) as shop:
        key = await shop.key(FUNDS_MSAT)
        leaving = asyncio.create_task(ask(shop, key))
        await shop.marks.reached("forward.answered")
        leaving.cancel()
        await shop.noticed_leave()
        rest.set()
        await shop.quiet()
        answer = await ask(shop, key)
        assert (answer.status_code, was_replayed(answer)) == (200, True)
        assert answer.json()["choices"][0]["message"]["content"] == "hi"
        assert answer.headers["x-routstr-cost-msats"] == str(COST_MSAT)
        await assert_charged(shop, key, 1)
        assert len(await usage_rows(shop.ctx, key)) == 1


# ── no answer to give again ───────────────────────────────────────────────────────────────────


async def test_what_cost_nothing_runs_anew_also_for_who_waited(shop: Shop) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    refusal = failure(400)
    shop.upstream.script(refusal, replace(refusal, headers_gate=gate))
    assert (await ask(shop, key)).status_code == 400
    fails = asyncio.create_task(ask(shop, key))
    await shop.upstream.called(2)
    waits = asyncio.create_task(ask(shop, key))
    await until(lambda: bool(shop.ctx.shelf.errands))
    gate.open_for_ever()
    assert (await fails).status_code == 400
    answer = await waits
    assert (answer.status_code, was_replayed(answer)) == (200, False)
    assert was_replayed(await ask(shop, key))
    assert len(shop.upstream.calls) == 3
    await assert_charged(shop, key, 1)


@ON_SQLITE
async def test_a_stream_is_told_of_but_not_given_again(database_url: str) -> None:
    async with open_shop(database_url, operation_wait_s=0.05) as shop:
        key, gate = await shop.key(FUNDS_MSAT), Gate()
        shop.upstream.default = Script(gate=gate)
        first = asyncio.create_task(ask(shop, key, stream=True))
        await shop.upstream.called()
        early = await ask(shop, key, stream=True)
        assert early.status_code == 425
        assert early.json()["error"]["code"] == "operation_in_progress"
        assert (early.headers["x-should-retry"], early.headers["retry-after"]) == ("true", "2")
        gate.open_for_ever()
        streamed = await first
        assert streamed.content.endswith(b"data: [DONE]\n\n")
        await shop.quiet()
        await assert_gone(await ask(shop, key, stream=True), streamed)
        await assert_charged(shop, key, 1)


@ON_SQLITE
async def test_what_is_too_large_is_not_kept(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = Script(body=BIG)
    first = await ask(shop, key)
    assert first.status_code == 200
    await assert_gone(await ask(shop, key), first)


@ON_SQLITE
async def test_an_answer_that_cost_nothing_is_given_again_all_the_same(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = EMPTY
    first, again = await ask(shop, key), await ask(shop, key)
    assert (first.status_code, first.headers["x-routstr-cost-msats"]) == (200, "0")
    assert (again.content, facts(again), was_replayed(again)) == (
        first.content,
        facts(first),
        True,
    )


# ── who may, and with what ────────────────────────────────────────────────────────────────────


@ON_SQLITE
async def test_only_a_usable_key_counts_and_a_broke_one_gets_its_answer(shop: Shop) -> None:
    poor = await ask(shop, await shop.key(0), max_tokens=16)
    key = await shop.key(poor.json()["error"]["details"]["required_msat"] + COST_MSAT - 1)
    refused = await ask(shop, key, "x" * 256)
    assert refused.json()["error"]["param"] == "Idempotency-Key"
    assert (await ask(shop, key, max_tokens=16)).status_code == 200
    assert (await ask(shop, key, "new", max_tokens=16)).status_code == 402
    assert was_replayed(await ask(shop, key, max_tokens=16))
    assert "answer" in await stored(shop)
    async with shop.ctx.database.writer.begin() as connection:
        await connection.execute(text("UPDATE apikey SET revoked_at = created_at"))
    assert (await ask(shop, key, max_tokens=16)).status_code == 403


def test_the_same_form_is_the_same_body_whatever_parts_it() -> None:
    def form(boundary: str, text: str) -> bytes:
        said = f'--{boundary}\r\ncontent-disposition: form-data; name="a"\r\n\r\n{text}\r\n'
        return comparable(
            f"{said}--{boundary}--\r\n".encode(), f'Multipart/form-data; Boundary="{boundary}"'
        )

    assert form("one", "x") == form("two", "x") != form("two", "y")
    assert comparable(b"--one", "application/json; boundary=one") == b"--one"


@ON_SQLITE
async def test_who_waits_does_not_begin_on_a_stopping_node(shop: Shop) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    shop.upstream.default = Script(headers_gate=gate)
    first = asyncio.create_task(ask(shop, key))
    await shop.upstream.called()
    waits = asyncio.create_task(ask(shop, key))
    await until(lambda: bool(shop.ctx.shelf.errands))
    shop.ctx.holds.stop()
    answers = [await first, await waits]
    assert [answer.json()["error"]["code"] for answer in answers] == ["not_ready"] * 2
    assert len(shop.upstream.calls) == 1
    await assert_charged(shop, key, 0)


@ON_SQLITE
async def test_a_token_that_pays_is_its_own_key(
    database_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    async with open_kiosk(database_url, mint, tmp_path) as kiosk:
        for token in (mint.issue(5), mint.issue(5)):
            headers = {"x-cashu": token, "idempotency-key": "x" * 256}
            answer = await kiosk.http.post(PATH, headers=headers, json=order())
            assert (answer.status_code, was_replayed(answer)) == (200, False)
        assert len(kiosk.upstream.calls) == 2
