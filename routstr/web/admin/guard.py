"""Who may do what under `/admin`: the one door of its API and of its pages.

Every endpoint takes exactly one of the types below; there is no other way to an `Admin`. Until
somebody has proved who he is, all of them refuse. Sources: contract, section 8; SR-3, SR-4.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

from routstr.errors import AdminRequired
from routstr.web.deps import Ctx

Scope = Literal["read", "write", "withdraw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """Somebody who has proved who he is. `name` is what the log of actions says of him."""

    user_id: str
    name: str
    scopes: frozenset[Scope]
    session_id: str
    is_session: bool


async def reading_admin(request: Request, ctx: Ctx) -> Admin:
    """Who is asking, allowed to read. Raises AdminRequired."""
    raise AdminRequired


async def writing_admin(request: Request, ctx: Ctx) -> Admin:
    """… to write: of a session also Origin and CSRF token are right. Raises AdminRequired."""
    raise AdminRequired


async def confirmed_admin(request: Request, ctx: Ctx) -> Admin:
    """… to write what is dangerous, with a fresh TOTP code of a session. Raises AdminRequired."""
    raise AdminRequired


async def withdrawing_admin(request: Request, ctx: Ctx) -> Admin:
    """… to take money out, with a fresh TOTP code of a session. Raises AdminRequired."""
    raise AdminRequired


Reading = Annotated[Admin, Depends(reading_admin)]
Writing = Annotated[Admin, Depends(writing_admin)]
Confirmed = Annotated[Admin, Depends(confirmed_admin)]
Withdrawing = Annotated[Admin, Depends(withdrawing_admin)]
