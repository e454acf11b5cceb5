"""The upstream client against a real server: what passes, and failures before the head."""

import asyncio
import json
import socket

import pytest

from routstr.core.url import BadUrl
from routstr.errors import ConfigError, InvalidParameter, UpstreamRateLimit, UpstreamRejected
from routstr.gateways.upstream import Deadlines, UpstreamClient
from routstr.gateways.upstream_failure import (
    UpstreamGarbled,
    UpstreamLost,
    UpstreamNotSent,
    UpstreamSlow,
)
from routstr.gateways.upstream_headers import headers_up
from routstr.log import Secret
from tests.fakes.tls import self_signed
from tests.fakes.upstream import FakeUpstream
from tests.fakes.upstream_script import Fault, Gate, Script, failure
from tests.gateways.asking import HASTY, KEY, ask, drain

# ── what passes ───────────────────────────────────────────────────────────────────────────────


async def test_a_json_answer_passes_whole(client: UpstreamClient, upstream: FakeUpstream) -> None:
    reply = await ask(client)
    answer = json.loads(await drain(reply))
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert answer["choices"][0]["message"]["content"] == "one two three"
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert upstream.calls[0].path == "/v1/chat/completions"
    assert upstream.calls[0].json["model"] == "m"


@pytest.mark.parametrize("slice_bytes", [None, 1, 7])
async def test_a_stream_passes_byte_for_byte(
    client: UpstreamClient, upstream: FakeUpstream, slice_bytes: int | None
) -> None:
    upstream.script(Script(), Script(slice_bytes=slice_bytes))
    whole = await drain(await ask(client, stream=True))
    reply = await ask(client, stream=True)
    assert reply.content_type == "text/event-stream"
    assert await drain(reply) == whole
    events = [json.loads(e[6:]) for e in whole.split(b"\n\n")[:-2]]
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]) == (
        "one two three"
    )
    assert events[-1]["usage"]["completion_tokens"] == 5
    assert whole.endswith(b"data: [DONE]\n\n")


async def test_chunks_arrive_as_they_are_sent(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    gate = Gate()
    upstream.script(Script(gate=gate))
    reply = await ask(client, stream=True)
    gate.open()
    first = await reply.read_chunk()
    assert first is not None
    assert first.count(b"data:") == 1
    assert upstream.calls[0].events_sent == 1
    gate.open_for_ever()
    assert (await drain(reply)).endswith(b"[DONE]\n\n")


async def test_the_connection_is_reused_after_a_clean_end(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    for stream in (False, True, False):
        reply = await ask(client, stream=stream)
        await drain(reply)
        reply.close()
    assert [call.connection for call in upstream.calls] == [1, 1, 1]


async def test_headers_are_allow_lists_both_ways(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(retry_after="7"))
    reply = await ask(
        client,
        headers={
            "Accept": "text/event-stream",
            "Content-Type": "application/json; charset=utf-8",
            "Authorization": "Bearer sk-customer",
            "Cookie": "c=1",
            "X-Cashu": "cashuBabc",
            "X-Forwarded-For": "10.0.0.1",
            "Host": "evil.example",
            "OpenAI-Organization": "org-1",
            "User-Agent": "customer",
        },
    )
    await drain(reply)
    sent = dict(upstream.calls[0].header_lines)
    assert sent == {
        "Host": f"127.0.0.1:{upstream.port}",
        "accept": "text/event-stream",
        "content-type": "application/json; charset=utf-8",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-operator-key",
        "Content-Length": str(len(upstream.calls[0].body)),
    }
    assert dict(reply.headers) == {
        "content-type": "application/json",
        "openai-processing-ms": "42",
        "retry-after": "7",
    }


def test_who_has_no_key_shows_none() -> None:
    assert "authorization" not in headers_up({}, Secret(""))
    assert set(headers_up({}, Secret(""), provider_type="anthropic")) == {
        "content-type",
        "accept-encoding",
        "anthropic-version",
    }


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\x00", "\x7f", "é", "x" * 2000])
async def test_an_unclean_header_is_refused_unsent(
    client: UpstreamClient, upstream: FakeUpstream, value: str
) -> None:
    with pytest.raises(InvalidParameter):
        await ask(client, headers={"accept": value})
    with pytest.raises(InvalidParameter):
        await ask(client, headers={"accept": "a", "Accept": "b"})
    assert upstream.calls == []


@pytest.mark.parametrize("path", ["", "chat", "/../x", "/a?b=1", "//evil.example", "/a#b"])
async def test_only_a_plain_path_is_called(
    client: UpstreamClient, upstream: FakeUpstream, path: str
) -> None:
    with pytest.raises(BadUrl):
        await ask(client, path=path)
    assert upstream.calls == []


async def test_redirects_and_cookies_are_not_followed(upstream: FakeUpstream) -> None:
    upstream.script(Script(status=307, headers={"Location": f"{upstream.base_url}/elsewhere"}))
    async with UpstreamClient(
        base_url=f"http://localhost:{upstream.port}",  # a name, because addresses get no cookies
        api_key=KEY,
        allow_loopback_http=True,
    ) as client:
        reply = await ask(client)
        await drain(reply)
        await drain(await ask(client))
    assert reply.status == 307
    assert [call.path for call in upstream.calls] == ["/v1/chat/completions"] * 2
    assert "cookie" not in upstream.calls[1].headers


async def test_a_proxy_of_the_environment_is_not_used(
    upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with UpstreamClient(
        base_url=upstream.base_url, api_key=KEY, allow_loopback_http=True
    ) as client:
        assert (await ask(client)).status == 200


# ── failures before the head ──────────────────────────────────────────────────────────────────


async def test_nobody_listening_means_not_sent() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, not listening: refused
        base_url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        async with UpstreamClient(
            base_url=base_url, api_key=KEY, allow_loopback_http=True
        ) as client:
            with pytest.raises(UpstreamNotSent) as caught:
                await ask(client)
    assert caught.value.hold_id == "hold_1"


async def test_a_connect_timeout_means_not_sent() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]  # the backlog overflows: SYNs are dropped
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        async with UpstreamClient(
            base_url=f"http://127.0.0.1:{address[1]}", api_key=KEY, allow_loopback_http=True
        ) as client:
            with pytest.raises(UpstreamNotSent, match="time-out"):
                await ask(client, deadlines=Deadlines(connect_s=0.2, first_byte_s=10))
        for filler in fillers:
            filler.close()


async def test_an_untrusted_certificate_means_not_sent() -> None:
    async with FakeUpstream(tls=self_signed("127.0.0.1")) as upstream:
        async with UpstreamClient(
            base_url=upstream.base_url, api_key=KEY, allow_loopback_http=True
        ) as client:
            with pytest.raises(UpstreamNotSent):
                await ask(client)
        assert upstream.calls == []


@pytest.mark.parametrize(
    ("base_url", "allow_loopback_http"),
    [
        ("https://10.1.2.3", True),
        ("https://169.254.169.254/latest", True),
        ("https://[fd00::1]", True),
        ("https://127.0.0.1:{port}", False),
        ("https://localhost:{port}", False),
    ],
)
async def test_forbidden_addresses_are_never_called(
    upstream: FakeUpstream, base_url: str, allow_loopback_http: bool
) -> None:
    async with UpstreamClient(
        base_url=base_url.format(port=upstream.port),
        api_key=KEY,
        allow_loopback_http=allow_loopback_http,
    ) as client:
        with pytest.raises(UpstreamNotSent) as caught:
            await ask(client)
    assert "may not be called" in repr(caught.value.__cause__)
    assert upstream.connections == 0


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE_HEADERS, Fault.CLOSE_BEFORE_HEADERS])
async def test_a_loss_before_the_head_is_never_resent(
    client: UpstreamClient, upstream: FakeUpstream, fault: Fault
) -> None:
    await drain(await ask(client))  # so that the lost request ran on a reused connection
    upstream.script(Script(fault=fault))
    with pytest.raises(UpstreamLost):
        await ask(client)
    assert len(upstream.calls) == 2
    await drain(await ask(client))  # and the client still works


