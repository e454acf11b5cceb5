"""The guarded way out: which URLs and addresses are refused, and which name a certificate needs."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from routstr.gateways.addresses import (
    ADDRESSES_TRIED_MAX,
    ForbiddenTarget,
    LoopbackServer,
    OutsideFailure,
    OutsideHttp,
    SystemResolver,
    parse_target,
)
from tests.fakes.payee import FakePayee
from tests.fakes.tls import self_signed

URL = "https://pay.example/.well-known/lnurlp/alice"


@pytest.fixture
async def payee() -> AsyncIterator[FakePayee]:
    async with FakePayee() as server:
        yield server


@pytest.fixture
async def http(payee: FakePayee) -> AsyncIterator[OutsideHttp]:
    async with OutsideHttp(resolver=payee, loopback_server=payee.server) as opened:
        yield opened


FORBIDDEN = """
0.0.0.0 10.0.0.1 100.64.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1
192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.9 203.0.113.9 224.0.0.1 240.0.0.1 255.255.255.255
:: ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 100::1
2002:7f00:1::1 2002:a00:1::1 2001::1 2001:db8::1 3fff::1 fc00::1 fd00::1 fe80::1 fe80::1%eth0
fec0::1 ff02::1 127.1 2130706433 0x7f.1 localhost
"""


@pytest.mark.parametrize("address", FORBIDDEN.split())
@pytest.mark.parametrize("others", [(), ("127.0.0.1",)])
async def test_one_forbidden_address_forbids_the_name(
    payee: FakePayee, http: OutsideHttp, address: str, others: Sequence[str]
) -> None:
    payee.addresses["pay.example"] = [*others, address]
    with pytest.raises(ForbiddenTarget):
        await http.get(URL)
    assert payee.asked == ["pay.example"]
    assert payee.calls == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
async def test_the_node_itself_never_calls_loopback(payee: FakePayee, address: str) -> None:
    payee.addresses["pay.example"] = [address]
    async with OutsideHttp(resolver=payee) as http:
        with pytest.raises(ForbiddenTarget):
            await http.get(URL)


@pytest.mark.parametrize(
    "url",
    ["http://pay.example/", "ftp://pay.example/", "//pay.example/", "", "https://",
     "https://pay.example:8443/", "https://pay.example:22/", "https://pay.example:80/",
     "https://u:p@pay.example/", "https://pay.example@10.0.0.1/", "https://pay.example\\@x.example/",
     "https://pay.example/#f", "https://pay.example/a/../b", "https://pay.example/%2e%2e/b",
     "https://pay.example//x", "https://pay.example/?a b", "https://pay.example/?a\r\nHost: x",
     "https://pay.example/?" + "a" * 2_049, "https://pay.example/?ä", "https://localhost/",
     "https://intranet/", "https://127.1/", "https://0177.0.0.1/", "https://[fe80::1%25eth0]/",
     "https://pay.example./"],
)  # fmt: skip
async def test_urls_that_are_never_called(payee: FakePayee, http: OutsideHttp, url: str) -> None:
    with pytest.raises(ForbiddenTarget):
        await http.get(url)
    assert payee.asked == []


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/", "https://169.254.169.254/x", "https://[::ffff:7f00:1]/"]
)
async def test_an_address_in_the_url_is_judged_as_well(
    payee: FakePayee, http: OutsideHttp, url: str
) -> None:
    with pytest.raises(ForbiddenTarget):
        await http.get(url)
    assert payee.asked == []


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://Pay.Example", "pay.example", "/"),
        ("https://pay.example:443/a/?b=/c&d=%20", "pay.example", "/a/?b=/c&d=%20"),
        ("https://pay.example/a", "pay.example", "/a"),
        ("https://bücher.example/?x", "xn--bcher-kva.example", "/?x"),
        ("https://[2606:4700::1]/", "[2606:4700::1]", "/"),
    ],
)
def test_a_url_keeps_its_path_and_query(url: str, host: str, path: str) -> None:
    target = parse_target(url)
    assert (target.host, target.path) == (host, path)


async def test_each_call_resolves_once_and_stands_alone(
    payee: FakePayee, http: OutsideHttp
) -> None:
    assert (await http.get(URL)).status == 200
    payee.addresses["pay.example"] = ["10.0.0.1"]  # the name changes its mind
    with pytest.raises(ForbiddenTarget):
        await http.get(URL)
    assert payee.asked == ["pay.example"] * 2
    assert len(payee.calls) == 1


async def test_another_name_at_the_same_address_has_to_prove_itself(
    payee: FakePayee, http: OutsideHttp
) -> None:
    await http.get(URL)
    with pytest.raises(OutsideFailure, match="connect"):
        await http.get("https://stranger.example/")  # the certificate is not for it
    assert (await http.get("https://cdn.example/.well-known/lnurlp/alice")).status == 200
    assert [call.host for call in payee.calls] == ["pay.example", "cdn.example"]
    peers = [call.transport.get_extra_info("peername") for call in payee.calls if call.transport]
    assert len(peers) == len(set(peers))


async def test_a_certificate_nobody_signed_is_refused() -> None:
    async with (
        FakePayee(tls=self_signed("127.0.0.1")) as payee,
        OutsideHttp(resolver=payee, loopback_server=payee.server) as http,
    ):
        with pytest.raises(OutsideFailure, match="connect"):
            await http.get(URL)
        assert payee.calls == []


async def test_the_test_authority_is_needed(payee: FakePayee) -> None:
    async with FakePayee() as other:
        wrong = LoopbackServer(port=payee.server.port, ca_pem=other.server.ca_pem)
        async with OutsideHttp(resolver=payee, loopback_server=wrong) as http:
            with pytest.raises(OutsideFailure, match="connect"):
                await http.get(URL)


async def test_the_next_address_is_tried_but_not_for_ever(
    payee: FakePayee, http: OutsideHttp
) -> None:
    # Nobody listens there on IPv6.
    payee.addresses["pay.example"] = ["::1", "127.0.0.1"]
    assert (await http.get(URL)).status == 200
    payee.addresses["pay.example"] = [*["::1"] * ADDRESSES_TRIED_MAX, "127.0.0.1"]
    with pytest.raises(OutsideFailure, match="connect"):
        await http.get(URL)


async def test_ipv6_is_called_as_well() -> None:
    async with (
        FakePayee(host="::1") as payee,
        OutsideHttp(resolver=payee, loopback_server=payee.server) as http,
    ):
        assert (await http.get(URL)).status == 200
        assert payee.calls[0].host == "pay.example"


async def test_no_environment_proxy_is_used(
    payee: FakePayee, http: OutsideHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with OutsideHttp(resolver=payee, loopback_server=payee.server) as fresh:
        assert (await fresh.get(URL)).status == 200


async def test_a_name_that_does_not_resolve(payee: FakePayee, http: OutsideHttp) -> None:
    payee.addresses["pay.example"] = []
    with pytest.raises(OutsideFailure, match="resolve"):
        await http.get(URL)


async def test_the_systems_resolver_gives_each_address_once() -> None:
    resolver = SystemResolver()
    assert await resolver.resolve("127.0.0.1") == ("127.0.0.1",)
    assert set(await resolver.resolve("localhost")) <= {"127.0.0.1", "::1"}
    resolver.close()


async def test_waiting_for_a_place_is_part_of_the_time(payee: FakePayee) -> None:
    payee.answers["/slow"] = asyncio.Event()
    async with OutsideHttp(resolver=payee, loopback_server=payee.server, total_s=0.3) as http:
        asked = [http.get("https://pay.example/slow") for _ in range(20)]
        ended = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in ended} == {OutsideFailure}
    assert len(payee.calls) <= 8
