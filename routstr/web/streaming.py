"""The client's side of an exchange: its answer's head, the queue emptied, and the watcher.

Nothing here touches money. A client that leaves, or reads nothing for too long, is only reported;
everything here may be cancelled at any moment.
"""

import asyncio
from collections.abc import Mapping
from functools import cache
from typing import Final

from starlette.types import Message, Receive, Send

from routstr.core.envelope import error_object
from routstr.flows.context import Context
from routstr.flows.exchange import Answer, Exchange
from routstr.web.wire import Wire

NO_CONTENT: Final = 204
KEEP_ALIVE: Final = b": keep-alive\n\n"


async def respond(
    ctx: Context, exchange: Exchange, receive: Receive, send: Send, wire: Wire | None = None
) -> None:
    """Send what the exchange comes to. Raises the RoutstrError it came to before its first byte."""
    watcher = None
    if wire is None:
        watcher = ctx.tasks.start(_watch(receive, exchange), name="watcher")
    else:
        wire.when_left(exchange.client_left)
    try:
        answer = await exchange.answer()
        connection = _Connection(ctx, exchange, send, wire)
        if answer.body is None:
            await connection.stream(answer)
        else:
            await connection.whole(answer, answer.body)
    finally:
        if watcher is not None:
            watcher.cancel()
        if wire is not None:
            wire.when_left(None)
        exchange.client_left()


async def _watch(receive: Receive, exchange: Exchange) -> None:
    """Wait for the client to leave (ASGI: `http.disconnect`), and say so."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.client_left()


class _Connection:
    """Sends one answer; `_send` says whether the client is still there."""

    def __init__(self, ctx: Context, exchange: Exchange, send: Send, wire: Wire | None) -> None:
        self._limits = ctx.limits
        self._exchange = exchange
        self._raw_send = send
        self._wire = wire

    async def whole(self, answer: Answer, body: bytes) -> None:
        headers = dict(answer.headers)
        if answer.status != NO_CONTENT:  # RFC 9110 section 8.6
            headers["content-length"] = str(len(body))
        if await self._send(_start(answer.status, headers)):
            await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def stream(self, answer: Answer) -> None:
        if not await self._send(_start(answer.status, answer.headers)):
            return
        while (data := await self._next(answer)) is not None:
            if not await self._send(_piece(data)):
                return
        if self._exchange.error is not None:
            if answer.is_raw:
                return  # without its end, so that nobody takes it for whole
            said = error_object(self._exchange.error)
            await self._send(_piece(self._exchange.dialect.error_event(said)))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self, answer: Answer) -> bytes | None:
        """The next bytes; a comment after a long silence, so that nobody hangs up."""
        while True:
            try:
                return await self._exchange.queue.take(self._limits.keep_alive_after_s)
            except TimeoutError:
                if not answer.is_raw:
                    return KEEP_ALIVE

    async def _send(self, message: Message) -> bool:
        try:
            if self._wire is not None and self._wire.is_free:
                await self._raw_send(message)  # which does not wait
            else:
                async with asyncio.timeout(self._limits.client_stall_timeout_s):
                    await self._raw_send(message)
        except OSError:  # ASGI 2.4 says so when the client is gone; our time-out is one too
            self._exchange.client_left()
            return False
        return not self._exchange.queue.is_abandoned


def _start(status: int, headers: Mapping[str, str]) -> Message:
    raw = [(_raw_name(name), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}


@cache  # the names are ours, and the few of an upstream's that may pass
def _raw_name(name: str) -> bytes:
    return name.lower().encode()


def _piece(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}