async def test_an_answer_that_is_not_http_is_garbled(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(fault=Fault.NOT_HTTP))
    with pytest.raises(UpstreamGarbled):
        await ask(client)


async def test_an_encoding_nobody_asked_for_is_garbled(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(gzip=True, gate=Gate()))
    with pytest.raises(UpstreamGarbled):
        await ask(client)
    await upstream.calls[0].closed_by_client()


@pytest.mark.parametrize("fault", [Fault.SILENCE, Fault.HALF_HEADERS])
async def test_the_head_has_a_deadline(
    client: UpstreamClient, upstream: FakeUpstream, fault: Fault
) -> None:
    upstream.script(Script(fault=fault))
    with pytest.raises(UpstreamSlow):
        await ask(client, deadlines=Deadlines(connect_s=0.05, first_byte_s=0.05))
    await upstream.calls[0].closed_by_client()


async def test_a_slow_head_in_time_is_fine(client: UpstreamClient, upstream: FakeUpstream) -> None:
    gate = Gate()
    upstream.script(Script(headers_gate=gate))
    asking = asyncio.create_task(ask(client, deadlines=HASTY))
    await upstream.called()
    gate.open()
    assert (await asking).status == 200


async def test_cancelling_before_the_head_closes_the_connection(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(fault=Fault.SILENCE))
    asking = asyncio.create_task(ask(client))
    call = await upstream.called()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await call.closed_by_client()
    await drain(await ask(client))
    assert upstream.calls[1].connection == 2


# ── refusals ──────────────────────────────────────────────────────────────────────────────────


async def test_a_reply_tells_its_own_rejection(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(
        failure(404, message=f"no model at {upstream.base_url} (127.0.0.1)", code="no_model"),
        failure(429, retry_after=9),
    )
    reply = await ask(client)
    error = reply.rejection(await drain(reply))
    assert isinstance(error, UpstreamRejected)
    assert (error.upstream_status, error.upstream_code) == (404, "no_model")
    assert "127.0.0.1" not in error.message
    reply = await ask(client)
    limited = reply.rejection(await drain(reply))
    assert isinstance(limited, UpstreamRateLimit)
    assert limited.retry_after_s == 9


def test_a_key_no_header_can_carry_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="UPSTREAM_API_KEY"):
        UpstreamClient(base_url="https://a.example", api_key=Secret("sk-a\nb"))
