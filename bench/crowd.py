"""A crowd that pays per request, at a mint that allows twenty transactions a minute.

Three hundred tokens, each locked to the node and each paying for one request, twenty at a time. The
node must not need the mint for any of them; all the change must come back; and the mint's own books
must know every coin.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import httpx

from bench.deeds import MSAT
from bench.finding import FellShort, Finding, require, stumbled
from bench.races import FLAT_MODELS, MODEL
from bench.scene import Customer, Scene, audit, ok, open_scene, rows
from demo.wallet import Wallet
from routstr.ecash.token import BODY_BYTES_MAX, decode_token, encode_token_v4
from tests.faults.proxy import FaultProxy
from tests.harness.process import NodeProcess

REQUESTS: Final = 300
AT_ONCE: Final = 20
PER_MINUTE: Final = 20
BURST: Final = 8
TOKEN_SAT: Final = 21
FLOAT_SAT: Final = 8_192
FEE_PPK: Final = 100
CLAIM_TIMEOUT_S: Final = 120
CLAIM_POLL_S: Final = 0.5
REST_TIMEOUT_S: Final = 420  # a stock mint that said 429 wants a minute of silence
LIMITED: Final = {"MINT_RATE_LIMIT": "TRUE"}  # at its own 20 transactions and 60 calls a minute
UNFINISHED: Final = """
SELECT 1 FROM mint_operation WHERE state NOT IN ('done', 'failed')
UNION ALL SELECT 1 FROM proof WHERE state = 'locked'
"""
WHAT: Final = f"{REQUESTS} requests by X-Cashu, {AT_ONCE} at once, mint at {PER_MINUTE} a minute"


def prove() -> Iterator[Finding]:
    """One finding."""
    with stumbled(WHAT) as failed:
        yield asyncio.run(_prove())
    yield from failed


async def _prove() -> Finding:
    with open_scene(fee_ppk=FEE_PPK, mint_options=LIMITED) as scene:
        async with FaultProxy(scene.mint.url, outgoing_host="127.0.0.2") as proxy:
            with scene.node(_settings(scene, proxy)) as node:
                funds_sat = FLOAT_SAT + REQUESTS * (TOKEN_SAT + 3)
                async with scene.customer(node, funds_sat=funds_sat) as customer:
                    return await _serve_crowd(scene, proxy, node, customer)


def _settings(scene: Scene, proxy: FaultProxy) -> dict[str, str]:
    """A node that knows what its mint allows, which limits whoever is not 127.0.0.1."""
    models = scene.home / "flat-models.json"
    models.write_text(json.dumps(FLAT_MODELS))
    return {
        "CASHU_MINTS": proxy.url,
        "MODELS_FILE": str(models),
        # Together, as many as the mint allows in the first minute.
        "MINT_CALLS_BURST": str(BURST),
        "MINT_CALLS_PER_MINUTE": str(PER_MINUTE - BURST),
    }


async def _serve_crowd(
    scene: Scene, proxy: FaultProxy, node: NodeProcess, customer: Customer
) -> Finding:
    wallet = customer.wallet
    funds = renamed(await wallet.send(FLOAT_SAT), proxy.url)
    body = {"initial_balance_token": funds}
    customer.key = ok(await customer.call("POST", "/v1/balance/create", body))["api_key"]
    lock = ok(await customer.http.get("/v1/info"))["p2pk_pubkey"]
    tokens = [renamed(await wallet.send(TOKEN_SAT, lock=lock), proxy.url) for _ in range(REQUESTS)]
    before = proxy.counts
    started_s = time.monotonic()
    answers = await _crowd(customer.http, tokens)
    took_s = time.monotonic() - started_s
    calls = (proxy.counts - before).total()
    paid = [answer for answer in answers if answer.status_code == httpx.codes.OK]
    refused = Counter(answer.text for answer in answers if answer not in paid)
    at_once = sum("x-cashu" in answer.headers for answer in paid)
    for answer in paid:
        token = await _change(customer.http, answer)
        await wallet.receive(renamed(token, wallet.mint_url))
    lost_sat = await _lost_sat(scene, node, wallet)
    return Finding(
        what=WHAT,
        found=f"{len(paid)} served in {took_s:.1f} s, change at once for {at_once}, {calls} calls"
        f" to the mint; {lost_sat * MSAT} msat lost",
        must=f"{REQUESTS} served, 0 msat lost",
        ok=len(paid) == REQUESTS and lost_sat == 0,
        figures={"xcashu_served": len(paid), "lost_msat": lost_sat * MSAT},
        complaints=tuple(refused)[:3],
    )


async def _crowd(http: httpx.AsyncClient, tokens: Sequence[str]) -> list[httpx.Response]:
    """Every token pays for one request; so many of them at a time."""
    places = asyncio.Semaphore(AT_ONCE)
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "One of many"}]}

    async def pay(token: str) -> httpx.Response:
        async with places:
            return await http.post("/v1/chat/completions", json=asked, headers={"x-cashu": token})

    return await asyncio.gather(*(pay(token) for token in tokens))


async def _change(http: httpx.AsyncClient, answer: httpx.Response) -> str:
    """The change that came with an answer, or that is claimed after it. Raises FellShort."""
    if token := answer.headers.get("x-cashu"):
        return str(token)
    path = answer.headers["x-routstr-change"]
    headers = {"authorization": f"Bearer {answer.headers['x-routstr-claim-secret']}"}
    deadline_s = time.monotonic() + CLAIM_TIMEOUT_S
    while time.monotonic() < deadline_s:
        claimed = await http.get(path, headers=headers)
        if claimed.status_code == httpx.codes.OK:
            return str(claimed.json()["token"])
        await asyncio.sleep(CLAIM_POLL_S)
    raise FellShort(f"change cannot be claimed: {claimed.status_code} {claimed.text}")


async def _lost_sat(scene: Scene, node: NodeProcess, wallet: Wallet) -> int:
    """What the mint has signed and neither the node nor the customer has."""
    deadline_s = time.monotonic() + REST_TIMEOUT_S
    while rows(node, UNFINISHED):
        require("time to redeem what is locked", time.monotonic() < deadline_s, True)
        await asyncio.sleep(CLAIM_POLL_S)
    await audit(node, "--deep")
    held = rows(node, "SELECT coalesce(sum(amount), 0) FROM proof WHERE state = 'unspent'")
    return scene.outstanding_sat() - wallet.balance - int(held[0][0])


def renamed(text: str, mint_url: str) -> str:
    """The same token as of a mint at another address."""
    token = replace(decode_token(text, bytes_max=BODY_BYTES_MAX), mint_url=mint_url)
    return encode_token_v4(token, include_dleq=True)
