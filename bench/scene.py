"""Where the road is proved: a real mint, the demo's upstream, and nodes of one's own choosing.

`Scene.outstanding_sat` is a witness that is no party to the case: the mint's own count of what it
signed and has not taken back, read from its database.
"""

import asyncio
import contextlib
import json
import secrets
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from bench.finding import FellShort, require
from demo.mint import RealMint
from demo.servers import DemoUpstream
from demo.wallet import Wallet
from tests.harness.process import NodeProcess

ANSWER_TIMEOUT_S: Final = 60
REST_TIMEOUT_S: Final = 20
POLL_S: Final = 0.05

Answer = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Scene:
    """A mint and an upstream that run; nodes are made of them."""

    home: Path
    mint: RealMint
    upstream: DemoUpstream
    nodes: int = 0

    @contextmanager
    def node(
        self, settings: Mapping[str, str] | None = None, *, failpoint: str | None = None
    ) -> Iterator[NodeProcess]:
        """A new node on SQLite, running; killed in the end."""
        self.nodes += 1
        defaults = {"CASHU_MINTS": self.mint.url, "UPSTREAM_BASE_URL": self.upstream.api_url}
        node = NodeProcess(
            self.home / f"node-{self.nodes}",
            settings=defaults | dict(settings or {}),
            failpoint=failpoint,
        )
        with node:
            yield node

    @asynccontextmanager
    async def customer(self, node: NodeProcess, *, funds_sat: int) -> AsyncIterator["Customer"]:
        """Somebody with a wallet of freshly minted ecash."""
        limits = httpx.Limits(max_connections=None)
        async with (
            Wallet(self.mint.url, seed=secrets.token_bytes(64)) as wallet,
            httpx.AsyncClient(
                base_url=node.url, timeout=ANSWER_TIMEOUT_S, trust_env=False, limits=limits
            ) as http,
        ):
            await wallet.mint(funds_sat)
            yield Customer(node=node, wallet=wallet, http=http, fee_ppk=self.mint.fee_ppk)

    def outstanding_sat(self) -> int:
        """What the mint signed and was not given back, by its own books."""
        query = "SELECT coalesce(sum(balance), 0) FROM balance"
        with _reading(self.mint.directory / "mint" / "mint.sqlite3") as mint:
            return int(mint.execute(query).fetchone()[0])

    def paid(self, bolt11: str) -> int:
        """How often the mint has paid that invoice."""
        query = "SELECT count(*) FROM melt_quotes WHERE request = ? AND state = 'PAID'"
        with _reading(self.mint.directory / "mint" / "mint.sqlite3") as mint:
            return int(mint.execute(query, [bolt11]).fetchone()[0])

    def spent(self, ys: Sequence[str]) -> set[str]:
        """Which of those proofs the mint has taken back."""
        marks = ",".join("?" * len(ys))
        query = f"SELECT y FROM proofs_used WHERE y IN ({marks})"  # noqa: S608 - marks only
        with _reading(self.mint.directory / "mint" / "mint.sqlite3") as mint:
            return {row[0] for row in mint.execute(query, list(ys))}


@dataclass(slots=True, kw_only=True)
class Customer:
    """A wallet, and the node's HTTP doors."""

    node: NodeProcess
    wallet: Wallet
    http: httpx.AsyncClient
    fee_ppk: int
    key: str = field(default="", repr=False)

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        credential: str | None = None,
        idempotency_key: str | None = None,
    ) -> httpx.Response:
        """One request with the key, if there is one yet, or with another credential."""
        shown = credential or self.key
        headers = {"authorization": f"Bearer {shown}"} if shown else {}
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
        return await self.http.request(method, path, json=body, headers=headers)

    async def open_key(self, amount_sat: int) -> int:
        """A key from a new token; what it is worth in msat."""
        token = await self.wallet.send(amount_sat)
        answer = ok(await self.call("POST", "/v1/balance/create", {"initial_balance_token": token}))
        self.key = answer["api_key"]
        return int(answer["balance"])

    async def info(self) -> Answer:
        """What the node says of the key."""
        return ok(await self.call("GET", "/v1/balance/info"))


def ok(response: httpx.Response) -> Answer:
    """The answer's JSON. Raises FellShort for any status but 200."""
    if response.status_code != httpx.codes.OK:
        raise FellShort(f"{response.request.url.path}: {response.status_code} {response.text}")
    answer: Answer = response.json()
    return answer


@contextmanager
def open_scene(
    *,
    fee_ppk: int = 0,
    upstream_options: Sequence[str] = (),
    mint_options: Mapping[str, str] | None = None,
) -> Iterator[Scene]:
    """A mint, an upstream and a directory that go with the block."""
    with ExitStack() as running:
        home = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="routstr-road-")))
        mint = running.enter_context(RealMint(home / "mint", fee_ppk=fee_ppk, extra=mint_options))
        upstream = running.enter_context(DemoUpstream(home / "upstream", options=upstream_options))
        yield Scene(home=home, mint=mint, upstream=upstream)


# ── what the node's books say, asked from outside ─────────────────────────────────────────────


async def audit(node: NodeProcess, *options: str) -> Answer:
    """`routstr audit --json`. Raises FellShort unless it ends clean."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "routstr", "audit", "--json", *options,
        env=dict(node.environment()),
        cwd=node.directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, complaints = await process.communicate()
    try:
        report: Answer = json.loads(told)
    except ValueError:
        raise FellShort(f"routstr audit: {complaints.decode()}") from None
    broken = {each["name"]: each["examples"] for each in report["invariants"] if each["breaches"]}
    require("what the audit finds broken", broken, {})
    require("the audit's exit status", process.returncode, 0)
    return report


async def at_rest(node: NodeProcess) -> None:
    """Return once the node has no open operation with a mint. Raises FellShort if it stays open."""
    query = "SELECT state, last_code FROM mint_operation WHERE state NOT IN ('done', 'failed')"
    deadline_s = time.monotonic() + REST_TIMEOUT_S
    while open_operations := rows(node, query):
        if time.monotonic() > deadline_s:
            raise FellShort(f"operations stay open: {open_operations}")
        await asyncio.sleep(POLL_S)


def rows(node: NodeProcess, query: str) -> list[tuple[Any, ...]]:
    """Rows of the node's database, read beside it."""
    with _reading(node.data_dir / "routstr.db") as database:
        return database.execute(query).fetchall()


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        yield connection
