"""Who gets in: each secret is good once whoever else tries it, tries are counted, sessions end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from routstr.errors import (
    InvalidCredentials,
    InvalidParameter,
    InvalidRequest,
    NotFound,
    RateLimited,
    SetupRefused,
    TotpRequired,
)
from routstr.flows.context import Context
from routstr.flows.house.account import (
    change_password,
    end_sessions,
    make_token,
    open_sessions,
    reset_password,
    reset_totp,
    revoke_token,
    the_admin,
    tokens,
)
from routstr.flows.house.actions import actions, new_note
from routstr.flows.house.codes import proof_of
from routstr.flows.house.identity import (
    Opened,
    Peer,
    Session,
    confirm,
    log_in,
    log_out,
    new_session,
    row_of,
    session_of,
    token_of,
)
from routstr.flows.house.passwords import Passwords
from routstr.flows.house.setup import (
    accept_codes,
    enrol,
    enrolment,
    is_setup_link,
    new_codes,
    new_setup_link,
    set_up,
)
from routstr.ledger.admins import LogIn
from routstr.ledger.throttle import TakeTry, ThrottleScope
from tests.harness.clock import MovableClock
from tests.harness.house import PASSWORD, PEER, fresh_code, move_in
from tests.harness.till import ON_SQLITE, open_context


@asynccontextmanager
async def node(database_url: str, clock: MovableClock | None = None) -> AsyncIterator[Context]:
    async with open_context(database_url, (), clock or MovableClock()) as (ctx, _):
        yield ctx


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def ctx(database_url: str, clock: MovableClock) -> AsyncIterator[Context]:
    async with node(database_url, clock) as ctx:
        yield ctx


async def one_of(*tries: Awaitable[Any], refusal: type[Exception]) -> Any:
    """What the only one yielded that came through; the others were refused."""
    results = await asyncio.gather(*tries, return_exceptions=True)
    [won] = [each for each in results if not isinstance(each, BaseException)]
    assert {type(each) for each in results if each is not won} == {refusal}
    return won


async def session(ctx: Context, opened: Opened) -> Session:
    found = await session_of(ctx, opened.token)
    assert found is not None
    return found


async def enter(ctx: Context, code: str, password: str = PASSWORD, peer: Peer = PEER) -> Opened:
    return await log_in(ctx, password=password, code=code, peer=peer)


async def test_two_processes_let_one_in_with_each_secret(database_url: str) -> None:
    async with node(database_url) as here, node(database_url) as there:
        both = (here, there)
        links = [await new_setup_link(each, actor="node", is_first=True) for each in both]
        assert [link is not None for link in links] == [True, False]
        link = await new_setup_link(there, actor="cli")
        assert link is not None
        assert [await is_setup_link(here, each or "") for each in (*links, link)] == [
            *(False, False),
            True,
        ]
        opened = await one_of(
            *(set_up(each, link, PASSWORD, PEER) for each in (*both, here)), refusal=SetupRefused
        )
        assert await new_setup_link(here, actor="cli") is None
        first = await session(there, opened)
        assert first.kind == "enrolling"
        code = await fresh_code(here)
        refused: type[Exception] = InvalidCredentials
        with pytest.raises(InvalidCredentials):
            await enrol(here, first, "000000" if code != "000000" else "000001", PEER)
        tries = await asyncio.gather(
            *(enrol(each, first, code, PEER) for each in both), return_exceptions=True
        )
        [enrolled] = [each for each in tries if not isinstance(each, BaseException)]
        assert await session_of(there, opened.token) is None  # the set-up's own session is over
        await accept_codes(here, await session(there, enrolled.opened))
        with pytest.raises(InvalidRequest):
            await enrolment(here, await session(there, enrolled.opened))

        code = await fresh_code(here)
        await one_of(*(enter(each, code) for each in (here, there, here)), refusal=refused)
        recovery = enrolled.codes[3]
        await one_of(*(enter(each, recovery) for each in both), refusal=refused)
        with pytest.raises(InvalidCredentials):
            await enter(there, recovery.upper().replace("-", " "))
        await enter(there, enrolled.codes[4].upper().replace("-", " "))

        code = await fresh_code(here)
        live = await session(here, enrolled.opened)
        await one_of(*(confirm(each, live, code, PEER) for each in both), refusal=refused)
        done = [each.action for each in await actions(here, limit=100)]
        assert done[::-1][:4] == ["setup.link", "setup.link", "setup", "totp.enrol"]
        assert done.count("login") == 3


@ON_SQLITE
async def test_tries_are_counted_before_they_are_looked_at(
    ctx: Context, clock: MovableClock
) -> None:
    opened, _ = await move_in(ctx)
    known = await enter(ctx, await fresh_code(ctx))
    live = await session(ctx, opened)

    async def guess(number: int) -> type[Exception]:
        with pytest.raises((InvalidCredentials, RateLimited)) as caught:
            await enter(ctx, "123456", "wrong", Peer(address=f"198.51.100.{number}"))
        return caught.type

    heard = await asyncio.gather(*(guess(number) for number in range(20)))
    assert heard.count(InvalidCredentials) == 5
    code = await fresh_code(ctx)
    with pytest.raises(RateLimited) as blocked:
        await enter(ctx, code)  # right, and refused all the same
    assert blocked.value.retry_after_s is not None
    # who was let in before is not shut out: neither the session, nor the browser
    await confirm(ctx, live, code, PEER)
    forged = Peer(address="192.0.2.9", device=known.device[:-1] + "x")
    with pytest.raises(RateLimited):
        await enter(ctx, await fresh_code(ctx), peer=forged)
    await enter(ctx, await fresh_code(ctx), peer=Peer(address="192.0.2.9", device=known.device))
    # nobody waits for longer than three minutes because of somebody else
    for number in range(30, 42):
        clock.advance(181)
        assert await guess(number) is InvalidCredentials
    clock.advance(181)
    await enter(ctx, await fresh_code(ctx), peer=Peer(address="192.0.2.10"))
    assert await guess(50) is InvalidCredentials  # and counting begins again
    assert await guess(51) is InvalidCredentials
    failed = [each for each in await actions(ctx, limit=500) if each.action == "login.fail"]
    assert len(failed) == 5 + 12 + 2
    assert failed[0].detail == {"address": "198.51.100.51"}


@ON_SQLITE
async def test_an_address_is_counted_and_a_session_too(ctx: Context, clock: MovableClock) -> None:
    opened, _ = await move_in(ctx)
    waits = []
    for number in range(13):
        clock.advance(181 if number < 10 else 0)  # past the account's own block
        live = await session(ctx, opened)
        try:
            await enter(ctx, "1", "wrong", Peer(address="203.0.113.9"))
        except (InvalidCredentials, RateLimited) as refusal:
            waits.append(refusal.retry_after_s)
    # not even behind the same address is a browser shut out that logged in before
    known = Peer(address="203.0.113.9", device=opened.device)
    await enter(ctx, await fresh_code(ctx), peer=known)
    assert waits[:10] == [None] * 10
    assert all(wait is not None for wait in waits[10:])
    heard = []
    for _ in range(7):
        with pytest.raises((InvalidCredentials, RateLimited)) as caught:
            await confirm(ctx, live, "000-not-a-code", PEER)
        heard.append(caught.type)
    assert heard == [InvalidCredentials] * 5 + [RateLimited] * 2
    with pytest.raises(TotpRequired):
        await confirm(ctx, live, "", PEER)
    assert await session_of(ctx, opened.token) is not None


@ON_SQLITE
async def test_a_wrong_password_and_nobodys_sound_the_same(ctx: Context) -> None:
    said = []
    for _ in range(2):
        for code in (None, "123456"):
            with pytest.raises(InvalidCredentials) as caught:
                await log_in(ctx, password="wrong wrong wrong", code=code, peer=PEER)
            said.append(caught.value.message)
        if len(said) == 2:
            await move_in(ctx)
    assert len(set(said)) == 1
    code = await fresh_code(ctx)
    other = f"{(int(code) + 500_000) % 10**6:06}"
    async with ctx.database.writer.begin() as connection:
        await connection.execute(text("DELETE FROM login_throttle"))
    with pytest.raises(InvalidCredentials) as caught:
        await enter(ctx, other)
    assert caught.value.message == said[0]
    with pytest.raises(TotpRequired):
        await log_in(ctx, password=PASSWORD, code=None, peer=PEER)


@ON_SQLITE
async def test_sessions_end(ctx: Context, clock: MovableClock) -> None:
    opened, _ = await move_in(ctx)
    for _ in range(24):  # used each half hour but a minute it lives, for twelve hours
        assert await session_of(ctx, opened.token) is not None
        clock.advance(29 * 60)
    assert await session_of(ctx, opened.token) is not None
    clock.advance(25 * 60)
    assert await session_of(ctx, opened.token) is None
    idle = await enter(ctx, await fresh_code(ctx))
    clock.advance(30 * 60)
    assert await session_of(ctx, idle.token) is None
    one, other = [await enter(ctx, await fresh_code(ctx)) for _ in range(2)]
    await log_out(ctx, await session(ctx, one))
    assert await session_of(ctx, one.token) is None
    assert [each.id for each in await open_sessions(ctx) if each.id == other.session_id]
    user_id = (await the_admin(ctx)).id
    with pytest.raises(InvalidCredentials):
        await change_password(ctx, user_id, current="x" * 12, new="y" * 12, actor="admin")
    with pytest.raises(InvalidParameter):
        await change_password(ctx, user_id, current=PASSWORD, new="short", actor="admin")
    await change_password(ctx, user_id, current=PASSWORD, new="a newer password", actor="admin")
    assert await session_of(ctx, other.token) is None
    with pytest.raises(InvalidCredentials):
        await enter(ctx, await fresh_code(ctx))
    new = await enter(ctx, await fresh_code(ctx), "a newer password")
    assert await end_sessions(ctx, user_id, actor="admin") >= 1
    assert await session_of(ctx, new.token) is None


@ON_SQLITE
async def test_tokens_for_programs(ctx: Context, clock: MovableClock) -> None:
    opened, _ = await move_in(ctx)
    user_id = (await the_admin(ctx)).id
    for wrong in (
        {"name": " ", "scopes": ["read"]},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["read", "root"]},
        {"name": "x", "scopes": ["read"], "days": 0},
        {"name": "x", "scopes": ["read"], "days": 367},
    ):
        with pytest.raises(InvalidParameter):
            await make_token(ctx, user_id, actor="admin", **wrong)
    made = await make_token(ctx, user_id, name="cron", scopes=["read"], days=2, actor="admin")
    assert await session_of(ctx, made.token) is None
    assert await token_of(ctx, opened.token) is None
    used = []
    for _ in range(3):
        assert await token_of(ctx, made.token) is not None
        used += [each.last_used_at for each in await tokens(ctx)]
        clock.advance(40)
    assert used[0] == used[1] != used[2]
    clock.advance(2 * 86_400)
    assert await token_of(ctx, made.token) is None
    await revoke_token(ctx, user_id, made.id, actor="admin")
    with pytest.raises(NotFound):
        await revoke_token(ctx, user_id, opened.session_id, actor="admin")


@ON_SQLITE
async def test_a_command_that_runs_again_does_nothing_again(ctx: Context) -> None:
    _, codes = await move_in(ctx)
    admin = await the_admin(ctx)
    for code in (await fresh_code(ctx), codes[0]):
        admin = await the_admin(ctx)
        proof = proof_of(ctx, admin, code, attempt=ctx.new_id("try"))
        assert proof is not None
        opened = new_session(ctx, "session")
        command = LogIn(
            user_id=admin.id,
            password_hash=admin.password_hash,
            proof=proof,
            session=row_of(ctx, opened),
            forgives=(),
            note=new_note(ctx, "admin", "login"),
        )
        await ctx.ledger.submit(command)
        await ctx.ledger.submit(command)
        with pytest.raises(InvalidCredentials):
            await ctx.ledger.submit(replace(command, proof=replace(proof, attempt="another")))
    assert [each.action for each in await actions(ctx, limit=9)].count("login") == 2
    assert len((await the_admin(ctx)).codes) == 9
    scope = ThrottleScope(name="s", free=2, wait_s_max=60)
    tried = TakeTry(attempt="a", scopes=[scope])
    for _ in range(3):
        await ctx.ledger.submit(tried)
    await ctx.ledger.submit(replace(tried, attempt="b"))
    await ctx.ledger.submit(replace(tried, attempt="b"))
    with pytest.raises(RateLimited):
        await ctx.ledger.submit(tried)


@ON_SQLITE
async def test_who_owns_the_machine_gets_in_again(ctx: Context) -> None:
    with pytest.raises(NotFound):
        await reset_password(ctx, "x" * 12, actor="cli")
    opened, codes = await move_in(ctx)
    user_id = (await the_admin(ctx)).id
    fresh = await new_codes(ctx, user_id, actor="admin")
    with pytest.raises(InvalidCredentials):
        await enter(ctx, codes[0])
    await enter(ctx, fresh[0])
    await reset_password(ctx, "a forgotten password", actor="cli")
    await reset_totp(ctx, actor="cli")
    assert await session_of(ctx, opened.token) is None
    again = await log_in(ctx, password="a forgotten password", code=None, peer=PEER)
    assert again.kind == "enrolling"
    shown = await enrolment(ctx, await session(ctx, again))
    assert shown.secret in shown.uri
    await enrol(ctx, await session(ctx, again), await fresh_code(ctx), PEER)


@ON_SQLITE
async def test_no_secret_is_in_the_database(ctx: Context, tmp_path: Path) -> None:
    link = await new_setup_link(ctx, actor="node")
    first = await session(ctx, await set_up(ctx, link or "", PASSWORD, PEER))
    shown = await enrolment(ctx, first)
    enrolled = await enrol(ctx, first, await fresh_code(ctx), PEER)
    user_id = (await the_admin(ctx)).id
    made = await make_token(ctx, user_id, name="cron", scopes=["read"], actor="admin")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir() if path.is_file())
    opened = enrolled.opened
    for secret in (link, PASSWORD, shown.secret, opened.token, opened.device, made.token):
        assert secret
        assert secret.encode() not in kept
    assert not any(code.replace("-", "").encode() in kept for code in enrolled.codes)
    assert not any(code.encode() in kept for code in enrolled.codes)


async def test_a_password_costs_what_it_should() -> None:
    passwords = Passwords()
    stored = await passwords.hashed("Ångström and more", salt=bytes(16))
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert await passwords.is_right("A\u030angstro\u0308m and more", stored)  # composed otherwise
    assert not await passwords.is_right("Angström and more", stored)
