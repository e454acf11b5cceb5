"""An upstream's answer, read in pieces and closed by whoever owns it.

Laws: every byte that arrived is handed out before a failure is told, because it is the customer's
output and the meter's evidence. A broken end is never taken for a clean one. `close()` ends the
connection at once, from any task, and a closed connection is never used again.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from routstr.errors import RoutstrError
from routstr.gateways.upstream_failure import (
    UpstreamCut,
    UpstreamFailure,
    UpstreamStalled,
    UpstreamTooLarge,
)
from routstr.gateways.upstream_headers import headers_down
from routstr.gateways.upstream_rejection import rejection, told_wait_s
from routstr.log import Secret

# aiohttp's own errors of a running exchange; RuntimeError is its "Connection closed."
BROKEN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError)


class UpstreamReply:
    """An answer whose head has arrived: status, allow-listed headers, and the body in pieces."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        hold_id: str,
        host: str,
        api_key: Secret,
        idle_s: float,
        total_at: float,
    ) -> None:
        self.status: Final = response.status
        self.headers: Final[Mapping[str, str]] = headers_down(response.headers.items())
        self.retry_after_s: Final = told_wait_s(
            self.headers.get("retry-after"), response.headers.get("date")
        )
        self._response = response
        self._hold_id = hold_id
        self._host = host
        self._api_key = api_key
        self._idle_s = idle_s
        self._total_at = total_at
        self._is_closed = False
        self._failure: UpstreamFailure | None = None
        self._end = _ConnectionEnd(response)

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters, "" if the upstream named none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def read_chunk(self) -> bytes | None:
        """The next bytes as they arrived, None at the body's clean end.

        Raises UpstreamCut or UpstreamStalled, after every byte that arrived before was handed
        out, and again at each further call. One reader at a time.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return await self._next()
        except TimeoutError as error:
            failure: UpstreamFailure = UpstreamStalled("silent too long", hold_id=self._hold_id)
            failure.__cause__ = error
        except BROKEN as error:
            failure = UpstreamCut("the body ended early", hold_id=self._hold_id)
            failure.__cause__ = error
        self._failure = failure
        rest = b"" if self._is_closed else self._arrived()
        self.close()
        if rest:
            return rest
        raise failure

    async def read_all(self, bytes_max: int) -> bytes:
        """The whole body. Raises UpstreamTooLarge (and closes) above `bytes_max`, else as above."""
        pieces = bytearray()
        while (chunk := await self.read_chunk()) is not None:
            pieces += chunk
            if len(pieces) > bytes_max:
                self.close()
                raise UpstreamTooLarge("the body is too large", hold_id=self._hold_id)
        return bytes(pieces)

    def rejection(self, body: bytes) -> RoutstrError:
        """Our error for this answer (`upstream_rejection.rejection`), without its host and our key.

        It is an UpstreamRejected if the request itself is at fault.
        """
        told = None if self.retry_after_s is None else str(self.retry_after_s)
        return rejection(
            self.status, body, host=self._host, api_key=self._api_key, retry_after=told
        )

    def close(self) -> None:
        """End the connection at once, whatever is unsent or unread; a reader gets UpstreamCut.

        Safe at any time, twice, and from another task. After a clean end there is nothing left
        to close: the connection is back in the pool.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._end.forget()
        connection = self._response.connection
        transport = connection.transport if connection is not None else None
        self._response.close()
        if transport is not None:
            transport.abort()

    async def _next(self) -> bytes | None:
        if self._is_closed:
            raise aiohttp.ClientConnectionError("closed by us")
        now = asyncio.get_running_loop().time()
        if now >= self._total_at:
            raise TimeoutError
        async with asyncio.timeout_at(min(now + self._idle_s, self._total_at)):
            chunk = await self._response.content.readany()
        if chunk:
            return chunk
        if self._end.is_reset:
            raise aiohttp.ClientPayloadError("reset before the end")
        self._end.forget()
        return None

    def _arrived(self) -> bytes:
        """What was received before the failure; aiohttp's public readers raise instead."""
        return self._response.content._read_nowait(-1)  # noqa: SLF001 - no public way to it


class _ConnectionEnd:
    """Watches one body's connection for the two ends that aiohttp (3.14) does not report.

    A chunk of impossible size closes the connection but leaves a waiting reader waiting. A body
    that ends with its connection (RFC 9112 §6.3) is called complete even when that was a reset.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.is_reset = False
        self._content = response.content
        self._has_own_end = not {"content-length", "transfer-encoding"}.isdisjoint(
            name.lower() for name in response.headers
        )
        connection = response.connection
        protocol = connection.protocol if connection is not None else None
        self._lost = protocol.closed if protocol is not None else None
        if self._lost is not None:
            # One per connection, however many answers it carries: an unread exception is logged.
            self._lost.remove_done_callback(_acknowledge)
            self._lost.add_done_callback(_acknowledge)
            self._lost.add_done_callback(self._on_lost)

    def forget(self) -> None:
        """Stop watching: the connection may go on to carry other answers."""
        if self._lost is not None:
            self._lost.remove_done_callback(self._on_lost)
            self._lost = None

    def _on_lost(self, lost: asyncio.Future[None]) -> None:
        if not self._has_own_end:
            self.is_reset = not lost.cancelled() and lost.exception() is not None
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError("connection lost"))


def _acknowledge(lost: asyncio.Future[None]) -> None:
    if not lost.cancelled():
        lost.exception()
