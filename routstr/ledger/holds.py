"""The commands of a paid request: reserve, extend, settle, release, expire, renew.

A hold ends exactly once, with exactly one `usage` row, even of amount 0 (I-9). Whoever comes late
finds it ended and gets the first result; nothing is charged twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from routstr.core.hold import HoldEvent, HoldState, charge, move
from routstr.errors import (
    InsufficientBalance,
    KeyExpired,
    KeyRevoked,
    ModelNotAllowed,
    NotFound,
    Overloaded,
)
from routstr.ledger.book import Account, Book, HoldRow, KeyRef
from routstr.ledger.commands import Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Money promised to one request; only the executor makes one, after COMMIT (I-13).

    `payable_msat` is the most the key could have paid at that moment, at most the quote.
    """

    id: str
    api_key_id: str
    amount_msat: int
    quote_msat: int
    payable_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How a hold ended. `balance_msat` and `available_msat` are the key's, right after.

    `ended_at` is None if it had ended before; both are then today's.
    """

    charged_msat: int
    absorbed_msat: int
    state: HoldState
    balance_msat: int
    available_msat: int
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve(Command[Hold]):
    """Hold `wanted_msat`, or what the key has left if that is at least `minimum_msat`.

    Looks the key up itself, so that authentication and reservation are one trip. Refuses with
    InvalidApiKey, KeyRevoked, KeyExpired, ModelNotAllowed, InsufficientBalance or Overloaded.
    """

    hold_id: str
    caller: KeyRef
    wanted_msat: int
    minimum_msat: int
    quote_msat: int
    model_id: str
    price_snapshot: Mapping[str, object] = field(repr=False)
    owner: str
    lease_s: float

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The paying key."""
        return (self.caller,)

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to be made, in case it was already."""
        return (self.hold_id,)

    @property
    def may_be_shed(self) -> bool:
        """A new request is what overload refuses first."""
        return True

    def apply(self, book: Book) -> Hold:
        """Check the key, then hold."""
        account = book.account(self.caller)
        existing = book.hold(self.hold_id)
        if existing is not None:
            return self._hold(
                account, existing.amount_msat, account.available_msat + existing.amount_msat
            )
        _check_permission(account, self.model_id, book)
        amount_msat = min(self.wanted_msat, account.available_msat)
        if amount_msat < self.minimum_msat:
            raise insufficient(account, self.minimum_msat)
        if book.held_msat + amount_msat > book.held_msat_max:
            raise Overloaded("The node has promised as much as it may; try again shortly.")
        hold = self._hold(account, amount_msat, account.available_msat)
        book.put_account(
            replace(
                account,
                reserved_msat=account.reserved_msat + amount_msat,
                last_used_at=book.now,
                first_used_at=_first_use(account, self.caller, book),
            )
        )
        book.put_hold(
            HoldRow(
                id=self.hold_id,
                api_key_id=account.id,
                amount_msat=amount_msat,
                quote_msat=self.quote_msat,
                state=HoldState.HELD,
                owner=self.owner,
                deadline=book.now + timedelta(seconds=self.lease_s),
                price_snapshot=self.price_snapshot,
            )
        )
        return hold

    def _hold(self, account: Account, amount_msat: int, free_msat: int) -> Hold:
        """`free_msat` is what the key can spend, this hold included."""
        return Hold(
            id=self.hold_id,
            api_key_id=account.id,
            amount_msat=amount_msat,
            quote_msat=self.quote_msat,
            payable_msat=max(amount_msat, min(self.quote_msat, free_msat)),
        )


def _first_use(account: Account, caller: KeyRef, book: Book) -> datetime | None:
    """The first time the key's own text was shown: it starts the end of its token's validity."""
    if account.first_used_at is None and caller.hash is not None:
        return book.now
    return account.first_used_at


def _check_permission(account: Account, model_id: str, book: Book) -> None:
    if account.revoked_at is not None:
        raise KeyRevoked
    if account.expires_at is not None and account.expires_at <= book.now:
        raise KeyExpired
    if account.allowed_models is not None and model_id not in account.allowed_models:
        raise ModelNotAllowed


def insufficient(account: Account, required_msat: int) -> InsufficientBalance:
    """The refusal with its figures; a repeat helps if the key's own holds cover it."""
    shortfall_msat = required_msat - account.available_msat
    own_holds_cover = account.reserved_msat >= shortfall_msat
    return InsufficientBalance(
        details={
            "required_msat": required_msat,
            "available_msat": account.available_msat,
            "held_msat": account.reserved_msat,
            "shortfall_msat": shortfall_msat,
        },
        should_retry=own_holds_cover,
        retry_after_s=1 if own_holds_cover else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend(Command[Hold]):
    """Enlarge a running hold to `amount_msat` in all, never beyond its quote.

    Refuses with InsufficientBalance when the key cannot pay it, Overloaded at the node's limit,
    NotFound when the hold has ended. A repeat finds it enlarged and changes nothing.
    """

    hold_id: str
    api_key_id: str
    amount_msat: int

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The paying key."""
        return (KeyRef(id=self.api_key_id),)

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to enlarge."""
        return (self.hold_id,)

    def apply(self, book: Book) -> Hold:
        """Take the difference from what the key has left."""
        account = book.account(KeyRef(id=self.api_key_id))
        hold = book.hold(self.hold_id)
        if hold is None or hold.state != HoldState.HELD:
            raise NotFound("The hold has ended.")
        target_msat = min(self.amount_msat, hold.quote_msat)
        more_msat = max(0, target_msat - hold.amount_msat)
        if more_msat > account.available_msat:
            raise insufficient(account, more_msat)
        if book.held_msat + more_msat > book.held_msat_max:
            raise Overloaded("The node has promised as much as it may.")
        if more_msat:
            book.put_account(replace(account, reserved_msat=account.reserved_msat + more_msat))
            move(hold.state, HoldEvent.EXTEND)
            book.put_hold(replace(hold, amount_msat=hold.amount_msat + more_msat))
        amount_msat = hold.amount_msat + more_msat
        return Hold(
            id=hold.id,
            api_key_id=account.id,
            amount_msat=amount_msat,
            quote_msat=hold.quote_msat,
            payable_msat=min(hold.quote_msat, amount_msat + account.available_msat - more_msat),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(Command[Settled]):
    """End a hold: charge min(cost, quote, hold + available), give the rest back.

    A cost of 0 ends it as released. `request_data` says outcome, evidence and usage, never
    content. A hold that ended before yields its first result; one unknown raises NotFound.
    """

    hold_id: str
    api_key_id: str
    cost_msat: int
    description: str
    request_data: Mapping[str, object] = field(repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The paying key."""
        return (KeyRef(id=self.api_key_id),)

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to end."""
        return (self.hold_id,)

    def apply(self, book: Book) -> Settled:
        """Charge once."""
        account = book.account(KeyRef(id=self.api_key_id))
        hold = book.hold(self.hold_id)
        if hold is None:
            raise NotFound("There is no such hold.")
        if hold.state != HoldState.HELD:
            return _already(hold, account, self.cost_msat)
        bill = charge(
            cost_msat=self.cost_msat,
            quote_msat=hold.quote_msat,
            hold_msat=hold.amount_msat,
            available_msat=account.available_msat,
        )
        event = HoldEvent.SETTLE if bill.charged_msat else HoldEvent.RELEASE
        data = {**self.request_data, "absorbed_msat": bill.absorbed_msat}
        after = _end(book, account, hold, event, bill.charged_msat, self.description, data)
        return Settled(
            charged_msat=bill.charged_msat,
            absorbed_msat=bill.absorbed_msat,
            state=move(HoldState.HELD, event),
            balance_msat=after.balance_msat,
            available_msat=after.available_msat,
            ended_at=book.now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire(Command[Settled]):
    """End a hold nobody renewed: its owner died or lost the database; nothing is charged.

    With `orphaned`, the deadline does not matter: at the start of a single-process node every
    hold is an orphan. A hold that is alive after all raises NotFound.
    """

    hold_id: str
    api_key_id: str
    orphaned: bool = False

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key whose money is given back."""
        return (KeyRef(id=self.api_key_id),)

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to end."""
        return (self.hold_id,)

    def apply(self, book: Book) -> Settled:
        """Give everything back."""
        account = book.account(KeyRef(id=self.api_key_id))
        hold = book.hold(self.hold_id)
        if hold is None:
            raise NotFound("There is no such hold.")
        if hold.state != HoldState.HELD:
            return _already(hold, account, 0)
        if not self.orphaned and hold.deadline > book.now:
            raise NotFound("The hold is alive.")
        data = {
            "outcome": "node_crashed",
            "evidence": "none",
            "at_risk_msat": hold.amount_msat,
            "absorbed_msat": 0,
        }
        after = _end(book, account, hold, HoldEvent.EXPIRE, 0, "node_crashed", data)
        return Settled(
            charged_msat=0,
            absorbed_msat=0,
            state=HoldState.EXPIRED,
            balance_msat=after.balance_msat,
            available_msat=after.available_msat,
            ended_at=book.now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew(Command[frozenset[str]]):
    """Move the deadline of this owner's living holds to `lease_s` from now; yields those alive."""

    holds: Mapping[str, str] = field(repr=False)
    owner: str
    lease_s: float

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The keys of those holds, locked so that nothing ends meanwhile."""
        return tuple({KeyRef(id=key_id) for key_id in self.holds.values()})

    @property
    def hold_ids(self) -> Sequence[str]:
        """The holds to keep alive."""
        return tuple(self.holds)

    def apply(self, book: Book) -> frozenset[str]:
        """Extend each lease."""
        alive = set()
        for hold_id in self.holds:
            hold = book.hold(hold_id)
            if hold is None or hold.state != HoldState.HELD or hold.owner != self.owner:
                continue
            book.put_hold(replace(hold, deadline=book.now + timedelta(seconds=self.lease_s)))
            alive.add(hold_id)
        return frozenset(alive)


def _end(
    book: Book,
    account: Account,
    hold: HoldRow,
    event: HoldEvent,
    charged_msat: int,
    description: str,
    data: Mapping[str, object],
) -> Account:
    grown_msat = max(0, charged_msat - hold.amount_msat)
    freed = replace(
        account,
        reserved_msat=account.reserved_msat - hold.amount_msat,
        total_spent_msat=account.total_spent_msat + charged_msat,
        total_requests=account.total_requests + (1 if charged_msat else 0),
    )
    book.put_hold(
        replace(
            hold,
            amount_msat=hold.amount_msat + grown_msat,
            settled_msat=charged_msat,
            state=move(hold.state, event),
            ended_at=book.now,
        )
    )
    return book.post(
        freed,
        -charged_msat,
        "usage",
        f"end:{hold.id}",
        description=description,
        request_data=data,
    )


def _already(hold: HoldRow, account: Account, cost_msat: int) -> Settled:
    charged_msat = hold.settled_msat or 0
    return Settled(
        charged_msat=charged_msat,
        absorbed_msat=max(0, cost_msat - charged_msat),
        state=hold.state,
        balance_msat=account.balance_msat,
        available_msat=account.available_msat,
    )
