"""A thousand streams on one key whose money runs out in the middle: each of them ends cleanly."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Final

import httpx

from bench.finding import FellShort, Finding, require, stumbled
from bench.scene import Customer, Scene, at_rest, audit, open_scene, rows
from tests.harness.process import NodeProcess

STREAMS: Final = 1_000
MODEL: Final = "demo/large"  # 1 000 msat a request, 10 msat a token out
WORDS: Final = 100
WORD_DELAY_MS: Final = 250
BEGIN_DELAY_MS: Final = 20_000  # so that all are admitted before the first word
SLICE_TOKENS: Final = 16
KEY_SAT: Final = 1_700  # all can begin, which takes about 1 450; to the end it takes 2 050
STREAM_TIMEOUT_S: Final = 240
DONE: Final = "data: [DONE]"
WHAT: Final = f"{STREAMS:,} streams on a key whose money runs out"

CHARGES: Final = """
SELECT t.amount, json_extract(t.request_data, '$.outcome'),
       json_extract(t.request_data, '$.absorbed_msat'), r.quote_amount
FROM "transaction" t JOIN reservation r ON 'end:' || r.id = t.operation_id
WHERE t.type = 'usage'
"""


def prove() -> Iterator[Finding]:
    """One finding."""
    options = (
        "--answer-words", str(WORDS),
        "--chunk-delay-ms", str(WORD_DELAY_MS),
        "--answer-delay-ms", str(BEGIN_DELAY_MS),
    )  # fmt: skip
    with stumbled(WHAT) as failed, open_scene(upstream_options=options) as scene:
        yield asyncio.run(_starve(scene))
    yield from failed


async def _starve(scene: Scene) -> Finding:
    with scene.node({"OUTPUT_SLICE_TOKENS": str(SLICE_TOKENS)}) as node:
        async with scene.customer(node, funds_sat=KEY_SAT + 50) as customer:
            funds_msat = await customer.open_key(KEY_SAT)
            ends = Counter(
                await asyncio.gather(*(_stream_to_its_end(customer) for _ in range(STREAMS)))
            )
            if set(ends) != {"length", "stop"}:
                raise FellShort(f"the streams ended so: {dict(ends)}")
            await at_rest(node)
            left_msat = int((await customer.info())["balance"])
            outcomes, above_quote = _check_charges(node, funds_msat - left_msat)
            await audit(node)
    return Finding(
        what=WHAT,
        found=f"{dict(ends)}, {left_msat} msat left, {dict(outcomes)}",
        must="each ends with a reason and [DONE], balance >= 0, books whole",
        ok=left_msat >= 0 and not above_quote,
        figures={"starved": ends["length"], "above_quote": above_quote, "unsettled": 0},
    )


async def _stream_to_its_end(customer: Customer) -> str:
    """The reason a stream gives for its end; anything else that happened, in words."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "On and on"}], "stream": True}
    headers = {"authorization": f"Bearer {customer.key}"}
    reason, last = "no reason", ""
    try:
        async with customer.http.stream(
            "POST", "/v1/chat/completions", json=body, headers=headers, timeout=STREAM_TIMEOUT_S
        ) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                return f"{response.status_code} {_code(response)}"
            async for line in response.aiter_lines():
                last = line or last
                if line.startswith("data: {"):
                    reason = _reason(line) or reason
    except httpx.HTTPError as error:
        return type(error).__name__
    return reason if last == DONE else f"ended by {last[:60]}"


def _code(response: httpx.Response) -> str:
    """The code of an error."""
    return str(response.json()["error"]["code"])


def _reason(line: str) -> str | None:
    for choice in json.loads(line.removeprefix("data: ")).get("choices", ()):
        if choice.get("finish_reason"):
            return str(choice["finish_reason"])
    return None


def _check_charges(node: NodeProcess, spent_msat: int) -> tuple[Counter[str], int]:
    """How the requests ended by the books, and how many cost more than their quote."""
    charges = rows(node, CHARGES)
    require("how many requests are charged", len(charges), STREAMS)
    require("the sum of all charges", -sum(row[0] for row in charges), spent_msat)
    return Counter(row[1] for row in charges), sum(-row[0] > row[3] for row in charges)
