"""What a request may still do: by its key's money, cap, rates and models, and by its parent's.

Laws
- A child key has no money. Its parent pays, and all that a child does counts for both: a cap, a
  rate or a model list of the parent's bounds its children together.
- Nothing is promised above a cap: used + held <= limit after every hold and every charge.
- A key's `running` is the number of its held reservations, of its children's too.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from routstr.core.quota import Rates, RateView, minute_of, rate_headers, seconds_left, tightest
from routstr.errors import (
    BalanceLimitExceeded,
    ChildKey,
    InsufficientBalance,
    KeyExpired,
    KeyRevoked,
    ModelNotAllowed,
    RateLimited,
    RoutstrError,
)
from routstr.ledger.book import Account, Book, HoldRow, KeyRef


class Parties(NamedTuple):
    """Whose money it is, and the child that spends it, if it is one; caps as of now."""

    payer: Account
    child: Account | None = None

    @property
    def each(self) -> tuple[Account, ...]:
        """Those a request counts for."""
        return (self.payer,) if self.child is None else (self.payer, self.child)

    @property
    def free_msat(self) -> int:
        """The most that can be promised besides what is."""
        if self.child is None and self.payer.bounds.balance_limit_msat is None:
            return self.payer.available_msat
        caps = (account.cap for account in self.each)
        return min([self.payer.available_msat, *(cap.left_msat for cap in caps if cap is not None)])

    @property
    def held_msat(self) -> int:
        """What the caller's own requests hold."""
        return (self.child or self.payer).held_msat


def parties_of(book: Book, account: Account) -> Parties:
    """Who is concerned when that key asks."""
    if account.parent_id is None:
        return Parties(payer=_caught_up(account, book.now))
    return Parties(
        payer=_caught_up(book.account(KeyRef(id=account.parent_id)), book.now),
        child=_caught_up(account, book.now),
    )


def parties_to(book: Book, hold: HoldRow) -> Parties:
    """Who is concerned when that hold changes."""
    return parties_of(book, book.account(KeyRef(id=hold.spender_id or hold.api_key_id)))


def _caught_up(account: Account, now: datetime) -> Account:
    """The account with its cap's period as of now."""
    cap = account.cap
    current = None if cap is None else cap.at(now)
    if current is None or current is cap:
        return account
    return account._replace(limit_base_msat=current.base_msat, limit_since=current.since)


# ── refusing ──────────────────────────────────────────────────────────────────────────────────


def check_alive(parties: Parties) -> None:
    """Raises KeyRevoked, for a child of a revoked parent too."""
    for account in parties.each:
        if account.revoked_at is not None:
            raise KeyRevoked


def check_creditable(account: Account) -> None:
    """Raises KeyRevoked, and ChildKey: what would come to a child comes to its parent."""
    if account.parent_id is not None:
        raise ChildKey
    if account.revoked_at is not None:
        raise KeyRevoked


def check_permission(parties: Parties, model_id: str, now: datetime) -> None:
    """Raises KeyRevoked, KeyExpired, ModelNotAllowed; what the parent may not, a child may not."""
    check_alive(parties)
    for account in parties.each:
        if account.expires_at is not None and account.expires_at <= now:
            raise KeyExpired
    for account in parties.each:
        allowed = account.bounds.allowed_models
        if allowed is not None and model_id not in allowed:
            raise ModelNotAllowed


def check_rates(parties: Parties, defaults: Rates, now: datetime) -> RateView | None:
    """What is left of this minute before the request; None for keys without such limits.

    Raises RateLimited, which says when to come again.
    """
    view = rate_view(parties.each, defaults, now)
    for account in parties.each:
        limit = _own(account.bounds.concurrent_max, defaults.concurrent_max)
        if limit and account.running >= limit:
            raise RateLimited(
                f"The key has {limit} requests running, as many as it may.",
                retry_after_s=1,
                headers=rate_headers(view, now),
            )
    if view is None:
        return None
    for name, quota in (("requests", view.requests), ("tokens", view.tokens)):
        if quota is not None and quota.remaining == 0:
            raise RateLimited(
                f"The key may use {quota.limit} {name} a minute.",
                retry_after_s=seconds_left(now, view.minute),
                headers=rate_headers(view, now),
            )
    return view


def rate_view(accounts: Iterable[Account], defaults: Rates, now: datetime) -> RateView | None:
    """What is left of this minute; None where there is no limit a minute."""
    minute = 0
    requests, tokens = [], []
    for account in accounts:
        own = account.bounds
        request_limit = _own(own.requests_per_minute, defaults.requests_per_minute)
        token_limit = _own(own.tokens_per_minute, defaults.tokens_per_minute)
        if request_limit or token_limit:
            minute = max(minute or minute_of(now), account.rate_minute)
            is_current = account.rate_minute == minute
            requests.append((request_limit, account.rate_requests if is_current else 0))
            tokens.append((token_limit, account.rate_tokens if is_current else 0))
    if not requests:
        return None
    return RateView(minute=minute, requests=tightest(requests), tokens=tightest(tokens))


