"""Many at once: one token brought by a hundred, and a key asked by more than it can pay for."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import httpx

from bench.deeds import MSAT
from bench.finding import Finding, require, stumbled
from bench.scene import Customer, Scene, audit, open_scene

REDEMPTIONS: Final = 100
TOKEN_SAT: Final = 100
REQUESTS: Final = 200
PAID: Final = 20
PRICE_MSAT: Final = 1_000
FUNDS_SAT: Final = 500

MODEL: Final = "demo/small"
# Priced per request only, so that what a request may cost is what it does cost.
FLAT_MODELS: Final = {
    "models": [
        {
            "id": MODEL,
            "context_length": 1_000,
            "max_output_tokens": 100,
            "input_msat_per_mtok": 0,
            "output_msat_per_mtok": 0,
            "request_msat": PRICE_MSAT,
        }
    ]
}
OK: Final = int(httpx.codes.OK)
REFUSED: Final = int(httpx.codes.BAD_REQUEST)
UNPAID: Final = int(httpx.codes.PAYMENT_REQUIRED)


def prove() -> Iterator[Finding]:
    """Three findings."""
    with open_scene() as scene:
        for what, race in RACES.items():
            with stumbled(what) as failed:
                yield asyncio.run(race(scene))
            yield from failed


async def create_at_once(scene: Scene) -> Finding:
    """A hundred want a key for one token: one gets it, the others hear that it is spent."""
    with scene.node() as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT) as customer:
            token = await customer.wallet.send(TOKEN_SAT)
            body = {"initial_balance_token": token}
            answers = await _all(REDEMPTIONS, customer, "/v1/balance/create", body)
            statuses = Counter(answer.status_code for answer in answers)
            customer.key = next(
                answer.json()["api_key"] for answer in answers if answer.status_code == OK
            )
            info = await customer.info()
            await _check_whole(scene, customer, TOKEN_SAT * MSAT)
            wanted = {OK: 1, REFUSED: REDEMPTIONS - 1}
            return Finding(
                what=f"{REDEMPTIONS} creates of one token at once",
                found=f"{_told(statuses)}, {info['balance']} msat credited",
                must=f"{_told(wanted)}, {TOKEN_SAT * MSAT} msat",
                ok=statuses == wanted and info["balance"] == TOKEN_SAT * MSAT,
                figures={"creates": statuses[OK]},
            )


async def top_up_at_once(scene: Scene) -> Finding:
    """A hundred top one key up with one token: all hear of the one credit."""
    with scene.node() as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT) as customer:
            before_msat = await customer.open_key(TOKEN_SAT)
            token = await customer.wallet.send(TOKEN_SAT)
            body = {"cashu_token": token}
            answers = await _all(REDEMPTIONS, customer, "/v1/balance/topup", body)
            statuses = Counter(answer.status_code for answer in answers)
            credited_msat = (await customer.info())["balance"] - before_msat
            await _check_whole(scene, customer, 2 * TOKEN_SAT * MSAT)
            return Finding(
                what=f"{REDEMPTIONS} top-ups with one token at once",
                found=f"{_told(statuses)}, {credited_msat} msat credited",
                must=f"{_told({OK: REDEMPTIONS})}, {TOKEN_SAT * MSAT} msat once",
                ok=statuses == {OK: REDEMPTIONS} and credited_msat == TOKEN_SAT * MSAT,
                figures={"topup_credits": credited_msat // (TOKEN_SAT * MSAT)},
            )


async def spend_at_once(scene: Scene) -> Finding:
    """Two hundred requests on a key with funds for twenty."""
    models = scene.home / "flat-models.json"
    models.write_text(json.dumps(FLAT_MODELS))
    with scene.node({"MODELS_FILE": str(models)}) as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT) as customer:
            await customer.open_key(PAID * PRICE_MSAT // MSAT)
            body = {"model": MODEL, "messages": [{"role": "user", "content": "One of many"}]}
            answers = await _all(REQUESTS, customer, "/v1/chat/completions", body)
            statuses = Counter(answer.status_code for answer in answers)
            info = await customer.info()
            report = await audit(node)
            require("what the node earned", report["totals"]["surplus_msat"], PAID * PRICE_MSAT)
            wanted = {OK: PAID, UNPAID: REQUESTS - PAID}
            return Finding(
                what=f"{REQUESTS} requests at once with funds for {PAID}",
                found=f"{_told(statuses)}, balance {info['balance']}, held {info['reserved']}",
                must=f"{_told(wanted)}, balance 0, held 0",
                ok=statuses == wanted and info["balance"] == info["reserved"] == 0,
                figures={"paid": statuses[OK], "balance_msat": info["balance"]},
            )


RACES: Final = {
    "one token, many creates": create_at_once,
    "one token, many top-ups": top_up_at_once,
    "one key, many requests": spend_at_once,
}


async def _all(
    count: int, customer: Customer, path: str, body: Mapping[str, object]
) -> list[httpx.Response]:
    return await asyncio.gather(*(customer.call("POST", path, body) for _ in range(count)))


async def _check_whole(scene: Scene, customer: Customer, owed_msat: int) -> None:
    totals = (await audit(customer.node, "--deep"))["totals"]
    require("what the node owes", totals["balances_msat"], owed_msat)
    require("what the node holds", totals["held_msat"], owed_msat)


def _told(statuses: dict[int, int]) -> str:
    return ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
