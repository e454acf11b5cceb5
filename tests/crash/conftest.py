"""Nodes that are killed again and again, and what must be true after each of their deaths."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from demo.process import NO_TLS
from demo.servers import Node
from routstr.app import observing
from routstr.config import Settings
from routstr.flows.audit import audit
from tests.crash.launcher import VARIABLE
from tests.harness.nursery import NurseryProcess

RECOVERY_S = 30.0  # a net, not a promise: what is promised is measured by the proofs
SECRET = "crash-secret-0123456789-0123456789-0123456789"


class Mortal(Node):
    """A node with a trap: `arm` chooses where it dies next, `fallen` awaits that and revives it."""

    process_type = NurseryProcess
    module = "tests.crash.launcher"
    arguments = ()

    @property
    def trap(self) -> Path:
        return self.directory / "failpoint"

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), VARIABLE: str(self.trap)}

    def arm(self, step: str) -> None:
        self.trap.write_text(step)

    def fallen(self, timeout_s: float = 20) -> None:
        """Return once it died in its trap and serves again."""
        assert self.process.wait_exit(timeout_s) == -signal.SIGKILL, self.log
        assert not self.trap.exists()
        self.start()

    def checked_settings(self) -> Settings:
        given: dict[str, Any] = {
            name.removeprefix("ROUTSTR_").lower(): value
            for name, value in self.environment().items()
            if name.startswith("ROUTSTR_")
        }
        given.setdefault("database_url", f"sqlite+aiosqlite:///{self.data_dir}/routstr.db")
        given["cashu_mints"] = given["cashu_mints"].split(",")
        return Settings(_env_file=None, **given)  # type: ignore[call-arg]  # pydantic's own

    async def assert_whole(self) -> None:
        """Every invariant holds and the mint agrees; the node may be running."""
        async with observing(self.checked_settings()) as ctx:
            report = await audit(ctx, full=True, deep=True)
        assert report.ok, [each for each in report.invariants if each.breaches] + [*report.mints]


class StartMortal(Protocol):
    def __call__(self, mint_url: str, **settings: str) -> Mortal: ...


@pytest.fixture
def start_mortal(tmp_path: Path) -> Iterator[StartMortal]:
    with ExitStack() as running:

        def start(mint_url: str, **settings: str) -> Mortal:
            given = {
                "CASHU_MINTS": mint_url,
                "UPSTREAM_BASE_URL": "http://127.0.0.1:9",
                "SECRET_KEY": SECRET,
                "LOG_LEVEL": "DEBUG",
                "MINT_CALLS_PER_MINUTE": "60000",
                "MINT_CALLS_BURST": "1000",
                "REFILL_EVERY_S": "3600",  # the tests choose which coins there are
                **settings,
            }
            return running.enter_context(Mortal(tmp_path / "node", settings=given))

        yield start


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=NO_TLS, timeout=30, trust_env=False) as http:
        yield http


async def eventually(
    http: httpx.AsyncClient, method: str, url: str, **options: Any
) -> httpx.Response:
    """The answer to a request, repeated while it says that a repeat helps."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            answer = await http.request(method, url, **options)
            if answer.headers.get("x-should-retry") != "true":
                return answer
            await asyncio.sleep(0.05)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}
