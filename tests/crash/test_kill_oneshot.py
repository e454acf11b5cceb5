"""kill -9 between any two steps of a request paid by a token alone: nothing of it is lost (T-5)."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from demo.mint import RealMint
from demo.servers import DemoUpstream
from demo.wallet import Wallet
from tests.crash.conftest import Mortal, StartMortal, eventually
from tests.harness.mint import OpenWallet

# What the token claims after a death there, of 5 sat: all of it, or all but what was charged. Each
# step leaves other rows behind; what is between the steps of a swap, test_kill_withdraw tries.
STEPS = {
    "swap.answered": 5,
    "oneshot.taken": 5,
    "settle.before": 5,
    "oneshot.before_change": 4,
    "oneshot.changed": 4,
}
ORDER = {
    "model": "demo/small",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 100,
}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoUpstream]:
    with DemoUpstream(tmp_path_factory.mktemp("upstream")) as upstream:
        yield upstream


async def buy_dying_at(
    step: str, claimed: int, node: Mortal, http: httpx.AsyncClient, wallet: Wallet, *, stream: bool
) -> None:
    token = await wallet.send(5)
    node.arm(step)
    url = f"{node.api_url}/chat/completions"
    with pytest.raises(httpx.TransportError):
        await http.post(url, json={**ORDER, "stream": stream}, headers={"x-cashu": token})
    await asyncio.to_thread(node.fallen)
    refund = f"{node.url}/v1/balance/refund"
    answer = await eventually(http, "POST", refund, headers={"x-cashu": token})
    assert answer.status_code == 200, (step, answer.text)
    assert await wallet.receive(answer.json()["token"]) == claimed
    none = await eventually(http, "POST", refund, headers={"x-cashu": token})
    assert none.json()["error"]["message"] == "No balance to refund"
    for secret in (token, answer.json()["token"], "clm_"):
        assert secret not in node.log


async def test_killed_at_every_step(
    start_mortal: StartMortal,
    real_mint: RealMint,
    upstream: DemoUpstream,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
) -> None:
    wallet = await open_wallet(real_mint)
    await wallet.mint(64)
    node = start_mortal(real_mint.url, UPSTREAM_BASE_URL=upstream.api_url)
    for count, (step, claimed) in enumerate(STEPS.items()):
        await buy_dying_at(step, claimed, node, http, wallet, stream=count % 2 == 0)
    await node.assert_whole()
    assert wallet.balance == 64 - sum(5 - claimed for claimed in STEPS.values())


async def test_killed_on_postgresql(
    start_mortal: StartMortal,
    real_mint: RealMint,
    upstream: DemoUpstream,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
    postgres_url: str,
) -> None:
    """The dead node's hold runs out first."""
    wallet = await open_wallet(real_mint)
    await wallet.mint(16)
    node = start_mortal(
        real_mint.url,
        UPSTREAM_BASE_URL=upstream.api_url,
        DATABASE_URL=postgres_url,
        HOLD_LEASE_S="1",
        HOLD_RENEW_S="0.3",
        EXPIRE_EVERY_S="0.5",
    )
    await buy_dying_at("forward.reserved", 5, node, http, wallet, stream=False)
    await node.assert_whole()
