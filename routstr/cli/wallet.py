"""`routstr wallet`: the node's ecash as its operator sees it, and the operator's share of it."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer

from routstr.cli import restore
from routstr.cli.shared import acting, looking, print_table, quiet_settings
from routstr.config import Settings
from routstr.core.money import sats_text
from routstr.errors import ConfigError, RefundNotFound
from routstr.flows.bring import Brought, bring
from routstr.flows.earnings import pay_profit
from routstr.flows.payout import send_all_profit, send_profit
from routstr.flows.withdraw import WithdrawalView
from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.issued import TOKEN_PLACE
from routstr.ledger.reads import find_withdrawal
from routstr.ledger.reads_wallet import (
    Coins,
    HouseMoney,
    KeysetSeen,
    Payout,
    coins,
    house_money,
    keysets_seen,
    payouts,
)
from routstr.ledger.seed import acceptance_index, stored_mnemonic

PAYOUTS_MAX: Final = 50
SEED_WARNING: Final = (
    "These words are the money: whoever reads them can take all the ecash of this node. Write"
    " them down, keep them away from the node, and never show them to anybody."
)

cli = typer.Typer(help="The node's ecash, and your share of it.", no_args_is_help=True)
cli.command("restore")(restore.command)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Mint = Annotated[str | None, typer.Option("--mint", help="Only this mint.")]


# ── looking ───────────────────────────────────────────────────────────────────────────────────


@cli.command()
def seed(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")] = False,
) -> None:
    """Show the words that all coins can be restored from, and the mints needed for it.

    Balances of users are not in them: for those, back up the database.
    """
    settings = quiet_settings()
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("wallet seed: it shows the words; without a terminal say --yes")
        typer.echo(SEED_WARNING, err=True)
        typer.confirm("Show them?", abort=True, err=True)
    words, keysets, index = asyncio.run(_seed(settings))
    typer.echo(words)
    typer.echo("", err=True)
    if yes:
        typer.echo(SEED_WARNING, err=True)
    typer.echo(f"To restore: routstr wallet restore --acceptance-key {index + 1}, with", err=True)
    for url in sorted({each.mint_url for each in keysets} | set(settings.cashu_mints)):
        names = ", ".join(f"{each.id} ({each.unit})" for each in keysets if each.mint_url == url)
        typer.echo(f"  {url}  {names}", err=True)


async def _seed(settings: Settings) -> tuple[str, list[KeysetSeen], int]:
    async with looking(settings) as (database, wallet), database.reading() as connection:
        words = await stored_mnemonic(connection, wallet.vault)
        assert words is not None, "opening the ledger makes one"
        return words, await keysets_seen(connection), await acceptance_index(database)


@cli.command()
def balance(as_json: AsJson = False) -> None:
    """What is held at each mint, what is owed to users, and what is yours."""
    held, money, keep_msat = asyncio.run(_balance(quiet_settings()))
    if as_json:
        told = {"mints": [asdict(each) for each in held], **asdict(money), "keep_msat": keep_msat}
        typer.echo(json.dumps(told))
        return
    rows = [
        (each.mint_url, each.unit, each.unspent, each.reserved, each.locked, each.issued)
        for each in held
    ]
    print_table(("mint", "unit", "free", "in use", "locked", "given out"), rows)
    for name, amount_msat in (
        ("owed to users", money.users_msat),
        ("on its way to users", money.pending_msat),
        ("yours, not taken out", money.surplus_msat),
        ("yours, taken out and not paid yet", money.taken_msat),
        ("kept for the fees of mints (PAYOUT_KEEP_SATS)", keep_msat),
    ):
        sign = "-" if amount_msat < 0 else ""
        typer.echo(f"{name}: {sign}{sats_text(abs(amount_msat))} sat")


async def _balance(settings: Settings) -> tuple[list[Coins], HouseMoney, int]:
    async with looking(settings) as (database, _), database.reading() as connection:
        keep_msat = settings.payout_keep_sats * 1000
        return await coins(connection), await house_money(connection), keep_msat


@cli.command()
def mints(as_json: AsJson = False) -> None:
    """The mints with their keysets, fees, expiry, when they were last seen, and what is held."""
    keysets = asyncio.run(_mints(quiet_settings()))
    if as_json:
        told = [{**asdict(each), "seen_at": each.seen_at.isoformat()} for each in keysets]
        typer.echo(json.dumps(told))
        return
    rows = [
        (
            each.mint_url,
            each.unit,
            each.id,
            "active" if each.active else "retired",
            each.input_fee_ppk,
            each.final_expiry or "",
            each.held,
            each.seen_at.isoformat(timespec="seconds"),
        )
        for each in keysets
    ]
    names = ("mint", "unit", "keyset", "", "fee ppk", "expires", "held", "seen")
    print_table(names, rows)


async def _mints(settings: Settings) -> list[KeysetSeen]:
    async with looking(settings) as (database, _), database.reading() as connection:
        return await keysets_seen(connection)


# ── acting ────────────────────────────────────────────────────────────────────────────────────


@cli.command()
def send(
    amount: Annotated[int, typer.Argument(help="How much, in the unit.", min=1)],
    mint: Mint = None,
    unit: Annotated[str, typer.Option(help="sat or msat.")] = "sat",
) -> None:
    """A token out of your profit; users' money is never touched."""
    _print_tokens([asyncio.run(_send(quiet_settings(), amount, unit, mint))])


