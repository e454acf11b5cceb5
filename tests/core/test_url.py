from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.url import (
    BadUrl,
    canonical_mint_url,
    host_of,
    is_forbidden_address,
    is_local_address,
    is_loopback_host,
    joined,
    upstream_base,
)

CANONICAL = [
    ("https://mint.example", "https://mint.example"),
    ("HTTPS://Mint.EXAMPLE/", "https://mint.example"),
    ("https://mint.example:443/", "https://mint.example"),
    ("https://mint.example:8443", "https://mint.example:8443"),
    ("https://mint.example/Bitcoin/", "https://mint.example/Bitcoin"),
    ("https://mint.example/a%20b/c", "https://mint.example/a%20b/c"),
    ("https://bücher.example", "https://xn--bcher-kva.example"),
    ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
    ("https://XN--BCHER-KVA.example", "https://xn--bcher-kva.example"),
    ("https://\uff4dint.example", "https://mint.example"),
    ("https://[2001:DB8:0::1]:443/x", "https://[2001:db8::1]/x"),
    ("https://203.0.113.7", "https://203.0.113.7"),
    ("https://mint.example:80", "https://mint.example:80"),
]

REFUSED = [
    "",
    "mint.example",
    "ftp://mint.example",
    "http://mint.example",
    "http://127.0.0.1.example",
    "https://",
    "https:///path",
    "https:/mint.example",
    "https://user@mint.example",
    "https://user:pass@mint.example",
    "https://mint.example@evil.example",
    "https://mint.example?x=1",
    "https://mint.example/?",
    "https://mint.example#f",
    "https://mint.example/#",
    "https://mint.example\\@evil.example",
    "https://mint.example/a/../b",
    "https://mint.example/a/./b",
    "https://mint.example/..",
    "https://mint.example/%2e%2E/b",
    "https://mint.example/a%2fb",
    "https://mint.example/a%5Cb",
    "https://mint.example/a%00b",
    "https://mint.example/a%7fb",
    "https://mint.example/a%zz",
    "https://mint.example/a%2",
    "https://mint.example//a",
    "https://mint.example/a//",
    "https://mint.example/é",
    "https://mint.example/a b",
    " https://mint.example",
    "https://mint.example\n",
    "https://mint.exa\tmple",
    "https://mint.example\x00",
    "https://mint.example\x7f",
    "https://mint.example\x85",
    "https://mint.example\xa0",
    "https://mint\ud800.example",
    "https://mint.example.",
    "https://.example",
    "https://mint..example",
    "https://-mint.example",
    "https://mint-.example",
    "https://mint_x.example",
    "https://mint%2eexample",
    "https://mint.example:",
    "https://mint.example:0",
    "https://mint.example:0443",
    "https://mint.example:65536",
    "https://mint.example:44x",
    "https://mint.example:1:2",
    "https://127.1",
    "https://2130706433",
    "https://0x7f000001",
    "https://0x7f.1",
    "https://127.0.0.01",
    "https://256.1.1.1",
    "https://example.123",
    "https://[::1",
    "https://[::1]x",
    "https://[fe80::1%25eth0]",
    "https://[fe80::1%eth0]",
    "https://[127.0.0.1]",
    "https://::1",
    "https://stra\u00dfe.example",
    "https://a\u200db.example",
    "https://a\u2100b.example",
    "https://" + "a" * 64 + ".example",
    "https://" + "abcdefgh." * 40 + "example",
    "https://mint.example/" + "a" * 2048,
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL)
def test_a_mint_has_one_spelling(text: str, canonical: str) -> None:
    assert canonical_mint_url(text, allow_loopback_http=False) == canonical
    assert canonical_mint_url(canonical, allow_loopback_http=False) == canonical


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("allow_loopback_http", [False, True])
def test_ambiguous_urls_are_refused(text: str, allow_loopback_http: bool) -> None:
    with pytest.raises(BadUrl):
        canonical_mint_url(text, allow_loopback_http=allow_loopback_http)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("http://127.0.0.1:3338/", "http://127.0.0.1:3338"),
        ("http://127.8.8.8", "http://127.8.8.8"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("http://LOCALHOST:3338", "http://localhost:3338"),
    ],
)
def test_plain_http_is_for_loopback_when_allowed(text: str, canonical: str) -> None:
    assert canonical_mint_url(text, allow_loopback_http=True) == canonical
    with pytest.raises(BadUrl):
        canonical_mint_url(text, allow_loopback_http=False)


