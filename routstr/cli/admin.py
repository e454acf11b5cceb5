"""`routstr admin`: for whoever has a shell on the machine and is locked out, or writes scripts."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from routstr.cli.shared import acting, print_table, quiet_settings, watching
from routstr.config import Settings
from routstr.errors import ConfigError, PermissionDenied
from routstr.flows.context import Context
from routstr.flows.house.account import (
    SCOPES,
    TOKEN_DAYS,
    end_sessions,
    make_token,
    reset_password,
    reset_totp,
    revoke_token,
    the_admin,
    tokens,
)
from routstr.flows.house.identity import Session
from routstr.flows.house.setup import new_setup_link, setup_url

ACTOR: Final = "cli"
SURE: Final = typer.Option("--yes", help="Do not ask.")

cli = typer.Typer(help="Who may log in to the dashboard.", no_args_is_help=True)
tokens_cli = typer.Typer(help="Tokens for programs.", no_args_is_help=True)
sessions_cli = typer.Typer(help="Who is logged in.", no_args_is_help=True)
cli.add_typer(tokens_cli, name="tokens")
cli.add_typer(sessions_cli, name="sessions")

ResultT = TypeVar("ResultT")


def _act(settings: Settings, work: Callable[[Context], Awaitable[ResultT]]) -> ResultT:
    """Do what writes; on SQLite the node must be stopped for it."""

    async def run() -> ResultT:
        async with acting(settings) as ctx:
            return await work(ctx)

    return asyncio.run(run())


@cli.command("setup-link")
def setup_link() -> None:
    """Print a link that sets the dashboard up, once; it replaces any other."""
    settings = quiet_settings()
    typer.echo(_act(settings, lambda ctx: _setup_link(ctx, settings)))


async def _setup_link(ctx: Context, settings: Settings) -> str:
    token = await new_setup_link(ctx, actor=ACTOR)
    if token is None:
        raise PermissionDenied(
            "there is an admin already; `routstr admin reset-password` helps who forgot it"
        )
    return setup_url(ctx, token, host=settings.host, port=settings.port)


@cli.command("reset-password")
def set_password(
    password_file: Annotated[
        str | None, typer.Option(help="A file with the new one; - is standard input.")
    ] = None,
) -> None:
    """Choose another password; ends every session, and every wait after wrong tries."""
    settings, password = quiet_settings(), _password(password_file)
    left = _act(settings, lambda ctx: _set_password(ctx, password))
    typer.echo(f"The password is changed; every session has ended.{_still_valid(left)}")


async def _set_password(ctx: Context, password: str) -> int:
    """How many tokens for programs are valid still."""
    await reset_password(ctx, password, actor=ACTOR)
    return await _valid_tokens(ctx)


async def _valid_tokens(ctx: Context) -> int:
    return sum(each.expires_at > ctx.clock.now() for each in await tokens(ctx))


def _still_valid(count: int) -> str:
    """Whoever has been in before may have made one to come back with."""
    if not count:
        return ""
    are = "One token for programs is" if count == 1 else f"{count} tokens for programs are"
    return f" {are} valid still: see `routstr admin tokens list` and `revoke`."


def _password(password_file: str | None) -> str:
    """Typed twice and unseen, or out of a file. Raises ConfigError."""
    if password_file is None and sys.stdin.isatty():
        asked = typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
        return str(asked)
    try:
        if password_file in (None, "-"):
            return sys.stdin.readline().rstrip("\r\n")
        return Path(str(password_file)).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--password-file: {password_file} cannot be read") from error


@cli.command("reset-totp")
def forget_app(sure: Annotated[bool, SURE] = False) -> None:
    """Forget the authenticator app: the next log-in, by password alone, connects another one."""
    settings = quiet_settings()
    if not sure:
        typer.confirm("Whoever knows the password can then connect an app. Go on?", abort=True)
    _act(settings, lambda ctx: reset_totp(ctx, actor=ACTOR))
    typer.echo("The app and its recovery codes are forgotten. Log in at once and connect another.")


@tokens_cli.command("list")
def list_tokens(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Every token that was not revoked. Works beside a running node."""
    every = asyncio.run(_tokens(quiet_settings()))
    rows = [
        (
            each.id,
            each.name or "",
            each.preview or "",
            ", ".join(each.scopes),
            "never" if each.last_used_at is None else f"{each.last_used_at:%Y-%m-%d %H:%M}",
            f"{each.expires_at:%Y-%m-%d}",
        )
        for each in every
    ]
    names = ("id", "name", "token", "scopes", "last used (UTC)", "expires")
    if as_json:
        typer.echo(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
        return
    print_table(names, rows, empty="no tokens yet: `routstr admin tokens make --help`")


async def _tokens(settings: Settings) -> list[Session]:
    async with watching(settings) as ctx:
        return await tokens(ctx)


@tokens_cli.command("make")
def make(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scopes: Annotated[
        list[str], typer.Option("--scope", help=f"One of {', '.join(SCOPES)} (repeat it).")
    ],
    days: Annotated[int, typer.Option(help="How long it is valid.")] = TOKEN_DAYS,
) -> None:
    """Make a token and print it, this one time."""
    typer.echo(_act(quiet_settings(), lambda ctx: _make(ctx, name, scopes, days)))


async def _make(ctx: Context, name: str, scopes: list[str], days: int) -> str:
    admin = await the_admin(ctx)
    made = await make_token(ctx, admin.id, name=name, scopes=scopes, days=days, actor=ACTOR)
    return made.token


@tokens_cli.command("revoke")
def revoke(token_id: Annotated[str, typer.Argument(help="Its id, as `list` has it.")]) -> None:
    """End a token at once."""
    _act(quiet_settings(), lambda ctx: _revoke(ctx, token_id))
    typer.echo("The token is revoked.")


async def _revoke(ctx: Context, token_id: str) -> None:
    admin = await the_admin(ctx)
    await revoke_token(ctx, admin.id, token_id, actor=ACTOR)


@sessions_cli.command("end")
def end() -> None:
    """Log out every browser; tokens stay."""
    typer.echo(f"{_act(quiet_settings(), _end)} sessions have ended.")


async def _end(ctx: Context) -> int:
    return await end_sessions(ctx, (await the_admin(ctx)).id, actor=ACTOR)
