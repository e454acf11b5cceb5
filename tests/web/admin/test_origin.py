"""Where somebody comes from and where he is sent: only what proxies of ours say, only our pages."""

import pytest

from routstr.web.admin.guard import local_path
from routstr.web.admin.origin import client_address

PROXIES = ("10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/admin", "/admin"),
        ("/admin/keys?after=key_1", "/admin/keys?after=key_1"),
        (None, "/admin"),
        ("", "/admin"),
        ("//evil.example", "/admin"),
        ("https://evil.example/admin", "/admin"),
        ("/admin@evil.example", "/admin"),
        ("/administrator", "/admin"),
        ("/admin\\..\\x", "/admin"),
        ("/admin/\r\nSet-Cookie: a=b", "/admin"),
        ("/admin/x\n", "/admin"),
        ("/admin/api/withdraw", "/admin"),
        ("/admin/login?next=/admin/login", "/admin"),
        ("/admin/" + "a" * 600, "/admin"),
    ],
)
def test_only_a_page_of_the_dashboard_is_gone_back_to(asked: str | None, path: str) -> None:
    assert local_path(asked) == path


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.9, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.9", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1, nonsense"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("", [], "unknown"),
    ],
)
def test_the_address_is_the_last_one_that_no_proxy_of_ours_has(
    peer: str, forwarded: list[str], address: str
) -> None:
    assert client_address(peer, forwarded, PROXIES) == address
