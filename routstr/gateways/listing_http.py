"""Asking an upstream for its list of models: a GET that costs nothing, so it needs no hold.

Laws: the address is judged when it is connected to (SR-7), no redirect, no proxy, bounded in time
and size. The node's key goes into the header that this kind of upstream reads, and nowhere else.
"""

import asyncio
import socket
from typing import Final

import aiohttp
from yarl import URL

from routstr.core.providers import PROVIDERS
from routstr.core.url import (
    host_of,
    is_forbidden_address,
    is_local_address,
    is_loopback_address,
    is_loopback_host,
    joined,
)
from routstr.gateways.listing import BadListing, ListedModel, read_listing
from routstr.gateways.upstream_config import UpstreamConfig

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
TOTAL_S: Final = 30.0
ANTHROPIC_VERSION: Final = "2023-06-01"
ANTHROPIC_QUERY: Final = "limit=1000"
NO_ANSWER: Final = "it did not answer (check the URL; on your own network it needs --local)"
_BROKEN: Final = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class NoListing(Exception):
    """The upstream gave no list of models; the message says why, without URL, key or answer."""


class ModelLists:
    """Fetches lists, a connection each: it happens a few times an hour."""

    def __init__(self, *, total_s: float = TOTAL_S) -> None:
        self._total_s = total_s

    async def fetch(self, upstream: UpstreamConfig) -> list[ListedModel]:
        """What `upstream` lists now. Raises NoListing."""
        is_anthropic = PROVIDERS[upstream.provider_type].listing == "anthropic"
        url = URL(joined(upstream.base_url, "/models"), encoded=True)
        if is_anthropic:
            url = url.with_query(ANTHROPIC_QUERY)
        elif upstream.api_version is not None:
            url = url.with_query({"api-version": upstream.api_version})
        try:
            async with (
                asyncio.timeout(self._total_s),
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        socket_factory=lambda info: _judged(info, upstream)
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                    auto_decompress=False,
                ) as http,
                http.get(url, headers=_headers(upstream), allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise NoListing(f"it answered with status {response.status}{_hint(response)}")
                return read_listing(await _body(response))
        except BadListing as error:
            raise NoListing(f"its list cannot be used: {error}") from error
        except _BROKEN as error:
            raise NoListing(NO_ANSWER) from error


def _hint(response: aiohttp.ClientResponse) -> str:
    """What the operator might look at."""
    match response.status:
        case 401 | 403:
            return " (check its key)"
        case 404 | 405 | 301 | 302 | 307 | 308:
            return " (check the URL, up to and including /v1)"
        case _:
            return ""


def _headers(upstream: UpstreamConfig) -> dict[str, str]:
    provider, key = PROVIDERS[upstream.provider_type], upstream.api_key.reveal()
    headers = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "routstr",
    }
    if provider.listing == "anthropic":
        headers["anthropic-version"] = upstream.api_version or ANTHROPIC_VERSION
    if key:
        bearer = provider.key_header == "authorization"
        headers[provider.key_header] = f"Bearer {key}" if bearer else key
    return headers


def _judged(info: aiohttp.AddrInfoType, upstream: UpstreamConfig) -> socket.socket:
    """The socket for one resolved address, refused if nobody may call it."""
    family, kind, protocol, _, address = info
    ip = str(address[0])
    if upstream.is_local:
        forbidden = not is_local_address(ip)
    elif upstream.allow_loopback_http and is_loopback_host(host_of(upstream.base_url)):
        forbidden = not is_loopback_address(ip)
    else:
        forbidden = is_forbidden_address(ip)
    if forbidden:
        raise OSError("this address may not be called")
    return socket.socket(family, kind, protocol)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise NoListing("an encoding not asked for")
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise NoListing("its list is too large")
    return bytes(body)
