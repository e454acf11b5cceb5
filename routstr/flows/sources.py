"""Where a key can be paid from: mints and units in order, and the first of them that can."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from routstr.errors import MintShort, MintUnreachable, RoutstrError, UntrustedMint
from routstr.flows.context import Context
from routstr.flows.mints import payable_mint
from routstr.ledger.reads import refund_sources

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A mint and unit to pay from."""

    mint_url: str
    unit: str


async def sources_of(ctx: Context, key_id: str, mint_url: str | None) -> list[Source]:
    """The named mint, else those the key paid with, newest first, then the others.

    Raises UntrustedMint.
    """
    async with ctx.database.reading() as connection:
        pairs = await refund_sources(connection, key_id)
    known = [Source(mint_url=url, unit=unit) for url, unit in pairs]
    if mint_url is None:
        allowed = [source for source in known if source.mint_url in ctx.payable_mints]
        return allowed or [Source(mint_url=url, unit="sat") for url in ctx.facts.mints]
    url = payable_mint(ctx, mint_url)
    return [source for source in known if source.mint_url == url] or [
        Source(mint_url=url, unit="sat")
    ]


async def first_that_can(
    sources: list[Source],
    pay: Callable[[Source], Awaitable[ResultT]],
    *more: type[RoutstrError],
) -> ResultT:
    """What comes of the first source that can; a mint that cannot never hides one that can.

    When none can, raises the error of the mint that lacks least, by its `shortfall_msat`, else the
    last one's; `more` are errors that also are one mint's affair.
    """
    shortage: RoutstrError = MintShort()
    of_one_mint: tuple[type[RoutstrError], ...] = (
        MintShort,
        MintUnreachable,
        UntrustedMint,
        *more,
    )
    for source in sources:
        try:
            return await pay(source)
        except of_one_mint as error:
            shortage = _nearer(shortage, error)
    raise shortage


def _nearer(one: RoutstrError, other: RoutstrError) -> RoutstrError:
    """The error that says how little less could be paid, else the other one."""
    least, missing = one.details.get("shortfall_msat"), other.details.get("shortfall_msat")
    if isinstance(least, int) and not (isinstance(missing, int) and missing < least):
        return one
    return other
