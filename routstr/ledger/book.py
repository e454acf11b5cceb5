"""The executor's picture of the rows it has locked: changed in memory, then written at once.

Laws
- Every change of a balance appends exactly one posting, with the next `sequence` of its key and
  the balance after it: the audit chain has no gap (I-5).
- 0 <= reserved <= balance, always (I-4). A breach is our bug, so it is an assertion.
- A child key has no money: nothing is ever posted to it.
- Values are immutable; a change puts a new value in the book. That makes undoing cheap.

What is on the road of every paid request is a named tuple: made and changed at a fraction of what
a frozen dataclass costs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from routstr.core.cap import Cap
from routstr.core.hold import HoldState
from routstr.core.quota import minute_of
from routstr.errors import InvalidApiKey
from routstr.ledger.claims import ClaimBook

PostingType = Literal[
    "deposit", "usage", "withdrawal", "refund", "transfer_in", "transfer_out", "fee", "expiry"
]


class KeyRef(NamedTuple):
    """Which key is meant: by its id, or by the hash of its text."""

    id: str | None = None
    hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a key may do, as it was agreed when it was made; None: no bound of its own."""

    parent_id: str | None = None
    expires_at: datetime | None = None
    allowed_models: tuple[str, ...] | None = None
    balance_limit_msat: int | None = None
    limit_reset: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_max: int | None = None


UNBOUND: Final = Bounds()
NO_SNAPSHOT: Final[Mapping[str, object]] = MappingProxyType({})


class Account(NamedTuple):
    """A row of `apikey` as far as money and permission go; amounts in msat."""

    id: str
    key_hash: str
    balance_msat: int = 0
    reserved_msat: int = 0
    version: int = 0
    total_deposited_msat: int = 0
    total_spent_msat: int = 0
    total_requests: int = 0
    limit_base_msat: int = 0
    limit_held_msat: int = 0
    running: int = 0
    rate_minute: int = 0
    rate_requests: int = 0
    rate_tokens: int = 0
    first_used_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    limit_since: datetime | None = None
    bounds: Bounds = UNBOUND

    @property
    def parent_id(self) -> str | None:
        """Whose child it is, if it is one."""
        return self.bounds.parent_id

    @property
    def expires_at(self) -> datetime | None:
        """When it ends, if it does."""
        return self.bounds.expires_at

    def has_expired(self, now: datetime) -> bool:
        """Whether that was before or at `now`."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def available_msat(self) -> int:
        """What the key may still promise: balance less holds."""
        return self.balance_msat - self.reserved_msat

    @property
    def held_msat(self) -> int:
        """What its requests hold; a child's hold money of its parent's."""
        return self.reserved_msat if self.parent_id is None else self.limit_held_msat

    @property
    def cap(self) -> Cap | None:
        """How much it may spend, if that is limited."""
        limit_msat = self.bounds.balance_limit_msat
        if limit_msat is None:
            return None
        return Cap(
            limit_msat=limit_msat,
            reset=self.bounds.limit_reset,
            spent_msat=self.total_spent_msat,
            held_msat=self.held_msat,
            base_msat=self.limit_base_msat,
            since=self.limit_since,
        )


class HoldRow(NamedTuple):
    """A row of `reservation`; amounts in msat. `spender_id` is the child whose parent pays.

    `price_snapshot` is written with a new hold, and not loaded again.
    """

    id: str
    api_key_id: str
    amount_msat: int
    quote_msat: int
    state: HoldState
    owner: str
    deadline: datetime
    settled_msat: int | None = None
    ended_at: datetime | None = None
    spender_id: str | None = None
    price_snapshot: Mapping[str, object] = NO_SNAPSHOT


class Posting(NamedTuple):
    """A row of `transaction` about to be written."""

    api_key_id: str
    sequence: int
    amount_msat: int
    balance_after_msat: int
    type: PostingType
    operation_id: str
    description: str | None = None
    request_data: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A book as it was, to go back to."""

    accounts: Mapping[str, Account]
    holds: Mapping[str, HoldRow]
    postings: int
    held_msat: int