def _own(own: int | None, default: int) -> int:
    return default if own is None else own


def insufficient(account: Account, required_msat: int) -> InsufficientBalance:
    """The refusal with its figures; a repeat helps if the key's own holds cover it."""
    return _insufficient(required_msat, account.available_msat, account.reserved_msat)


def refusal(parties: Parties, required_msat: int) -> RoutstrError:
    """Why `required_msat` cannot be promised. A child is told of its own figures only."""
    free_msat, held_msat = parties.free_msat, parties.held_msat
    if parties.payer.available_msat < required_msat:
        return _insufficient(required_msat, free_msat, held_msat)
    shortfall_msat = required_msat - free_msat
    own_holds_cover = held_msat >= shortfall_msat
    return BalanceLimitExceeded(
        details={
            "required_msat": required_msat,
            "available_msat": free_msat,
            "held_msat": held_msat,
            "shortfall_msat": shortfall_msat,
        },
        should_retry=own_holds_cover,
        retry_after_s=1 if own_holds_cover else None,
    )


def _insufficient(required_msat: int, available_msat: int, held_msat: int) -> InsufficientBalance:
    shortfall_msat = required_msat - available_msat
    own_holds_cover = held_msat >= shortfall_msat
    return InsufficientBalance(
        details={
            "required_msat": required_msat,
            "available_msat": available_msat,
            "held_msat": held_msat,
            "shortfall_msat": shortfall_msat,
        },
        should_retry=own_holds_cover,
        retry_after_s=1 if own_holds_cover else None,
    )


# ── counting ──────────────────────────────────────────────────────────────────────────────────
# One change for each account: these are on the road of every paid request.


def begin(book: Book, parties: Parties, amount_msat: int) -> None:
    """One more request runs, holding so much."""
    minute = book.minute
    for account in parties.each:
        own_msat, child_msat = _shares(account, amount_msat)
        is_current = account.rate_minute >= minute  # the clock of another node may be ahead
        book.put_account(
            account._replace(
                reserved_msat=account.reserved_msat + own_msat,
                limit_held_msat=account.limit_held_msat + child_msat,
                running=account.running + 1,
                rate_minute=account.rate_minute if is_current else minute,
                rate_requests=(account.rate_requests if is_current else 0) + 1,
                rate_tokens=account.rate_tokens if is_current else 0,
                last_used_at=book.now,
            )
        )


def extend(book: Book, parties: Parties, more_msat: int) -> None:
    """A running request holds more."""
    for account in parties.each:
        own_msat, child_msat = _shares(account, more_msat)
        book.put_account(
            account._replace(
                reserved_msat=account.reserved_msat + own_msat,
                limit_held_msat=account.limit_held_msat + child_msat,
            )
        )


def end(book: Book, parties: Parties, held_msat: int, charged_msat: int, tokens: int) -> Parties:
    """A request has ended; yields the parties after it. The payer's row is still to be appended."""
    child = parties.child
    if child is not None:
        child = _ended(book, child, held_msat, charged_msat, tokens)
        assert child.limit_held_msat >= 0, "a child holds less than nothing"
        book.put_account(child)
    payer = _ended(book, parties.payer, held_msat, charged_msat, tokens)
    return Parties(payer, child)


def _ended(book: Book, account: Account, held_msat: int, charged_msat: int, tokens: int) -> Account:
    own_msat, child_msat = _shares(account, held_msat)
    is_child = account.parent_id is not None
    is_current = account.rate_minute >= book.minute
    return account._replace(
        balance_msat=account.balance_msat - (0 if is_child else charged_msat),
        version=account.version + (0 if is_child else 1),
        reserved_msat=account.reserved_msat - own_msat,
        limit_held_msat=account.limit_held_msat - child_msat,
        total_spent_msat=account.total_spent_msat + charged_msat,
        total_requests=account.total_requests + (1 if charged_msat else 0),
        running=max(0, account.running - 1),
        rate_minute=account.rate_minute if is_current else book.minute,
        rate_requests=account.rate_requests if is_current else 0,
        rate_tokens=(account.rate_tokens if is_current else 0) + tokens,
    )


def _shares(account: Account, amount_msat: int) -> tuple[int, int]:
    """What of it is held of the account's own money, and what of its parent's."""
    return (amount_msat, 0) if account.parent_id is None else (0, amount_msat)
