"""Reading request bodies within bounds: each one's size and time, and all of them together.

Source: guarantees, SR-11 and SR-12.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from starlette.types import Receive, Scope

from routstr.errors import Overloaded, RequestTimeout, RequestTooLarge
from routstr.flows.context import Context

_CLOSE: Final = {"connection": "close"}  # the rest of such a body is not worth reading


class ClientGone(Exception):
    """The client left before its request was complete; nobody waits for an answer."""


class Bodies:
    """Counts the bytes of the bodies in flight."""

    def __init__(self) -> None:
        """None yet."""
        self.in_flight_bytes = 0

    @contextmanager
    def reading(self, ctx: Context) -> Iterator["Reading"]:
        """A body may be read; its room is given back when the request has been answered."""
        reading = Reading(self, ctx)
        try:
            yield reading
        finally:
            self.in_flight_bytes -= reading.body_bytes


class Reading:
    """One body on its way in."""

    def __init__(self, bodies: Bodies, ctx: Context) -> None:
        """Nothing has come yet."""
        self._bodies = bodies
        self._ctx = ctx
        self.body_bytes = 0

    async def body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """All of it. Raises RequestTooLarge, RequestTimeout, Overloaded; ClientGone."""
        stated = headers.get("content-length", "")
        if stated.isascii() and stated.isdigit():
            self._check_size(int(stated))
        body = bytearray()
        try:
            async with asyncio.timeout(self._ctx.limits.body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    piece = message.get("body", b"")
                    self._check_size(len(body) + len(piece))
                    self._take_room(len(piece))
                    body += piece
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            raise RequestTimeout(headers=_CLOSE) from error

    def _check_size(self, body_bytes: int) -> None:
        if body_bytes > self._ctx.facts.body_bytes_max:
            raise RequestTooLarge(headers=_CLOSE)

    def _take_room(self, body_bytes: int) -> None:
        if self._bodies.in_flight_bytes + body_bytes > self._ctx.limits.bodies_bytes_max:
            raise Overloaded
        self._bodies.in_flight_bytes += body_bytes
        self.body_bytes += body_bytes


def headers_of(scope: Scope) -> dict[str, str]:
    """Names in lower case; lines of one name joined (RFC 9110 §5.3), so that none hides."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
