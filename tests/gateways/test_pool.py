"""Each upstream's own connections and key, and what happens to them when it is configured anew."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from routstr.gateways.pool import Attempt, Target, UpstreamPool
from routstr.gateways.upstream import Deadlines
from routstr.gateways.upstream_config import UpstreamConfig
from routstr.log import Secret
from tests.fakes.upstream import FakeUpstream
from tests.fakes.upstream_script import Gate, Script

KEY = "key-of-the-operator"


@dataclass(frozen=True)
class Hold:
    id: str = "req_1"


@pytest.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    async with UpstreamPool(now_s=asyncio.get_running_loop().time) as opened:
        yield opened


def config(upstream: FakeUpstream, **more: str) -> UpstreamConfig:
    return UpstreamConfig(
        id="a",
        slug="a",
        base_url=upstream.base_url,
        api_key=Secret(KEY),
        allow_loopback_http=True,
        is_local=False,
        **more,
    )


def begun(pool: UpstreamPool, upstream_id: str = "a", model_id: str = "m") -> Attempt:
    attempt = pool.begin(Target(upstream_id=upstream_id, model_id=model_id))
    assert attempt is not None
    return attempt


async def ask(attempt: Attempt, **headers: str) -> bytes:
    reply = await attempt.client.request(
        path="/messages", body=b"{}", headers=headers, hold=Hold(), deadlines=Deadlines()
    )
    return await reply.read_all(10_000)


async def test_what_runs_on_an_old_configuration_ends_there(
    pool: UpstreamPool, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.default = Script(headers_gate=gate)
    old = config(upstream)
    pool.follow({"a": old})
    attempt = begun(pool)
    running = asyncio.create_task(ask(attempt))
    await upstream.called()
    attempt.failed("status_503")
    pool.follow({"a": replace(old, api_key=Secret("another"))})
    [now] = pool.health()
    assert (now.failures, now.last_failure, now.running) == (0, None, 0)
    gate.open_for_ever()
    assert b"one two three" in await running
    later = begun(pool)
    await ask(later)
    assert upstream.calls[1].headers["authorization"] == "Bearer another"
    assert upstream.calls[1].connection != upstream.calls[0].connection
    assert not upstream.calls[0].client_left.is_set()
    attempt.close()
    await upstream.calls[0].closed_by_client()
    later.close()
    pool.follow({})
    assert pool.begin(Target(upstream_id="a", model_id="m")) is None
    await upstream.calls[1].closed_by_client()


async def test_one_that_cannot_be_used_is_left_out(
    pool: UpstreamPool, upstream: FakeUpstream
) -> None:
    bad = replace(config(upstream), id="b", base_url="http://10.0.0.1/v1")
    pool.follow({"b": bad, "a": config(upstream)})
    assert [each.id for each in pool.health()] == ["a"]
    assert not pool.admits(Target(upstream_id="b", model_id="m"))


async def test_a_limit_of_one_model_is_none_of_another_but_an_account_is(
    pool: UpstreamPool, upstream: FakeUpstream
) -> None:
    pool.follow({"a": config(upstream)})
    limited, other = (Target(upstream_id="a", model_id=name) for name in ("m", "n"))
    attempt = begun(pool)
    attempt.failed("status_429", told_wait_s=30)
    attempt.close()
    assert (pool.admits(limited), pool.admits(other)) == (False, True)
    assert 29 < pool.open_for_s(limited) <= 30
    assert pool.health()[0].paused_models == ("m",)
    attempt = begun(pool, model_id="n")
    attempt.failed("status_401", is_final=True)
    attempt.close()
    assert (pool.admits(limited), pool.admits(other)) == (False, False)
    assert pool.begin(limited, is_forced=True) is None
    probe = pool.begin(other, is_forced=True)
    assert probe is not None
    probe.succeeded()
    probe.close()
    assert pool.admits(other)


@pytest.mark.parametrize(
    ("kind", "shown", "path"),
    [
        ("openai-compatible", {"authorization": f"Bearer {KEY}"}, "/v1/messages"),
        ("unheard-of", {"authorization": f"Bearer {KEY}"}, "/v1/messages"),
        ("anthropic", {"x-api-key": KEY, "anthropic-version": "2023-06-01"}, "/v1/messages"),
        ("azure", {"api-key": KEY}, "/v1/messages?api-version=2024-10-21"),
    ],
)
async def test_a_key_is_shown_as_its_upstream_wants_it(
    pool: UpstreamPool, upstream: FakeUpstream, kind: str, shown: dict[str, str], path: str
) -> None:
    more = {"api_version": "2024-10-21"} if kind == "azure" else {}
    pool.follow({"a": config(upstream, provider_type=kind, **more)})
    attempt = begun(pool)
    await ask(attempt)
    attempt.close()
    [call] = upstream.calls
    names = ("authorization", "x-api-key", "api-key", "anthropic-version")
    assert {name: call.headers[name] for name in names if name in call.headers} == shown
    assert call.path == path


async def test_a_clients_own_version_of_anthropics_api_stays(
    pool: UpstreamPool, upstream: FakeUpstream
) -> None:
    pool.follow({"a": config(upstream, provider_type="anthropic", api_version="2098-01-01")})
    attempt = begun(pool)
    await ask(attempt, **{"anthropic-version": "2099-01-01"})
    await ask(attempt)
    attempt.close()
    told = [(call.path, call.headers["anthropic-version"]) for call in upstream.calls]
    assert told == [("/v1/messages", "2099-01-01"), ("/v1/messages", "2098-01-01")]
