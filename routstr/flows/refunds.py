"""A refund that was begun, as its key sees it again: how it stands, its token or its recipient."""

from routstr.errors import ChildKey, InvalidApiKey, RefundKeyNotFound, RefundNotFound
from routstr.flows.context import Context
from routstr.flows.keys import own_key
from routstr.ledger.book import KeyRef
from routstr.ledger.issued import RECIPIENT_PLACE, TOKEN_PLACE, WithdrawalView
from routstr.ledger.leases import Claim
from routstr.ledger.reads import KeyView, WithdrawalRow, find_key, find_withdrawal
from routstr.ledger.reads_ecash import is_free
from routstr.ledger.sagas import Operation


async def refunded_key(ctx: Context, caller: KeyRef) -> KeyView:
    """The caller's key. Raises RefundKeyNotFound, KeyRevoked."""
    try:
        return await own_key(ctx, caller)
    except InvalidApiKey as error:
        raise RefundKeyNotFound from error


async def refundable_key(ctx: Context, caller: KeyRef) -> KeyView:
    """The caller's key, which must have money of its own.

    Raises what `refunded_key` does, and ChildKey.
    """
    key = await refunded_key(ctx, caller)
    if key.parent_id is not None:
        raise ChildKey("Cannot refund child key. Please refund the parent key instead.")
    return key


async def read_withdrawal(ctx: Context, caller: KeyRef, withdrawal_id: str) -> WithdrawalView:
    """A withdrawal of the caller's, its token or recipient opened.

    Raises RefundKeyNotFound, RefundNotFound.
    """
    key = await refunded_key(ctx, caller)
    row = await stored_withdrawal(ctx, key.id, withdrawal_id)
    return shown_withdrawal(ctx, key, row)


async def read_payment(ctx: Context, api_key_id: str, withdrawal_id: str) -> WithdrawalView:
    """The same for the node itself, whoever's it is."""
    row = await stored_withdrawal(ctx, api_key_id, withdrawal_id)
    async with ctx.database.reading() as connection:
        key = await find_key(connection, KeyRef(id=api_key_id))
    assert key is not None, "a withdrawal was debited from a key"
    return shown_withdrawal(ctx, key, row)


async def stored_withdrawal(ctx: Context, api_key_id: str, withdrawal_id: str) -> WithdrawalRow:
    """The row of that withdrawal. Raises RefundNotFound, also for another key's."""
    async with ctx.database.reading() as connection:
        row = await find_withdrawal(connection, api_key_id, withdrawal_id)
    if row is None:
        raise RefundNotFound
    return row


def shown_withdrawal(ctx: Context, key: KeyView, row: WithdrawalRow) -> WithdrawalView:
    """The row with what is sealed in it opened; a token only while it is its owner's to spend."""
    token = recipient = None
    if row.sealed_token is not None and row.status == "completed":
        token = ctx.wallet.vault.open(row.sealed_token, **TOKEN_PLACE, row_id=row.id)
    if row.sealed_recipient is not None:
        recipient = ctx.wallet.vault.open(row.sealed_recipient, **RECIPIENT_PLACE, row_id=row.id)
    return WithdrawalView(
        id=row.id,
        api_key_id=key.id,
        status=row.status,
        amount_msat=row.amount_msat,
        fee_msat=row.fee_msat,
        unit=row.unit,
        mint_url=row.mint_url,
        token=token,
        error_message=None,
        available_msat=key.available_msat,
        way=row.way,
        recipient=recipient,
    )


async def claim_operation(ctx: Context, row: WithdrawalRow) -> tuple[Operation, ...]:
    """Its operation, if nobody drives it; who waits reads, and writes only when there is need."""
    async with ctx.database.reading() as connection:
        if not await is_free(connection, row.operation_id, ctx.clock.now()):
            return ()
    return await ctx.ledger.submit(
        Claim(
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
            operation_id=row.operation_id,
        )
    )
