"""The fault proxy by itself: each fault as its client and a model mint behind it see it."""

from collections.abc import AsyncIterator

import httpx
import pytest

from routstr.ecash.bdhke import y_of
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from tests.fakes.mint import FakeMint
from tests.faults.proxy import Fault, FaultProxy

STATES = "POST /v1/checkstate"
PATIENCE_S = 10  # for what must be answered, on a machine that has much to do


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def proxy(mint: FakeMint) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(mint.url, seed=1) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[httpx.AsyncClient]:
    timeout = httpx.Timeout(10, read=0.3)
    async with httpx.AsyncClient(base_url=proxy.url, timeout=timeout, trust_env=False) as client:
        yield client


def question(mint: FakeMint) -> dict[str, list[str]]:
    proofs = decode_token(mint.issue(1), bytes_max=BODY_BYTES_MAX).proofs
    return {"Ys": [y_of(proof.secret) for proof in proofs]}


# What the client meets, and how often the mint was asked.
BROKEN = {
    Fault.REFUSE: (httpx.TransportError, 0),
    Fault.DROP: (httpx.RemoteProtocolError, 0),
    Fault.PROCESSED_THEN_LOST: (httpx.RemoteProtocolError, 1),
    Fault.TRUNCATE: (httpx.RemoteProtocolError, 1),
    Fault.STALL: (httpx.ReadTimeout, 1),
    Fault.RESET: (httpx.ReadError, 1),
    Fault.LATE: (httpx.ReadTimeout, 0),
}
ANSWERED = {
    Fault.DELAY: (200, 1),
    Fault.DUPLICATE: (200, 2),
    Fault.ERROR_BEFORE: (500, 0),
    Fault.ERROR_AFTER: (500, 1),
    Fault.SLICES: (200, 1),
    Fault.LIMITED: (429, 0),
    Fault.STATUS_HTML: (502, 0),
    Fault.CORRUPT: (200, 1),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_call_that_is_broken(
    mint: FakeMint, proxy: FaultProxy, client: httpx.AsyncClient, fault: Fault
) -> None:
    error, asked = BROKEN[fault]
    body = question(mint)
    rule = proxy.inject(STATES, fault, times=1)
    with pytest.raises(error):
        await client.post("/v1/checkstate", json=body)
    assert len(mint.calls) == asked
    healed = await client.post("/v1/checkstate", json=body, timeout=PATIENCE_S)
    assert healed.status_code == 200
    assert rule.injected == 1
    assert proxy.counts == {STATES: 2}
    assert [seen.fault for seen in proxy.calls] == [fault, None]


@pytest.mark.parametrize("fault", ANSWERED)
async def test_a_call_that_is_answered(
    mint: FakeMint, proxy: FaultProxy, client: httpx.AsyncClient, fault: Fault
) -> None:
    status, asked = ANSWERED[fault]
    body = question(mint)
    proxy.inject(STATES, fault)
    answer = await client.post("/v1/checkstate", json=body, timeout=PATIENCE_S)
    assert (answer.status_code, len(mint.calls)) == (status, asked)
    if fault is Fault.LIMITED:
        assert answer.headers["retry-after"] == "30"
    proxy.heal()
    healed = await client.post("/v1/checkstate", json=body, timeout=PATIENCE_S)
    assert healed.json()["states"][0]["state"] == "UNSPENT"
    is_true = answer.content == healed.content
    assert is_true == (status == 200 and fault is not Fault.CORRUPT)


async def test_a_late_call_arrives_when_all_is_healed(
    mint: FakeMint, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject(STATES, Fault.LATE)
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v1/checkstate", json=question(mint))
    assert mint.calls == []
    proxy.heal()
    await proxy.quiet()
    assert [call.path for call in mint.calls] == ["/v1/checkstate"]


async def test_the_first_rule_that_fits_takes_the_call(
    proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    once = proxy.inject("GET /v1/keys/*", Fault.ERROR_BEFORE, times=1)
    always = proxy.inject("GET *", Fault.STATUS_HTML)
    paths = ["/v1/keysets", "/v1/keys/00aa", "/v1/keys/00aa"]
    assert [(await client.get(path)).status_code for path in paths] == [502, 500, 502]
    assert (once.injected, always.injected) == (1, 2)
    assert proxy.counts == {"GET /v1/keysets": 1, "GET /v1/keys/*": 2}


async def test_a_proof_sent_in_two_bodies_is_told(
    proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    """The bodies themselves are not kept."""
    body = {"inputs": [{"secret": "a"}, {"secret": "b"}], "outputs": ["x"]}
    for _ in range(2):
        await client.post("/v1/swap", json=body)
        assert proxy.resent_otherwise() == set()
    await client.post("/v1/swap", json={"inputs": [{"secret": "b"}], "outputs": ["x"]})
    assert proxy.resent_otherwise() == {"POST /v1/swap"}
    assert proxy.resent_otherwise(since=2) == set()
    assert "secret" not in repr(proxy.calls)


async def test_it_calls_from_the_address_it_is_given(mint: FakeMint) -> None:
    async with (
        FaultProxy(mint.url, outgoing_host="127.0.0.2") as proxy,
        httpx.AsyncClient(base_url=proxy.url, trust_env=False) as client,
    ):
        assert (await client.get("/v1/keysets")).status_code == 200
