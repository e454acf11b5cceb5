"""`/v1/balance/*` as a client sees it: names and types, repeats, and whose rows are whose."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.mint import FakeMint, Trouble
from tests.harness.desk import Customer, Desk, open_desk
from tests.harness.till import worth, ys_of


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint(units=("sat", "msat")) as mint:
        yield mint


@pytest.fixture
async def desk(sqlite_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(sqlite_url, mint, tmp_path / "data", resume_every_s=0.1) as desk:
        yield desk


async def test_a_whole_life_on_either_engine(
    database_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    async with open_desk(database_url, mint, tmp_path / "data") as desk:
        customer = await desk.create(21)
        topped = await customer.post("/topup", {"cashu_token": mint.issue(9)})
        assert topped.json() == {"msats": 9_000, "balance": 30_000}
        part = await customer.post("/refund", {"amount_sats": 5})
        rest = await customer.post("/refund")
        assert (worth(part.json()["token"]), worth(rest.json()["token"])) == (5, 25)
        assert await customer.balance() == 0


# ── create ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("root", ["/v1/balance", "/v1/wallet"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_create(desk: Desk, root: str, method: str) -> None:
    given = {"initial_balance_token": desk.mint.issue(21)}
    place = "params" if method == "GET" else "json"
    options: dict[str, Any] = {place: given}
    answer = await desk.http.request(method, f"{root}/create", **options)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"api_key", "balance", "key_id"}
    assert body["balance"] == 21_000
    assert body["api_key"].startswith("sk-")
    assert len(body["api_key"]) == 67
    assert answer.headers["cache-control"] == "no-store"


async def test_create_with_terms(desk: Desk) -> None:
    date = int(desk.ctx.clock.now().timestamp()) + 1_000
    terms: dict[str, Any] = {
        "balance_limit": 5_000,
        "balance_limit_reset": "weekly",
        "validity_date": date,
    }
    customer = await desk.create(21, **terms)
    info = (await customer.get("/info")).json()
    assert {name: info[name] for name in terms} == terms
    by_query = await desk.http.get(
        "/v1/balance/create", params={"initial_balance_token": desk.mint.issue(2), **terms}
    )
    assert by_query.status_code == 200, by_query.text


async def test_a_repeated_create(desk: Desk) -> None:
    given = {"initial_balance_token": desk.mint.issue(21)}
    url, repeat = "/v1/balance/create", {"idempotency-key": "a"}
    first = await desk.http.post(url, json=given, headers=repeat)
    again = await desk.http.post(url, json=given, headers=repeat)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    other = await desk.http.post(url, json={**given, "balance_limit": 1}, headers=repeat)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    without = await desk.http.post(url, json=given)
    assert (without.status_code, without.json()["error"]["type"]) == (400, "token_already_spent")
    assert without.json()["detail"] == {"error": without.json()["error"]}


@pytest.mark.parametrize("key", ["", "x" * 256, "\x7f"])
async def test_an_unusable_idempotency_key(desk: Desk, key: str) -> None:
    token = desk.mint.issue(21)
    answer = await desk.http.post(
        "/v1/balance/create",
        json={"initial_balance_token": token},
        headers={"idempotency-key": key},
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert set(desk.mint.state_of(ys_of(token)).values()) == {"UNSPENT"}


# ── info ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1/balance", "/v1/balance/", "/v1/balance/info", "/v1/wallet/"])
async def test_info(desk: Desk, path: str) -> None:
    customer = await desk.create(21)
    answer = await desk.http.get(path, headers=customer.headers)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    key_id = body.pop("key_id")
    assert key_id.startswith("key_")
    assert len(key_id) == 36
    assert body == {
        "api_key": customer.key,
        "balance": 21_000,
        "reserved": 0,
        "is_child": False,
        "total_requests": 0,
        "total_spent": 0,
        "balance_limit": None,
        "balance_limit_reset": None,
        "validity_date": None,
        "child_keys": [],
    }


async def test_info_opens_an_account_and_shows_its_key_until_it_is_used(desk: Desk) -> None:
    token = desk.mint.issue(21)
    by_token = {"x-api-key": token}
    first = await desk.http.get("/v1/balance/info", headers=by_token)
    assert first.json()["api_key"].startswith("sk-")
    again = await desk.http.get("/v1/balance/info", headers=by_token)
    assert again.json() == first.json()
    customer = Customer(desk=desk, token=token, key=first.json()["api_key"])
    assert await customer.balance() == 21_000
    after = await desk.http.get("/v1/balance/info", headers=by_token)
    assert after.json()["api_key"] == token


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/topup", "invalid_api_key"),
        ("POST", "/refund", "key_not_found"),
        ("GET", "/refund/rfd_a", "key_not_found"),
        ("GET", "/history", "invalid_api_key"),
        ("GET", "/transactions", "invalid_api_key"),
    ],
)
async def test_elsewhere_a_token_never_seen_is_nobodys_and_stays_whole(
    desk: Desk, method: str, path: str, code: str
) -> None:
    token = desk.mint.issue(21)
    body = {"cashu_token": desk.mint.issue(1)} if path == "/topup" else None
    answer = await desk.http.request(
        method, f"/v1/balance{path}", headers={"authorization": f"Bearer {token}"}, json=body
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer.json()["error"]["message"] == "Key not found"
    assert set(desk.mint.state_of(ys_of(token)).values()) == {"UNSPENT"}


@pytest.mark.parametrize("path", ["/info", "/history", "/transactions", "/refund/rfd_a"])
async def test_without_a_key(desk: Desk, path: str) -> None:
    answer = await desk.http.get(f"/v1/balance{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")
    nobody = await desk.http.get(
        f"/v1/balance{path}", headers={"authorization": f"Bearer sk-{'0' * 64}"}
    )
    assert nobody.status_code == 401
    assert nobody.json()["error"]["message"] == "Key not found"
    assert nobody.json()["detail"] == {"error": nobody.json()["error"]}


# ── topup ─────────────────────────────────────────────────────────────────────────────────────


async def test_topup_by_json_and_by_query(desk: Desk) -> None:
    customer = await desk.create(1)
    by_json = await customer.post("/topup", {"cashu_token": desk.mint.issue(2)})
    assert by_json.json() == {"msats": 2_000, "balance": 3_000}
    by_query = await desk.http.post(
        "/v1/wallet/topup",
        params={"cashu_token": desk.mint.issue(1_500, "msat")},
        headers=customer.headers,
    )
    assert by_query.json() == {"msats": 1_500, "balance": 4_500}
    nothing = await customer.post("/topup")
    assert (nothing.status_code, nothing.json()["error"]["param"]) == (400, "cashu_token")


async def test_a_repeated_topup(desk: Desk) -> None:
    customer = await desk.create(1)
    given = {"cashu_token": desk.mint.issue(21)}
    name = customer.key  # anything may be sent, and no row may show it: the audit at the end looks
    first = await customer.post("/topup", given, repeat=name)
    again = await customer.post("/topup", given, repeat=name)
    assert again.json() == first.json() == {"msats": 21_000, "balance": 22_000}
    assert again.headers["idempotent-replayed"] == "true"
    without = await customer.post("/topup", given)
    assert without.json() == first.json()
    other = await customer.post("/topup", {"cashu_token": desk.mint.issue(1)}, repeat=name)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    somebody = await desk.create(1)
    stolen = await somebody.post("/topup", given)
    assert (stolen.status_code, stolen.json()["error"]["type"]) == (400, "token_already_spent")
    assert stolen.json()["detail"] == stolen.json()["error"]["message"]  # a string, but for 401


async def test_a_topup_while_the_mint_is_away(desk: Desk) -> None:
    customer = await desk.create(1)
    token = desk.mint.issue(21)
    lost = Trouble(path="/v1/", processed=False, cut=True)
    desk.mint.trouble(lost, lost)
    away = await customer.post("/topup", {"cashu_token": token}, repeat="a")
    assert away.status_code == 503
    assert away.json()["error"]["details"]["deposit_id"].startswith("dep_")
    assert int(away.headers["retry-after"]) > 0
    assert away.headers["x-should-retry"] == "true"
    back = await customer.post("/topup", {"cashu_token": token}, repeat="a")
    assert back.json() == {"msats": 21_000, "balance": 22_000}


# ── refund ────────────────────────────────────────────────────────────────────────────────────


async def test_refund(desk: Desk) -> None:
    customer = await desk.create(21)
    answer = await customer.post("/refund", {"amount_sats": 5})
    body = answer.json()
    assert (worth(body.pop("token")), body.pop("refund_id")[:4]) == (5, "rfd_")
    assert body == {
        "sats": "5",
        "status": "completed",
        "fee_msats": 0,
        "remaining_msats": 16_000,
    }
    again = await customer.get(f"/refund/{answer.json()['refund_id']}")
    assert again.json() == answer.json()
    assert answer.headers["cache-control"] == again.headers["cache-control"] == "no-store"


async def test_a_refund_in_msats(desk: Desk) -> None:
    customer = await desk.create(1_500, "msat")
    body = (await customer.post("/refund")).json()
    assert (body["msats"], body["remaining_msats"], "sats" in body) == ("1500", 0, False)


async def test_a_repeated_refund(desk: Desk) -> None:
    customer = await desk.create(21)
    first = await customer.post("/refund", {"amount_sats": 5}, repeat="a")
    again = await customer.post("/refund", {"amount_sats": 5}, repeat="a")
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await customer.post("/refund", {"amount_sats": 6}, repeat="a")
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")
    rest = await customer.post("/refund")
    last = await customer.post("/refund")
    assert rest.json()["token"] == last.json()["token"]
    desk.mint.set_spent(ys_of(rest.json()["token"]))
    claimed = await customer.post("/refund")
    assert (claimed.status_code, claimed.json()["detail"]) == (400, "No balance to refund")


async def test_an_unknown_outcome_is_425_until_it_is_known(desk: Desk) -> None:
    customer = await desk.create(7)
    await customer.post("/refund", {"amount_sats": 1})
    desk.mint.trouble(
        Trouble(path="/v1/swap", cut=True), Trouble(path="/v1/restore", processed=False, cut=True)
    )
    pending = await customer.post("/refund", {"amount_sats": 3})
    assert (pending.status_code, pending.json()["error"]["code"]) == (425, "refund_pending")
    assert pending.headers["x-should-retry"] == "true"
    refund_id = pending.json()["error"]["details"]["refund_id"]
    async with asyncio.timeout(5):
        while (body := (await customer.get(f"/refund/{refund_id}")).json())["status"] == "pending":
            await desk.ctx.clock.sleep(0.02)
    assert (body["status"], worth(body["token"])) == ("completed", 3)
    assert await customer.balance() == 3_000


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"amount_sats": 0}, 400, "amount_sats"),
        ({"amount_sats": -1}, 400, "amount_sats"),
        ({"amount_sats": 1.5}, 400, "amount_sats"),
        ({"amount_sats": "5"}, 400, "amount_sats"),
        ({"amount_sats": True}, 400, "amount_sats"),
        ({"amount_sats": 2**64}, 400, "amount_sats"),
        ({"amount_sats": 22}, 402, None),
        ({"mint_url": "https://mint.example"}, 400, None),
        ({"lightning_address": "nobody"}, 400, "lightning_address"),
        ({"lightning_address": "a@b.c", "invoice": "lnbc1"}, 400, "invoice"),
        ({"invoice": "lnbc1"}, 400, "invoice"),
        ([], 400, "body"),
    ],
)
async def test_refunds_that_cannot_be(
    desk: Desk, body: object, status: int, param: str | None
) -> None:
    customer = await desk.create(21)
    answer = await customer.post("/refund", body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
    assert await customer.balance() == 21_000


# ── whose rows ────────────────────────────────────────────────────────────────────────────────


async def test_a_key_sees_its_own_rows_alone(desk: Desk) -> None:
    mine, other = await desk.create(21), await desk.create(4)
    refund_id = (await mine.post("/refund", {"amount_sats": 5})).json()["refund_id"]
    answer = await other.get(f"/refund/{refund_id}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "refund_not_found"
    assert answer.json()["detail"] == "Refund not found"
    assert (await other.get("/history")).json()["total"] == 1
    assert len((await other.get("/transactions")).json()["transactions"]) == 1


async def test_history(desk: Desk) -> None:
    customer = await desk.create(21)
    await customer.post("/topup", {"cashu_token": desk.mint.issue(1_500, "msat")})
    refund_id = (await customer.post("/refund", {"amount_sats": 5})).json()["refund_id"]
    body = (await customer.get("/history")).json()
    assert body["total"] == 3
    out, msats, first = body["transactions"]
    assert {name: type(value).__name__ for name, value in out.items()} == {
        "id": "str",
        "type": "str",
        "source": "str",
        "amount": "int",
        "unit": "str",
        "mint_url": "str",
        "created_at": "int",
        "status": "str",
        "collected": "bool",
        "swept": "bool",
    }
    assert (out["id"], out["type"], out["amount"], out["unit"]) == (refund_id, "out", 5, "sat")
    assert (out["collected"], first["collected"]) == (False, True)
    assert (msats["type"], msats["amount"], msats["unit"]) == ("in", 1_500, "msat")
    page = (await customer.get("/history", params={"limit": 1, "offset": 1})).json()
    assert (page["total"], page["transactions"]) == (3, [msats])


async def test_transactions_page_by_page(desk: Desk) -> None:
    customer = await desk.create(21)
    for _ in range(4):
        await customer.post("/refund", {"amount_sats": 1})
    seen: list[dict[str, object]] = []
    before: int | None = None
    while True:
        params = {"limit": 2} | ({} if before is None else {"before": before})
        body = (await customer.get("/transactions", params=params)).json()
        seen += body["transactions"]
        before = body["next_before"]
        if before is None:
            break
    assert [row["sequence"] for row in seen] == [5, 4, 3, 2, 1]
    assert [row["balance_after_msats"] for row in seen] == [17_000, 18_000, 19_000, 20_000, 21_000]
    assert {name: type(value).__name__ for name, value in seen[-1].items()} == {
        "id": "int",
        "sequence": "int",
        "type": "str",
        "amount_msats": "int",
        "balance_after_msats": "int",
        "description": "str",
        "request_id": "NoneType",
        "created_at": "int",
    }


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "offset=-1", "before=0", "before=x"]
)
async def test_impossible_pages(desk: Desk, query: str) -> None:
    customer = await desk.create(1)
    path = "/transactions" if "before" in query else "/history"
    answer = await customer.get(f"{path}?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]
