"""An upstream's answer, read in pieces and closed by whoever owns it.

Laws: every byte that arrived is handed out before a failure is told, because it is the customer's
output and the meter's evidence. A broken end is never taken for a clean one. `close()` ends the
connection at once, from any task, and a closed connection is never used again.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from routstr.errors import RoutstrError
from routstr.gateways.upstream_failure import (
    UpstreamCut,
    UpstreamFailure,
    UpstreamStalled,
    UpstreamTooLarge,
)
from routstr.gateways.upstream_headers import headers_down
from routstr.gateways.upstream_rejection import rejection, told_wait_s
from routstr.gateways.upstream_wire import Phase, Wire
from routstr.log import Secret

_WHOLE, _BROKEN = Phase.WHOLE, Phase.BROKEN


class UpstreamReply:
    """An answer whose head has arrived: status, allow-listed headers, and the body in pieces.

    `wire` carries it, and goes to `give_back` at the body's clean end.
    """

    def __init__(
        self,
        wire: Wire,
        *,
        give_back: Callable[[Wire], None],
        hold_id: str,
        host: str,
        api_key: Secret,
        idle_s: float,
        total_at: float,
    ) -> None:
        self.status: Final = wire.status
        self.headers: Final[Mapping[str, str]] = headers_down(wire.headers)
        self.retry_after_s: Final = _told_wait_s(self.headers, wire)
        self._wire: Wire | None = wire
        self._give_back = give_back
        self._hold_id = hold_id
        self._host = host
        self._api_key = api_key
        self._idle_s = idle_s
        self._total_at = total_at
        self._loop = asyncio.get_running_loop()
        self._failure: UpstreamFailure | None = None

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters, "" if the upstream named none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def read_chunk(self) -> bytes | None:
        """The next bytes as they arrived, None at the body's clean end.

        Raises UpstreamCut or UpstreamStalled, after every byte that arrived before was handed
        out, and again at each further call. One reader at a time.
        """
        while (wire := self._wire) is not None:
            now_s = self._loop.time()
            if now_s >= self._total_at:
                return self._stalled(wire, TimeoutError())
            chunk = wire.take()
            if chunk:
                return chunk
            if wire.phase is _WHOLE:
                self._wire = None
                self._give_back(wire)
                return None
            if wire.phase is _BROKEN:
                self._end(UpstreamCut("the body ended early", hold_id=self._hold_id), wire.failure)
                break
            try:
                await wire.heard(min(now_s + self._idle_s, self._total_at))
            except TimeoutError as error:
                return self._stalled(wire, error)
        if self._failure is not None:
            raise self._failure
        return None

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
        if self._wire is not None:
            self._end(UpstreamCut("closed by us", hold_id=self._hold_id), None)

    def _stalled(self, wire: Wire, error: TimeoutError) -> bytes:
        """The last bytes before it is told that there were no more in time."""
        rest = wire.take()
        self._end(UpstreamStalled("silent too long", hold_id=self._hold_id), error)
        if not rest and self._failure is not None:
            raise self._failure
        return rest

    def _end(self, failure: UpstreamFailure, cause: Exception | None) -> None:
        failure.__cause__ = cause
        self._failure = failure
        if self._wire is not None:
            wire, self._wire = self._wire, None
            wire.abort()


def _told_wait_s(headers: Mapping[str, str], wire: Wire) -> int | None:
    told = headers.get("retry-after")
    date = wire.headers.get(b"date")
    return told_wait_s(told, None if date is None else date.decode("latin-1")) if told else None
