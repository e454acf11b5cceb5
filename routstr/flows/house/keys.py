"""The operator's keys: found, looked at with every row of their chain, ended, bound to terms.

Nobody but its owner has a key's text, so the operator finds a key by its id, by the preview of its
text, or by a whole text that somebody gave him, which is hashed here and goes nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from routstr.core.cap import RESETS
from routstr.core.money import is_int64
from routstr.errors import InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.ledger.house_keys import SetRevoked, SetTerms
from routstr.ledger.reads import KeyView
from routstr.ledger.reads_house_keys import (
    KEY_FILTERS,
    KeyFilter,
    KeyRow,
    KeySearch,
    KeyTotals,
    count_keys,
    find_key_row,
    key_totals,
)
from routstr.ledger.reads_house_keys import find_keys as read_keys
from routstr.ledger.reads_house_lists import ChainRow, ChainSearch, chain_rows
from routstr.ledger.reads_teams import children_of

__all__ = [
    "KeyFilter",
    "KeyLimits",
    "KeyPage",
    "KeyRow",
    "KeyShown",
    "all_keys",
    "find_keys",
    "key_rows",
    "key_shown",
    "keys_found",
    "limits_of",
    "revive_key",
    "revoke_key",
    "set_key_limits",
]

LIMIT_MAX: Final = 500
CHILDREN_SHOWN: Final = 100
SEARCH_CHARS_MAX: Final = 200
TEXT_CHARS: Final = len("sk-") + 64
MODELS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPage:
    """A page of keys, newest first. `after` leads to the next one; None: this is the last."""

    keys: tuple[KeyRow, ...]
    after: str | None


async def find_keys(
    ctx: Context,
    *,
    search: str = "",
    shown: KeyFilter = "all",
    limit: int = 50,
    after: str | None = None,
) -> KeyPage:
    """Keys by the beginning of their id or preview, or by their whole text; newest first.

    `after` is the last page's. Raises InvalidParameter.
    """
    wanted = _search(ctx, search, shown)
    limit = _limit(limit)
    async with ctx.database.reading() as connection:
        last: KeyView | None = None
        if after is not None:
            row = await find_key_row(connection, after)
            if row is None:
                raise InvalidParameter("No such key.", param="after")
            last = row.key
        keys = await read_keys(connection, wanted, limit=limit + 1, after=last)
    has_more = len(keys) > limit
    keys = keys[:limit]
    return KeyPage(keys=tuple(keys), after=keys[-1].key.id if has_more else None)


async def keys_found(ctx: Context, *, search: str = "", shown: KeyFilter = "all") -> int:
    """How many keys `find_keys` leads through. Raises InvalidParameter."""
    wanted = _search(ctx, search, shown)
    async with ctx.database.reading() as connection:
        return await count_keys(connection, wanted)


async def all_keys(ctx: Context) -> KeyTotals:
    """The keys of all users together: totals that are stored with each key, added up."""
    async with ctx.database.reading() as connection:
        return await key_totals(connection)


def _search(ctx: Context, text: str, shown: str) -> KeySearch:
    text = text.strip()
    found = next((each for each in KEY_FILTERS if each == shown), None)
    if found is None:
        raise InvalidParameter(f"One of {', '.join(KEY_FILTERS)}.", param="shown")
    if len(text) > SEARCH_CHARS_MAX:
        raise InvalidParameter("That is too long.", param="search")
    search = KeySearch(now=ctx.clock.now(), shown=found)
    if text.startswith("sk-") and len(text) == TEXT_CHARS:
        return replace(search, hash=ctx.wallet.vault.key_hash(text))
    return replace(search, text=text or None)


def _limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidParameter(f"From 1 to {LIMIT_MAX}.", param="limit")
    return limit


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyShown:
    """A key with what belongs to it; `children` are its newest that were not revoked."""

    key: KeyRow
    parent: KeyView | None
    children: tuple[KeyView, ...]
    has_more_children: bool


async def key_shown(ctx: Context, key_id: str) -> KeyShown:
    """One key. Raises NotFound."""
    async with ctx.database.reading() as connection:
        row = await find_key_row(connection, key_id)
        if row is None:
            raise NotFound("There is no such key.")
        parent = None
        if row.key.parent_id is not None:
            above = await find_key_row(connection, row.key.parent_id)
            parent = None if above is None else above.key
        children = await children_of(connection, key_id, limit=CHILDREN_SHOWN + 1)
    return KeyShown(
        key=row,
        parent=parent,
        children=tuple(children[:CHILDREN_SHOWN]),
        has_more_children=len(children) > CHILDREN_SHOWN,
    )


async def key_rows(
    ctx: Context, key_id: str, *, limit: int = 50, before: int | None = None
) -> list[ChainRow]:
    """The rows of a key's audit chain, newest first, from below the sequence `before`.

    A child's requests are on its parent's chain. Raises InvalidParameter.
    """
    search = ChainSearch(key_id=key_id)
    async with ctx.database.reading() as connection:
        return await chain_rows(connection, search, limit=_limit(limit), before=before)


# ── what the operator does to one ─────────────────────────────────────────────────────────────


async def revoke_key(ctx: Context, key_id: str, *, actor: str) -> None:
    """End a key at once; what is on it stays on it. Raises NotFound."""
    await ctx.ledger.submit(SetRevoked(key_id=key_id, is_revoked=True))


async def revive_key(ctx: Context, key_id: str, *, actor: str) -> None:
    """Take the end of a key back. Raises NotFound."""
    await ctx.ledger.submit(SetRevoked(key_id=key_id, is_revoked=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What a key is bound to, amounts in msat; None is no bound, a rate of 0 no limit.

    Times are aware.
    """

    balance_limit_msat: int | None = None
    limit_reset: str | None = None
    expires_at: datetime | None = None
    allowed_models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_max: int | None = None


