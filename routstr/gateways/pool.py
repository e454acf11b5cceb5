"""The upstreams in use: each with connections, a breaker and a state of health of its own.

Laws: a slow upstream never slows another, because they share nothing. An upstream whose
configuration changed is a new one, with a clean record; what runs on the old one ends there, and
then its connections are closed. Nobody is asked but through an `Attempt`, which tells how it went.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import structlog

from routstr.core.breaker import Breaker, State
from routstr.core.retry_budget import RetryBudget
from routstr.core.url import BadUrl
from routstr.errors import ConfigError
from routstr.gateways.upstream import UpstreamClient
from routstr.gateways.upstream_config import UpstreamConfig

log = structlog.get_logger()

LIMITED: Final = "status_429"
LATENCY_WEIGHT: Final = 0.2  # of the newest answer in the moving average


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamHealth:
    """How one upstream is: for pages, never for decisions.

    `failures` counts those in a row, `latency_s` is a moving average of the time to an answer's
    head (None before the first), `open_for_s` the rest of a pause, `running` requests under way.
    """

    id: str
    slug: str
    state: State
    failures: int
    last_failure: str | None
    last_failure_age_s: float | None
    latency_s: float | None
    open_for_s: float
    running: int


class Attempt:
    """One request to one upstream. Tell how it went, as often as something is known; then close."""

    def __init__(self, member: "_Member", now_s: Callable[[], float]) -> None:
        self._member = member
        self._now_s = now_s
        self._ticket = member.breaker.enter()
        self._started_s = now_s()
        self._is_closed = False
        member.running += 1

    @property
    def client(self) -> UpstreamClient:
        """Whom to ask."""
        return self._member.client

    @property
    def slug(self) -> str:
        """Its name for people."""
        return self._member.config.slug

    def age_s(self) -> float:
        """How long ago it began."""
        return self._now_s() - self._started_s

    def began(self) -> None:
        """The head of an answer has arrived."""
        self._member.note_latency(self.age_s())

    def succeeded(self) -> None:
        """It gave output, or another answer that is no failure of its own."""
        self._ticket = self._member.breaker.succeeded(self._ticket, self._now_s())

    def failed(
        self, reason: str, *, told_wait_s: float | None = None, is_final: bool = False
    ) -> None:
        """It failed, also after it gave output; as `Breaker.failed`."""
        now_s = self._now_s()
        self._member.last_failure = (reason, now_s)
        self._member.breaker.failed(self._ticket, now_s, told_wait_s=told_wait_s, is_final=is_final)

    def close(self) -> None:
        """It is over, whatever is known."""
        if self._is_closed:
            return
        self._is_closed = True
        self._member.breaker.let_go(self._ticket)
        self._member.running -= 1
        self._member.close_if_retired()


class UpstreamPool:
    """Every upstream of the catalog's picture. `now_s` never goes back; `budget` is all retries'.

    Use as an async context manager, inside the loop that makes the requests.
    """

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        """None yet."""
        self.budget: Final = RetryBudget()
        self._now_s = now_s
        self._members: dict[str, _Member] = {}
        self._followed: Mapping[str, UpstreamConfig] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        members = list(self._members.values())
        self.follow({})
        for member in members:
            if member.running:
                self._close(member.client)
        if self._closing:
            await asyncio.wait(self._closing)

    def follow(self, upstreams: Mapping[str, UpstreamConfig]) -> None:
        """Have exactly these, by id. One that cannot be used is left out, and the log says so."""
        if upstreams is self._followed:
            return
        self._followed = upstreams
        for id_, member in list(self._members.items()):
            if upstreams.get(id_) != member.config:
                del self._members[id_]
                member.retire()
        for id_, config in upstreams.items():
            if id_ not in self._members:
                self._add(config)

    def begin(self, upstream_id: str, *, is_forced: bool = False) -> Attempt | None:
        """An attempt, if that upstream may be asked now; `is_forced` cuts a pause of ours short."""
        member = self._members.get(upstream_id)
        if member is None:
            return None
        now_s = self._now_s()
        may = member.breaker.admits(now_s)
        if may or (is_forced and member.breaker.may_be_forced(now_s)):
            return Attempt(member, self._now_s)
        return None

    def admits(self, upstream_id: str) -> bool:
        """Whether it may be asked now."""
        member = self._members.get(upstream_id)
        return member is not None and member.breaker.admits(self._now_s())

    def soonest(self, upstream_ids: Iterable[str]) -> list[str]:
        """Those there are, the one whose pause ends first in front."""
        known = [id_ for id_ in upstream_ids if id_ in self._members]
        return sorted(known, key=lambda id_: self._members[id_].breaker.open_until_s)

    def is_limited(self, upstream_ids: Iterable[str]) -> bool:
        """Whether one of them asked for less."""
        members = [self._members[id_] for id_ in upstream_ids if id_ in self._members]
        return any((each.last_failure or ("", 0))[0] == LIMITED for each in members)

    def wait_s(self, upstream_ids: Iterable[str]) -> float:
        """How long until one of them may be asked, as far as is known; 0 if nothing is."""
        now_s = self._now_s()
        members = [self._members[id_] for id_ in upstream_ids if id_ in self._members]
        return max(0.0, min((each.breaker.open_until_s - now_s for each in members), default=0.0))

    def health(self) -> tuple[UpstreamHealth, ...]:
        """How each is, in the order of their slugs."""
        members = sorted(self._members.values(), key=lambda member: member.config.slug)
        return tuple(member.health(self._now_s()) for member in members)

    def _add(self, config: UpstreamConfig) -> None:
        try:
            client = client_of(config)
        except (BadUrl, ConfigError):
            log.warning("upstream_unusable", upstream=config.slug)
            return
        client.open()
        self._members[config.id] = _Member(config, client, self._close)

    def _close(self, client: UpstreamClient) -> None:
        closing = asyncio.get_running_loop().create_task(client.close(), name="upstream closes")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


class _Member:
    """One upstream as it is configured."""

    def __init__(
        self,
        config: UpstreamConfig,
        client: UpstreamClient,
        close: Callable[[UpstreamClient], None],
    ) -> None:
        self.config = config
        self.client = client
        self.breaker = Breaker()
        self.running = 0
        self.last_failure: tuple[str, float] | None = None
        self._latency_s: float | None = None
        self._close = close
        self._is_retired = False

    def retire(self) -> None:
        """No new attempt begins; the connections close with the last one."""
        self._is_retired = True
        self.close_if_retired()

    def close_if_retired(self) -> None:
        if self._is_retired and not self.running:
            self._close(self.client)

    def note_latency(self, latency_s: float) -> None:
        before_s = latency_s if self._latency_s is None else self._latency_s
        self._latency_s = before_s + LATENCY_WEIGHT * (latency_s - before_s)

    def health(self, now_s: float) -> UpstreamHealth:
        reason, at_s = self.last_failure or (None, None)
        is_open = self.breaker.state is State.OPEN
        return UpstreamHealth(
            id=self.config.id,
            slug=self.config.slug,
            state=self.breaker.state,
            failures=self.breaker.failures,
            last_failure=reason,
            last_failure_age_s=None if at_s is None else now_s - at_s,
            latency_s=self._latency_s,
            open_for_s=max(0.0, self.breaker.open_until_s - now_s) if is_open else 0.0,
            running=self.running,
        )


def client_of(config: UpstreamConfig) -> UpstreamClient:
    """The client for an upstream, not open yet; raises as `UpstreamClient`."""
    return UpstreamClient(
        base_url=config.base_url,
        api_key=config.api_key,
        provider_type=config.provider_type,
        api_version=config.api_version,
        allow_loopback_http=config.allow_loopback_http,
        is_local=config.is_local,
    )