async def _send(settings: Settings, amount: int, unit: str, mint: str | None) -> WithdrawalView:
    if unit not in ("sat", "msat"):
        raise ConfigError("--unit: sat or msat")
    async with acting(settings, more_mints=_named(mint)) as ctx:
        return await send_profit(ctx, amount, unit=unit, mint_url=mint)


@cli.command()
def payout(
    amount: Annotated[int | None, typer.Option(help="How much, in sat; else all.", min=1)] = None,
    mint: Mint = None,
    to: Annotated[str | None, typer.Option(help="A Lightning address or an invoice.")] = None,
) -> None:
    """Your profit, over Lightning or as tokens; what PAYOUT_KEEP_SATS keeps stays.

    Without --to it is tokens, one for each mint and unit. While a payment to an address is under
    way, the command goes on with that one, and begins no other.
    """
    settings = quiet_settings()
    if to is not None:
        typer.echo(_told(asyncio.run(_pay(settings, to, amount, mint))))
        return
    if amount is not None:
        _print_tokens([asyncio.run(_send(settings, amount, "sat", mint))])
        return
    _print_tokens(asyncio.run(_send_all(settings, mint)))


async def _send_all(settings: Settings, mint: str | None) -> Sequence[WithdrawalView]:
    async with acting(settings, more_mints=_named(mint)) as ctx:
        return await send_all_profit(ctx, mint_url=mint)


async def _pay(
    settings: Settings, to: str, amount_sat: int | None, mint: str | None
) -> WithdrawalView:
    async with acting(settings, more_mints=_named(mint)) as ctx:
        return await pay_profit(ctx, to, amount_sat=amount_sat, mint_url=mint)


@cli.command()
def sent(
    payout_id: Annotated[str | None, typer.Argument(help="Show this one's token again.")] = None,
    as_json: AsJson = False,
) -> None:
    """What was paid out of your profit, the newest first; with an id, its token again."""
    settings = quiet_settings()
    if payout_id is not None:
        typer.echo(asyncio.run(_token(settings, payout_id)))
        return
    found = asyncio.run(_sent(settings))
    if as_json:
        told = [{**asdict(each), "created_at": each.created_at.isoformat()} for each in found]
        typer.echo(json.dumps(told))
        return
    rows = [
        (
            each.id,
            each.created_at.isoformat(timespec="seconds"),
            each.way,
            each.status,
            f"{sats_text(each.amount_msat)} sat",
            f"{sats_text(each.fee_msat)} sat",
            each.mint_url,
        )
        for each in found
    ]
    print_table(("id", "when", "way", "status", "amount", "fee", "mint"), rows)


async def _sent(settings: Settings) -> list[Payout]:
    async with looking(settings) as (database, _), database.reading() as connection:
        return await payouts(connection, limit=PAYOUTS_MAX)


async def _token(settings: Settings, payout_id: str) -> str:
    async with looking(settings) as (database, wallet), database.reading() as connection:
        row = await find_withdrawal(connection, OWNER_KEY_ID, payout_id)
    if row is None or row.sealed_token is None:
        raise RefundNotFound("There is no token of that payout.")
    return wallet.vault.open(row.sealed_token, **TOKEN_PLACE, row_id=row.id)


@cli.command()
def receive(
    token: Annotated[str, typer.Argument(help="A Cashu token; - reads it from standard input.")],
) -> None:
    """Bring ecash of your own: it is yours, and serves as change and for the fees of mints."""
    text = sys.stdin.readline() if token == "-" else token  # noqa: S105 - the sign for "read it"
    brought = asyncio.run(_receive(quiet_settings(), text.strip()))
    fee = f", after a fee of {brought.fee_amount}" if brought.fee_amount else ""
    typer.echo(f"{brought.amount} {brought.unit} at {brought.mint_url}{fee}")


async def _receive(settings: Settings, text: str) -> Brought:
    async with acting(settings) as ctx:
        return await bring(ctx, text)


# ── for people ────────────────────────────────────────────────────────────────────────────────


def _named(mint: str | None) -> tuple[str, ...]:
    return () if mint is None else (mint,)


def _print_tokens(views: Sequence[WithdrawalView]) -> None:
    """Each token on a line of its own on standard output; what it is on the other."""
    for view in views:
        typer.echo(_told(view), err=True)
        if view.token is not None:
            typer.echo(view.token)


def _told(view: WithdrawalView) -> str:
    fee = f", fee {sats_text(view.fee_msat)} sat" if view.fee_msat else ""
    before = ", begun before" if view.is_replay else ""
    amount = sats_text(view.amount_msat)
    return f"{amount} sat at {view.mint_url}{fee}, {view.status}{before}: {view.id}"
