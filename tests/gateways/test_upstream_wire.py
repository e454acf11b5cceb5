"""The wire to an upstream, on both event loops: every answer cut, split, garbled or out of turn."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop

from routstr.core.url import BadUrl
from routstr.gateways.tls import system_trusted
from routstr.gateways.upstream import Deadlines, UpstreamClient, UpstreamReply
from routstr.gateways.upstream_failure import (
    UpstreamCut,
    UpstreamGarbled,
    UpstreamLost,
    UpstreamNotSent,
)
from tests.fakes.raw_upstream import RawUpstream, Then
from tests.fakes.tls import Authority
from tests.gateways.asking import FAST, HOLD, KEY

HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
SIZED: Final = HEAD + b"Content-Length: 11\r\n\r\nhello world"
CHUNKED: Final = (
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5;x=y\r\nworld\r\n0\r\n\r\n"
)
Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a test on a loop of each kind: the node's own, and the standard library's."""

    async def bounded(story: Awaitable[Any]) -> Any:
        async with asyncio.timeout(60):
            return await story

    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda story: runner.run(bounded(story))


@asynccontextmanager
async def pair(connections_max: int = 8) -> AsyncIterator[tuple[RawUpstream, UpstreamClient]]:
    async with (
        RawUpstream() as upstream,
        UpstreamClient(
            base_url=f"http://127.0.0.1:{upstream.port}",
            api_key=KEY,
            allow_loopback_http=True,
            connections_max=connections_max,
        ) as client,
    ):
        yield upstream, client


async def ask(client: UpstreamClient, body: bytes = b"{}", **more: Any) -> UpstreamReply:
    given: dict[str, Any] = {"path": "/x", "headers": {}, "hold": HOLD, "deadlines": FAST} | more
    return await client.request(body=body, **given)


async def told(client: UpstreamClient) -> tuple[bytes, str]:
    """The bytes of one answer, and its end."""
    seen = bytearray()
    try:
        reply = await ask(client)
        while (chunk := await reply.read_chunk()) is not None:
            seen += chunk
    except (UpstreamLost, UpstreamCut) as failure:
        return bytes(seen), failure.kind
    return bytes(seen), "whole"


@pytest.mark.parametrize("answer", [SIZED, CHUNKED], ids=["sized", "chunked"])
@pytest.mark.parametrize("then", [Then.END, Then.RESET])
def test_an_answer_cut_at_any_byte_is_never_whole(run: Run, answer: bytes, then: Then) -> None:
    async def story() -> None:
        body_at = answer.index(b"\r\n\r\n") + 4
        async with pair() as (upstream, client):
            for cut in range(len(answer)):
                upstream.say(answer[:cut], then=then)
                seen, end = await told(client)
                assert b"hello world".startswith(seen)
                if then is Then.END:  # a reset may overtake the bytes before it
                    assert end == ("lost" if cut < body_at else "cut")
                    assert len(seen) >= (cut - body_at if answer is SIZED else 0)
                assert end != "whole"
            upstream.say(answer)
            assert await told(client) == (b"hello world", "whole")
            assert len(upstream.requests) == len(answer) + 1  # nothing was ever sent twice

    run(story())


@pytest.mark.parametrize("answer", [SIZED, CHUNKED], ids=["sized", "chunked"])
def test_an_answer_in_single_bytes_is_the_same(run: Run, answer: bytes) -> None:
    async def story() -> None:
        served = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal served
            for _ in range(2):
                await reader.readuntil(b"{}")
                served += 1
                for at in range(len(answer)):
                    writer.write(answer[at : at + 1])
                    await asyncio.sleep(0)
            await reader.read()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with UpstreamClient(
                base_url=f"http://127.0.0.1:{port}", api_key=KEY, allow_loopback_http=True
            ) as client:
                assert await told(client) == (b"hello world", "whole")
                assert await told(client) == (b"hello world", "whole")
        assert served == 2

    run(story())


