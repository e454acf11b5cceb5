"""Ecash that the operator brings: it joins the node's coins, and nobody's balance grows."""

from dataclasses import dataclass

from routstr.errors import MintUnreachable, TokenAlreadySpent, TokenRedemptionFailed
from routstr.flows.context import Context
from routstr.flows.mints import split_on, unreachable
from routstr.flows.own_swap import drive_own_swap
from routstr.flows.tokens import check_token, read_token
from routstr.gateways.mint_failure import MintMisbehaved, MintRefused, MintUnknown
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.reads_ecash import find_deposit
from routstr.ledger.swaps import BeginReceive


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What a token added to the surplus, in its unit."""

    mint_url: str
    unit: str
    amount: int
    fee_amount: int


async def bring(ctx: Context, text: str) -> Brought:
    """Swap a token for coins of the node's own.

    Raises what `read_token` and `check_token` raise, TokenAlreadySpent, TokenRedemptionFailed, and
    MintUnreachable: then the operation is open, and the node goes on with it by itself.
    """
    return await ctx.tasks.carry_through(_bring(ctx, text), name="bring")


async def _bring(ctx: Context, text: str) -> Brought:
    token = read_token(ctx, text, bytes_max=ctx.limits.token_body_bytes_max)
    async with ctx.database.reading() as connection:
        if await find_deposit(connection, token.ys()) is not None:
            raise TokenAlreadySpent
    checked = await check_token(ctx, token)
    await _check_unspent(ctx, checked.mint.url, token.ys())
    operation = await ctx.ledger.submit(
        BeginReceive(
            mint_id=checked.mint.id,
            unit=checked.token.unit,
            keyset_id=checked.keyset.id,
            proofs=checked.token.proofs,
            output_amounts=split_on(checked.keyset, checked.net_amount),
            fee_amount=checked.fee_amount,
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
        )
    )
    ctx.failpoint("bring.begun")
    if not await drive_own_swap(ctx, operation, priority=Priority.RECEIVE):
        raise TokenRedemptionFailed
    return Brought(
        mint_url=checked.mint.url,
        unit=checked.token.unit,
        amount=checked.net_amount,
        fee_amount=checked.fee_amount,
    )


async def _check_unspent(ctx: Context, mint_url: str, ys: tuple[str, ...]) -> None:
    """A spent token is told at once: its swap would be watched for a day.

    Raises TokenAlreadySpent, MintUnreachable.
    """
    try:
        states = await ctx.mints.check_state(mint_url, ys, priority=Priority.RECEIVE)
    except (MintRefused, MintUnknown, MintMisbehaved) as error:
        raise unreachable(error) from error
    if ProofState.SPENT in states.values():
        raise TokenAlreadySpent
    if ProofState.PENDING in states.values():
        raise MintUnreachable("Somebody is paying with this token just now.")
