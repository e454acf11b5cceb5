"""Clients that are not ours and know nothing of us buy over real HTTP, and pay to the msat."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes.upstream_script import MODEL, Script
from tests.harness.funding import assert_books_are_clean, balance_msat, told, usage_rows
from tests.harness.shop import Shop, open_shop
from tests.harness.till import ON_SQLITE

HERE: Final = Path(__file__).parent
PYTHON: Final = HERE.parents[1] / ".venv-clients" / "bin" / "python"
PROGRAM_TIMEOUT_S: Final = 60
FUNDS_MSAT: Final = 1_000_000
COST_MSAT: Final = 100 + 10 * 2 + 5 * 5  # the fake's usage: 10 tokens in, 5 out
EMBEDDING_MSAT: Final = 100 + 6 * 2
VECTORS: Final = Script(
    body=b'{"object":"list","model":"fake-model","data":['
    b'{"object":"embedding","index":0,"embedding":[0.5,0.25]},'
    b'{"object":"embedding","index":1,"embedding":[0.5,0.25]}],'
    b'"usage":{"prompt_tokens":6,"total_tokens":6}}'
)
TOOL_CALL: Final = Script(
    body=b'{"id":"c","object":"chat.completion","created":1,"model":"fake-model","choices":['
    b'{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,'
    b'"tool_calls":[{"id":"call_1","type":"function","function":{"name":"weather",'
    b'"arguments":"{\\"place\\":\\"Oslo\\"}"}}]}}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}'
)

pytestmark = ON_SQLITE


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


async def run(program: str, shop: Shop, secret: str) -> dict[str, Any]:
    """What the program printed; it may say nothing else, above all no warning."""
    assert PYTHON.exists(), "make test-clients sets up what these tests need"
    process = await asyncio.create_subprocess_exec(
        str(PYTHON), str(HERE / program), f"http://127.0.0.1:{shop.port}/v1", secret, MODEL,
        env={"PATH": "/usr/bin:/bin", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": "/nowhere"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PROGRAM_TIMEOUT_S):
        out, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")
    answer: dict[str, Any] = json.loads(out)
    return answer


async def test_langchain(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.script(Script(), Script(), TOOL_CALL, VECTORS)
    gave = await run("langchain_program.py", shop, key.text)
    for call in ("invoke", "stream", "tools"):
        usage = gave[call]["usage"]
        assert (usage["input_tokens"], usage["output_tokens"]) == (10, 5), call
    assert gave["invoke"]["text"] == gave["stream"]["text"] == "one two three"
    assert gave["stream"]["pieces"] > 2
    assert gave["tools"]["calls"][0]["args"] == {"place": "Oslo"}
    assert gave["embeddings"] == [[0.5, 0.25]] * 2
    await _check_bill(shop, key, 3)


async def test_litellm(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.script(Script(), Script(), VECTORS)
    gave = await run("litellm_program.py", shop, key.text)
    for call in ("completion", "stream"):
        usage = gave[call]["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10, 5), call
        assert gave[call]["text"] == "one two three"
    assert gave["embedding"]["vectors"] == 2
    assert gave["refusal"] == "BadRequestError"
    await _check_bill(shop, key, 2)


async def _check_bill(shop: Shop, key: Any, chats: int) -> None:
    """Every chat at its price, one batch of embeddings at its own, nothing else."""
    rows = await usage_rows(shop.ctx, key)
    assert [-row.amount_msat for row in rows] == [EMBEDDING_MSAT] + [COST_MSAT] * chats
    assert {told(row)["outcome"] for row in rows} == {"completed"}
    spent_msat = EMBEDDING_MSAT + COST_MSAT * chats
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - spent_msat
    await assert_books_are_clean(shop.ctx)
