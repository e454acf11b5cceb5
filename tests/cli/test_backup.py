"""`routstr backup` as a process: the machine is lost, the file and a passphrase are enough."""

import asyncio
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.fakes.mint import FakeMint
from tests.harness.command import run

PASSPHRASE = "a horse and its battery"


async def routstr(
    home: Path, settings: Mapping[str, str], *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run, home, settings, *arguments, stdin=stdin)


async def test_a_lost_machine_comes_back(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    async with FakeMint() as mint, FakeMint(version="00") as other:
        settings = {
            "CASHU_MINTS": mint.url,
            "ALLOW_LOOPBACK_HTTP": "true",
            "PAYOUT_KEEP_SATS": "0",
            "BACKUP_PASSPHRASE": PASSPHRASE,
            "BACKUP_DIR": str(tmp_path / "backups"),
        }
        received = await routstr(old, settings, "wallet", "receive", "-", stdin=mint.issue(41))
        assert received.returncode == 0, received.stderr
        # The list that the copy remembers is not who has to be asked about its coins.
        changed = await routstr(old, settings, "settings", "set", "cashu_mints", other.url)
        assert changed.returncode == 0, changed.stderr
        created = await routstr(old, settings, "backup", "create", "--json")
        name = json.loads(created.stdout)["name"]
        sent = await routstr(old, settings, "wallet", "send", "8")
        assert sent.returncode == 0, sent.stderr
        verified, again, strange = await asyncio.gather(
            routstr(old, settings, "backup", "verify", name, "--json"),
            routstr(old, settings, "backup", "restore", name),
            routstr(new, {**settings, "BACKUP_PASSPHRASE": "x" * 12}, "backup", "verify", name),
        )
        told = json.loads(verified.stdout)
        assert (told["ok"], told["engine"], told["has_passphrase"]) == (True, "sqlite", True)
        assert PASSPHRASE not in verified.stdout
        assert "backup_passphrase" not in told["settings"]
        assert (again.returncode, again.stdout) == (1, "")
        assert "there is a database here already" in again.stderr
        assert (strange.returncode, strange.stderr) == (
            1,
            "routstr: the passphrase is not the backup's\n",
        )
        restored = await routstr(new, settings, "backup", "restore", name, "--json")
        assert restored.returncode == 0, restored.stderr
        report = json.loads(restored.stdout)
        assert (report["is_done"], report["short_msat"], report["failed"]) == (True, 0, {})
        assert {each["mint_url"] for each in report["mints"]} >= {mint.url}
        balance = await routstr(new, settings, "wallet", "balance", "--json")
        [seen] = json.loads(balance.stdout)["mints"]
        assert seen["unspent"] == 41, "what was sent and not claimed is forgotten"
