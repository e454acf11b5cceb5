"""An upstream's body that ends early, stalls, or is closed by us."""

import asyncio
import json

import psutil  # type: ignore[import-untyped]  # its stubs are one package more
import pytest

from routstr.gateways.upstream import Deadlines, UpstreamClient
from routstr.gateways.upstream_failure import (
    UpstreamCut,
    UpstreamStalled,
    UpstreamTooLarge,
)
from tests.fakes.upstream import Call, FakeUpstream
from tests.fakes.upstream_script import Fault, Gate, Script
from tests.gateways.asking import CHAT, FAST, HASTY, HOLD, KEY, ask, drain, drain_until_failure

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
    reply = await client.request(path=CHAT, body=body, headers={}, hold=HOLD, deadlines=FAST)
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
        reply = await client.request(path="/x", body=body, headers={}, hold=HOLD, deadlines=FAST)
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
