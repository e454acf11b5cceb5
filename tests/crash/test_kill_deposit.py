"""kill -9 between any two steps of a deposit: the credit, within 5 s of the restart, once (T-5)."""

import asyncio
import itertools

import httpx
import pytest

from demo.mint import RealMint
from demo.wallet import Wallet
from routstr.app import observing
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.ledger.reads import sealed_setting
from routstr.ledger.seed import NAME
from tests.crash.conftest import RECOVERY_S, Mortal, StartMortal, bearer, eventually
from tests.fakes.mint import FakeMint
from tests.harness.mint import OpenWallet

STEPS = (
    "deposit.checked",
    "deposit.begun",
    "swap.prepared",
    "swap.sent",
    "swap.answered",
    "deposit.signed",
    "deposit.credited",
)
AMOUNT = 5


class Customers:
    """What was brought to the node, and what it must come to."""

    def __init__(self, node: Mortal, http: httpx.AsyncClient, wallet: Wallet) -> None:
        self.node = node
        self.http = http
        self.wallet = wallet
        self.canaries: list[str] = []

    def url(self, path: str) -> str:
        return f"{self.node.url}/v1/balance{path}"

    async def token(self) -> str:
        token = await self.wallet.send(AMOUNT)
        self.canaries.append(token)
        return token

    async def die_at(self, step: str, *requests: "asyncio.Task[httpx.Response]") -> None:
        """Let the node die while these are under way, and rise again."""
        await asyncio.to_thread(self.node.fallen)
        for outcome in await asyncio.gather(*requests, return_exceptions=True):
            assert isinstance(outcome, httpx.TransportError), (step, outcome)

    async def create_dying_at(self, step: str) -> None:
        given = {"initial_balance_token": await self.token()}
        repeat = {"idempotency-key": step}
        self.node.arm(step)
        send = self.http.post(self.url("/create"), json=given, headers=repeat)
        await self.die_at(step, asyncio.create_task(send))
        again = await eventually(self.http, "POST", self.url("/create"), json=given, headers=repeat)
        assert (again.status_code, again.json()["balance"]) == (200, AMOUNT * 1000), again.text
        self.canaries.append(again.json()["api_key"])
        assert await self.wallet.token_states(given["initial_balance_token"]) == {"SPENT"}

    async def topup_and_bearer_dying_at(self, step: str, key: str, *, balance: int) -> None:
        """Two at once: the first at the step is killed there, the other wherever it is by then."""
        given = {"cashu_token": await self.token()}
        opening = await self.token()
        self.node.arm(step)
        requests = [
            self.http.post(self.url("/topup"), json=given, headers=bearer(key)),
            self.http.get(self.url("/info"), headers=bearer(opening)),
        ]
        await self.die_at(step, *(asyncio.create_task(each) for each in requests))
        topped = await eventually(
            self.http, "POST", self.url("/topup"), json=given, headers=bearer(key)
        )
        assert topped.json() == {"msats": AMOUNT * 1000, "balance": balance}, topped.text
        opened = await eventually(self.http, "GET", self.url("/info"), headers=bearer(opening))
        assert (opened.status_code, opened.json()["balance"]) == (200, AMOUNT * 1000), opened.text
        self.canaries.append(opened.json()["api_key"])


@pytest.fixture
async def customers(
    start_mortal: StartMortal,
    real_mint: RealMint,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
) -> Customers:
    wallet = await open_wallet(real_mint)
    await wallet.mint(256)
    return Customers(start_mortal(real_mint.url), http, wallet)


async def test_killed_at_every_step_of_a_create(customers: Customers) -> None:
    for step in STEPS:
        await customers.create_dying_at(step)
        await customers.node.assert_whole()
    await assert_nothing_is_told(customers)


