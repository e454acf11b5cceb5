"""A key's life as its owner sees it: made from a token, topped up, looked at.

A new key is random (SR-1). Its text is kept sealed for at most `sealed_key_ttl_s`, and only until
its first use, so that whoever lost the answer gets it with the token; then only its hash is left.
"""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import orjson

from routstr.core.cap import RESETS
from routstr.errors import (
    IdempotencyMismatch,
    InvalidApiKey,
    InvalidParameter,
    KeyExpired,
    KeyRevoked,
    TokenAlreadySpent,
)
from routstr.flows.context import Context
from routstr.flows.deposit import Intent, Received, new_key, receive
from routstr.flows.invited import invite_hash
from routstr.flows.tokens import read_or_known
from routstr.ledger.accounts import NoteUse
from routstr.ledger.book import KeyRef
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import KeyView, find_key
from routstr.ledger.reads_ecash import KnownDeposit, find_deposit

UNIX_S_MAX: Final = 253_402_300_799  # the last second of the year 9999
INT64_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a new key may be bound to; `balance_limit_msat` in msat, `validity_date` in Unix s."""

    balance_limit_msat: int | None = None
    balance_limit_reset: str | None = None
    validity_date: int | None = None

    def check(self, now: datetime) -> None:
        """Raises InvalidParameter, naming the parameter."""
        limit = self.balance_limit_msat
        if limit is not None and not 0 < limit <= INT64_MAX:
            raise InvalidParameter("A limit is a positive number.", param="balance_limit")
        if self.balance_limit_reset is not None and self.balance_limit_reset not in RESETS:
            raise InvalidParameter(f"One of {', '.join(RESETS)}.", param="balance_limit_reset")
        date = self.validity_date
        if date is not None and not now.timestamp() < date <= UNIX_S_MAX:
            raise InvalidParameter("A Unix time in the future.", param="validity_date")

    @property
    def expires_at(self) -> datetime | None:
        """`validity_date` as a time."""
        date = self.validity_date
        return None if date is None else datetime.fromtimestamp(date, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new key: its text is here and, sealed, in its deposit; nowhere else."""

    api_key: str = field(repr=False)
    key_id: str
    available_msat: int
    is_replay: bool


async def create_key(
    ctx: Context,
    text: str,
    terms: Terms,
    *,
    idempotency_key: str | None,
    invite: str | None = None,
) -> Created:
    """Open a key with a token. A token that opened one before is spent, unless this is a replay.

    Raises what `receive` raises, InvalidParameter for the terms, and InviteRequired.
    """
    terms.check(ctx.clock.now())
    token, known = await read_or_known(ctx, text, bytes_max=ctx.limits.token_body_bytes_max)
    fingerprint = _fingerprint("create", terms)
    scoped_key = _scoped("create", idempotency_key)
    if known is not None:
        _check_same(known, scoped_key, fingerprint)
    if known is not None and known.state == "credited":
        return await _replay(ctx, known, scoped_key)
    key = replace(
        new_key(ctx),
        expires_at=terms.expires_at,
        balance_limit_msat=terms.balance_limit_msat,
        limit_reset=terms.balance_limit_reset,
        invite=None if known is not None else await invite_hash(ctx, invite),
    )
    received = await receive(
        ctx,
        token,
        Intent(
            new_key=key,
            idempotency_key=scoped_key,
            fingerprint=fingerprint,
            only_joins=known is not None,
        ),
    )
    if received.is_first and received.api_key_id == key.id:
        return Created(
            api_key=key.text,
            key_id=key.id,
            available_msat=received.available_msat,
            is_replay=False,
        )
    async with ctx.database.reading() as connection:
        known = await find_deposit(connection, token.ys())
    assert known is not None
    if not received.is_first:
        _check_same(known, scoped_key, fingerprint)
        return await _replay(ctx, known, scoped_key)
    api_key = _unsealed(ctx, known)
    if api_key is None:  # it was topped up elsewhere meanwhile, or begun as a top-up
        raise TokenAlreadySpent
    return Created(
        api_key=api_key,
        key_id=received.api_key_id,
        available_msat=received.available_msat,
        is_replay=False,
    )


def _check_same(known: KnownDeposit, scoped_key: str | None, fingerprint: str) -> None:
    """Raises IdempotencyMismatch for an Idempotency-Key that came with other terms before."""
    is_repeat = scoped_key is not None and known.idempotency_key == scoped_key
    if is_repeat and known.fingerprint != fingerprint:
        raise IdempotencyMismatch


