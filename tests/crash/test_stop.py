"""Told to stop in the middle of things: everything that runs is ended and settled in the grace."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest

from demo.servers import DemoUpstream
from tests.crash.conftest import Mortal, StartMortal, bearer
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate

GRACE_S = 1
MARGIN_S = 5
ORDER: Mapping[str, object] = {
    "model": "demo/small",
    "messages": [{"role": "user", "content": "Say it slowly, please."}],
    "max_tokens": 400,
    "stream": True,
}


@pytest.fixture
async def slow(tmp_path: Path, start_mortal: StartMortal) -> AsyncIterator[tuple[Mortal, FakeMint]]:
    directory = tmp_path / "upstream"
    options = ["--chunk-delay-ms", "200", "--answer-words", "400"]
    async with FakeMint() as mint:
        with DemoUpstream(directory, options=options) as upstream:
            node = start_mortal(
                mint.url, UPSTREAM_BASE_URL=upstream.api_url, SHUTDOWN_GRACE_S=str(GRACE_S)
            )
            yield node, mint


async def test_a_stream_is_ended_with_its_cost(
    slow: tuple[Mortal, FakeMint], http: httpx.AsyncClient
) -> None:
    node, mint = slow
    created = await http.post(
        f"{node.url}/v1/balance/create", json={"initial_balance_token": mint.issue(100)}
    )
    key = created.json()["api_key"]
    lines: list[str] = []
    async with http.stream(
        "POST", f"{node.api_url}/chat/completions", json=ORDER, headers=bearer(key)
    ) as answer:
        async for line in answer.aiter_lines():
            lines.append(line)
            if len(lines) == 5:
                node.process.send(signal.SIGTERM)
    assert any('"error"' in line for line in lines), lines[-5:]
    assert await asyncio.to_thread(node.process.wait_exit, GRACE_S + MARGIN_S) == 0
    assert "Traceback" not in node.log
    node.start()
    rows = await http.get(f"{node.url}/v1/balance/transactions", headers=bearer(key))
    (usage, _) = rows.json()["transactions"]
    assert usage["type"] == "usage"
    assert -usage["amount_msats"] > 0  # what was handed out was charged, and no more
    info = await http.get(f"{node.url}/v1/balance/info", headers=bearer(key))
    assert info.json()["reserved"] == 0
    told = [json.loads(line[10:]) for line in lines if line.startswith(": routstr ")]
    assert told[-1]["cost"]["total_msats"] == -usage["amount_msats"]
    await node.assert_whole()


async def test_a_deposit_at_a_stalling_mint_is_left_for_the_next_start(
    slow: tuple[Mortal, FakeMint], http: httpx.AsyncClient
) -> None:
    node, mint = slow
    gate, token = Gate(), mint.issue(21)
    mint.trouble(Trouble(path="/v1/swap", answer_gate=gate))
    asking = asyncio.create_task(
        http.post(f"{node.url}/v1/balance/create", json={"initial_balance_token": token})
    )
    await mint.called(1, "/v1/swap")
    node.process.send(signal.SIGTERM)
    answer = await asking
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "true"), answer.text
    assert await asyncio.to_thread(node.process.wait_exit, MARGIN_S) == 0
    gate.open()
    node.start()
    info = await http.get(f"{node.url}/v1/balance/info", headers=bearer(token))
    assert info.json()["balance"] == 21_000
    await node.assert_whole()