def test_what_is_no_clear_answer_is_garbled(run: Run) -> None:
    chunked = b"Transfer-Encoding: chunked\r\n"
    garbled = {
        "two lengths": SIZED.replace(b"\r\n\r\n", b"\r\nContent-Length: 11\r\n\r\n"),
        "length and coding": CHUNKED.replace(b"\r\n\r\n6", b"\r\nContent-Length: 11\r\n\r\n6"),
        "coding and length": HEAD + b"Content-Length: 11\r\n" + CHUNKED.removeprefix(HEAD),
        "two codings": HEAD + chunked + CHUNKED.removeprefix(HEAD),
        "chunked twice": CHUNKED.replace(b": chunked", b": chunked, chunked"),
        "another coding": CHUNKED.replace(b": chunked", b": gzip, chunked"),
        "an unknown coding": HEAD + b"Transfer-Encoding: identity\r\n\r\nhello world",
        "a folded line": SIZED.replace(b"\r\n\r\n", b"\r\n x\r\n\r\n"),
        "a length with a sign": SIZED.replace(b": 11", b": +11"),
        "a name with a space": SIZED.replace(b"Content-Length:", b"Content-Length :"),
        "other words": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "another protocol": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h\r\n\r\n",
        "a switch without words": b"HTTP/1.1 101 Switching\r\n\r\n" + SIZED,
        "an endless head": HEAD + b"X: y\r\n" * 20_000,
        "an endless line": HEAD + b"X: " + b"y" * 100_000,
        "endless heads before it": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5_000,
    }

    async def story() -> None:
        async with pair() as (upstream, client):
            for connections, (name, answer) in enumerate(garbled.items(), 1):
                upstream.say(answer)
                with pytest.raises(UpstreamGarbled):
                    await ask(client)
                assert upstream.connections == connections, name

    run(story())


def test_a_body_whose_framing_breaks_is_cut_after_its_bytes(run: Run) -> None:
    start = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    broken = (
        b"zz\r\n",
        b"5;" + b"x" * 700_000,
        b"0\r\nX: " + b"y" * 700_000,
        b"FFFFFFFFFFFFFFFFF\r\n",
    )

    async def story() -> None:
        async with pair() as (upstream, client):
            for rest in broken:
                upstream.say(start + rest)
                assert await told(client) == (b"hello", "cut")
            assert upstream.connections == len(broken)

    run(story())


def test_every_kind_of_whole_answer(run: Run) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    kept = {
        "after early heads": (early + SIZED, b"hello world"),
        "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        "trailers": (
            CHUNKED.replace(b"\r\n0\r\n\r\n", b"\r\n0\r\nContent-Type: x\r\n\r\n"),
            b"hello world",
        ),
        "bare line feeds": (SIZED.replace(b"\r\n", b"\n"), b"hello world"),
        "spaces after a size": (CHUNKED.replace(b"\r\n6\r\n", b"\r\n6  \r\n"), b"hello world"),
        "nothing": (HEAD + b"Content-Length: 0\r\n\r\n", b""),
    }
    closed = {
        "until its end": (HEAD + b"\r\nhello world", b"hello world", Then.END),
        "the old protocol": (b"HTTP/1.0 200 OK\r\n\r\nhello world", b"hello world", Then.END),
        "a word of closing": (
            SIZED.replace(b"\r\nC", b"\r\nConnection: close\r\nC", 1),
            b"hello world",
            Then.LISTEN,
        ),
        "more than its length": (SIZED + b"HTTP/1.1 200 OK\r\n", b"hello world", Then.LISTEN),
        "another one": (SIZED + SIZED, b"hello world", Then.LISTEN),
    }

    async def story() -> None:
        async with pair() as (upstream, client):
            for name, (answer, body) in kept.items():
                upstream.say(answer)
                assert await told(client) == (body, "whole"), name
            assert upstream.connections == 1
            for name, (answer, body, then) in closed.items():
                before = upstream.connections
                upstream.say(answer, then=then)
                assert await told(client) == (body, "whole"), name
                upstream.say(SIZED)
                assert await told(client) == (b"hello world", "whole"), name
                assert upstream.connections == before + 1, name

    run(story())


def test_a_kept_connection_that_ended_is_not_used(run: Run) -> None:
    async def story() -> None:
        async with pair() as (upstream, client):
            for then in (Then.END, Then.RESET):
                upstream.say(SIZED, then=then)
                assert await told(client) == (b"hello world", "whole")
                for _ in range(20):  # its end arrives
                    await asyncio.sleep(0)
            upstream.say(SIZED)
            assert await told(client) == (b"hello world", "whole")
            assert [number for number, _ in upstream.requests] == [1, 2, 3]

    run(story())