async def test_killed_at_every_step_of_a_topup_and_of_a_bearer(customers: Customers) -> None:
    created = await customers.http.post(
        customers.url("/create"), json={"initial_balance_token": await customers.token()}
    )
    key = created.json()["api_key"]
    for count, step in enumerate(STEPS, start=2):
        balance = count * AMOUNT * 1000
        await customers.topup_and_bearer_dying_at(step, key, balance=balance)
        await customers.node.assert_whole()


async def test_nobody_has_to_come_back(customers: Customers) -> None:
    """Unaided: after the restart the node ends it alone, and the token shows its key."""
    token = await customers.token()
    given = {"initial_balance_token": token}
    customers.node.arm("swap.answered")
    send = customers.http.post(customers.url("/create"), json=given)
    await customers.die_at("swap.answered", asyncio.create_task(send))
    async with asyncio.timeout(RECOVERY_S):
        while "operation_ended" not in customers.node.log:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    shown = await customers.http.get(customers.url("/info"), headers=bearer(token))
    assert shown.json()["balance"] == AMOUNT * 1000
    assert shown.json()["api_key"].startswith("sk-")


async def test_killed_on_postgresql(
    start_mortal: StartMortal,
    real_mint: RealMint,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
    postgres_url: str,
) -> None:
    """The dead node's leases run out first; nobody else may drive what they cover."""
    wallet = await open_wallet(real_mint)
    await wallet.mint(64)
    node = start_mortal(
        real_mint.url, DATABASE_URL=postgres_url, MINT_LEASE_S="1", RESUME_EVERY_S="0.5"
    )
    customers = Customers(node, http, wallet)
    for step in ("deposit.begun", "swap.answered", "deposit.signed"):
        await customers.create_dying_at(step)
    await node.assert_whole()


@pytest.mark.parametrize("step", ["deposit.refused", "deposit.replaced"])
async def test_killed_while_the_keys_rotate(
    start_mortal: StartMortal, http: httpx.AsyncClient, step: str
) -> None:
    """At a model mint, whose keys can be rotated in the middle of things."""
    async with FakeMint() as mint:
        node = start_mortal(mint.url)
        url = f"{node.url}/v1/balance/create"
        await http.post(url, json={"initial_balance_token": mint.issue(1)})
        token = mint.issue(21)
        mint.rotate()
        node.arm(step)
        given = {"initial_balance_token": token}
        with pytest.raises(httpx.TransportError):
            await http.post(url, json=given)
        await asyncio.to_thread(node.fallen)
        info = f"{node.url}/v1/balance/info"
        if step == "deposit.refused":  # that it was a first refusal is forgotten: wait a minute
            answer = await http.get(info, headers=bearer(token))
            assert answer.json()["error"]["code"] == "operation_in_progress", answer.text
        else:
            answer = await eventually(http, "GET", info, headers=bearer(token))
            assert answer.json()["balance"] == 21_000
        await node.assert_whole()


async def assert_nothing_is_told(customers: Customers) -> None:
    """T-13: neither the log nor the database in the raw holds what spends."""
    async with (
        observing(customers.node.checked_settings()) as ctx,
        ctx.database.reading() as connection,
    ):
        stored = await sealed_setting(connection, NAME)
        assert stored is not None
        place = {"table": "setting", "column": "sealed_value", "row_id": NAME}
        mnemonic = ctx.wallet.vault.open(stored[0], **place)
    assert len(mnemonic.split()) == 12
    files = [path for path in customers.node.data_dir.iterdir() if path.name.startswith("routstr")]
    raw = b"".join(path.read_bytes() for path in files) + customers.node.log.encode()
    assert len(raw) > 10_000
    tokens = [text for text in customers.canaries if text.startswith("cashu")]
    secrets = [
        proof.secret
        for text in tokens
        for proof in decode_token(text, bytes_max=BODY_BYTES_MAX).proofs
    ]
    for canary in itertools.chain(
        customers.canaries, secrets, [customers.node.settings["SECRET_KEY"], mnemonic]
    ):
        assert canary.encode() not in raw
        assert canary[8:40].encode() not in raw
