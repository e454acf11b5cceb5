"""Money from one key to another, and to the operator."""

import hashlib
from dataclasses import dataclass
from typing import Final

import orjson

from routstr.errors import ChildKey, InvalidParameter
from routstr.flows.context import Context
from routstr.flows.deposit import Intent, receive
from routstr.flows.keys import INT64_MAX, own_key
from routstr.flows.teams import payee_of
from routstr.flows.tokens import read_token
from routstr.ledger.accounts import OWNER_KEY_ID, NewKey, OpenKey, Transfer, Transferred
from routstr.ledger.book import KeyRef
from routstr.ledger.reads_teams import was_posted

OWNER: Final = KeyRef(id=OWNER_KEY_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A transfer, and whether it is told for the second time."""

    transferred: Transferred
    is_replay: bool


async def transfer(
    ctx: Context, caller: KeyRef, to: str, amount_msat: int, *, idempotency_key: str
) -> Moved:
    """Move money to another key, named by its text or its id, once per Idempotency-Key.

    Raises InvalidApiKey, KeyRevoked, KeyExpired for a payee that has, ChildKey for a child at
    either end, InsufficientBalance, InvalidParameter, NotFound, IdempotencyMismatch.
    """
    payer = await own_key(ctx, caller)
    if payer.parent_id is not None:
        raise ChildKey("A child key has no money of its own to transfer.")
    if not 1 <= amount_msat <= INT64_MAX:
        raise InvalidParameter("A transfer is of at least 1 msat.", param="amount_msats")
    payee = await payee_of(ctx, to)
    named = orjson.dumps([payer.id, idempotency_key])
    transfer_id = f"tr_{hashlib.sha256(named).hexdigest()[:32]}"
    async with ctx.database.reading() as connection:
        is_replay = await was_posted(connection, f"transfer:{transfer_id}:out")
    ctx.failpoint("transfer.checked")
    transferred = await ctx.ledger.submit(
        Transfer(
            transfer_id=transfer_id,
            payer=KeyRef(id=payer.id),
            payee=KeyRef(id=payee.id),
            amount_msat=amount_msat,
        )
    )
    ctx.failpoint("transfer.done")
    return Moved(transferred=transferred, is_replay=is_replay)


async def donate(ctx: Context, text: str) -> int:
    """Credit a token to the operator's own account; what it came to, in msat.

    The same token again changes nothing. Raises what `receive` raises.
    """
    token = read_token(ctx, text, bytes_max=ctx.limits.token_body_bytes_max)
    # The account is opened with the hash of a text that nobody knows: no key opens it.
    key_hash = ctx.wallet.vault.key_hash(ctx.new_api_key())
    ctx.failpoint("donate.before_account")
    await ctx.ledger.submit(OpenKey(key=NewKey(id=OWNER_KEY_ID, hash=key_hash)))
    ctx.failpoint("donate.account")
    fingerprint = hashlib.sha256(orjson.dumps(["donate", sorted(token.ys())])).hexdigest()
    received = await receive(ctx, token, Intent(target=OWNER, fingerprint=fingerprint))
    return received.credit_msat
