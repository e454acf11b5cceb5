"""Child keys, as their parent makes and ends them, and what a key may still spend as both see it.

A child's text is shown once, when it is made. With an Idempotency-Key it is derived from that key
and the master secret, so a repeat gives the same children again, until one was used, and they are
paid for once.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from routstr.errors import ChildKey, InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.flows.deposit import preview_of
from routstr.flows.keys import Terms, own_key, parent_of, spendable_msat
from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.book import KeyRef
from routstr.ledger.reads import KeyView, find_key
from routstr.ledger.reads_teams import children_of, pays_once
from routstr.ledger.teams import (
    ChildTerms,
    MakeChildren,
    NewChild,
    ResetChild,
    RevokeChild,
    RevokeSelf,
)

COUNT_MAX: Final = 50
LISTED_MAX: Final = 1000
RATE_MAX: Final = 10**12
KEY_ID: Final = re.compile(r"key_[0-9a-f]{32}")
KEY_TEXT: Final = re.compile(r"sk-[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildWish:
    """How many children, and on what terms; a model may be named by an alias."""

    count: int
    terms: Terms
    allowed_models: Sequence[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """New child keys: their texts are here and nowhere else."""

    api_keys: tuple[str, ...] = field(repr=False)
    key_ids: tuple[str, ...]
    cost_msat: int
    parent_available_msat: int
    is_replay: bool


async def make_children(
    ctx: Context, caller: KeyRef, wish: ChildWish, *, idempotency_key: str | None
) -> Children:
    """Make child keys of the caller's.

    Raises InvalidApiKey, KeyRevoked, KeyExpired, ChildKey, InvalidModel, InvalidParameter,
    InsufficientBalance for what they cost, IdempotencyMismatch, and AnswerGone for a repeat once
    one of the keys was used.
    """
    parent = await own_key(ctx, caller)
    if parent.parent_id is not None:
        raise ChildKey("Cannot create a child key for another child key.")
    if not 1 <= wish.count <= COUNT_MAX:
        raise InvalidParameter(f"From 1 to {COUNT_MAX}.", param="count")
    terms = _terms(ctx, wish)
    made = [_new_child(ctx, parent.id, idempotency_key, n) for n in range(wish.count)]
    ctx.failpoint("teams.checked")
    result = await ctx.ledger.submit(
        MakeChildren(
            parent=KeyRef(id=parent.id),
            children=[child for child, _ in made],
            terms=terms,
            fingerprint=_fingerprint(wish),
            cost_msat=ctx.limits.child_key_cost_msats,
        )
    )
    ctx.failpoint("teams.made")
    return Children(
        api_keys=tuple(text for _, text in made),
        key_ids=tuple(child.id for child, _ in made),
        cost_msat=result.cost_msat,
        parent_available_msat=result.available_msat,
        is_replay=not result.is_first,
    )


def _terms(ctx: Context, wish: ChildWish) -> ChildTerms:
    wish.terms.check(ctx.clock.now())
    for name in ("requests_per_minute", "tokens_per_minute", "concurrent_max"):
        limit = getattr(wish, name)
        if limit is not None and not 1 <= limit <= RATE_MAX:
            raise InvalidParameter("A limit is a positive number.", param=name)
    models = wish.allowed_models
    return ChildTerms(
        expires_at=wish.terms.expires_at,
        balance_limit_msat=wish.terms.balance_limit_msat,
        limit_reset=wish.terms.balance_limit_reset,
        allowed_models=None
        if models is None
        else tuple(ctx.catalog.find(each).id for each in models),
        requests_per_minute=wish.requests_per_minute,
        tokens_per_minute=wish.tokens_per_minute,
        concurrent_max=wish.concurrent_max,
    )


def _new_child(
    ctx: Context, parent_id: str, idempotency_key: str | None, number: int
) -> tuple[NewChild, str]:
    """A child and its text: 256 random bits, or as many that follow from the Idempotency-Key."""
    if idempotency_key is None:
        key_id, text = ctx.new_id("key"), ctx.new_api_key()
    else:
        secret = ctx.wallet.vault.derive("child key text v1")
        named = orjson.dumps([parent_id, idempotency_key, number])
        text = f"sk-{hmac.new(secret, named, hashlib.sha256).hexdigest()}"
        key_id = f"key_{hmac.new(secret, b'id' + named, hashlib.sha256).hexdigest()[:32]}"
    key_hash = ctx.wallet.vault.key_hash(text)
    return NewChild(id=key_id, hash=key_hash, preview=preview_of(text)), text


def _fingerprint(wish: ChildWish) -> str:
    facts = [
        wish.count,
        wish.terms.balance_limit_msat,
        wish.terms.balance_limit_reset,
        wish.terms.validity_date,
        None if wish.allowed_models is None else list(wish.allowed_models),
        wish.requests_per_minute,
        wish.tokens_per_minute,
        wish.concurrent_max,
    ]
    return hashlib.sha256(orjson.dumps(facts)).hexdigest()


async def reset_child(ctx: Context, caller: KeyRef, child: str) -> None:
    """Count a child's spending anew; it is named by its text or its id.

    Raises InvalidApiKey, KeyRevoked, ChildKey, InvalidParameter, and NotFound for a key that is no
    child of the caller's.
    """
    parent = await _parent(ctx, caller)
    await ctx.ledger.submit(ResetChild(parent=parent, child=key_ref(ctx, child, param="child_key")))


async def revoke(ctx: Context, caller: KeyRef, child: str | None) -> None:
    """End a child at once, or without one the caller's own key, if nothing is left on it.

    Raises as `reset_child` does, and KeyNotEmpty. A child may end itself.
    """
    if child is None:
        own = await own_key(ctx, caller)
        await ctx.ledger.submit(RevokeSelf(key=KeyRef(id=own.id)))
        return
    parent = await _parent(ctx, caller)
    await ctx.ledger.submit(
        RevokeChild(parent=parent, child=key_ref(ctx, child, param="child_key"))
    )


async def _parent(ctx: Context, caller: KeyRef) -> KeyRef:
    key = await own_key(ctx, caller)
    if key.parent_id is not None:
        raise ChildKey("A child key has no child keys.")
    return KeyRef(id=key.id)


def key_ref(ctx: Context, text: str, *, param: str) -> KeyRef:
    """The key that is named by its text or its public id. Raises InvalidParameter for neither."""
    if KEY_ID.fullmatch(text):
        return KeyRef(id=text)
    if KEY_TEXT.fullmatch(text):
        return KeyRef(hash=ctx.wallet.vault.key_hash(text))
    raise InvalidParameter("Name a key by its sk- text or its key_ id.", param=param)


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A key's place: what it may spend now, who pays for it, and whom it pays for."""

    spendable_msat: int
    parent: KeyView | None
    children: tuple[KeyView, ...]


async def team_of(ctx: Context, key: KeyView) -> Team:
    """For a child what its cap and its parent's money leave; for any other what is available."""
    async with ctx.database.reading() as connection:
        parent = await parent_of(connection, key)
        children = [] if parent else await children_of(connection, key.id, limit=LISTED_MAX)
    return Team(
        spendable_msat=await spendable_msat(ctx, key), parent=parent, children=tuple(children)
    )


async def payee_of(ctx: Context, to: str) -> KeyView:
    """The key that a transfer is to; what comes to nobody's account would be locked in.

    Raises InvalidParameter, NotFound.
    """
    async with ctx.database.reading() as connection:
        payee = await find_key(connection, key_ref(ctx, to, param="to"))
        is_nobodys = payee is None or await pays_once(connection, payee.id)
    if payee is None or is_nobodys or payee.id == OWNER_KEY_ID:
        raise NotFound("There is no such key.", param="to")
    return payee
