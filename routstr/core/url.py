"""The one spelling of a mint's or an upstream's URL, and the addresses nobody may call.

Laws: a canonical URL is a fixed point (`canonical_mint_url(u) == u`), pure ASCII, and two texts
naming the same mint become the same text. Whatever is ambiguous between parsers (userinfo, query,
fragment, backslash, dot segments, numeric hosts, control characters) is refused, never repaired.
"""

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

URL_CHARS_MAX: Final = 2048
HOST_CHARS_MAX: Final = 253
DEFAULT_PORTS: Final = {"https": 443, "http": 80}

_SPLIT: Final = re.compile(r"(https?)://([^/]*)(/.*)?", re.IGNORECASE | re.DOTALL)
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
# Encoded dots, slashes, backslashes and controls mean different paths to different servers.
_HIDDEN: Final = re.compile(r"%(?:2[ef]|5c|[01][0-9a-f]|7f)", re.IGNORECASE)
# IDNA 2003, which the standard library speaks, maps these to another registrable name.
_DEVIATIONS: Final = frozenset("ßẞς\u200c\u200d")

# guarantees.md SR-7. Written out, because `ipaddress.is_global` changes between Python releases.
_IPV4_DENIED: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
)  # fmt: skip
_IPV4_LOCAL: Final = tuple(
    IPv4Network(network)
    for network in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)
