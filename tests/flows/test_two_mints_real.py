"""Two real mints, three kinds of money: each stays where it came from, whatever a mint changes."""

import asyncio
import os
import socket

from sqlalchemy import text

from demo.mint import PROGRAM, RealMint
from demo.wallet import Wallet
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.flows.audit import audit
from routstr.flows.context import Context
from routstr.flows.keys import Created, Terms, create_key, topup
from routstr.flows.mints import known_mint
from routstr.flows.reconcile import reconcile
from routstr.flows.refill import refill
from routstr.flows.refunds import read_withdrawal
from routstr.flows.withdraw import Wish, WithdrawalView, withdraw
from routstr.ledger.book import KeyRef
from tests.harness.clock import MovableClock
from tests.harness.mint import OpenWallet, StartMint
from tests.harness.till import open_context
from tests.ledger.node import reserve, settle

MONTH_S = 31 * 86_400
EXPIRY = "1900000000"  # an id without one is read in two ways


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


async def rotate(mint: RealMint, port: int, *, fee_ppk: int) -> None:
    """The mint's operator makes a new keyset for sat; the old one is inactive from now on."""
    command = ("next-keyset", "sat", str(fee_ppk), "64", EXPIRY)
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM.with_name("mint-cli")),
        *("-i", "-p", str(port), *command),
        env={"PATH": os.defpath, "HOME": str(mint.directory), "LC_ALL": "C.UTF-8"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0


async def take(
    ctx: Context, key: Created, mint_url: str, amount_sat: int | None = None
) -> WithdrawalView:
    wish = Wish(amount_sat=amount_sat, mint_url=mint_url)
    return await withdraw(ctx, KeyRef(id=key.key_id), wish)


async def held(ctx: Context) -> dict[tuple[str, str, bool], int]:
    """The node's coins by mint, unit and whether their keyset is active."""
    sql = text(
        "SELECT m.url, k.unit, k.active, sum(p.amount) AS total FROM proof p"
        " JOIN keyset k ON k.id = p.keyset_id JOIN mint m ON m.id = k.mint_id"
        " WHERE p.state = 'unspent' GROUP BY m.url, k.unit, k.active"
    )
    async with ctx.database.reading() as connection:
        rows = await connection.execute(sql)
        return {(row.url, row.unit, bool(row.active)): int(row.total) for row in rows}


async def earn(ctx: Context, token: str) -> None:
    """A customer spends all of it."""
    key = await create_key(ctx, token, Terms(), idempotency_key=None)
    caller = KeyRef(id=key.key_id)
    await ctx.ledger.submit(reserve("req_all", caller, key.available_msat))
    await ctx.ledger.submit(settle("req_all", caller, key.available_msat))


async def test_money_stays_where_it_came_from(
    sqlite_url: str, start_mint: StartMint, open_wallet: OpenWallet
) -> None:
    port = free_port()
    rpc = {
        "MINT_RPC_SERVER_ENABLE": "TRUE",
        "MINT_RPC_SERVER_MUTUAL_TLS": "FALSE",
        "MINT_RPC_SERVER_PORT": str(port),
    }
    free = start_mint()
    dear = start_mint(fee_ppk=100, units=("sat", "msat"), extra=rpc)
    clock = MovableClock()
    async with open_context(sqlite_url, [free.url, dear.url], clock) as (ctx, _):
        wallets = await _wallets(open_wallet, free, dear)
        key = await create_key(
            ctx, await wallets["msat"].send(50_000), Terms(), idempotency_key=None
        )
        for name in ("dear", "free"):
            await topup(
                ctx, KeyRef(id=key.key_id), await wallets[name].send(300), idempotency_key=None
            )
        before = await held(ctx)
        assert before[free.url, "sat", True] == 300
        paid = [await take(ctx, key, url, 40) for url in (free.url, dear.url)]
        assert [view.mint_url for view in paid] == [free.url, dear.url]
        for view in paid:
            token = decode_token(str(view.token), bytes_max=BODY_BYTES_MAX)
            assert token.mint_url == view.mint_url
        assert await wallets["free"].receive(str(paid[0].token)) == 40

        await earn(ctx, await wallets["dear"].send(100))
        await rotate(dear, port, fee_ppk=200)
        seen = await _swapped_across_the_rotation(ctx, key, dear)
        assert seen.status == "completed"
        refused = text("SELECT count(*) FROM mint_operation WHERE state = 'failed'")
        async with ctx.database.reading() as connection:
            assert (await connection.execute(refused)).scalar_one() == 1
        clock.advance(ctx.limits.keyset_refresh_s + 1)
        await refill(ctx)
        left = await held(ctx)
        assert left.get((dear.url, "sat", False), 0) == 0
        assert left[dear.url, "sat", True] > 0

        await _a_month_later(ctx, clock, key, paid, free, wallets["free"])
        report = await audit(ctx, full=True, deep=True)
        assert report.ok, report


async def _a_month_later(
    ctx: Context,
    clock: MovableClock,
    key: Created,
    paid: list[WithdrawalView],
    free: RealMint,
    wallet: Wallet,
) -> None:
    """One token was claimed and one was not, while one of the mints is away."""
    clock.advance(MONTH_S)
    free.stop()  # which keeps nothing from being done at the other
    ok, result = await reconcile(ctx)
    assert ok
    assert result["silent"] == {free.url: "MintUnknown"}
    caller = KeyRef(id=key.key_id)
    assert (await read_withdrawal(ctx, caller, paid[1].id)).status == "reclaimed"
    await _start_with_another_keyset(free)
    clock.advance(60)
    seen_now = await known_mint(ctx, free.url, since_s=ctx.monotonic_s())
    assert [each.active for each in seen_now.keysets] == [True, True]
    assert (await reconcile(ctx))[1]["silent"] == {}
    assert (await read_withdrawal(ctx, caller, paid[0].id)).status == "claimed"
    again = await topup(ctx, caller, await wallet.send(100), idempotency_key=None)
    assert again.credit_msat == 100_000
    rest = await take(ctx, key, free.url, 300)
    assert rest.mint_url == free.url
    assert await wallet.receive(str(rest.token)) == 300


async def _wallets(open_wallet: OpenWallet, free: RealMint, dear: RealMint) -> dict[str, Wallet]:
    wallets = {
        "free": await open_wallet(free),
        "dear": await open_wallet(dear),
        "msat": await open_wallet(dear, unit="msat"),
    }
    for name, amount in (("free", 500), ("dear", 500), ("msat", 60_000)):
        await wallets[name].mint(amount)
    return wallets


async def _swapped_across_the_rotation(
    ctx: Context, key: Created, dear: RealMint
) -> WithdrawalView:
    """A withdrawal that the node begins with the keyset it knew, until one needs the mint."""
    for _ in range(40):
        view = await take(ctx, key, dear.url, 1)
        posts = await _swaps(ctx)
        if posts:
            return view
    raise AssertionError("the purse had exact coins all the time")


async def _swaps(ctx: Context) -> int:
    sql = text("SELECT count(*) FROM mint_operation WHERE kind = 'swap'")
    async with ctx.database.reading() as connection:
        return int((await connection.execute(sql)).scalar_one())


async def _start_with_another_keyset(mint: RealMint) -> None:
    mint._extra["MINT_DERIVATION_PATH"] = "m/0'/0'/7'"
    await asyncio.to_thread(mint.start)
