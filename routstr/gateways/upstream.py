"""The upstream's API over HTTP/1.1: one request under one committed hold, its bytes as they come.

Laws: nothing is ever resent. An error before the head says whether anything was sent. Nobody
cancels inside the client to stop a body: `close()` ends the connection, from any task, and a
closed connection is never used again. No redirect is followed, no cookie kept, no proxy asked.
Sources: ADR 0022, guarantees.md 5 and 6.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import quote, unquote_plus

from routstr.core.url import (
    DEFAULT_PORTS,
    BadUrl,
    host_of,
    is_forbidden_address,
    is_local_address,
    is_loopback_address,
    is_loopback_host,
    joined,
    upstream_base,
)
from routstr.errors import ConfigError
from routstr.gateways.upstream_connections import Connections
from routstr.gateways.upstream_failure import (
    UpstreamFailure,
    UpstreamGarbled,
    UpstreamLost,
    UpstreamNotSent,
    UpstreamSlow,
)
from routstr.gateways.upstream_headers import (
    HEARD_OF,
    JSON,
    headers_up,
    is_anthropic,
    is_clean_value,
    is_plain_encoding,
)
from routstr.gateways.upstream_reply import UpstreamReply
from routstr.gateways.upstream_wire import BadAnswer, Phase, Wire
from routstr.log import Secret

__all__ = ["Deadlines", "HoldProof", "UpstreamClient", "UpstreamReply"]

CONNECTIONS_MAX: Final = 16_384  # streams that are silent for an hour take one each
TARGETS_MAX: Final = 256  # request lines kept, of a few paths each with few methods
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_BODY_EXPECTED: Final = frozenset({"POST", "PUT", "PATCH"})  # RFC 9110 §8.6
_QUERY: Final = re.compile(r"[!-~]*")
_ASKED, _BROKEN = Phase.ASKED, Phase.BROKEN


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
        self._has_version_query = api_version is not None and not is_anthropic(provider_type)
        self._connections_max = connections_max
        self._connections: Connections | None = None
        self._request_lines: dict[tuple[str, str, str], str] = {}

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
        assert self._connections is None, "opened twice"
        scheme, _, authority = self._base.partition("://")
        port = authority.partition("/")[0].removeprefix(self._host).removeprefix(":")
        self._connections = Connections(
            host=self._host,
            port=int(port or DEFAULT_PORTS[scheme]),
            is_tls=scheme == "https",
            may_be_called=self._may_be_called,
            heard_of=HEARD_OF,
            connections_max=self._connections_max,
        )

    async def close(self) -> None:
        """Close the pool, and every connection in use with it."""
        if self._connections is not None:
            connections, self._connections = self._connections, None
            await connections.close()

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
        head = self._head(method, path, query, headers, len(body))
        return await self._exchange(head, body, hold.id, deadlines)

    async def look(self, path: str, *, query: str = "", deadlines: Deadlines) -> UpstreamReply:
        """GET what costs nothing, and so needs no hold; else as `request`."""
        head = self._head("GET", path, query, {"accept": JSON}, 0, "User-Agent: routstr")
        return await self._exchange(head, b"", "", deadlines)

    async def _exchange(
        self, head: bytes, body: bytes, hold_id: str, deadlines: Deadlines
    ) -> UpstreamReply:
        """Send it once, and await the answer's head."""
        assert self._connections is not None, "open() comes first"
        connections = self._connections
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        head_at = now_s + min(deadlines.connect_s + deadlines.first_byte_s, deadlines.total_s)
        wire = connections.kept() or await _connected(
            connections, min(now_s + deadlines.connect_s, head_at), hold_id
        )
        try:
            wire.send(head, body)
            while wire.phase is _ASKED:
                await wire.heard(head_at)
            if wire.phase is _BROKEN and not wire.status:
                raise _before_head(wire.failure, hold_id) from wire.failure
            if not is_plain_encoding(wire.headers.get(b"content-encoding")):
                raise UpstreamGarbled("an encoding not asked for", hold_id=hold_id)
        except TimeoutError as error:
            wire.abort()
            raise UpstreamSlow("no answer's head in time", hold_id=hold_id) from error
        except BaseException:
            wire.abort()
            raise
        return UpstreamReply(
            wire,
            give_back=connections.give_back,
            hold_id=hold_id,
            host=self._host,
            api_key=self._api_key,
            idle_s=deadlines.idle_s,
            total_at=now_s + deadlines.total_s,
        )

    def _head(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body_bytes: int,
        *more: str,
    ) -> bytes:
        """The request's head. Raises BadUrl and InvalidParameter."""
        sent = headers_up(
            headers, self._api_key, provider_type=self._provider_type, api_version=self._api_version
        )
        lines = [self._request_line(method, path, query), *more]
        if body_bytes or method in _BODY_EXPECTED:
            lines.append(f"Content-Length: {body_bytes}")
        if not body_bytes:
            del sent["content-type"]
        lines += [f"{name}: {value}" for name, value in sent.items()]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def _request_line(self, method: str, path: str, query: str) -> str:
        """The first line and the Host (RFC 9112 §3), made once for each that is in use."""
        line = self._request_lines.get((method, path, query))
        if line is None:
            if method not in METHODS:
                raise ValueError("a method that is not forwarded")
            authority, _, target = joined(self._base, path).partition("://")[2].partition("/")
            line = f"{method} /{target}{self._query(query)} HTTP/1.1\r\nHost: {authority}"
            if len(self._request_lines) >= TARGETS_MAX:
                self._request_lines.clear()
            self._request_lines[method, path, query] = line
        return line

    def _query(self, query: str) -> str:
        """With its `?`, and with the version that this upstream wants there."""
        if _QUERY.fullmatch(query) is None or "#" in query:
            raise BadUrl("a query that no URL can carry")
        if self._has_version_query and self._api_version is not None:
            kept = [each for each in query.split("&") if each and _name(each) != "api-version"]
            query = "&".join([*kept, f"api-version={quote(self._api_version, safe='')}"])
        return f"?{query}" if query else ""

    def _may_be_called(self, ip: str) -> bool:
        """Whether this address may be connected to (SR-7).

        A loopback base URL, where allowed, may reach loopback only; a local one its own network.
        """
        if self._is_local:
            return is_local_address(ip)
        if self._is_loopback:
            return is_loopback_address(ip)
        return not is_forbidden_address(ip)


async def _connected(connections: Connections, until_s: float, hold_id: str) -> Wire:
    """A connection on which nothing was sent yet. Raises UpstreamNotSent."""
    try:
        async with asyncio.timeout_at(until_s):
            return await connections.another()
    except TimeoutError as error:
        raise UpstreamNotSent("connect time-out", hold_id=hold_id) from error
    except (OSError, RuntimeError, UnicodeError) as error:
        raise UpstreamNotSent("cannot connect", hold_id=hold_id) from error


def _before_head(error: Exception | None, hold_id: str) -> UpstreamFailure:
    """Which failure the end of a connection before the answer's head is."""
    if isinstance(error, BadAnswer):
        return UpstreamGarbled("no HTTP answer", hold_id=hold_id)
    return UpstreamLost("the connection ended before an answer", hold_id=hold_id)


def _name(parameter: str) -> str:
    return unquote_plus(parameter.partition("=")[0])
