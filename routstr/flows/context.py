"""What every flow is given: ledger, mints, upstream, clock, ids, limits.

There is no other state. A flow takes `ctx` and values, and what it leaves behind is in the
database; the few things that live in memory (tasks, running holds, recent early leaves) are
objects here, owned by the composition root.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from routstr.core.pricing import Model
from routstr.ecash.acceptance import AcceptanceKeys
from routstr.ecash.amounts import FloatGoal
from routstr.errors import InvalidModel, RateLimited, RoutstrError, ServiceUnavailable
from routstr.gateways.lnurl import LnurlClient
from routstr.gateways.mint import MintClient
from routstr.gateways.upstream import UpstreamClient
from routstr.ledger.commands import Wallet
from routstr.ledger.engine import Database
from routstr.ledger.executor import Clock, LedgerExecutor
from routstr.ledger.reads_ecash import MintRow

log = structlog.get_logger()

ResultT = TypeVar("ResultT")

Failpoint = Callable[[str], None]
"""Called by name on both sides of every await on money; does nothing outside the test harness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds flows keep; the settings of the same names explain them."""

    upstream_connect_timeout_s: float
    upstream_first_byte_timeout_s: float
    upstream_idle_timeout_s: float
    upstream_total_timeout_s: float
    client_stall_timeout_s: float
    drain_timeout_s: float
    keep_alive_after_s: float
    shutdown_grace_s: float
    hold_lease_s: float
    hold_renew_s: float
    hold_owner_silent_s: float
    output_slice_tokens: int
    early_leaves_max: int
    early_leaves_window_s: float
    json_depth_max: int
    answer_bytes_max: int
    sse_event_bytes_max: int
    stream_queue_chunks_max: int
    stream_queue_bytes_max: int
    token_header_bytes_max: int
    token_body_bytes_max: int
    idempotency_key_chars_max: int
    mint_lease_s: float
    mint_watch_s: float
    keyset_refresh_s: float
    sealed_key_ttl_s: float
    token_credential_ttl_s: float
    refund_ttl_s: int
    operation_wait_s: float
    melt_timeout_s: float
    p2pk_lock: str
    locked_sats_max: int
    locked_mint_silent_s: float
    float_coins: int
    float_coin_max: int
    change_wait_s: float
    invoice_ttl_s: int
    payout_to: str | None
    payout_floor_sats: int
    payout_keep_sats: int
    bodies_bytes_max: int = 512 * 1024 * 1024
    body_timeout_s: float = 60

    def float_goal(self, denominations: Iterable[int]) -> FloatGoal:
        """The change float to keep on a keyset of those denominations."""
        return FloatGoal(
            denominations=tuple(sorted(denominations)),
            coins=self.float_coins,
            coin_max=self.float_coin_max,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the node says of itself (`/`, `/v1/info`)."""

    name: str
    description: str
    version: str
    npub: str | None
    http_url: str | None
    onion_url: str | None
    mints: tuple[str, ...]
    allow_loopback_http: bool
    body_bytes_max: int
    btc_usd_text: str
    upstream_name: str


class Catalog:
    """The models on sale, by id."""

    def __init__(self, models: Iterable[Model]) -> None:
        """Keep them in their given order."""
        self._models = {model.id: model for model in models}

    def find(self, model_id: str) -> Model:
        """The model of that id. Raises InvalidModel."""
        model = self._models.get(model_id)
        if model is None:
            raise InvalidModel(param="model")
        return model

    def all(self) -> tuple[Model, ...]:
        """Every model."""
        return tuple(self._models.values())


