"""Payment requests onto a key: what a wallet reads, what it delivers, what it does not learn."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from routstr.ecash.request import decode_request
from routstr.ecash.token import decode_token
from tests.fakes.mint import FakeMint
from tests.harness.desk import Customer, Desk, open_desk


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def desk(sqlite_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(sqlite_url, mint, tmp_path / "data", http_url="https://node.example") as d:
        yield d


def payload(token_text: str) -> dict[str, Any]:
    """What a wallet posts (NUT-18): the proofs of a token."""
    token = decode_token(token_text, bytes_max=100_000)
    proofs = [
        {"id": each.keyset_id, "amount": each.amount, "secret": each.secret, "C": each.c}
        for each in token.proofs
    ]
    return {"id": "any", "memo": "hi", "mint": token.mint_url, "unit": token.unit, "proofs": proofs}


async def asked(customer: Customer, **body: Any) -> dict[str, Any]:
    answer = await customer.post("/request", body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def test_a_request_names_what_a_wallet_needs(desk: Desk, mint: FakeMint) -> None:
    customer = await desk.create(21)
    key_id = (await customer.get("/info")).json()["key_id"]
    made = await asked(customer, amount_sats=7)
    request = decode_request(made["payment_request"])
    assert request == decode_request(made["payment_request_bech32"])
    assert (request.amount, request.unit, request.mints) == (7, "sat", (mint.url,))
    assert request.lock is None
    [transport] = request.transports
    assert transport.kind == "post"
    assert transport.target == f"https://node.example/v1/balance/receive/{key_id}"
    assert customer.key not in str(made)
    assert decode_request((await asked(customer))["payment_request"]).amount is None


async def test_what_is_delivered_is_credited_once(desk: Desk, mint: FakeMint) -> None:
    customer = await desk.create(21)
    path = urlsplit((await asked(customer))["receive_url"]).path
    token = mint.issue(9)
    paid = await desk.http.post(path, json=payload(token))
    again = await desk.http.post(path, json=payload(token))
    assert paid.json() == again.json() == {"status": "received", "msats": 9_000}
    assert paid.headers["cache-control"] == "no-store"
    assert await customer.balance() == 30_000
    stolen = await (await desk.create(1)).post("/topup", {"cashu_token": token})
    assert stolen.json()["error"]["code"] == "cashu_token_already_spent"


async def test_a_childs_request_is_its_parents(desk: Desk, mint: FakeMint) -> None:
    customer = await desk.create(21)
    made = await customer.post("/child-key", {"count": 1})
    child = Customer(desk=desk, token="", key=made.json()["api_keys"][0])
    path = urlsplit((await asked(child))["receive_url"]).path
    assert (await desk.http.post(path, json=payload(mint.issue(9)))).status_code == 200
    assert await customer.balance() == 30_000


async def test_nobodys_key_takes_nothing(desk: Desk, mint: FakeMint) -> None:
    token = mint.issue(5)
    for key_id in (f"key_{'0' * 32}", "key_owner", "sk-1"):
        answer = await desk.http.post(f"/v1/balance/receive/{key_id}", json=payload(token))
        assert answer.status_code in {400, 404}, key_id
    spend = await (await desk.create(1)).post("/topup", {"cashu_token": token})
    assert spend.json()["msats"] == 5_000


@pytest.mark.parametrize(
    "change",
    [
        {"proofs": []},
        {"proofs": [{"id": "00", "amount": 1.5, "secret": "x", "C": "02"}]},
        {"proofs": [{}] * 101},
        {"mint": "https://elsewhere.example"},
        {"unit": "usd"},
        {"mint": None},
    ],
)
async def test_what_is_no_payment_is_refused(
    desk: Desk, mint: FakeMint, change: dict[str, Any]
) -> None:
    customer = await desk.create(21)
    path = urlsplit((await asked(customer))["receive_url"]).path
    answer = await desk.http.post(path, json=payload(mint.issue(4)) | change)
    assert answer.status_code == 400, answer.text
    assert await customer.balance() == 21_000


async def test_ecash_has_to_be_locked_only_where_no_other_is_taken(
    sqlite_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    async with open_desk(sqlite_url, mint, tmp_path / "data", p2pk_lock="require") as desk:
        customer = await desk.create(21)
        lock = decode_request((await asked(customer))["payment_request"]).lock
        assert lock is not None
        assert lock.data == desk.ctx.acceptance.current