class Book:
    """Accounts and holds of one batch. `now` is the database's clock where it has one, and `minute`
    the one it lies in.

    `held_msat` is what this process has promised in all, `held_msat_max` the most it may (I-18);
    `claims` are there once the accounts say where to look for them.
    """

    def __init__(
        self,
        *,
        now: datetime,
        accounts: Iterable[Account],
        holds: Iterable[HoldRow],
        held_msat: int,
        held_msat_max: int,
    ) -> None:
        """Start from rows that are locked."""
        self.now = now
        self.minute = minute_of(now)
        self.held_msat = held_msat
        self.held_msat_max = held_msat_max
        self.postings: list[Posting] = []
        self.claims = ClaimBook()
        self._accounts = {account.id: account for account in accounts}
        self._ids_by_hash = {account.key_hash: account.id for account in self._accounts.values()}
        self._holds = {hold.id: hold for hold in holds}
        self._loaded_accounts = dict(self._accounts)
        self._loaded_holds = dict(self._holds)

    def account(self, ref: KeyRef) -> Account:
        """The account meant. Raises InvalidApiKey when there is none."""
        account = self.find(ref)
        if account is None:
            raise InvalidApiKey
        return account

    def find(self, ref: KeyRef) -> Account | None:
        """The account meant, if there is one."""
        key_id = ref.id or self._ids_by_hash.get(ref.hash or "", "")
        return self._accounts.get(key_id)

    def has(self, key_id: str) -> bool:
        """Whether an account of that id is known."""
        return key_id in self._accounts

    def hold(self, hold_id: str) -> HoldRow | None:
        """The hold of that id, if it exists."""
        return self._holds.get(hold_id)

    def add_account(self, account: Account) -> None:
        """Know an account whose row was written by this same batch."""
        self._accounts[account.id] = account
        self._loaded_accounts[account.id] = account
        self._ids_by_hash[account.key_hash] = account.id

    def put_account(self, account: Account) -> None:
        """Change an account in anything but its balance."""
        assert account.balance_msat == self._accounts[account.id].balance_msat
        self._put(account)

    def put_hold(self, hold: HoldRow) -> None:
        """Add or change a hold, and keep count of what is promised."""
        before = self._holds.get(hold.id)
        self.held_msat += _held(hold) - (0 if before is None else _held(before))
        self._holds[hold.id] = hold

    def post(
        self,
        account: Account,
        amount_msat: int,
        type_: PostingType,
        operation_id: str,
        *,
        description: str | None = None,
        request_data: Mapping[str, object] | None = None,
    ) -> Account:
        """Change the balance by `amount_msat` (signed), append the row that says so."""
        after = account._replace(
            balance_msat=account.balance_msat + amount_msat,
            version=account.version + 1,
        )
        self.append(
            after,
            amount_msat,
            type_,
            operation_id,
            description=description,
            request_data=request_data,
        )
        return after

    def append(
        self,
        after: Account,
        amount_msat: int,
        type_: PostingType,
        operation_id: str,
        *,
        description: str | None = None,
        request_data: Mapping[str, object] | None = None,
    ) -> None:
        """Append the row of a change that `after` has already, balance and version included."""
        before = self._accounts[after.id]
        assert after.parent_id is None, "a child key has no balance"
        assert after.balance_msat == before.balance_msat + amount_msat
        assert after.version == before.version + 1
        self.postings.append(
            Posting(
                api_key_id=after.id,
                sequence=after.version,
                amount_msat=amount_msat,
                balance_after_msat=after.balance_msat,
                type=type_,
                operation_id=operation_id,
                description=description,
                request_data=request_data,
            )
        )
        self._put(after)

    def changed_accounts(self) -> list[tuple[Account, Account]]:
        """(as loaded, as now) of each account that changed."""
        pairs = ((self._loaded_accounts[key_id], now) for key_id, now in self._accounts.items())
        return [(loaded, now) for loaded, now in pairs if loaded is not now]

    def new_holds(self) -> list[HoldRow]:
        """Holds that have no row yet."""
        return [hold for hold_id, hold in self._holds.items() if hold_id not in self._loaded_holds]

    def changed_holds(self) -> list[tuple[HoldRow, HoldRow]]:
        """(as loaded, as now) of each hold that has a row and changed."""
        pairs = ((loaded, self._holds[hold_id]) for hold_id, loaded in self._loaded_holds.items())
        return [(loaded, now) for loaded, now in pairs if loaded is not now]

    def checkpoint(self) -> Checkpoint:
        """Remember this state."""
        return Checkpoint(
            accounts=dict(self._accounts),
            holds=dict(self._holds),
            postings=len(self.postings),
            held_msat=self.held_msat,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Forget all that happened since."""
        for key_id in self._accounts.keys() - checkpoint.accounts.keys():
            del self._ids_by_hash[self._accounts[key_id].key_hash]
            del self._loaded_accounts[key_id]
        self._accounts = dict(checkpoint.accounts)
        self._holds = dict(checkpoint.holds)
        self.held_msat = checkpoint.held_msat
        del self.postings[checkpoint.postings :]

    def _put(self, account: Account) -> None:
        assert 0 <= account.reserved_msat <= account.balance_msat, "a balance went negative"
        self._accounts[account.id] = account


def _held(hold: HoldRow) -> int:
    return hold.amount_msat if hold.state == HoldState.HELD else 0
