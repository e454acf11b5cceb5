"""The commands of a paid request: reserve, extend, settle, release, expire, renew.

A hold ends exactly once, with exactly one `usage` row, even of amount 0 (I-9). Whoever comes late
finds it ended and gets the first result; nothing is charged twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from routstr.core.hold import Charge, HoldEvent, HoldState, charge, move
from routstr.core.quota import UNLIMITED, Rates, RateView
from routstr.errors import NotFound, Overloaded, Paused
from routstr.ledger import allowance
from routstr.ledger.allowance import Parties, parties_of, parties_to
from routstr.ledger.book import Book, HoldRow, KeyRef
from routstr.ledger.commands import Command

NOTHING: Final = Charge(charged_msat=0, absorbed_msat=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Money promised to one request; only the executor makes one, after COMMIT (I-13).

    `api_key_id` is the key that pays, `spender_id` its child if that has asked. `payable_msat` is
    the most that could have been paid at that moment, at most the quote. `rates` is what was left
    of the key's limits a minute, if it has any.
    """

    id: str
    api_key_id: str
    amount_msat: int
    quote_msat: int
    payable_msat: int
    spender_id: str | None = None
    rates: RateView | None = None

    @property
    def keys(self) -> tuple[KeyRef, ...]:
        """Those that whatever changes it must name."""
        return _keys(self.api_key_id, self.spender_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How a hold ended; `balance_msat` is the payer's right after.

    `available_msat` is what whoever asked may still spend, its cap considered. `ended_at` is None
    if it had ended before; both are then today's.
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

    Looks the key up itself, so that authentication and reservation are one trip. `rates` are the
    node's limits, for keys without their own. Refuses with InvalidApiKey, KeyRevoked, KeyExpired,
    ModelNotAllowed, RateLimited, InsufficientBalance, BalanceLimitExceeded or Overloaded; with
    `is_paused` every new one with Paused.
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
    rates: Rates = UNLIMITED
    is_paused: bool = False

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key that asks; its parent is loaded with it."""
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
        parties = parties_of(book, account)
        free_msat = parties.free_msat
        existing = book.hold(self.hold_id)
        if existing is not None:
            rates = allowance.rate_view(parties.each, self.rates, book.now)
            return self._hold(
                parties, existing.amount_msat, free_msat + existing.amount_msat, rates
            )
        if self.is_paused:
            raise Paused("The operator has paused new requests; nothing was charged.")
        allowance.check_permission(parties, self.model_id, book.now)
        rates = allowance.check_rates(parties, self.rates, book.now)
        amount_msat = min(self.wanted_msat, free_msat)
        if amount_msat < self.minimum_msat:
            raise allowance.refusal(parties, self.minimum_msat)
        if book.held_msat + amount_msat > book.held_msat_max:
            raise Overloaded("The node has promised as much as it may; try again shortly.")
        hold = self._hold(
            parties, amount_msat, free_msat, None if rates is None else rates.after_one()
        )
        allowance.begin(book, parties, amount_msat)
        if account.first_used_at is None and self.caller.hash is not None:
            # The key's own text was shown: that starts the end of its token's validity.
            shown = book.account(self.caller)
            book.put_account(shown._replace(first_used_at=book.now))
        book.put_hold(
            HoldRow(
                id=self.hold_id,
                api_key_id=hold.api_key_id,
                amount_msat=amount_msat,
                quote_msat=self.quote_msat,
                state=HoldState.HELD,
                owner=self.owner,
                deadline=book.now + timedelta(seconds=self.lease_s),
                price_snapshot=self.price_snapshot,
                spender_id=hold.spender_id,
            )
        )
        return hold

    def _hold(
        self, parties: Parties, amount_msat: int, free_msat: int, rates: RateView | None
    ) -> Hold:
        """`free_msat` is what can be spent, this hold included."""
        return Hold(
            id=self.hold_id,
            api_key_id=parties.payer.id,
            amount_msat=amount_msat,
            quote_msat=self.quote_msat,
            payable_msat=max(amount_msat, min(self.quote_msat, free_msat)),
            spender_id=None if parties.child is None else parties.child.id,
            rates=rates,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend(Command[Hold]):
    """Enlarge a running hold to `amount_msat` in all, never beyond its quote.

    Refuses with InsufficientBalance or BalanceLimitExceeded when it cannot be paid, KeyRevoked,
    Overloaded at the node's limit, NotFound when the hold has ended. A repeat finds it enlarged and
    changes nothing.
    """

    hold_id: str
    api_key_id: str
    amount_msat: int
    spender_id: str | None = None

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key that pays, and its child that spends."""
        return _keys(self.api_key_id, self.spender_id)

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to enlarge."""
        return (self.hold_id,)

    def apply(self, book: Book) -> Hold:
        """Take the difference from what is left."""
        hold = book.hold(self.hold_id)
        if hold is None or hold.state != HoldState.HELD:
            raise NotFound("The hold has ended.")
        parties = parties_to(book, hold)
        allowance.check_alive(parties)
        target_msat = min(self.amount_msat, hold.quote_msat)
        more_msat = max(0, target_msat - hold.amount_msat)
        free_msat = parties.free_msat
        if more_msat > free_msat:
            raise allowance.refusal(parties, more_msat)
        if book.held_msat + more_msat > book.held_msat_max:
            raise Overloaded("The node has promised as much as it may.")
        if more_msat:
            allowance.extend(book, parties, more_msat)
            move(hold.state, HoldEvent.EXTEND)
            book.put_hold(hold._replace(amount_msat=hold.amount_msat + more_msat))
        amount_msat = hold.amount_msat + more_msat
        return Hold(
            id=hold.id,
            api_key_id=hold.api_key_id,
            amount_msat=amount_msat,
            quote_msat=hold.quote_msat,
            payable_msat=min(hold.quote_msat, amount_msat + free_msat - more_msat),
            spender_id=hold.spender_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle(Command[Settled]):
    """End a hold: charge min(cost, quote, hold + what may still be spent), give the rest back.

    A cost of 0 ends it as released. `request_data` says outcome, evidence and usage, never
    content; `tokens` counts towards the key's limit a minute. A hold that ended before yields its
    first result; one unknown raises NotFound.
    """

    hold_id: str
    api_key_id: str
    cost_msat: int
    description: str
    request_data: Mapping[str, object] = field(repr=False)
    spender_id: str | None = None
    tokens: int = 0

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key that pays, and its child that spends."""
        return _keys(self.api_key_id, self.spender_id)

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to end."""
        return (self.hold_id,)

    def apply(self, book: Book) -> Settled:
        """Charge once."""
        hold = book.hold(self.hold_id)
        if hold is None:
            raise NotFound("There is no such hold.")
        parties = parties_to(book, hold)
        if hold.state != HoldState.HELD:
            return _already(hold, parties, self.cost_msat)
        bill = charge(
            cost_msat=self.cost_msat,
            quote_msat=hold.quote_msat,
            hold_msat=hold.amount_msat,
            available_msat=parties.free_msat,
        )
        event = HoldEvent.SETTLE if bill.charged_msat else HoldEvent.RELEASE
        freed = allowance.end(book, parties, hold.amount_msat, bill.charged_msat, self.tokens)
        data = {**self.request_data, "absorbed_msat": bill.absorbed_msat}
        return _end(book, freed, hold, event, bill, self.description, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire(Command[Settled]):
    """End a hold nobody renewed: its owner died or lost the database; nothing is charged.

    With `orphaned`, the deadline does not matter: at the start of a single-process node every
    hold is an orphan. A hold that is alive after all raises NotFound.
    """

    hold_id: str
    api_key_id: str
    orphaned: bool = False
    spender_id: str | None = None

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key whose money is given back, and its child that asked."""
        return _keys(self.api_key_id, self.spender_id)

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to end."""
        return (self.hold_id,)

    def apply(self, book: Book) -> Settled:
        """Give everything back."""
        hold = book.hold(self.hold_id)
        if hold is None:
            raise NotFound("There is no such hold.")
        parties = parties_to(book, hold)
        if hold.state != HoldState.HELD:
            return _already(hold, parties, 0)
        if not self.orphaned and hold.deadline > book.now:
            raise NotFound("The hold is alive.")
        data = {
            "outcome": "node_crashed",
            "evidence": "none",
            "at_risk_msat": hold.amount_msat,
            "absorbed_msat": 0,
        }
        freed = allowance.end(book, parties, hold.amount_msat, 0, 0)
        return _end(book, freed, hold, HoldEvent.EXPIRE, NOTHING, "node_crashed", data)


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
            book.put_hold(hold._replace(deadline=book.now + timedelta(seconds=self.lease_s)))
            alive.add(hold_id)
        return frozenset(alive)


def _end(
    book: Book,
    freed: Parties,
    hold: HoldRow,
    event: HoldEvent,
    bill: Charge,
    description: str,
    data: Mapping[str, object],
) -> Settled:
    state = move(hold.state, event)
    book.put_hold(
        hold._replace(
            amount_msat=max(hold.amount_msat, bill.charged_msat),
            settled_msat=bill.charged_msat,
            state=state,
            ended_at=book.now,
        )
    )
    book.append(
        freed.payer,
        -bill.charged_msat,
        "usage",
        f"end:{hold.id}",
        description=description,
        request_data=data if hold.spender_id is None else {**data, "spender": hold.spender_id},
    )
    return _settled(freed, bill, state, ended_at=book.now)


def _already(hold: HoldRow, parties: Parties, cost_msat: int) -> Settled:
    charged_msat = hold.settled_msat or 0
    absorbed_msat = max(0, cost_msat - charged_msat)
    bill = Charge(charged_msat=charged_msat, absorbed_msat=absorbed_msat)
    return _settled(parties, bill, hold.state)


def _settled(
    parties: Parties, bill: Charge, state: HoldState, ended_at: datetime | None = None
) -> Settled:
    return Settled(
        charged_msat=bill.charged_msat,
        absorbed_msat=bill.absorbed_msat,
        state=state,
        balance_msat=parties.payer.balance_msat,
        available_msat=parties.free_msat,
        ended_at=ended_at,
    )


def _keys(api_key_id: str, spender_id: str | None) -> tuple[KeyRef, ...]:
    payer = KeyRef(id=api_key_id)
    return (payer,) if spender_id is None else (payer, KeyRef(id=spender_id))