def test_a_cancelled_request_sends_no_more(run: Run) -> None:
    async def story() -> None:
        seen = 0
        started, gone, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal seen
            seen += len(await reader.read(1_000))
            started.set()
            await go_on.wait()
            try:
                while data := await reader.read(2**20):
                    seen += len(data)
            except ConnectionError:
                pass
            gone.set()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with UpstreamClient(
                base_url=f"http://127.0.0.1:{port}", api_key=KEY, allow_loopback_http=True
            ) as client:
                asking = asyncio.create_task(ask(client, b"x" * 50_000_000))
                await started.wait()
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                go_on.set()
                await gone.wait()
        assert seen < 50_000_000

    run(story())


def test_who_finds_no_connection_free_waits_in_line(run: Run) -> None:
    async def story() -> None:
        async with pair(connections_max=2) as (upstream, client):
            upstream.say(SIZED)
            held = [await ask(client), await ask(client)]
            with pytest.raises(UpstreamNotSent, match="time-out"):
                await ask(client, deadlines=Deadlines(connect_s=0.01))
            waiting = [asyncio.create_task(told(client)) for _ in range(6)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            held[0].close()  # one place is freed by an end, the other by a connection given back
            assert await held[1].read_all(100) == b"hello world"
            waiting[1].cancel()  # which may just have got its turn
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert ends[2:] == [(b"hello world", "whole")] * 4
            together = await asyncio.gather(*(told(client) for _ in range(20)))
            assert together == [(b"hello world", "whole")] * 20
            assert upstream.open_connections <= 2
            assert upstream.connections <= 4

    run(story())


def test_a_connection_that_cannot_be_made_frees_its_place(run: Run) -> None:
    async def story() -> None:
        async with pair(connections_max=1) as (upstream, client):
            upstream.say(SIZED)
            port = upstream.port
        async with UpstreamClient(  # nobody listens there any more
            base_url=f"http://127.0.0.1:{port}",
            api_key=KEY,
            allow_loopback_http=True,
            connections_max=1,
        ) as client:
            failures = await asyncio.gather(
                *(ask(client) for _ in range(5)), return_exceptions=True
            )
        assert [str(failure) for failure in failures] == ["cannot connect"] * 5

    run(story())


def test_what_is_unread_is_bounded(run: Run) -> None:
    async def story() -> None:
        size = 40_000_000
        async with pair() as (upstream, client):
            upstream.say(HEAD + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
            reply = await ask(client)
            before = -1
            while upstream.bytes_sent != before:  # until the sockets' buffers are full
                before = upstream.bytes_sent
                for _ in range(200):
                    await asyncio.sleep(0)
            assert upstream.bytes_sent < size
            assert len(await reply.read_all(size)) == size

    run(story())


@pytest.mark.parametrize("query", ["a b", "a\r\nX: y", "é", "a#b"])
async def test_a_query_that_no_url_can_carry_is_not_sent(query: str) -> None:
    async with pair() as (upstream, client):
        with pytest.raises(BadUrl):
            await ask(client, query=query)
        assert upstream.connections == 0


async def test_a_version_in_the_query_is_the_operators() -> None:
    async with (
        RawUpstream() as upstream,
        UpstreamClient(
            base_url=f"http://127.0.0.1:{upstream.port}",
            api_key=KEY,
            provider_type="azure",
            api_version="2024-06-01",
            allow_loopback_http=True,
        ) as client,
    ):
        upstream.say(SIZED)
        await ask(client, query="a=1&api%2Dversion=x&api-version=y", method="GET", body=b"")
    line = upstream.requests[0][1].partition(b"\r\n")[0]
    assert line == b"GET /v1/x?a=1&api-version=2024-06-01 HTTP/1.1"


def test_tls_is_spoken_with_who_is_trusted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    system_trusted.cache_clear()

    async def story() -> None:
        body = b"x" * 3_000_000
        async with RawUpstream(tls=authority.context_for("localhost")) as upstream:
            upstream.say(HEAD + b"Content-Length: 3000000\r\n\r\n" + body)
            for host, is_named in (("localhost", True), ("127.0.0.1", False)):
                async with UpstreamClient(
                    base_url=f"https://{host}:{upstream.port}",
                    api_key=KEY,
                    allow_loopback_http=True,
                ) as client:
                    if is_named:
                        for _ in range(2):
                            reply = await ask(client, body)
                            assert await reply.read_all(len(body)) == body
                    else:
                        with pytest.raises(UpstreamNotSent):
                            await ask(client)
            assert [number for number, _ in upstream.requests] == [1, 1]

    try:
        run(story())
    finally:
        system_trusted.cache_clear()