def test_the_message_never_shows_the_url() -> None:
    with pytest.raises(BadUrl) as caught:
        canonical_mint_url("https://user:hunter2@mint.example", allow_loopback_http=False)
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_gives_a_fixed_point_or_bad_url(text: str) -> None:
    for candidate in (text, "https://" + text, "https://mint.example/" + text):
        try:
            url = canonical_mint_url(candidate, allow_loopback_http=True)
        except BadUrl:
            continue
        assert url.isascii()
        assert canonical_mint_url(url, allow_loopback_http=True) == url


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("https://api.example.com", "https://api.example.com/v1"),
        ("https://api.example.com/", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com/openai/v2", "https://api.example.com/openai/v2"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
    ],
)
def test_an_upstream_without_a_path_means_v1(text: str, base: str) -> None:
    assert upstream_base(text, allow_loopback_http=True) == base


def test_a_route_is_joined_only_if_it_is_a_plain_path() -> None:
    assert joined("https://a.example/v1", "/chat/completions") == (
        "https://a.example/v1/chat/completions"
    )
    for path in ("chat", "/../admin", "/a?x=1", "/a#b", "//evil.example", "/a/", "/a\r\nX: y"):
        with pytest.raises(BadUrl):
            joined("https://a.example/v1", path)


@pytest.mark.parametrize(
    ("url", "host", "loopback"),
    [
        ("http://127.0.0.1:1/v1", "127.0.0.1", True),
        ("http://[::1]:1", "[::1]", True),
        ("http://localhost", "localhost", True),
        ("https://a.example:8443/v1", "a.example", False),
        ("https://[2001:db8::1]/v1", "[2001:db8::1]", False),
    ],
)
def test_the_host_of_a_canonical_url(url: str, host: str, loopback: bool) -> None:
    assert host_of(url) == host
    assert is_loopback_host(host) is loopback


FORBIDDEN = """
0.0.0.0 0.255.255.255 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255
169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1
198.19.255.255 198.51.100.9 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::ffff:8.8.8.8 ::ffff:127.0.0.1 64:ff9b::808:808 100::1 fc00::1 fd12::1 fe80::1 fec0::1
ff02::1 2001::1 2001:1ff:: 2001:db8::1 2002:7f00:1::1 3fff::1 3fff:fff::1 5f00::1 1fff::1 4000::1
2606:4700::1%eth0 127.1 0x7f000001 localhost example.com 1.2.3 8.8.8.8:53 [2606:4700::1]
"""

ALLOWED = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.88.98.1 192.167.1.1
192.169.0.0 198.17.255.255 198.20.0.0 198.51.101.0 203.0.114.0 223.255.255.255 2606:4700:4700::1111
2001:200::1 2001:4860:4860::8888 2003::1 2a00::1 3ffe::1 2001:db7::1 2001:db9::1
"""


@pytest.mark.parametrize("ip", FORBIDDEN.split())
def test_forbidden_addresses(ip: str) -> None:
    assert is_forbidden_address(ip)


@pytest.mark.parametrize("ip", ALLOWED.split())
def test_public_addresses_are_open(ip: str) -> None:
    assert not is_forbidden_address(ip)


@given(st.ip_addresses())
def test_no_address_that_python_calls_private_is_open(ip: object) -> None:
    address = ip_address(str(ip))
    if address.is_loopback or address.is_link_local or address.is_multicast:
        assert is_forbidden_address(str(address))


@given(st.text(max_size=50))
def test_no_text_raises(text: str) -> None:
    assert is_forbidden_address(text) in (True, False)


@pytest.mark.parametrize(
    "ip",
    ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.20", "100.64.0.9", "127.0.0.1", "::1",
     "fd00::1"],
)  # fmt: skip
def test_the_operators_own_network(ip: str) -> None:
    assert is_local_address(ip)
    assert is_forbidden_address(ip)


@pytest.mark.parametrize(
    "ip",
    ["169.254.169.254", "172.32.0.1", "8.8.8.8", "0.1.2.3", "2600::1", "fe80::1", "fd00::1%eth0",
     "::ffff:10.0.0.1", "64:ff9b::a00:1", "10.1", "", "gpu.lan"],
)  # fmt: skip
def test_what_is_not_of_it(ip: str) -> None:
    assert not is_local_address(ip)


def test_a_local_upstream_may_be_plain_http() -> None:
    url = "http://gpu.lan:8000"
    assert upstream_base(url, allow_loopback_http=False, is_local=True) == f"{url}/v1"
    with pytest.raises(BadUrl):
        upstream_base(url, allow_loopback_http=True)
