"""What every flow is given: ledger, mints, upstream, clock, ids, limits.

There is no other state. A flow takes `ctx` and values, and what it leaves behind is in the
database; the few things that live in memory (tasks, running holds, recent early leaves) are
objects here, owned by the composition root.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from routstr.core.admission import Admission
from routstr.ecash.acceptance import AcceptanceKeys
from routstr.ecash.receipt_key import ReceiptKey
from routstr.flows.catalog import Catalog
from routstr.flows.departure import Departure
from routstr.flows.house.herald import Herald
from routstr.flows.house.passwords import Passwords
from routstr.flows.limits import Limits, NodeFacts
from routstr.flows.live import Live, Switches
from routstr.flows.long_bodies import LongBodies
from routstr.flows.meters import Meters
from routstr.flows.rations import EarlyLeaves, Misses
from routstr.flows.tasks import RunningHolds, TaskOwner
from routstr.gateways.listing_http import ModelLists
from routstr.gateways.lnurl import LnurlClient
from routstr.gateways.mint import MintClient
from routstr.gateways.pool import UpstreamPool
from routstr.gateways.rates import RateSources
from routstr.gateways.traces import Traces
from routstr.ledger.backups import BackupStore
from routstr.ledger.commands import Wallet
from routstr.ledger.engine import Database
from routstr.ledger.executor import Clock, LedgerExecutor
from routstr.ledger.notices import Notices
from routstr.ledger.reads_ecash import MintRow

Failpoint = Callable[[str], None]
"""Called by name on both sides of every await on money; does nothing outside the test harness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenMint:
    """A mint as it answered what was asked at a moment of the monotonic clock."""

    mint: MintRow
    seen_at_s: float


class MintShelf:
    """The mints this process has seen, so that a deposit does not ask for keysets each time.

    `asking` holds the one question under way per mint, which everybody who needs it awaits;
    `errands` the housekeeping that is joined likewise; `busy` names what is under way at each;
    `telling` the mints being asked whether change was claimed.
    """

    def __init__(self) -> None:
        """None yet."""
        self._seen: dict[str, SeenMint] = {}
        self.errands: dict[str, asyncio.Task[Any]] = {}
        self.telling: set[str] = set()
        self.asking: dict[str, asyncio.Task[SeenMint]] = {}
        self.busy: set[str] = set()

    def find(self, url: str) -> SeenMint | None:
        """The last answer of that mint."""
        return self._seen.get(url)

    def put(self, url: str, seen: SeenMint) -> None:
        """Remember an answer."""
        self._seen[url] = seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything a flow may use. `owner` names this process in leases.

    `one_shots` are the accounts whose request has not got its hold yet. Without `rates` or `lists`
    nobody is asked for the exchange rate, or for models; without `backups` none are made;
    without `notices`, as on SQLite, there is no other process to hear of.
    """

    ledger: LedgerExecutor
    database: Database
    wallet: Wallet = field(repr=False)
    acceptance: AcceptanceKeys
    receipt_key: ReceiptKey
    mints: MintClient
    lnurl: LnurlClient
    upstream: UpstreamPool
    catalog: Catalog
    clock: Clock
    monotonic_s: Callable[[], float]
    new_id: Callable[[str], str]
    new_api_key: Callable[[], str]
    owner: str
    live: Live
    tasks: TaskOwner
    holds: RunningHolds
    shelf: MintShelf
    early_leaves: EarlyLeaves
    misses: Misses
    failpoint: Failpoint
    one_shots: set[str] = field(default_factory=set)
    admission: Admission = field(default_factory=Admission)
    long_bodies: LongBodies = field(default_factory=LongBodies)
    meters: Meters = field(default_factory=Meters)
    rates: RateSources | None = None
    traces: Traces | None = None
    lists: ModelLists | None = None
    backups: BackupStore | None = None
    notices: Notices | None = None
    passwords: Passwords = field(default_factory=Passwords)
    herald: Herald = field(default_factory=Herald)
    departure: Departure = field(default_factory=Departure)

    def tell(self, topic: str, version: int = 0) -> None:
        """Say that something is committed which other processes should look at; never waits."""
        if self.notices is not None:
            self.notices.tell(topic, version)

    @property
    def limits(self) -> Limits:
        """The bounds in force now."""
        return self.live.now.limits

    @property
    def facts(self) -> NodeFacts:
        """What the node says of itself now."""
        return self.live.now.facts

    @property
    def switches(self) -> Switches:
        """What may happen now."""
        return self.live.now.switches

    @property
    def payable_mints(self) -> tuple[str, ...]:
        """The mints that money may leave by: those it comes by, and those it once came by."""
        return (*self.live.now.facts.mints, *self.live.now.former_mints)
