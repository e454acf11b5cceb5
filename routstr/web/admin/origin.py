"""Where a request comes from: the page that sent it, and the address behind the proxies.

Laws
- A cookie's write must come from the node's own page: an `Origin` that is exactly the host the
  browser asked for, or the public URL of the settings. Plain http counts only where browsers keep
  `Secure` cookies without TLS: on this machine, and over an onion.
- `X-Forwarded-For` is believed hop by hop, from the right, and only from proxies that the operator
  named; whoever else says it is not heard (SR-9).
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from routstr.flows.context import Context
from routstr.flows.house.identity import Peer

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
HOST_PREFIX: Final = 64  # an IPv6 address changes within it as its owner likes
DEVICE_COOKIE: Final = "__Host-routstr_device"


def is_own_origin(ctx: Context, request: Request) -> bool:
    """Whether a page of this node sent it; a browser says so with every POST."""
    origins = request.headers.getlist("origin")
    hosts = request.headers.getlist("host")
    return len(origins) == 1 and len(hosts) <= 1 and origins[0] in _own(ctx, hosts)


def is_plain_http(request: Request) -> bool:
    """Whether the page itself came over http: its browser then keeps no Secure cookie."""
    return request.headers.get("origin", "").lower() == f"http://{request.headers.get('host', '')}"


def _own(ctx: Context, hosts: Iterable[str]) -> set[str]:
    own = {_origin(url) for url in (ctx.facts.http_url, ctx.facts.onion_url) if url}
    for host in hosts:
        name = host.lower()
        own.add(f"https://{name}")
        if is_local_name(name) or _bare(name).endswith(".onion"):
            own.add(f"http://{name}")
    return own


def is_local_name(host: str) -> bool:
    """Whether a Host is this machine as only itself calls it; another site's name never is."""
    return _bare(host.lower()) in LOCAL_NAMES


def _bare(name: str) -> str:
    return name.rpartition(":")[0] if not name.endswith("]") and ":" in name else name


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def peer_of(request: Request, ctx: Context) -> Peer:
    """Who asks, as far as tries are counted and log-ins are noted."""
    return Peer(
        address=client_address(
            request.client.host if request.client else "",
            request.headers.getlist("x-forwarded-for"),
            ctx.limits.trusted_proxies,
        ),
        device=request.cookies.get(DEVICE_COOKIE),
        request_id=str(request.scope["state"]["request_id"]),
    )


def client_address(peer: str, forwarded: Iterable[str], proxies: tuple[str, ...]) -> str:
    """The last address that no trusted proxy has; of IPv6 its /64 network."""
    address = _address(peer)
    hops = [hop.strip() for line in forwarded for hop in line.split(",")]
    trusted = _networks(proxies)
    while address is not None and hops and _is_in(address, trusted):
        hop = _address(hops.pop())
        if hop is None:
            break  # what a proxy could not say is the proxy's own affair
        address = hop
    if address is None:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(ip_network((address, HOST_PREFIX), strict=False))
    return str(address)


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=8)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(text, strict=False) for text in texts)
