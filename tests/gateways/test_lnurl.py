"""Lightning addresses, against a real TLS server: who is asked, and what is believed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from routstr.core.bolt11 import decode_invoice
from routstr.errors import InvalidLightningAddress, LightningAddressUnreachable
from routstr.gateways.addresses import OutsideHttp
from routstr.gateways.lnurl import LnurlClient, PayParams
from tests.fakes.invoices import invoice
from tests.fakes.payee import METADATA_HASH, FakePayee, reply

ALICE = "alice@pay.example"
PATH = "/.well-known/lnurlp/alice"


@pytest.fixture
async def payee() -> AsyncIterator[FakePayee]:
    async with FakePayee() as server:
        yield server


@pytest.fixture
async def lnurl(payee: FakePayee) -> AsyncIterator[LnurlClient]:
    async with OutsideHttp(resolver=payee, loopback_server=payee.server) as http:
        yield LnurlClient(http)


async def test_an_address_gives_an_invoice_over_the_amount(
    payee: FakePayee, lnurl: LnurlClient
) -> None:
    params = await lnurl.resolve(" Alice@Pay.Example ")
    assert (params.min_msat, params.max_msat) == (1_000, 100_000_000)
    read = decode_invoice(await lnurl.invoice(params, 21_000))
    assert (read.amount_msat, read.description_hash) == (21_000, METADATA_HASH.hex())
    first, second = payee.calls
    assert (first.path, first.host) == (PATH, "pay.example")
    assert second.path_qs == "/pay/?user=alice&amount=21000"
    assert "cookie" not in second.headers


@pytest.mark.parametrize(
    "address",
    ["", "alice", "@pay.example", "alice@", "al ice@pay.example", "../x@pay.example",
     "..@pay.example", ".@pay.example", "a/b@pay.example", "alice@pay.example/x",
     "älice@pay.example",
     "alice@pay.example:443", "alice@pay.example?x", "alice@pay.example#x", "a@b@pay.example",
     "alice@\\pay.example", "alice@[::1]", f"{'a' * 65}@pay.example", f"alice@{'a' * 320}.example",
     "alice@pay..example", "alice@localhost", "alice@127.1", "alice@0x7f000001", "alice@2130706433",
     "alice@10.0.0.1", "alice@169.254.169.254", "alice%@pay.example", "a\n@pay.example"],
)  # fmt: skip
async def test_what_is_no_address_is_not_asked(
    payee: FakePayee, lnurl: LnurlClient, address: str
) -> None:
    with pytest.raises(InvalidLightningAddress) as caught:
        await lnurl.resolve(address)
    assert (caught.value.status, caught.value.param) == (400, "lightning_address")
    assert (payee.calls, payee.asked) == ([], [])


@pytest.mark.parametrize(
    "answer",
    [
        reply({"status": "ERROR", "reason": "birdsong"}),
        reply({"status": "ERROR", "reason": "birdsong"}, status=403),
        reply({}, status=404),
        web.Response(status=404, text="<html>"),
    ],
)
async def test_an_address_its_domain_does_not_know(
    payee: FakePayee, lnurl: LnurlClient, answer: web.Response
) -> None:
    payee.answers[PATH] = answer
    with pytest.raises(InvalidLightningAddress) as caught:
        await lnurl.resolve(ALICE)
    assert "birdsong" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [("tag", "withdrawRequest"), ("tag", None), ("callback", None), ("callback", 1),
     ("callback", "http://pay.example/pay"), ("callback", "https://pay.example:8443/pay"),
     ("callback", "https://localhost/pay"), ("callback", "https://u@pay.example/"),
     ("callback", "file:///etc/passwd"), ("callback", "https://pay.example/#x"),
     ("callback", "https://pay.example/?a\r\nb"),
     ("callback", "https://pay.example/" + "a" * 2_048),
     ("minSendable", 0), ("minSendable", -1), ("minSendable", True), ("minSendable", "1000"),
     ("minSendable", 1000.0), ("minSendable", 100_000_001), ("maxSendable", None),
     ("maxSendable", 999), ("metadata", None), ("metadata", [])],
)  # fmt: skip
async def test_an_odd_pay_request_is_not_used(
    payee: FakePayee, lnurl: LnurlClient, name: str, value: object
) -> None:
    payee.pay_answer = {name: value}
    with pytest.raises(LightningAddressUnreachable) as caught:
        await lnurl.resolve(ALICE)
    assert (caught.value.status, caught.value.code) == (503, "not_ready")
    assert caught.value.retry_after_s is not None
    assert len(payee.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=302, headers={"Location": "https://pay.example/elsewhere"}),
        web.Response(status=500),
        web.Response(status=500, text='{"status": "ERROR"}'),
        web.Response(body=b"[]"),
        web.Response(body=b"{"),
        web.Response(body=b"{}", headers={"Content-Encoding": "gzip"}),
        web.Response(body=b'{"x": "' + b"x" * 262_144 + b'"}'),
    ],
)
async def test_an_unusable_answer_is_not_followed(
    payee: FakePayee, lnurl: LnurlClient, answer: web.Response
) -> None:
    payee.answers[PATH] = answer
    with pytest.raises(LightningAddressUnreachable):
        await lnurl.resolve(ALICE)
    assert len(payee.calls) == 1


async def test_an_amount_out_of_range_is_not_asked_for(
    payee: FakePayee, lnurl: LnurlClient
) -> None:
    params = await lnurl.resolve(ALICE)
    for amount_msat in (999, 100_000_001):
        with pytest.raises(InvalidLightningAddress) as caught:
            await lnurl.invoice(params, amount_msat)
        assert caught.value.details == {"min_msat": 1_000, "max_msat": 100_000_000}
    assert len(payee.calls) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"pr": None},
        {"pr": "lnbc1nonsense"},
        {"pr": invoice(21_001)},
        {"pr": invoice(20_999)},
        {"pr": invoice(None)},
        {"pr": invoice(21_000, description=b"\x07" * 32)},
    ],
)
async def test_another_invoice_than_asked_for_is_not_paid(
    payee: FakePayee, lnurl: LnurlClient, answer: dict[str, object]
) -> None:
    params = await lnurl.resolve(ALICE)
    payee.invoice_answer = answer
    with pytest.raises(LightningAddressUnreachable) as caught:
        await lnurl.invoice(params, 21_000)
    assert "lnbc" not in caught.value.message


async def test_an_invoice_may_describe_itself(payee: FakePayee, lnurl: LnurlClient) -> None:
    params = await lnurl.resolve(ALICE)
    payee.invoice_answer = {"pr": invoice(21_000, description="tea")}
    assert decode_invoice(await lnurl.invoice(params, 21_000)).description == "tea"


async def test_a_callback_takes_the_guarded_way_too(payee: FakePayee, lnurl: LnurlClient) -> None:
    payee.pay_answer = {"callback": "https://inside.example/pay"}
    payee.addresses["inside.example"] = ["10.0.0.7"]
    params = await lnurl.resolve(ALICE)
    with pytest.raises(InvalidLightningAddress):
        await lnurl.invoice(params, 21_000)
    assert payee.asked == ["pay.example", "inside.example"]
    assert len(payee.calls) == 1


async def test_a_silent_server_is_left_in_time(payee: FakePayee) -> None:
    payee.answers[PATH] = asyncio.Event()
    async with OutsideHttp(resolver=payee, loopback_server=payee.server, total_s=0.2) as http:
        with pytest.raises(LightningAddressUnreachable):
            await LnurlClient(http).resolve(ALICE)


def test_no_repr_holds_a_callback() -> None:
    params = PayParams(min_msat=1, max_msat=2, callback="https://birdsong", metadata_hash="song")
    assert "song" not in repr(params)
