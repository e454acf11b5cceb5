"""`routstr admin` as a process: a way in for whoever owns the machine."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

from routstr.flows.house.identity import log_in, session_of, token_of
from routstr.flows.house.setup import is_setup_link
from tests.harness.clock import MovableClock
from tests.harness.command import run
from tests.harness.house import PASSWORD, PEER, move_in
from tests.harness.till import MASTER, ON_SQLITE, open_context

NEW = "another good password"


@ON_SQLITE
async def test_who_owns_the_machine_gets_in(tmp_path: Path, database_url: str) -> None:
    key = tmp_path / "home" / "data" / "secret.key"
    key.parent.mkdir(parents=True)
    key.write_text(MASTER.hex())
    key.chmod(0o600)
    settings = {"CASHU_MINTS": "https://mint.example", "DATABASE_URL": database_url}

    async def said(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = await asyncio.to_thread(
            run, tmp_path / "home", settings, "admin", *arguments, stdin=stdin
        )
        assert PASSWORD not in done.stdout + done.stderr
        assert NEW not in done.stdout + done.stderr
        return done

    link = (await said("setup-link")).stdout.strip()
    found = re.fullmatch(r"http://127\.0\.0\.1:8000/admin/setup\?token=([0-9a-f]{64})", link)
    assert found is not None
    async with open_context(database_url, (), MovableClock()) as (ctx, _):
        assert await is_setup_link(ctx, found[1])
        opened, _ = await move_in(ctx)
        assert not await is_setup_link(ctx, found[1])
    refused = await said("setup-link")
    assert (refused.returncode, "there is an admin already" in refused.stderr) == (1, True)
    token = (await said("tokens", "make", "cron", "--scope", "read")).stdout.strip()
    listed = json.loads((await said("tokens", "list", "--json")).stdout)
    assert [(each["name"], each["scopes"]) for each in listed] == [("cron", "read")]
    reset = await said("reset-password", stdin=f"{NEW}\n")
    assert (reset.returncode, "One token for programs is valid still" in reset.stdout) == (0, True)
    assert (await said("reset-totp", "--yes")).returncode == 0
    async with open_context(database_url, (), MovableClock()) as (ctx, _):
        assert await session_of(ctx, opened.token) is None
        assert await token_of(ctx, token) is not None
        again = await log_in(ctx, password=NEW, code=None, peer=PEER)
        assert again.kind == "enrolling"
