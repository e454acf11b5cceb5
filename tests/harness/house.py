"""A shop whose operator is logged in: his session, his codes, a token for programs.

    async with open_house(database_url) as house:
        answer = await house.admin.get("/admin/api/audit")
        code = {"x-admin-totp": await house.totp()}
        await house.admin.post("/admin/api/withdraw", json={…}, headers=code)

`house.admin` sends the session's cookie, its CSRF token and the Origin of the node's own page.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
from sqlalchemy import text

from demo.process import NO_TLS
from routstr.core.totp import code_at, step_at
from routstr.flows.context import Context
from routstr.flows.house.account import SCOPES, make_token, the_admin
from routstr.flows.house.codes import secret_of
from routstr.flows.house.identity import Opened, Peer, csrf_token, session_of
from routstr.flows.house.setup import accept_codes, enrol, new_setup_link, set_up
from routstr.web.admin.guard import COOKIE
from tests.harness.shop import WAIT_S, Shop, open_shop

PASSWORD: Final = "correct horse battery staple"
PEER: Final = Peer(address="192.0.2.1")


@dataclass(slots=True, kw_only=True)
class House:
    """The shop, and what its operator has."""

    shop: Shop
    ctx: Context
    http: httpx.AsyncClient  # nobody's
    admin: httpx.AsyncClient  # a browser that is logged in, with CSRF token and Origin
    token: str  # for programs, with every scope
    user_id: str
    recovery_codes: list[str]
    opened: Opened

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.shop.port}"

    @property
    def csrf(self) -> str:
        return csrf_token(self.ctx, self.opened.session_id)

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    async def totp(self) -> str:
        """A code that is taken now; what was taken before is forgotten."""
        return await fresh_code(self.ctx)


@asynccontextmanager
async def open_house(database_url: str, **limits: Any) -> AsyncIterator[House]:
    """A shop of those limits, set up and logged in to."""
    async with open_shop(database_url, **limits) as shop:
        opened, codes = await move_in(shop.ctx)
        user_id = (await the_admin(shop.ctx)).id
        made = await make_token(shop.ctx, user_id, name="tests", scopes=SCOPES, actor="admin")
        headers = session_headers(shop.ctx, opened, f"http://127.0.0.1:{shop.port}")
        async with httpx.AsyncClient(
            verify=NO_TLS,
            base_url=f"http://127.0.0.1:{shop.port}",
            timeout=WAIT_S,
            headers=headers,
        ) as admin:
            yield House(
                shop=shop,
                ctx=shop.ctx,
                http=shop.http,
                admin=admin,
                token=made.token,
                user_id=user_id,
                recovery_codes=codes,
                opened=opened,
            )


def session_headers(ctx: Context, opened: Opened, origin: str) -> dict[str, str]:
    """What the browser of a session sends with a write; httpx keeps no Secure cookie over http."""
    return {
        "cookie": f"{COOKIE}={opened.token}",
        "x-csrf-token": csrf_token(ctx, opened.session_id),
        "origin": origin,
    }


async def move_in(ctx: Context, password: str = PASSWORD) -> tuple[Opened, list[str]]:
    """The whole set-up by its flows: the session, and the recovery codes."""
    link = await new_setup_link(ctx, actor="test")
    assert link is not None
    first = await session_of(ctx, (await set_up(ctx, link, password, PEER)).token)
    assert first is not None
    enrolled = await enrol(ctx, first, await fresh_code(ctx), PEER)
    session = await session_of(ctx, enrolled.opened.token)
    assert session is not None
    await accept_codes(ctx, session)
    return enrolled.opened, enrolled.codes


async def fresh_code(ctx: Context) -> str:
    """The app's code of now; no code counts as taken any more, so a test need not wait 30 s."""
    async with ctx.database.writer.begin() as connection:
        await connection.execute(text("UPDATE admin_user SET totp_last_step = NULL"))
    return await app_code(ctx)


async def app_code(ctx: Context, steps: int = 0) -> str:
    """What the app shows now, or so many steps later."""
    secret = secret_of(ctx, await the_admin(ctx))
    return code_at(secret, step_at(int(ctx.clock.now().timestamp())) + steps)
