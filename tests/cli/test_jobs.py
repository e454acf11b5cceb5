"""`routstr jobs` as a process: looked at beside a node, run where none is at work."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from routstr.ledger.engine import lock_directory
from tests.fakes.mint import FakeMint
from tests.harness.command import run
from tests.harness.till import ON_SQLITE


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@ON_SQLITE
async def test_jobs_are_listed_and_run(home: Path, database_url: str) -> None:
    async with FakeMint() as mint:
        settings = {
            "CASHU_MINTS": mint.url,
            "ALLOW_LOOPBACK_HTTP": "true",
            "SECRET_KEY": "s" * 32,
            "DATABASE_URL": database_url,
        }

        async def said(*arguments: str) -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(run, home, settings, "jobs", *arguments)

        done = await said("run", "expire", "--json")
        assert json.loads(done.stdout) == {"ok": True, "result": {"ended": 0}}
        (home / "data").mkdir(exist_ok=True)
        lock = lock_directory(home / "data")
        try:
            shown = {job["name"]: job for job in json.loads((await said("list", "--json")).stdout)}
            assert (shown["expire"]["ok"], shown["audit"]["ok"]) == (True, None)
            table = (await said("history")).stdout
            assert [word in table for word in ("expire", "cli", "ended 0")] == [True] * 3
            foreseen = await said("run", "expire-keys", "--dry-run")
            assert "sweep: 0 sat" in foreseen.stdout
            refused = await said("run", "expire")
            assert (refused.returncode, refused.stderr) == (
                2,
                "routstr: a node is at work here: stop the node first, or use its dashboard\n",
            )
        finally:
            lock.release()
        nothing = await said("run", "nothing")
        assert (nothing.returncode, nothing.stderr) == (1, "routstr: There is no job nothing.\n")
