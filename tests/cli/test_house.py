"""`routstr status`, `keys`, `settings`, `invites`: what scripts of operators see."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from routstr.cli.commands import command_line
from routstr.errors import ConfigError, InvalidParameter
from routstr.ledger.engine import lock_directory
from tests.fakes.mint import FakeMint
from tests.harness.till import ON_SQLITE, open_till


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each command sets the log up; what comes after is as before."""
    yield
    structlog.reset_defaults()


@ON_SQLITE
async def test_the_house_from_a_terminal(tmp_path: Path, database_url: str) -> None:
    async with FakeMint() as mint:
        async with open_till(database_url, mint) as till:
            key = await till.create(mint.issue(21))
        home = tmp_path / "home"
        given = {
            "CASHU_MINTS": mint.url,
            "ALLOW_LOOPBACK_HTTP": "true",
            "SECRET_KEY": "s" * 32,
            "DATABASE_URL": database_url,
            "DATA_DIR": str(home / "data"),
        }

        async def said(*arguments: str) -> Result:
            return await asyncio.to_thread(CliRunner().invoke, command_line(), arguments, env=given)

        async def told(*arguments: str) -> Any:
            done = await said(*arguments, "--json")
            assert done.exit_code == 0, done.exception
            return json.loads(done.stdout)

        assert (await told("settings", "set", "needs_invite", "yes"))["needs_invite"]["value"]
        (home / "data").mkdir(parents=True, exist_ok=True)
        lock = lock_directory(home / "data")
        try:  # from here on beside a node at work
            [line] = await told("keys", "list")
            assert (line["key_id"], line["balance_msat"]) == (key.key_id, 21_000)
            seen = await said("status")
            assert len(seen.stdout.splitlines()) <= 15
            assert "users     21 sat" in seen.stdout
            busy = await said("keys", "revoke", key.key_id)
            assert isinstance(busy.exception, ConfigError)
            assert "stop the node first" in str(busy.exception)
        finally:
            lock.release()
        await told("keys", "revoke", key.key_id)
        shown = await told("keys", "show", key.key_id)
        assert shown["revoked_at"] is not None
        refused = await said("invites", "make", "--note", "\n")
        assert isinstance(refused.exception, InvalidParameter)
        assert [row["type"] for row in shown["transactions"]] == ["deposit"]
