"""A client that disconnects in mid-stream: upstream closed, what was delivered is charged."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Final

import httpx

from bench.finding import FellShort, Finding, require, stumbled
from bench.scene import Customer, Scene, audit, ok, open_scene
from demo.prices import PriceList

MODEL: Final = "demo/large"
PROMPT: Final = "Tell me something long"
WORDS: Final = 200
WORD_DELAY_S: Final = 0.05
# How many words each client reads before it leaves.
READS: Final = (1, 5, 20)
FUNDS_SAT: Final = 500
KEY_SAT: Final = 200

SETTLED_S_MAX: Final = 5
CLOSED_S_MAX: Final = 1
POLL_S: Final = 0.01
WAIT_S: Final = 15
BYTES_PER_TOKEN: Final = 4


def prove() -> Iterator[Finding]:
    """One finding."""
    what = f"{len(READS)} clients leave in mid-stream"
    options = ("--answer-words", str(WORDS), "--chunk-delay-ms", str(int(WORD_DELAY_S * 1000)))
    with stumbled(what) as failed, open_scene(upstream_options=options) as scene:
        yield asyncio.run(_leave(what, scene))
    yield from failed


async def _leave(what: str, scene: Scene) -> Finding:
    closed_s, settled_s = 0.0, 0.0
    with scene.node() as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT) as customer:
            await customer.open_key(KEY_SAT)
            for count, words in enumerate(READS, start=1):
                text = await _read_some(customer, words)
                left_s = time.monotonic()
                seconds = await asyncio.gather(
                    _upstream_closed(scene, count, left_s), _settled(customer, count, left_s)
                )
                closed_s, settled_s = max(closed_s, seconds[0]), max(settled_s, seconds[1])
                await _check_charge(customer, text)
            await audit(node)
    return Finding(
        what=what,
        found=f"settled in {settled_s:.2f} s, upstream closed in {closed_s:.2f} s, charged",
        must=f"{SETTLED_S_MAX} s, {CLOSED_S_MAX} s, what was delivered",
        ok=settled_s <= SETTLED_S_MAX and closed_s <= CLOSED_S_MAX,
        figures={"settled_s": f"{settled_s:.2f}", "upstream_closed_s": f"{closed_s:.2f}"},
    )


async def _read_some(customer: Customer, words: int) -> str:
    """Read that many words of a stream and hang up; what was read."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
        "max_tokens": WORDS,
    }
    headers = {"authorization": f"Bearer {customer.key}"}
    text, read = "", 0
    async with customer.http.stream(
        "POST", "/v1/chat/completions", json=body, headers=headers
    ) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
            word = str(delta.get("content", ""))
            text += word
            read += bool(word)
            if read == words:
                return text
    raise FellShort("the stream ended before the client left")


async def _upstream_closed(scene: Scene, count: int, left_s: float) -> float:
    """Seconds until the upstream has seen so many streams cut."""
    async with httpx.AsyncClient(base_url=scene.upstream.url, trust_env=False) as http:
        while (await http.get("/stats")).json()["streams_cut"] < count:
            await _pause(left_s, "the upstream's connection stays open")
    return time.monotonic() - left_s


async def _settled(customer: Customer, count: int, left_s: float) -> float:
    """Seconds until so many requests are charged and nothing is held."""
    while (info := await customer.info())["reserved"] or info["total_requests"] < count:
        await _pause(left_s, "the request is not settled")
    return time.monotonic() - left_s


async def _pause(left_s: float, otherwise: str) -> None:
    if time.monotonic() - left_s > WAIT_S:
        raise FellShort(f"{otherwise} after {WAIT_S} s")
    await asyncio.sleep(POLL_S)


async def _check_charge(customer: Customer, text: str) -> None:
    """At least what was read; at most that and what was on its way, with the whole prompt."""
    rows = ok(await customer.call("GET", "/v1/balance/transactions"))["transactions"]
    charged_msat = -rows[0]["amount_msats"]
    price = PriceList.load()[MODEL]
    read = -(-len(text.encode()) // BYTES_PER_TOKEN)
    on_its_way = int(CLOSED_S_MAX / WORD_DELAY_S) * len("everything ")
    least = price.cost_msat(words_in=0, words_out=read)
    most = price.cost_msat(words_in=100, words_out=read + on_its_way // BYTES_PER_TOKEN)
    require(f"whether {least} <= {charged_msat} <= {most}", least <= charged_msat <= most, True)
