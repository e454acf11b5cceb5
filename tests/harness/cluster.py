"""Several processes of one node on one PostgreSQL, and a real balancer in front of them.

`python -m routstr` each, as an operator has them; they share the master key and nothing else.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from demo.process import ROOT, Server
from demo.servers import PATH
from routstr.app import observing
from routstr.config import Settings
from routstr.flows.audit import audit
from tests.harness.process import NodeProcess

SECRET: Final = "cluster-secret-0123456789-0123456789-0123456789"
CADDYFILE: Final = ROOT / "Caddyfile"
WORKER_START_S: Final = 20
# Leases and looks so short that a death is over in seconds.
SOON: Final = {
    "HOLD_LEASE_S": "3",
    "HOLD_RENEW_S": "1",
    "HOLD_OWNER_SILENT_S": "2",
    "EXPIRE_EVERY_S": "1",
}


class ClusterNode(NodeProcess):
    """A node of several: `workers` processes on one port, at `mint_url` and `upstream_url`."""

    def __init__(
        self,
        directory: Path,
        *,
        database_url: str,
        mint_url: str,
        upstream_url: str,
        workers: int = 1,
        **settings: str,
    ) -> None:
        given = {
            "DATABASE_URL": database_url,
            "SECRET_KEY": SECRET,
            "CASHU_MINTS": mint_url,
            "UPSTREAM_BASE_URL": upstream_url,
            "REFILL_EVERY_S": "3600",  # the float is no part of this
            "MINT_CALLS_BURST": "1000",
            **SOON,
            **settings,
        }
        super().__init__(directory, settings=given)
        self.arguments = ("serve", "--workers", str(workers)) if workers > 1 else ("serve",)

    @property
    def worker_pids(self) -> list[int]:
        """The processes that serve, if there are several."""
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def checked_settings(self) -> Settings:
        """The settings as the node has them."""
        given: dict[str, Any] = {
            name.removeprefix("ROUTSTR_").lower(): value
            for name, value in self.environment().items()
            if name.startswith("ROUTSTR_")
        }
        given["cashu_mints"] = given["cashu_mints"].split(",")
        return Settings(_env_file=None, **given)  # type: ignore[call-arg]  # pydantic's own

    async def breaches(self) -> list[object]:
        """What the deep audit finds, beside the running node."""
        async with observing(self.checked_settings()) as ctx:
            report = await audit(ctx, full=True, deep=True)
        return [] if report.ok else [each for each in report.invariants if each.breaches]


class Listener(Protocol):
    """Whatever listens on a port of 127.0.0.1."""

    @property
    def port(self) -> int: ...


class Balancer(Server):
    """The Caddy of `compose.yml`, with its Caddyfile, in front of those nodes."""

    ready_path = "/health"

    def __init__(self, directory: Path, *, nodes: Sequence[Listener]) -> None:
        super().__init__(directory)
        self._nodes = nodes

    def argv(self) -> Sequence[str]:
        found = shutil.which("caddy", path=f"{PATH}:/usr/sbin")
        assert found, "install the system package caddy"
        return [found, "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"]

    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": PATH,
            "HOME": str(self.directory),
            "SITE_ADDRESS": self.url,
            "NODES": " ".join(f"127.0.0.1:{node.port}" for node in self._nodes),
            "GOMAXPROCS": str(min(os.cpu_count() or 1, 2)),
        }