class TaskOwner:
    """Starts the tasks that must outlive a request, and awaits them all at the end."""

    def __init__(self) -> None:
        """No task yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._resumable: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How many are running."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> "asyncio.Task[Any]":
        """Run `work` until it ends by itself; an unforeseen error in it is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def carry_through(self, work: Coroutine[Any, Any, ResultT], *, name: str) -> ResultT:
        """The result of work that every step of leaves in the database: a later start resumes it.

        Its caller may be cancelled and changes nothing. Raises ServiceUnavailable when the node
        stops before it is done, and what the work raises.
        """
        task: asyncio.Task[ResultT] = self.start(work, name=name)
        self._resumable.add(task)
        task.add_done_callback(self._resumable.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not _is_being_cancelled():
                raise ServiceUnavailable("The node is stopping; repeat this later.") from None
            raise

    @property
    def resumable(self) -> int:
        """How many of them a later start would resume."""
        return len(self._resumable)

    def leave_resumable(self) -> None:
        """End what a later start resumes; it may be waiting for a mint that is silent."""
        for task in self._resumable:
            task.cancel()

    async def finish(self, timeout_s: float) -> None:
        """Wait for all; cancel those that take longer, and wait for them too."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RoutstrError):
            log.error("task_failed", job=task.get_name(), exc_info=error)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class RunningHold(Protocol):
    """A request in progress, as the renewal and the shutdown see it."""

    @property
    def api_key_id(self) -> str:
        """Whose money it holds."""
        ...

    def stop(self) -> None:
        """End it soon, as `node_stopped`."""
        ...

    def renewed(self, lease_until_s: float) -> None:
        """Its hold lives until then, on the monotonic clock, unless it ends before."""
        ...


class RunningHolds:
    """The holds this process is alive for; their leases are renewed together."""

    def __init__(self) -> None:
        """None yet; `renewed_at_s` is when renewing last worked, None before the first time."""
        self._holds: dict[str, RunningHold] = {}
        self.renewed_at_s: float | None = None

    def __len__(self) -> int:
        """How many are running."""
        return len(self._holds)

    def add(self, hold_id: str, running: RunningHold) -> None:
        """From now on renew this one."""
        self._holds[hold_id] = running

    def remove(self, hold_id: str) -> None:
        """It has ended."""
        self._holds.pop(hold_id, None)

    def keys(self) -> Mapping[str, str]:
        """Key id by hold id."""
        return {hold_id: running.api_key_id for hold_id, running in self._holds.items()}

    def note_renewed(self, hold_ids: Iterable[str], *, at_s: float, lease_s: float) -> None:
        """Renewing worked at that moment, for those."""
        self.renewed_at_s = at_s
        for hold_id in hold_ids:
            running = self._holds.get(hold_id)
            if running is not None:
                running.renewed(at_s + lease_s)

    def stop(self, hold_ids: Iterable[str] | None = None) -> None:
        """Tell those, or all, to end."""
        for hold_id in list(self._holds) if hold_ids is None else list(hold_ids):
            running = self._holds.get(hold_id)
            if running is not None:
                running.stop()


class Ration:
    """Something that costs the node and is free, rationed: a count in a sliding window."""

    message = "Too many requests."

    def __init__(self, *, events_max: int, window_s: float, now_s: Callable[[], float]) -> None:
        """`now_s` is a monotonic clock."""
        self._events_max = events_max
        self._window_s = window_s
        self._now_s = now_s
        self._events: dict[str, list[float]] = {}

    def note(self, key: str) -> None:
        """One more."""
        self._events[key] = [*self._recent(key), self._now_s()]

    def check(self, key: str) -> None:
        """Raises RateLimited when the ration is used up."""
        recent = self._recent(key)
        if len(recent) >= self._events_max:
            wait_s = int(recent[0] + self._window_s - self._now_s()) + 1
            raise RateLimited(self.message, retry_after_s=wait_s)

    def _recent(self, key: str) -> list[float]:
        oldest_s = self._now_s() - self._window_s
        recent = [at_s for at_s in self._events.get(key, ()) if at_s > oldest_s]
        if recent:
            self._events[key] = recent
        else:
            self._events.pop(key, None)
        return recent


class EarlyLeaves(Ration):
    """Free early leaves per key (guarantees, section 2)."""

    message = "Too many requests were abandoned before their first byte."


class Misses(Ration):
    """Questions for what does not exist (contract, section 5)."""

    message = "Too many requests for what is not there."


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

    `one_shots` are the accounts whose request has not got its hold yet.
    """

    ledger: LedgerExecutor
    database: Database
    wallet: Wallet = field(repr=False)
    acceptance: AcceptanceKeys
    mints: MintClient
    lnurl: LnurlClient
    upstream: UpstreamClient
    catalog: Catalog
    clock: Clock
    monotonic_s: Callable[[], float]
    new_id: Callable[[str], str]
    new_api_key: Callable[[], str]
    owner: str
    limits: Limits
    facts: NodeFacts
    tasks: TaskOwner
    holds: RunningHolds
    shelf: MintShelf
    early_leaves: EarlyLeaves
    misses: Misses
    failpoint: Failpoint
    one_shots: set[str] = field(default_factory=set)
