"""Reading request bodies within bounds: each one's size and time, and all of them together.

Source: guarantees, SR-11 and SR-12.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Self

from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from routstr.errors import Overloaded, RequestTimeout, RequestTooLarge, UnsupportedMediaType
from routstr.flows.context import Context
from routstr.web.scope import context_of
from routstr.web.wire import Wire

SLACK_BYTES: Final = 16 * 1024  # for what surrounds a token in a body of JSON

_CLOSE: Final = {"connection": "close"}  # the rest of such a body is not worth reading


class ClientGone(Exception):
    """The client left before its request was complete; nobody waits for an answer."""


class Bodies:
    """Counts the bytes of the bodies in flight."""

    def __init__(self) -> None:
        """None yet."""
        self.in_flight_bytes = 0

    def reading(self, ctx: Context, *, bytes_max: int | None = None) -> "Reading":
        """A body may be read; its room is given back when the request has been answered.

        It has at most `bytes_max` bytes, the node's own limit without one.
        """
        return Reading(self, ctx, bytes_max or ctx.facts.body_bytes_max)


class Reading:
    """One body on its way in; leaving the context gives its room back."""

    def __init__(self, bodies: Bodies, ctx: Context, bytes_max: int) -> None:
        """Nothing has come yet."""
        self._bodies = bodies
        self._ctx = ctx
        self._bytes_max = bytes_max
        self.body_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.in_flight_bytes -= self.body_bytes

    async def body(
        self, headers: Mapping[str, str], receive: Receive, wire: Wire | None = None
    ) -> bytes:
        """All of it. Raises RequestTooLarge, RequestTimeout, Overloaded; ClientGone."""
        stated = headers.get("content-length", "")
        if stated.isascii() and stated.isdigit():
            self._check_size(int(stated))
        if wire is not None and wire.is_whole:
            return await self._received(receive)  # which does not wait
        try:
            async with asyncio.timeout(self._ctx.limits.body_timeout_s):
                return await self._received(receive)
        except TimeoutError as error:
            raise RequestTimeout(headers=_CLOSE) from error

    async def _received(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            self._check_size(len(body) + len(piece))
            self._take_room(len(piece))
            if not message.get("more_body", False):
                return bytes(body + piece) if body else piece
            body += piece

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > self._bytes_max:
            raise RequestTooLarge(headers=_CLOSE)

    def _take_room(self, body_bytes: int) -> None:
        if self._bodies.in_flight_bytes + body_bytes > self._ctx.limits.bodies_bytes_max:
            raise Overloaded
        self._bodies.in_flight_bytes += body_bytes
        self.body_bytes += body_bytes


class BoundedRoute(APIRoute):
    """An ordinary endpoint, whose body is read here, within bounds, before FastAPI sees it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bodies = Bodies()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self.body_field is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        ctx = context_of(scope)
        bytes_max = ctx.limits.token_body_bytes_max + SLACK_BYTES
        with suppress(ClientGone), self._bodies.reading(ctx, bytes_max=bytes_max) as reading:
            headers = headers_of(scope)
            _check_encoding(headers)
            body = await reading.body(headers, receive)
            if body:
                _check_json(headers)
            await super().handle(scope, _replay(body, receive), send)


def _check_encoding(headers: Mapping[str, str]) -> None:
    """Raises UnsupportedMediaType for a body that would have to be unpacked (SR-11)."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType


def _check_json(headers: Mapping[str, str]) -> None:
    """Raises UnsupportedMediaType for what does not say it is JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType


def _replay(body: bytes, receive: Receive) -> Receive:
    """What was read already, once; then whatever the server has to say."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


def headers_of(scope: Scope) -> dict[str, str]:
    """Names in lower case; lines of one name joined (RFC 9110 §5.3), so that none hides."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
