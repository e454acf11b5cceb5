"""GET requests to URLs that strangers chose, so made that no address inside can be reached (SR-7).

Laws: https on port 443 only, TLS always verified, no redirect, no proxy, no cookie, nothing kept
open. A name is resolved once; if any of its addresses is forbidden (`core.url`'s own table) the
name is; the connection goes to an address that was judged, with the name in SNI and Host. At most
ANSWER_BYTES_MAX are read. An answer is bytes of a stranger's: whoever asked reads them as such.
"""

import asyncio
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Final, Protocol, Self

import httpx

from routstr.core.url import (
    BadUrl,
    canonical_mint_url,
    host_of,
    is_forbidden_address,
    is_loopback_address,
)
from routstr.gateways.tls import trusted

HTTPS_PORT: Final = 443
ANSWER_BYTES_MAX: Final = 256 * 1024
CONNECT_S: Final = 3.0
TOTAL_S: Final = 10.0
CALLS_MAX: Final = 8  # at once; more wait within their time
ADDRESSES_TRIED_MAX: Final = 3
RESOLVER_THREADS: Final = 4
QUERY_CHARS_MAX: Final = 2_048
_QUERY: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*")
_HEADERS: Final = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "connection": "close",
    "user-agent": "routstr",
}


class OutsideFailure(Exception):
    """A stranger's server did not answer. Messages hold no URL, address or answer."""


class ForbiddenTarget(OutsideFailure):
    """The URL, or an address its name resolves to, is one the node never calls."""


class Resolver(Protocol):
    """Turns a name into addresses."""

    async def resolve(self, host: str) -> Sequence[str]:
        """All addresses of `host` as text, at least one. Raises OSError."""

    def close(self) -> None:
        """Give back what it holds."""


class SystemResolver:
    """The system's resolver, on threads of its own.

    A stranger's name server may take its time, and the loop's shared threads also resolve the
    upstream and check proofs: they must not be his to occupy.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(self, host: str) -> Sequence[str]:
        """All addresses of `host`. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _lookup, host)
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """Let the threads end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopbackServer:
    """A server of the tests: what resolves to loopback is reached at its port, under its CA.

    It opens nothing else: URLs still name port 443, every other forbidden address stays forbidden,
    and the certificate still has to be the name's. The node itself never passes one.
    """

    port: int
    ca_pem: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideAnswer:
    """A status and at most ANSWER_BYTES_MAX bytes, from a server nobody vouches for."""

    status: int
    body: bytes = field(repr=False)


class OutsideHttp:
    """The way out. Use as an async context manager inside the loop that calls."""

    def __init__(
        self,
        *,
        resolver: Resolver | None = None,
        loopback_server: LoopbackServer | None = None,
        connect_s: float = CONNECT_S,
        total_s: float = TOTAL_S,
    ) -> None:
        self._resolver = resolver or SystemResolver()
        self._loopback_server = loopback_server
        self._connect_s = connect_s
        self._total_s = total_s
        self._places = asyncio.Semaphore(CALLS_MAX)
        self._http: httpx.AsyncClient | None = None

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
        """Make the client, for the running event loop."""
        assert self._http is None, "opened twice"
        tls = trusted()
        if self._loopback_server is not None:
            tls = httpx.create_ssl_context(trust_env=False)
            tls.load_verify_locations(cadata=self._loopback_server.ca_pem)
        # A connection is pooled by address, and its certificate was checked for one name only: a
        # second name at the same address must never find it.
        limits = httpx.Limits(max_connections=CALLS_MAX, max_keepalive_connections=0)
        self._http = httpx.AsyncClient(
            verify=tls,
            limits=limits,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the client and the resolver."""
        self._resolver.close()
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    async def get(self, url: str) -> OutsideAnswer:
        """GET `url` once. Raises ForbiddenTarget before any connection, OutsideFailure."""
        target = parse_target(url)
        try:
            async with asyncio.timeout(self._total_s), self._places:
                return await self._get(target)
        except TimeoutError as error:
            raise OutsideFailure("no answer in time") from error

    async def _get(self, target: "Target") -> OutsideAnswer:
        for last, address in enumerate(await self._judged_addresses(target.host), 1):
            try:
                return await self._exchange(target, address)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if last == ADDRESSES_TRIED_MAX:
                    raise OutsideFailure("cannot connect") from error
            except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
                raise OutsideFailure("no usable answer") from error
        raise OutsideFailure("cannot connect")

    async def _judged_addresses(self, host: str) -> Sequence[str]:
        """The addresses of a name, all of which may be called. Raises OutsideFailure."""
        literal = host.strip("[]")
        try:
            addresses = [literal] if _is_literal(host) else await self._resolver.resolve(host)
        except (OSError, UnicodeError) as error:
            raise OutsideFailure("the name does not resolve") from error
        if not addresses:
            raise OutsideFailure("the name does not resolve")
        if any(self._is_forbidden(address) for address in addresses):
            raise ForbiddenTarget("an address of that name is not to be called")
        return addresses

    def _is_forbidden(self, address: str) -> bool:
        if self._loopback_server is not None and is_loopback_address(address):
            return False
        return is_forbidden_address(address)

    async def _exchange(self, target: "Target", address: str) -> OutsideAnswer:
        assert self._http is not None, "open() comes first"
        server = self._loopback_server if is_loopback_address(address) else None
        port = HTTPS_PORT if server is None else server.port
        host = f"[{address}]" if ":" in address else address
        request = self._http.build_request(
            "GET",
            f"https://{host}:{port}{target.path}",
            headers={**_HEADERS, "host": target.host},
            timeout=httpx.Timeout(self._total_s, connect=self._connect_s),
            extensions={"sni_hostname": target.host.strip("[]")},
        )
        response = await self._http.send(request, stream=True)
        try:
            return OutsideAnswer(status=response.status_code, body=await _body(response))
        finally:
            await response.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A host (lower-case ASCII, IPv6 in brackets) and a path with its query."""

    host: str
    path: str = field(repr=False)


def parse_target(url: str) -> Target:
    """An https URL on port 443, read as narrowly as a mint's. Raises ForbiddenTarget."""
    base, mark, query = url.partition("?")
    if len(query) > QUERY_CHARS_MAX or _QUERY.fullmatch(query) is None:
        raise ForbiddenTarget("a query that is none")
    try:
        canonical = canonical_mint_url(base, allow_loopback_http=False)
    except BadUrl as error:
        raise ForbiddenTarget("not a URL the node calls") from error
    host = host_of(canonical)
    authority, slash, path = canonical.removeprefix("https://").partition("/")
    if authority != host:
        raise ForbiddenTarget("another port than 443")
    if not _is_literal(host) and "." not in host:
        raise ForbiddenTarget("a name of the local network")
    end = "/" if not slash or base.endswith("/") else ""
    return Target(host=host, path=f"{slash}{path}{end}{mark}{query}")


def _is_literal(host: str) -> bool:
    """Is this canonical host an address? No name is of digits alone (`core.url`)."""
    return host.startswith("[") or host.replace(".", "").isdigit()


def _lookup(host: str) -> list[str]:
    found = socket.getaddrinfo(host, HTTPS_PORT, type=socket.SOCK_STREAM)
    return [str(address[0]) for _family, _kind, _protocol, _name, address in found]


async def _body(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise OutsideFailure("an encoding not asked for")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise OutsideFailure("the answer is too large")
    return bytes(body)
