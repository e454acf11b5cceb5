"""kill -9 of a node amid a paid request with an Idempotency-Key, then the same request again."""

import asyncio
from pathlib import Path

import httpx
import pytest

from demo.mint import RealMint
from demo.servers import DemoUpstream
from tests.crash.conftest import StartMortal, bearer, eventually
from tests.harness.mint import OpenWallet

# Where it dies, and whether the answer was bought by then.
STEPS = {"settle.before": False, "settle.after": True}
ORDER = {
    "model": "demo/small",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 100,
}


async def test_a_repeat_after_a_death_pays_once(
    start_mortal: StartMortal,
    real_mint: RealMint,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
    tmp_path: Path,
) -> None:
    wallet = await open_wallet(real_mint)
    await wallet.mint(8)
    with DemoUpstream(tmp_path / "upstream") as upstream:
        node = start_mortal(real_mint.url, UPSTREAM_BASE_URL=upstream.api_url)
        created = await http.post(
            f"{node.url}/v1/balance/create", json={"initial_balance_token": await wallet.send(8)}
        )
        key, left_msat = bearer(created.json()["api_key"]), 8_000
        for step, was_bought in STEPS.items():
            node.arm(step)
            url, headers = f"{node.api_url}/chat/completions", key | {"idempotency-key": step}
            with pytest.raises(httpx.TransportError):
                await http.post(url, json=ORDER, headers=headers)
            await asyncio.to_thread(node.fallen)
            answers = [await eventually(http, "POST", url, json=ORDER, headers=headers)]
            answers += [await http.post(url, json=ORDER, headers=headers)]
            assert [answer.status_code for answer in answers] == [200, 200], step
            replayed = [answer.headers.get("idempotent-replayed") for answer in answers]
            assert replayed == ["true" if was_bought else None, "true"], step
            assert answers[0].content == answers[1].content
            left_msat -= int(answers[0].headers["x-routstr-cost-msats"])
            info = await http.get(f"{node.url}/v1/balance/info", headers=key)
            assert (info.json()["balance"], info.json()["reserved"]) == (left_msat, 0), step
        await node.assert_whole()