_IPV6_LOCAL: Final = IPv6Network("fc00::/7")
_IPV6_ALLOWED: Final = IPv6Network("2000::/3")
_IPV6_DENIED: Final = tuple(
    IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


class BadUrl(ValueError):
    """The URL is not acceptable; the message says which rule it breaks, never the URL."""


def canonical_mint_url(text: str, *, allow_loopback_http: bool) -> str:
    """The one spelling of a mint's URL, as the allow-list compares it.

    https (http only for a loopback host, when allowed), lower-case IDNA host, no default port, no
    trailing `/`, path kept. Raises BadUrl. Source: NUT-00 and ecash.md section 7.
    """
    return _canonical(text, http_to=lambda host: allow_loopback_http and is_loopback_host(host))


def _canonical(text: str, *, http_to: Callable[[str], bool]) -> str:
    scheme, authority, path = _split(text)
    host, port = _host_and_port(authority)
    if scheme == "http" and not http_to(host):
        raise BadUrl("only https is accepted")
    shown_port = "" if port in (None, DEFAULT_PORTS[scheme]) else f":{port}"
    return f"{scheme}://{host}{shown_port}{_canonical_path(path)}"


def upstream_base(text: str, *, allow_loopback_http: bool, is_local: bool = False) -> str:
    """The base of an upstream's API: a mint URL's rules, and `/v1` where no path is given.

    `https://api.example.com` means `https://api.example.com/v1`, the base every OpenAI-compatible
    server documents; any path of the operator's own is kept as it is. One that `is_local` may be
    plain http: whoever connects to it must hold its address to `is_local_address`. Raises BadUrl.
    """
    url = _canonical(
        text,
        http_to=lambda host: is_local or (allow_loopback_http and is_loopback_host(host)),
    )
    has_path = "/" in url.partition("://")[2]
    return url if has_path else f"{url}/v1"


def joined(base: str, path: str) -> str:
    """`base` (canonical) with a route's `path` (`/chat/completions`) behind it. Raises BadUrl."""
    if not path.startswith("/") or _canonical_path(path) != path:
        raise BadUrl("the route is not a plain path")
    return base + path


def host_of(url: str) -> str:
    """The host of a canonical URL, IPv6 in brackets, without the port."""
    authority = url.partition("://")[2].partition("/")[0]
    return _host_and_port(authority)[0]


def is_loopback_host(host: str) -> bool:
    """Is this canonical host `localhost`, 127/8 or `[::1]`?"""
    return host in ("localhost", "[::1]") or is_loopback_address(host)


def is_loopback_address(ip: str) -> bool:
    """Is this address 127/8 or ::1? Anything that is no address is not."""
    try:
        return IPv4Address(ip).is_loopback
    except AddressValueError:
        return ip == "::1"


def is_local_address(ip: str) -> bool:
    """Is this an address of the operator's own network, or of this machine?

    Private IPv4 (RFC 1918), the shared range that overlay networks use (RFC 6598), unique local
    IPv6 (RFC 4193), loopback. Never link-local, where clouds keep their secrets (169.254/16).
    """
    try:
        ipv4 = IPv4Address(ip)
    except AddressValueError:
        return ip == "::1" or _is_unique_local(ip)
    return any(ipv4 in network for network in _IPV4_LOCAL)


def _is_unique_local(ip: str) -> bool:
    try:
        ipv6 = IPv6Address(ip)
    except AddressValueError:
        return False
    return ipv6.scope_id is None and ipv6 in _IPV6_LOCAL


def is_forbidden_address(ip: str) -> bool:
    """May no outbound call go to this address? Text that is no address is forbidden.

    The table of SR-7 (guarantees.md section 6): IPv4 by a deny list, IPv6 by an allow list, so
    mapped, NAT64, link-local and unassigned IPv6 addresses need no rule of their own.
    """
    try:
        ipv4 = IPv4Address(ip)
    except AddressValueError:
        return _is_forbidden_ipv6(ip)
    return any(ipv4 in network for network in _IPV4_DENIED)


def _is_forbidden_ipv6(ip: str) -> bool:
    try:
        ipv6 = IPv6Address(ip)
    except AddressValueError:
        return True
    if ipv6.scope_id is not None or ipv6 not in _IPV6_ALLOWED:
        return True
    return any(ipv6 in network for network in _IPV6_DENIED)


def _split(text: str) -> tuple[str, str, str]:
    """Scheme, authority and path, after refusing every character a parser might reinterpret."""
    if len(text) > URL_CHARS_MAX:
        raise BadUrl(f"longer than {URL_CHARS_MAX} characters")
    if any(
        char <= " " or "\x7f" <= char <= "\xa0" or "\ud800" <= char <= "\udfff" for char in text
    ):
        raise BadUrl("control character or space")
    if "\\" in text or "?" in text or "#" in text:
        raise BadUrl("backslash, query or fragment")
    found = _SPLIT.fullmatch(text)
    if found is None:
        raise BadUrl("not an https URL")
    scheme, authority, path = found.groups(default="")
    if "@" in authority:
        raise BadUrl("user information")
    return scheme.lower(), authority, path


def _host_and_port(authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        literal, bracket, rest = authority[1:].partition("]")
        if not bracket or rest[:1] not in ("", ":"):
            raise BadUrl("malformed IPv6 host")
        return f"[{_ipv6(literal)}]", _port(rest)
    host, colon, port = authority.partition(":")
    return _name_or_ipv4(host), _port(colon + port)


def _port(text: str) -> int | None:
    if not text:
        return None
    if not _PORT.fullmatch(text[1:]) or int(text[1:]) > 65535:
        raise BadUrl("malformed port")
    return int(text[1:])


def _ipv6(literal: str) -> str:
    try:
        address = IPv6Address(literal)
    except AddressValueError as error:
        raise BadUrl("malformed IPv6 host") from error
    if address.scope_id is not None:
        raise BadUrl("an IPv6 zone")
    return address.compressed


def _name_or_ipv4(text: str) -> str:
    """A lower-case ASCII name, or a dotted quad; `127.1` and `0x7f.1` are neither."""
    if _DEVIATIONS & set(text):
        raise BadUrl("a host that reads differently in IDNA 2003 and 2008")
    try:
        host = text.lower() if text.isascii() else text.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise BadUrl("malformed international host") from error
    labels = host.split(".")
    if len(host) > HOST_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadUrl("malformed host")
    if _NUMERIC.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host))
        except AddressValueError as error:
            raise BadUrl("malformed IPv4 host") from error
    return host


def _canonical_path(path: str) -> str:
    """The path without one trailing `/`; empty and dot segments are refused."""
    path = path.removesuffix("/")
    if not path:
        return ""
    if _HIDDEN.search(path):
        raise BadUrl("an encoded separator or control character")
    for segment in path[1:].split("/"):
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            raise BadUrl("a dot, empty or malformed path segment")
    return path
