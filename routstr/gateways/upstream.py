"""The upstream's API over aiohttp: one request under one committed hold, its bytes as they come.

Laws: nothing is ever resent. An error before the head says whether anything was sent. Nobody
cancels inside the client to stop a body: `close()` ends the connection, from any task, and a
closed connection is never used again. Sources: performance.md section 2, guarantees.md 5 and 6.
"""

import asyncio
import io
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from routstr.core.url import (
    host_of,
    is_forbidden_address,
    is_local_address,
    is_loopback_address,
    is_loopback_host,
    joined,
    upstream_base,
)
from routstr.errors import ConfigError
from routstr.gateways.upstream_failure import (
    UpstreamFailure,
    UpstreamGarbled,
    UpstreamLost,
    UpstreamNotSent,
    UpstreamSlow,
)
from routstr.gateways.upstream_headers import (
    headers_up,
    is_anthropic,
    is_clean_value,
    is_plain_encoding,
)
from routstr.gateways.upstream_reply import BROKEN, UpstreamReply
from routstr.log import Secret

__all__ = ["Deadlines", "HoldProof", "UpstreamClient", "UpstreamReply"]

CONNECTIONS_MAX: Final = 16_384  # streams that are silent for an hour take one each
KEEPALIVE_S: Final = 15  # below what servers keep, so a reused connection is rarely a dead one
READ_BUFFER_BYTES: Final = 64 * 1024
HEADER_BYTES_MAX: Final = 8 * 1024
BODY_AT_ONCE_BYTES_MAX: Final = 1024 * 1024  # a longer one is written in pieces, with the loop free
_AUTOMATIC_HEADERS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class HoldProof(Protocol):
    """A hold that is committed: the only ticket to the upstream (invariant I-13)."""

    @property
    def id(self) -> str:
        """The reservation's id, a row that exists before the upstream sees a byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long an upstream may take, in seconds (defaults of guarantees.md section 5)."""

    connect_s: float = 5.0  # DNS, TCP, TLS and the wait for a free connection
    first_byte_s: float = 600.0  # then until the answer's head
    idle_s: float = 300.0  # then between two pieces of the body
    total_s: float = 3_600.0  # the whole exchange


class UpstreamClient:
    """One upstream: its base URL, our key for it, and one connection pool per event loop.

    Use as an async context manager inside the loop that makes the requests. `provider_type` says
    where the key goes; `api_version` is Azure's query, or Anthropic's header. Raises BadUrl for a
    base URL that `core.url.upstream_base` refuses, ConfigError for a key no header can carry.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: Secret,
        provider_type: str = "",
        api_version: str | None = None,
        allow_loopback_http: bool = False,
        is_local: bool = False,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self._base = upstream_base(
            base_url, allow_loopback_http=allow_loopback_http, is_local=is_local
        )
        self._is_local = is_local
        self._host = host_of(self._base)
        self._is_loopback = allow_loopback_http and is_loopback_host(self._host)
        if not is_clean_value(api_key.reveal()):
            raise ConfigError("UPSTREAM_API_KEY has a character that no header can carry")
        self._api_key = api_key
        self._provider_type = provider_type
        self._api_version = api_version
        self._query: Mapping[str, str] = {}
        if api_version is not None and not is_anthropic(provider_type):
            self._query = {"api-version": api_version}
        self._connections_max = connections_max
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def open(self) -> None:
        """Make the connection pool, in the running event loop."""
        assert self._http is None, "opened twice"
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections_max,
                limit_per_host=0,
                keepalive_timeout=KEEPALIVE_S,
                socket_factory=self._socket,
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            skip_auto_headers=_AUTOMATIC_HEADERS,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )
        # It would send what it calls idempotent a second time when a kept connection is gone.
        self._http._retry_connection = False  # noqa: SLF001 - there is no public way to say it

    async def close(self) -> None:
        """Close the pool; the tasks that read from it must have ended before."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.close()

    async def request(
        self,
        *,
        method: str = "POST",
        path: str,
        query: str = "",
        body: bytes,
        headers: Mapping[str, str],
        hold: HoldProof,
        deadlines: Deadlines,
    ) -> UpstreamReply:
        """Send `body` to the base URL's `path` (`/chat/completions`) and await the answer's head.

        `query` is sent as it is, so it must be one that a URL can carry; without a body there is
        no content type. `headers` are the caller's, of which only the allow-list passes. Raises
        UpstreamNotSent, UpstreamLost (UpstreamGarbled) or UpstreamSlow; BadUrl for a path that is
        none; InvalidParameter for an unforwardable header. Cancelling closes the connection.
        """
        assert self._http is not None, "open() comes first"
        url = URL(joined(self._base, path) + (f"?{query}" if query else ""), encoded=True)
        url = url.update_query(self._query) if self._query else url
        total_at = asyncio.get_running_loop().time() + deadlines.total_s
        head_s = min(deadlines.connect_s + deadlines.first_byte_s, deadlines.total_s)
        sent = headers_up(
            headers, self._api_key, provider_type=self._provider_type, api_version=self._api_version
        )
        if not body:
            sent.pop("content-type")
        try:
            async with asyncio.timeout(head_s):
                response = await self._http.request(
                    method,
                    url,
                    data=body if len(body) <= BODY_AT_ONCE_BYTES_MAX else io.BytesIO(body),
                    headers=sent,
                    allow_redirects=False,
                    timeout=_timeout(deadlines.connect_s),
                )
        except TimeoutError as error:
            # aiohttp's connect time-out is a TimeoutError too, and says that nothing was sent.
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise UpstreamNotSent("connect time-out", hold_id=hold.id) from error
            raise UpstreamSlow("no answer's head in time", hold_id=hold.id) from error
        except BROKEN as error:
            raise _before_head(error, hold.id) from error
        reply = UpstreamReply(
            response,
            hold_id=hold.id,
            host=self._host,
            api_key=self._api_key,
            idle_s=deadlines.idle_s,
            total_at=total_at,
        )
        if not is_plain_encoding(response.headers.get("content-encoding")):
            reply.close()
            raise UpstreamGarbled("an encoding not asked for", hold_id=hold.id)
        return reply

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """The socket for one resolved address, refused if nobody may call it (SR-7).

        This runs after resolution and connects to the very address it judged, so a name cannot
        change its mind in between. A loopback base URL, where allowed, may reach loopback only.
        """
        family, kind, protocol, _, address = info
        ip = str(address[0])
        if self._is_local:
            forbidden = not is_local_address(ip)
        elif self._is_loopback:
            forbidden = not is_loopback_address(ip)
        else:
            forbidden = is_forbidden_address(ip)
        if forbidden:
            raise OSError("this address may not be called")
        return socket.socket(family, kind, protocol)


def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    """Only the connect limits are aiohttp's: its default total would kill long streams."""
    return aiohttp.ClientTimeout(
        total=None, connect=connect_s, sock_connect=connect_s, sock_read=None
    )


def _before_head(error: Exception, hold_id: str) -> UpstreamFailure:
    """Which failure an aiohttp error before the answer's head is (performance.md section 2)."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        return UpstreamNotSent("cannot connect", hold_id=hold_id)
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return UpstreamGarbled("no HTTP answer", hold_id=hold_id)
    return UpstreamLost("the connection ended before an answer", hold_id=hold_id)