async def _replay(ctx: Context, known: KnownDeposit, scoped_key: str | None) -> Created:
    """The first answer again, for the same Idempotency-Key; else the token is spent."""
    api_key = _unsealed(ctx, known)
    is_repeat = scoped_key is not None and known.idempotency_key == scoped_key
    if not is_repeat or api_key is None or not known.covers:
        raise TokenAlreadySpent("This token was already exchanged; it still works as a Bearer key.")
    assert known.api_key_id is not None
    async with ctx.database.reading() as connection:
        key = await find_key(connection, KeyRef(id=known.api_key_id))
    assert key is not None
    return Created(
        api_key=api_key, key_id=key.id, available_msat=key.available_msat, is_replay=True
    )


def _scoped(path: str, idempotency_key: str | None) -> str | None:
    """An Idempotency-Key counts per path: the same one may create a key and then top it up."""
    return None if idempotency_key is None else f"{path}:{idempotency_key}"


def _fingerprint(purpose: str, terms: Terms) -> str:
    facts = [purpose, terms.balance_limit_msat, terms.balance_limit_reset, terms.validity_date]
    return hashlib.sha256(orjson.dumps(facts)).hexdigest()


def _unsealed(ctx: Context, known: KnownDeposit) -> str | None:
    """The key's text, while it is sealed and unused."""
    if known.sealed_key is None or known.first_used_at is not None or known.credited_at is None:
        return None
    age_s = (ctx.clock.now() - known.credited_at).total_seconds()
    if age_s > ctx.limits.sealed_key_ttl_s:
        return None
    return ctx.wallet.vault.open(
        known.sealed_key, table="deposit", column="sealed_key", row_id=known.id
    )


async def own_key(ctx: Context, caller: KeyRef) -> KeyView:
    """The caller's key, its first use noted: that ends what its token can do.

    One that has expired may still be looked at and emptied. Raises InvalidApiKey, KeyRevoked.
    """
    async with ctx.database.reading() as connection:
        key = await find_key(connection, caller)
        parent = None if key is None else await parent_of(connection, key)
    if key is None:
        raise InvalidApiKey
    if key.revoked_at is not None or (parent is not None and parent.revoked_at is not None):
        raise KeyRevoked
    if caller.hash is not None and key.first_used_at is None:
        await ctx.ledger.submit(NoteUse(caller=caller))
    return key


async def parent_of(connection: ReadConnection, key: KeyView) -> KeyView | None:
    """The key that pays for a child; None for any other."""
    return None if key.parent_id is None else await find_key(connection, KeyRef(id=key.parent_id))


async def topup(
    ctx: Context, caller: KeyRef, text: str, *, idempotency_key: str | None
) -> Received:
    """Credit a token to a key; the same token again yields the first result.

    A child has no balance: what it brings is its parent's.

    Raises what `receive` raises, InvalidApiKey for an unknown key, KeyRevoked, KeyExpired, and
    TokenAlreadySpent for a token that went to another key.
    """
    token, known = await read_or_known(ctx, text, bytes_max=ctx.limits.token_body_bytes_max)
    key = await own_key(ctx, caller)
    if key.expires_at is not None and key.expires_at <= ctx.clock.now():
        raise KeyExpired
    fingerprint = hashlib.sha256(orjson.dumps(["topup", sorted(token.ys())])).hexdigest()
    path = "topup" if key.parent_id is None else f"topup:{key.id}"
    intent = Intent(
        target=KeyRef(id=key.parent_id or key.id),
        idempotency_key=_scoped(path, idempotency_key),
        fingerprint=fingerprint,
        only_joins=known is not None,
    )
    received = await receive(ctx, token, intent)
    if key.parent_id is None:
        return received
    return replace(received, available_msat=await spendable_msat(ctx, key))


async def spendable_msat(ctx: Context, key: KeyView) -> int:
    """What a key may still spend: for a child, what its cap and its parent's money leave."""
    async with ctx.database.reading() as connection:
        parent = await parent_of(connection, key)
    if parent is None:
        return key.available_msat
    caps = (each.cap for each in (key, parent))
    left = [cap.at(ctx.clock.now()).left_msat for cap in caps if cap is not None]
    return min(parent.available_msat, *left) if left else parent.available_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """A key, and what to show as its text: the sealed one for its token, else the credential."""

    key: KeyView
    api_key: str = field(repr=False)


async def key_info(ctx: Context, caller: KeyRef, credential: str) -> KeyInfo:
    """The key behind a credential. Raises InvalidApiKey, KeyRevoked."""
    key = await own_key(ctx, caller)
    if caller.hash is not None:
        return KeyInfo(key=key, api_key=credential)
    _, known = await read_or_known(ctx, credential, bytes_max=ctx.limits.token_header_bytes_max)
    api_key = None if known is None else _unsealed(ctx, known)
    return KeyInfo(key=key, api_key=api_key or credential)
