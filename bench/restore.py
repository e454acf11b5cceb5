"""A lost database: the twelve words and the mints give back the wallet that was, coin by coin.

A node lives at two real mints, one of which charges input fees; it takes tokens, makes change and
pays out. Then nothing of it is left but the words, which `routstr wallet restore` gets on its
standard input in an empty directory.
"""

import asyncio
import secrets
import sys
from collections.abc import Iterator
from typing import Final

import httpx

from bench.finding import Finding, require, stumbled
from bench.scene import ANSWER_TIMEOUT_S, Scene, at_rest, audit, ok, open_scene, rows
from demo.mint import RealMint
from demo.wallet import Wallet
from routstr.core.money import msat_from_unit
from tests.harness.process import NodeProcess

FEES_PPK: Final = (100, 0)
FUNDS_SAT: Final = 5_000
PAID_SAT: Final = (901, 77, 1_030)
TAKEN_SAT: Final = (3, 3, 3, 500)
COINS: Final = (
    "SELECT p.y, p.keyset_id, p.counter, p.amount, k.unit FROM proof p"
    " JOIN keyset k ON k.id = p.keyset_id WHERE p.state = 'unspent' ORDER BY p.y"
)
ELSEWHERE: Final = "SELECT count(*) FROM proof WHERE state IN ('reserved', 'locked')"
WHAT: Final = f"a wallet of two mints (fees {FEES_PPK[0]}, {FEES_PPK[1]} ppk) from twelve words"


def prove() -> Iterator[Finding]:
    """One finding."""
    with (
        stumbled(WHAT) as failed,
        open_scene(fee_ppk=FEES_PPK[0]) as scene,
        RealMint(scene.home / "other-mint", fee_ppk=FEES_PPK[1], seed="another") as other,
    ):
        yield asyncio.run(_prove(scene, other))
    yield from failed


async def _prove(scene: Scene, other: RealMint) -> Finding:
    urls = (scene.mint.url, other.url)
    settings = {"CASHU_MINTS": ",".join(urls)}
    with scene.node(settings) as node:
        for url in urls:
            await _live(node, url)
        await at_rest(node)
        node.stop()
        require("coins on their way", rows(node, ELSEWHERE), [(0,)])
        before = rows(node, COINS)
        words = await _said(node, "seed", "--yes")
    heir = NodeProcess(scene.home / "heir", settings=dict(node.settings))
    await _said(heir, "restore", stdin=words)
    after = rows(heir, COINS)
    await audit(heir, "--full", "--deep")
    missing, extra = set(before) - set(after), set(after) - set(before)
    lost_msat = sum(msat_from_unit(amount, unit) for *_, amount, unit in missing)
    return Finding(
        what=WHAT,
        found=f"{len(after)} of {len(before)} coins, {lost_msat} msat lost, {len(extra)} unknown",
        must="the wallet before",
        ok=before == after and bool(before),
        figures={"lost_msat": lost_msat, "restored_coins": len(after)},
    )


async def _live(node: NodeProcess, mint_url: str) -> None:
    """Somebody puts money in at that mint, thrice, and takes some of it out, none unclaimed."""
    async with (
        Wallet(mint_url, seed=secrets.token_bytes(64)) as wallet,
        httpx.AsyncClient(base_url=node.url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as http,
    ):
        await wallet.mint(FUNDS_SAT)
        for amount_sat in PAID_SAT:
            token = {"initial_balance_token": await wallet.send(amount_sat)}
            key = ok(await http.post("/v1/balance/create", json=token))["api_key"]
        bearer = {"authorization": f"Bearer {key}"}
        for amount_sat in TAKEN_SAT:
            wish = {"amount_sats": amount_sat, "mint_url": mint_url}
            answer = ok(await http.post("/v1/balance/refund", json=wish, headers=bearer))
            await wallet.receive(answer["token"])


async def _said(node: NodeProcess, *arguments: str, stdin: str = "") -> str:
    """What `routstr wallet …` printed. Raises FellShort unless it exits with 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "routstr", "wallet", *arguments,
        env=dict(node.environment()),
        cwd=node.directory,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, complaints = await process.communicate(f"{stdin}\n".encode())
    require(f"`routstr wallet {arguments[0]}`: {complaints.decode()}", process.returncode, 0)
    return told.decode().strip()
