"""The upstream client against a real server that fails in every way the contract names."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]
import pytest

from routstr.core.url import BadUrl
from routstr.errors import ConfigError, InvalidParameter, UpstreamRateLimit, UpstreamRejected
from routstr.gateways.upstream import Deadlines, UpstreamClient, UpstreamReply
from routstr.gateways.upstream_failure import (
    UpstreamCut,
    UpstreamGarbled,
    UpstreamLost,
    UpstreamNotSent,
    UpstreamSlow,
    UpstreamStalled,
    UpstreamTooLarge,
)
from routstr.log import Secret
from tests.fakes.upstream import Call, FakeUpstream
from tests.fakes.upstream_script import Fault, Gate, Script, failure
from tests.gateways.tls import self_signed

KEY = Secret("sk-operator-key")
CHAT = "/chat/completions"
BYTES_MAX = 2**20
FAST = Deadlines(connect_s=5, first_byte_s=10, idle_s=10, total_s=30)
HASTY = Deadlines(connect_s=5, first_byte_s=10, idle_s=0.05, total_s=30)


@dataclass(frozen=True)
class Hold:
    id: str


HOLD = Hold("hold_1")


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as server:
        yield server


@pytest.fixture
async def client(upstream: FakeUpstream) -> AsyncIterator[UpstreamClient]:
    async with UpstreamClient(
        base_url=upstream.base_url, api_key=KEY, allow_loopback_http=True
    ) as opened:
        yield opened


async def ask(
    client: UpstreamClient,
    *,
    stream: bool = False,
    headers: Mapping[str, str] | None = None,
    deadlines: Deadlines = FAST,
    path: str = CHAT,
) -> UpstreamReply:
    body = {"model": "m", "stream": stream, "stream_options": {"include_usage": True}}
    return await client.post(
        path=path,
        body=json.dumps(body).encode(),
        headers=headers or {},
        hold=HOLD,
        deadlines=deadlines,
    )


async def drain(reply: UpstreamReply) -> bytes:
    return await reply.read_all(BYTES_MAX)


async def drain_until_failure(reply: UpstreamReply) -> tuple[bytes, Exception]:
    pieces = bytearray()
    try:
        while (chunk := await reply.read_chunk()) is not None:
            pieces += chunk
    except (UpstreamCut, UpstreamStalled) as error:
        return bytes(pieces), error
    raise AssertionError("the body ended cleanly")


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


# ── failures in the body ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("until_close", [False, True])
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.RESET, Fault.BAD_CHUNKING])
async def test_a_body_cut_short_raises_after_its_bytes(
    client: UpstreamClient, upstream: FakeUpstream, fault: Fault, until_close: bool, stream: bool
) -> None:
    if fault is Fault.BAD_CHUNKING and (until_close or not stream):
        return  # chunking exists in chunked bodies only
    if fault is Fault.CUT and until_close:
        return  # RFC 9112 §6.3: a FIN is the clean end of such a body
    gate = Gate()
    upstream.script(Script(fault=fault, after=2, until_close=until_close, fault_gate=gate))
    reply = await ask(client, stream=stream)
    first = await reply.read_chunk()
    gate.open()
    rest, error = await drain_until_failure(reply)
    assert first is not None
    assert isinstance(error, UpstreamCut)
    if stream and fault is not Fault.RESET:  # a reset may overtake the bytes before it
        assert (first + rest).count(b"data:") == 2


async def test_a_body_without_a_length_ends_with_its_connection(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(until_close=True), Script(until_close=True))
    assert b'"usage"' in await drain(await ask(client))
    assert (await drain(await ask(client, stream=True))).endswith(b"[DONE]\n\n")


@pytest.mark.parametrize("until_close", [False, True])
async def test_a_large_body_survives_a_slow_reader(
    client: UpstreamClient, upstream: FakeUpstream, until_close: bool
) -> None:
    body = bytes(range(256)) * 20_000
    upstream.script(Script(body=body, until_close=until_close))
    reply = await ask(client)
    pieces = bytearray()
    while (chunk := await reply.read_chunk()) is not None:
        pieces += chunk
        for _ in range(20):  # let the socket fill and the server hang up behind our back
            await asyncio.sleep(0)
    assert pieces == body


async def test_a_wrong_content_length_is_a_cut(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(content_length_extra=9))
    seen, error = await drain_until_failure(await ask(client))
    assert isinstance(error, UpstreamCut)
    assert json.loads(seen)


async def test_bytes_received_before_a_cut_are_not_lost(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(fault=Fault.CUT, after=3))
    reply = await ask(client, stream=True)
    await server_hung_up(upstream.calls[0])
    seen, error = await drain_until_failure(reply)
    assert seen.count(b"data:") == 3
    assert isinstance(error, UpstreamCut)
    with pytest.raises(UpstreamCut):
        await reply.read_chunk()


async def server_hung_up(call: Call) -> None:
    """The server's side has ended, and the loop has turned often enough for us to have heard."""
    await call.closed_by_client()
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_in_the_body_is_a_stall(
    client: UpstreamClient, upstream: FakeUpstream, stream: bool
) -> None:
    upstream.script(Script(fault=Fault.STALL, after=2))
    seen, error = await drain_until_failure(await ask(client, stream=stream, deadlines=HASTY))
    assert isinstance(error, UpstreamStalled)
    assert seen
    await upstream.calls[0].closed_by_client()