async def set_key_limits(
    ctx: Context, key_id: str, changes: Mapping[str, object], *, actor: str
) -> KeyLimits:
    """Bind a key to these; `changes` names fields of `KeyLimits`, what it leaves out stays.

    They count from the next request on. Raises NotFound, InvalidParameter.
    """
    checked = {name: _checked(name, value) for name, value in changes.items()}
    await ctx.ledger.submit(SetTerms(key_id=key_id, changes=checked))
    async with ctx.database.reading() as connection:
        row = await find_key_row(connection, key_id)
    assert row is not None
    return limits_of(row.key)


def limits_of(key: KeyView) -> KeyLimits:
    """What a key is bound to."""
    return KeyLimits(
        balance_limit_msat=key.balance_limit_msat,
        limit_reset=key.limit_reset,
        expires_at=key.expires_at,
        allowed_models=key.allowed_models,
        requests_per_minute=key.rates["requests_per_minute"],
        tokens_per_minute=key.rates["tokens_per_minute"],
        concurrent_max=key.rates["concurrent_max"],
    )


def _checked(name: str, value: object) -> object:
    """The value as the ledger takes it. Raises InvalidParameter."""
    if name not in KeyLimits.__slots__:
        raise InvalidParameter("There is no such limit.", param=name)
    if value is None:
        return None
    match name:
        case "limit_reset":
            if value not in RESETS:
                raise InvalidParameter(f"One of {', '.join(RESETS)}.", param=name)
        case "expires_at":
            if not isinstance(value, datetime) or value.tzinfo is None:
                raise InvalidParameter("A time with its zone.", param=name)
        case "allowed_models":
            return _models(value)
        case _:
            if not is_int64(value) or (name == "balance_limit_msat" and value == 0):
                raise InvalidParameter("A whole number that is not negative.", param=name)
    return value


def _models(value: object) -> tuple[str, ...]:
    names = tuple(value) if isinstance(value, list | tuple) else ()
    if not 0 < len(names) <= MODELS_MAX or not all(isinstance(name, str) for name in names):
        raise InvalidParameter(f"A list of 1 to {MODELS_MAX} models.", param="allowed_models")
    return names
