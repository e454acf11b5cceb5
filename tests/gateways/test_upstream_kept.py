"""When a connection to an upstream may carry another request."""

import asyncio
import socket

import pytest

from routstr.gateways.upstream_wire import Phase, Wire
from tests.gateways.test_upstream_wire import SIZED


@pytest.mark.parametrize("body_bytes", [10, 900_000])
async def test_who_answered_before_the_request_had_left_is_not_asked_again(body_bytes: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(
        lambda: Wire(loop, heard_of=frozenset(), on_lost=lambda _: None), sock=ours
    )
    wire.send(b"POST /x HTTP/1.1\r\n\r\n", b"x" * body_bytes)
    theirs.send(SIZED)
    while wire.phase is not Phase.WHOLE:
        await wire.heard(loop.time() + 60)
    assert wire.let_go() is (body_bytes == 10)
    wire.abort()
    theirs.close()