async def test_the_whole_exchange_has_a_deadline(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    gate = Gate()
    gate.open(2)
    upstream.script(Script(gate=gate))
    deadlines = Deadlines(connect_s=5, first_byte_s=5, idle_s=10, total_s=0.2)
    seen, error = await drain_until_failure(await ask(client, stream=True, deadlines=deadlines))
    assert isinstance(error, UpstreamStalled)
    assert seen.count(b"data:") == 2
    await upstream.calls[0].closed_by_client()


async def test_the_deadline_holds_for_a_reader_that_always_finds_bytes(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(body=b"x" * 5_000_000))
    reply = await ask(client, deadlines=Deadlines(total_s=0.2))
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, passed.set)
    await passed.wait()
    seen, error = await drain_until_failure(reply)
    assert isinstance(error, UpstreamStalled)
    assert len(seen) < 5_000_000


async def test_a_large_body_arrives_whole(client: UpstreamClient, upstream: FakeUpstream) -> None:
    body = bytes(range(256)) * 20_000
    reply = await client.post(path=CHAT, body=body, headers={}, hold=HOLD, deadlines=FAST)
    await drain(reply)
    assert upstream.calls[0].body == body


async def test_close_waits_for_nobody_to_read() -> None:
    closed = asyncio.Event()

    async def answer_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader  # the request's body stays in the way of an orderly end
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await closed.wait()
        writer.transport.abort()

    server = await asyncio.start_server(answer_unread, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        UpstreamClient(
            base_url=f"http://127.0.0.1:{port}", api_key=KEY, allow_loopback_http=True
        ) as client,
    ):
        body = b"x" * 20_000_000
        reply = await client.post(path="/x", body=body, headers={}, hold=HOLD, deadlines=FAST)
        for _ in range(1_000):  # until the socket's buffers are full and bytes wait in ours
            await asyncio.sleep(0)
        before = client_sockets(port)
        reply.close()
        for _ in range(5):
            await asyncio.sleep(0)
        after = client_sockets(port)
        closed.set()
    assert (before, after) == (1, 0)


def client_sockets(port: int) -> int:
    """How many sockets this process holds towards `port`."""
    own = psutil.Process().net_connections("tcp")
    return sum(1 for each in own if each.raddr and each.raddr.port == port)


@pytest.mark.parametrize("reading", [False, True])
async def test_close_ends_the_connection_from_another_task(
    client: UpstreamClient, upstream: FakeUpstream, reading: bool
) -> None:
    upstream.script(Script(fault=Fault.STALL, after=1))
    reply = await ask(client, stream=True)
    assert await reply.read_chunk()
    reader = asyncio.create_task(reply.read_chunk()) if reading else None
    await asyncio.sleep(0)
    reply.close()
    reply.close()
    with pytest.raises(UpstreamCut):
        await (reader if reader is not None else reply.read_chunk())
    await upstream.calls[0].closed_by_client()
    await drain(await ask(client))
    assert upstream.calls[1].connection == 2


async def test_a_body_above_the_limit_is_closed(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.script(Script(body=b"x" * 5_000_000), Script(body=b"x" * 1_000))
    reply = await ask(client)
    with pytest.raises(UpstreamTooLarge):
        await reply.read_all(1_000_000)
    await upstream.calls[0].closed_by_client()
    assert len(await (await ask(client)).read_all(1_000)) == 1_000


async def test_many_closed_streams_leave_no_connection_behind(
    client: UpstreamClient, upstream: FakeUpstream
) -> None:
    upstream.default = Script(fault=Fault.STALL, after=1)
    replies = await asyncio.gather(*(ask(client, stream=True) for _ in range(50)))
    for reply in replies:
        reply.close()
    for call in upstream.calls:
        await call.closed_by_client()


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
