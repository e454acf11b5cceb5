"""The upstreams in use: each with connections, breakers and a state of health of its own.

Laws: a slow upstream never slows another, because they share nothing. One that cannot be reached,
or refuses the operator's account, is left alone as a whole; one that fails at a model, or limits
its rate, is left alone for that model. An upstream whose
configuration changed is a new one, with a clean record; what runs on the old one ends there, and
then its connections are closed. Nobody is asked but through an `Attempt`, which tells how it went.
"""

import asyncio
from collections.abc import Callable, Mapping
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
WHOLE, MODEL = 0, 1  # the breakers of an attempt
LATENCY_WEIGHT: Final = 0.2  # of the newest answer in the moving average


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model at an upstream, under the upstream's own name for it."""

    upstream_id: str
    model_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamHealth:
    """How one upstream is: for pages, never for decisions.

    `state` and `open_for_s` (the rest of a pause) are the upstream's as a whole, `paused_models`
    those of its models that are left alone. `failures` counts those in a row, `latency_s` is a
    moving average of the time to an answer's head (None before the first), `running` counts
    requests under way.
    """

    id: str
    slug: str
    state: State
    paused_models: tuple[str, ...]
    failures: int
    last_failure: str | None
    last_failure_age_s: float | None
    latency_s: float | None
    open_for_s: float
    running: int


class Attempt:
    """One request to one upstream. Tell how it went, as often as something is known; then close."""

    __slots__ = ("_breakers", "_is_closed", "_member", "_now_s", "_started_s", "_tickets")

    def __init__(
        self,
        member: "_Member",
        breakers: tuple[Breaker, Breaker],
        started_s: float,
        now_s: Callable[[], float],
    ) -> None:
        self._member = member
        self._now_s = now_s
        self._breakers = breakers
        self._started_s = started_s
        self._tickets = [breakers[WHOLE].enter(started_s), breakers[MODEL].enter(started_s)]
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
        """The head of an answer has arrived: the upstream is there, whatever the model does."""
        now_s = self._now_s()
        self._member.note_latency(now_s - self._started_s)
        self._succeeded(WHOLE, now_s)

    def succeeded(self) -> None:
        """It gave output, or another answer that is no failure of its own."""
        now_s = self._now_s()
        self._succeeded(WHOLE, now_s)
        self._succeeded(MODEL, now_s)

    def failed(
        self,
        reason: str,
        *,
        is_unreachable: bool = False,
        told_wait_s: float | None = None,
        is_final: bool = False,
    ) -> None:
        """It failed, also after it gave output; as `Breaker.failed`.

        What `is_unreachable`, or refuses the operator's account (`is_final`), fails as a whole;
        any other failure is one of the model, as limits of rate are, too.
        """
        now_s = self._now_s()
        self._member.last_failure = (reason, now_s)
        place = WHOLE if is_unreachable or is_final else MODEL
        if place == MODEL:
            self._succeeded(WHOLE, now_s)
        self._breakers[place].failed(
            self._tickets[place], now_s, told_wait_s=told_wait_s, is_final=is_final
        )

    def close(self) -> None:
        """It is over, whatever is known."""
        if self._is_closed:
            return
        self._is_closed = True
        self._breakers[WHOLE].let_go(self._tickets[WHOLE])
        self._breakers[MODEL].let_go(self._tickets[MODEL])
        self._member.running -= 1
        self._member.close_if_retired()

    def _succeeded(self, place: int, now_s: float) -> None:
        self._tickets[place] = self._breakers[place].succeeded(self._tickets[place], now_s)


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

    def begin(self, target: Target, *, is_forced: bool = False) -> Attempt | None:
        """An attempt, if that may be asked now; `is_forced` cuts pauses of ours short."""
        member = self._members.get(target.upstream_id)
        if member is None:
            return None
        now_s = self._now_s()
        breakers = member.breakers(target.model_id)
        for breaker in breakers:
            if not breaker.admits(now_s) and not (is_forced and breaker.may_be_forced(now_s)):
                return None
        return Attempt(member, breakers, now_s, self._now_s)

    def admits(self, target: Target) -> bool:
        """Whether it may be asked now."""
        breakers = self._breakers(target)
        return bool(breakers) and all(each.admits(self._now_s()) for each in breakers)

    def open_for_s(self, target: Target) -> float:
        """How long it is left alone from now on, as far as is known."""
        untils_s = (each.open_until_s for each in self._breakers(target))
        return max(0.0, max(untils_s, default=0) - self._now_s())

    def is_limited(self, target: Target) -> bool:
        """Whether its upstream last asked for less."""
        member = self._members.get(target.upstream_id)
        return member is not None and (member.last_failure or ("", 0))[0] == LIMITED

    def health(self) -> tuple[UpstreamHealth, ...]:
        """How each is, in the order of their slugs."""
        members = sorted(self._members.values(), key=lambda member: member.config.slug)
        return tuple(member.health(self._now_s()) for member in members)

    def _breakers(self, target: Target) -> tuple[Breaker, ...]:
        member = self._members.get(target.upstream_id)
        return () if member is None else member.breakers(target.model_id)

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
        self._whole = Breaker()
        self._models: dict[str, Breaker] = {}
        self.running = 0
        self.last_failure: tuple[str, float] | None = None
        self._latency_s: float | None = None
        self._close = close
        self._is_retired = False

    def breakers(self, model_id: str) -> tuple[Breaker, Breaker]:
        """The upstream's own, and that of one of its models; as many as are on sale."""
        model = self._models.get(model_id)
        if model is None:
            model = self._models[model_id] = Breaker()
        return self._whole, model

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
        is_open = self._whole.state is State.OPEN
        paused = [name for name, each in self._models.items() if each.state is not State.CLOSED]
        return UpstreamHealth(
            id=self.config.id,
            slug=self.config.slug,
            state=self._whole.state,
            paused_models=tuple(sorted(paused)),
            failures=max(each.failures for each in (self._whole, *self._models.values())),
            last_failure=reason,
            last_failure_age_s=None if at_s is None else now_s - at_s,
            latency_s=self._latency_s,
            open_for_s=max(0.0, self._whole.open_until_s - now_s) if is_open else 0.0,
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
