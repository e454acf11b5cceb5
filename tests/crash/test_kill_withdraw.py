"""kill -9 between any two steps of a withdrawal: the token or the balance, never both (T-5)."""

import asyncio

import httpx
import pytest
from sqlalchemy import text

from demo.mint import RealMint
from demo.wallet import Wallet
from routstr.app import observing
from tests.crash.conftest import Mortal, StartMortal, bearer, eventually
from tests.fakes.mint import FakeMint
from tests.harness.mint import OpenWallet
from tests.harness.till import worth

SWAP_STEPS = (
    "withdraw.checked",
    "withdraw.begun",
    "swap.prepared",
    "swap.sent",
    "swap.answered",
    "withdraw.signed",
    "withdraw.issued",
)


class Client:
    """A key at a node, and what its owner has in all: on the key and in the wallet."""

    def __init__(self, node: Mortal, http: httpx.AsyncClient, wallet: Wallet) -> None:
        self.node = node
        self.http = http
        self.wallet = wallet
        self.key = ""

    def url(self, path: str) -> str:
        return f"{self.node.url}/v1/balance{path}"

    async def put_in(self, amount: int) -> None:
        given = {"initial_balance_token": await self.wallet.send(amount)}
        answer = await self.http.post(self.url("/create"), json=given)
        self.key = answer.json()["api_key"]

    async def balance(self) -> int:
        answer = await eventually(self.http, "GET", self.url("/info"), headers=bearer(self.key))
        balance: int = answer.json()["balance"]
        return balance

    async def take_out(self, amount: int, repeat: str | None = None) -> str:
        headers = bearer(self.key) | ({} if repeat is None else {"idempotency-key": repeat})
        answer = await eventually(
            self.http, "POST", self.url("/refund"), json={"amount_sats": amount}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["token"]
        assert worth(token) == amount
        return token

    async def take_out_dying_at(self, step: str, amount: int) -> None:
        """Kill it there; afterwards the same request yields the token, once debited."""
        before = await self.balance()
        self.node.arm(step)
        headers = bearer(self.key) | {"idempotency-key": f"{step} {amount}"}
        with pytest.raises(httpx.TransportError):
            await self.http.post(self.url("/refund"), json={"amount_sats": amount}, headers=headers)
        await asyncio.to_thread(self.node.fallen)
        token = await self.take_out(amount, f"{step} {amount}")
        assert await self.balance() == before - amount * 1000
        assert await self.wallet.token_states(token) == {"UNSPENT"}
        assert await self.wallet.receive(token) == amount
        await self.node.assert_whole()

    async def without_small_coins(self) -> int:
        """Take out every coin of 1 there is, so that an odd amount needs the mint."""
        sql = text("SELECT count(*) FROM proof WHERE state = 'unspent' AND amount = 1")
        async with (
            observing(self.node.checked_settings()) as ctx,
            ctx.database.reading() as connection,
        ):
            ones = int((await connection.execute(sql)).scalar_one())
        for _ in range(ones):
            await self.wallet.receive(await self.take_out(1))
        return 3


@pytest.fixture
async def client(
    start_mortal: StartMortal,
    real_mint: RealMint,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
) -> Client:
    wallet = await open_wallet(real_mint)
    await wallet.mint(256)
    client = Client(start_mortal(real_mint.url), http, wallet)
    await client.put_in(200)
    return client


async def test_killed_at_every_step_of_a_swap(client: Client) -> None:
    for step in SWAP_STEPS:
        await client.take_out_dying_at(step, await client.without_small_coins())
    assert await client.balance() + client.wallet.balance * 1000 == 256_000


async def test_killed_at_every_step_from_coins_at_hand(client: Client) -> None:
    await client.take_out_dying_at("withdraw.checked", 7)
    await client.take_out_dying_at("withdraw.completed", 8)
    # Without an Idempotency-Key emptying it again shows the last token again.
    client.node.arm("withdraw.completed")
    with pytest.raises(httpx.TransportError):
        await client.http.post(client.url("/refund"), headers=bearer(client.key))
    await asyncio.to_thread(client.node.fallen)
    again = await eventually(client.http, "POST", client.url("/refund"), headers=bearer(client.key))
    assert await client.wallet.receive(again.json()["token"]) == 185
    assert (await client.balance(), client.wallet.balance) == (0, 256)


async def test_killed_on_postgresql(
    start_mortal: StartMortal,
    real_mint: RealMint,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
    postgres_url: str,
) -> None:
    wallet = await open_wallet(real_mint)
    await wallet.mint(64)
    node = start_mortal(
        real_mint.url, DATABASE_URL=postgres_url, MINT_LEASE_S="1", RESUME_EVERY_S="0.5"
    )
    client = Client(node, http, wallet)
    await client.put_in(60)
    for step in ("swap.sent", "withdraw.signed"):
        await client.take_out_dying_at(step, await client.without_small_coins())


async def test_killed_while_the_mint_refuses(
    start_mortal: StartMortal, http: httpx.AsyncClient
) -> None:
    """At a model mint, whose keys are rotated: the refusal is forgotten, the money is not."""
    async with FakeMint() as mint:
        node = start_mortal(mint.url)
        url = f"{node.url}/v1/balance"
        created = await http.post(f"{url}/create", json={"initial_balance_token": mint.issue(7)})
        headers = bearer(created.json()["api_key"])
        await http.post(f"{url}/refund", json={"amount_sats": 1}, headers=headers)
        mint.rotate()
        node.arm("withdraw.refused")
        with pytest.raises(httpx.TransportError):
            await http.post(f"{url}/refund", json={"amount_sats": 3}, headers=headers)
        await asyncio.to_thread(node.fallen)
        listed = await http.get(f"{url}/history", headers=headers)
        (pending, *_) = listed.json()["transactions"]
        shown = await http.get(f"{url}/refund/{pending['id']}", headers=headers)
        assert (shown.json()["status"], shown.json()["remaining_msats"]) == ("pending", 3_000)
        await node.assert_whole()
