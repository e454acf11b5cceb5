"""`routstr wallet` as a process, at a model mint."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from demo.mint import RealMint
from routstr.ecash.secret import check_mnemonic
from tests.fakes.invoices import invoice
from tests.fakes.mint import FakeMint
from tests.harness.command import run
from tests.harness.mint import OpenWallet
from tests.harness.process import StartNode
from tests.harness.till import ON_SQLITE, worth

SECRET = "s" * 32


@dataclass(slots=True, kw_only=True)
class Operator:
    """Somebody at the command line of one node."""

    directory: Path
    settings: Mapping[str, str]
    mint: FakeMint

    async def run(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            run, self.directory, self.settings, "wallet", *arguments, stdin=stdin
        )

    async def said(self, *arguments: str, stdin: str | None = None) -> str:
        """What it printed, without the end of the line."""
        done = await self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self.said(*arguments, "--json"))

    async def refusal(self, status: int, *arguments: str, stdin: str | None = None) -> str:
        """The one line, without its beginning."""
        done = await self.run(*arguments, stdin=stdin)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("routstr: ")
        return line.removeprefix("routstr: ")


@pytest.fixture
async def operator(database_url: str, tmp_path: Path) -> AsyncIterator[Operator]:
    async with FakeMint(fee_ppk=100) as mint:
        settings = {
            "CASHU_MINTS": mint.url,
            "ALLOW_LOOPBACK_HTTP": "true",
            "SECRET_KEY": SECRET,
            "DATABASE_URL": database_url,
            "PAYOUT_KEEP_SATS": "2",
        }
        yield Operator(directory=tmp_path / "home", settings=settings, mint=mint)


async def test_ecash_goes_in_and_comes_out(operator: Operator) -> None:
    token = operator.mint.issue(41)
    assert await operator.said("receive", "-", stdin=token) == (
        f"40 sat at {operator.mint.url}, after a fee of 1"
    )
    assert worth(await operator.said("send", "5")) == 5
    assert await operator.refusal(1, "send", "34") == "There is less profit than that."


@ON_SQLITE
async def test_it_shows_what_there_is(operator: Operator) -> None:
    await operator.said("receive", operator.mint.issue(41))
    token = await operator.said("payout")
    told, listed, words, unasked = await asyncio.gather(
        operator.json("balance"),
        operator.json("sent"),
        operator.said("seed", "--yes"),
        operator.refusal(2, "seed"),
    )
    assert worth(token) == 38
    assert told["mints"] == [
        {
            "mint_url": operator.mint.url, "unit": "sat",
            "unspent": 2, "reserved": 0, "locked": 0, "issued": 38,
        }
    ]  # fmt: skip
    assert (told["users_msat"], told["surplus_msat"], told["taken_msat"]) == (0, 2_000, 0)
    [payout] = listed
    assert (payout["amount_msat"], payout["status"]) == (38_000, "completed")
    assert await operator.said("sent", payout["id"]) == token
    assert check_mnemonic(words)
    assert unasked == "wallet seed: it shows the words; without a terminal say --yes"


@ON_SQLITE
async def test_profit_pays_an_invoice_once(
    operator: Operator, real_mint: RealMint, open_wallet: OpenWallet
) -> None:
    wallet = await open_wallet(real_mint)
    await wallet.mint(64)
    own = replace(operator, settings={**operator.settings, "CASHU_MINTS": real_mint.url})
    await own.said("receive", await wallet.send(64))
    bolt11 = invoice(50_000, created_at=int(time.time()), payment_hash=os.urandom(32))
    told = await own.said("payout", "--to", bolt11)
    again = await own.said("payout", "--to", bolt11)
    first, payout_id = told.split(": ", 1)[0], told.rsplit(" ", 1)[1]
    assert first == f"50 sat at {real_mint.url}, fee 1 sat, completed"
    assert again == f"{first}, begun before: {payout_id}"
    [listed] = await own.json("sent")
    assert (listed["id"], listed["way"], listed["status"]) == (payout_id, "lightning", "completed")


@ON_SQLITE
async def test_twelve_words_bring_it_back(operator: Operator, tmp_path: Path) -> None:
    await operator.said("receive", operator.mint.issue(41))
    words = await operator.said("seed", "--yes")
    sick = "http://127.0.0.1:1"
    lost = {name: value for name, value in operator.settings.items() if name != "DATABASE_URL"}
    heir = Operator(directory=tmp_path / "heir", settings=lost, mint=operator.mint)
    half = await heir.run("restore", "--mint", sick, stdin=f" {words.upper()}\n")
    assert (half.returncode, half.stderr.count("\n")) == (1, 2)
    assert f"routstr: {sick}: " in half.stderr
    assert words.split()[0] not in (half.stdout + half.stderr).split()
    assert await heir.refusal(2, "send", "1") == (
        "the wallet of this database is half restored: run `routstr wallet restore` again"
    )
    assert "40" in await heir.said("restore", stdin=words)


async def test_beside_a_node_on_sqlite_it_only_looks(start_node: StartNode, tmp_path: Path) -> None:
    async with FakeMint() as mint:
        settings = {
            "CASHU_MINTS": mint.url,
            "ALLOW_LOOPBACK_HTTP": "true",
            "UPSTREAM_BASE_URL": "http://127.0.0.1:9",
            "SECRET_KEY": SECRET,
        }
        node = await asyncio.to_thread(start_node, settings)
        operator = Operator(
            directory=tmp_path / "home",
            settings={**settings, "DATA_DIR": str(node.data_dir)},
            mint=mint,
        )
        assert (await operator.json("balance"))["surplus_msat"] == 0
        line = "a node is at work here: stop the node first, or use its dashboard"
        assert await operator.refusal(2, "receive", mint.issue(8)) == line
