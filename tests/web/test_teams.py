"""Keys for teams over HTTP: what each endpoint says, and who may do what."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint
from tests.harness.desk import Customer, Desk, open_desk
from tests.ledger.node import reserve, settle


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint(units=("sat", "msat")) as mint:
        yield mint


@pytest.fixture
async def desk(sqlite_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(sqlite_url, mint, tmp_path / "data") as desk:
        yield desk


async def child_of(parent: Customer, **terms: Any) -> Customer:
    answer = await parent.post("/child-key", terms)
    assert answer.status_code == 200, answer.text
    return Customer(desk=parent.desk, token="", key=answer.json()["api_keys"][0])


async def info(customer: Customer) -> dict[str, Any]:
    answer = await customer.get("/info")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_team_on_either_engine(database_url: str, mint: FakeMint, tmp_path: Path) -> None:
    async with open_desk(database_url, mint, tmp_path / "data", child_key_cost_msats=1500) as desk:
        parent = await desk.create(21)
        given = {"count": 2, "balance_limit": 5000, "allowed_models": ["demo/small"]}
        made = await parent.post("/child-key", given, repeat="a")
        assert made.status_code == 200, made.text
        told = made.json()
        assert (told["count"], told["cost_msats"], told["cost_sats"]) == (2, 3000, 3)
        assert (told["parent_balance"], told["parent_balance_sats"]) == (18_000, 18)
        assert made.headers["cache-control"] == "no-store"
        again = await parent.post("/child-key", given, repeat="a")
        assert again.json() == told
        assert again.headers["idempotent-replayed"] == "true"
        other = await parent.post("/child-key", {**given, "count": 1}, repeat="a")
        assert refused(other) == (422, "idempotency_mismatch")
        child = Customer(desk=desk, token="", key=told["api_keys"][1])
        assert (await child.get("/info")).status_code == 200
        late = await parent.post("/child-key", given, repeat="a")
        assert refused(late) == (410, "answer_gone")
        assert child.key not in late.text
        short = await parent.post("/child-key", {"count": 50})
        assert refused(short) == (402, "insufficient_balance")
        assert len((await info(parent))["child_keys"]) == 2


async def test_info_of_parent_and_child(desk: Desk) -> None:
    parent = await desk.create(21)
    child = await child_of(parent, balance_limit=5000, balance_limit_reset="weekly")
    told, above = await info(child), await info(parent)
    assert (told["is_child"], told["balance"], told["reserved"]) == (True, 5000, 0)
    assert told["parent_key_preview"] == f"{parent.key[:7]}...{parent.key[-4:]}"
    assert "child_keys" not in told
    [seen] = above["child_keys"]
    assert seen["api_key"] == f"{child.key[:7]}...{child.key[-4:]}"
    assert seen["key_id"] == told["key_id"]
    assert (seen["balance_limit"], seen["balance_limit_remaining"]) == (5000, 5000)
    assert (above["balance"], above["is_child"]) == (21_000, False)
    assert (await child.get("/transactions")).json()["transactions"] == []


async def test_a_parent_sees_which_child_has_spent(desk: Desk) -> None:
    parent = await desk.create(21)
    child = await child_of(parent, balance_limit=5000)
    ids = [KeyRef(id=(await info(each))["key_id"]) for each in (parent, child)]
    hold_id = f"req_{'7' * 32}"
    await desk.ctx.ledger.submit(reserve(hold_id, ids[1], 800))
    assert ((await info(child))["reserved"], (await info(parent))["balance"]) == (800, 20_200)
    await desk.ctx.ledger.submit(settle(hold_id, ids[0], 700, spender_id=ids[1].id))
    [row, deposit] = (await parent.get("/transactions")).json()["transactions"]
    assert (row["amount_msats"], row["spender_key_id"]) == (-700, ids[1].id)
    assert "spender_key_id" not in deposit
    [seen] = (await info(parent))["child_keys"]
    told = await info(child)
    for each in (seen, told):
        assert (each["total_spent"], each["total_requests"]) == (700, 1)
        assert each["balance_limit_remaining"] == 4300
    assert told["balance"] == 4300
    assert (await parent.post("/child-key/reset", {"key_id": ids[1].id})).status_code == 200
    assert (await child.balance(), (await info(child))["total_spent"]) == (5000, 700)


async def test_a_child_is_bound_as_it_was_made(desk: Desk) -> None:
    parent = await desk.create(21)
    for wrong, code in (
        ({"count": 0}, "invalid_parameter"),
        ({"count": 51}, "invalid_parameter"),
        ({"allowed_models": ["nobody/sells-it"]}, "invalid_model"),
        ({"requests_per_minute": 0}, "invalid_parameter"),
        ({"validity_date": 1}, "invalid_parameter"),
    ):
        assert refused(await parent.post("/child-key", wrong)) == (400, code)
    child = await child_of(parent, allowed_models=["demo/small"], concurrent_max=3)
    told = await info(child)
    assert (told["allowed_models"], told["concurrent_max"]) == (["demo/small"], 3)


async def test_what_a_child_brings_is_its_parents(desk: Desk) -> None:
    parent = await desk.create(21)
    child, other = await child_of(parent, balance_limit=4000), await child_of(parent)
    token = desk.mint.issue(9)
    first = await child.post("/topup", {"cashu_token": token}, repeat="same")
    assert first.json() == {"msats": 9000, "balance": 4000}
    again = await child.post("/topup", {"cashu_token": token}, repeat="same")
    assert again.json() == first.json()
    by_other = await other.post("/topup", {"cashu_token": desk.mint.issue(2)}, repeat="same")
    assert by_other.json() == {"msats": 2000, "balance": 32_000}
    assert await parent.balance() == 32_000
    for body in ({}, {"amount_sats": 1}, {"lightning_address": "me@example.com"}):
        answer = await child.post("/refund", body)
        assert refused(answer) == (400, "child_key")
        assert answer.json()["detail"] == (
            "Cannot refund child key. Please refund the parent key instead."
        )
    assert (await parent.post("/refund")).status_code == 200


async def test_a_child_counts_anew_and_ends_when_its_parent_says(desk: Desk) -> None:
    parent = await desk.create(21)
    child, other = await child_of(parent), await child_of(parent)
    by_id = {"key_id": (await info(other))["key_id"]}
    for named in ({"child_key": child.key}, by_id):
        answer = await parent.post("/child-key/reset", named)
        assert answer.json()["success"] is True
        answer = await parent.post("/revoke", named)
        assert answer.json()["success"] is True
    for each in (child, other):
        assert refused(await each.get("/info")) == (403, "key_revoked")
    assert (await info(parent))["child_keys"] == []
    assert refused(await parent.post("/revoke")) == (400, "key_not_empty")
    misspelt = await parent.post("/revoke", {"childkey": child.key})
    assert refused(misspelt) == (400, "invalid_parameter")
    empty = await desk.create(2)
    orphan = await child_of(empty)
    moved = await empty.post(
        "/transfer", {"to": parent.key, "amount_msats": 2000}, repeat="all of it"
    )
    assert moved.json()["balance"] == 0
    assert (await empty.post("/revoke")).status_code == 200
    for each in (empty, orphan):
        assert refused(await each.get("/info")) == (403, "key_revoked")


async def test_a_transfer(desk: Desk) -> None:
    payer, payee = await desk.create(21), await desk.create(2)
    key_id = (await info(payee))["key_id"]
    given = {"to": key_id, "amount_msats": 3001}
    assert refused(await payer.post("/transfer", given)) == (400, "invalid_parameter")
    first = await payer.post("/transfer", given, repeat="t")
    assert first.status_code == 200, first.text
    assert (first.json()["amount_msats"], first.json()["balance"]) == (3001, 17_999)
    assert "idempotent-replayed" not in first.headers
    again = await payer.post("/transfer", given, repeat="t")
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await payer.post("/transfer", {**given, "amount_msats": 1}, repeat="t")
    assert refused(other) == (422, "idempotency_mismatch")
    assert (await payer.balance(), await payee.balance()) == (17_999, 5001)
    for wrong, status, code in (
        ({"to": "me", "amount_msats": 1}, 400, "invalid_parameter"),
        ({"to": f"sk-{'0' * 64}", "amount_msats": 1}, 404, "not_found"),
        ({"to": OWNER_KEY_ID, "amount_msats": 1}, 404, "not_found"),
        ({"to": f"key_{'1' * 32}", "amount_msats": 1}, 404, "not_found"),
        ({"to": payer.key, "amount_msats": 1}, 400, "invalid_parameter"),
        ({"to": key_id, "amount_msats": 0}, 400, "invalid_parameter"),
        ({"to": key_id, "amount_msats": 17_999_000}, 402, "insufficient_balance"),
    ):
        assert refused(await payer.post("/transfer", wrong, repeat="w")) == (status, code)
    async with desk.ctx.database.writer.begin() as connection:  # as if a token paid for a request
        await connection.execute(text("UPDATE deposit SET source = 'x-cashu'"))
    assert refused(await payer.post("/transfer", given, repeat="x")) == (404, "not_found")
    child = await child_of(payee)
    to_child = await payer.post("/transfer", {"to": child.key, "amount_msats": 1}, repeat="c")
    assert refused(to_child) == (400, "child_key")


async def test_a_donation_is_the_operators(desk: Desk) -> None:
    token = desk.mint.issue(7)
    for _ in range(2):
        answer = await desk.http.post("/v1/wallet/donate", params={"token": token, "ref": "x"})
        assert (answer.status_code, answer.json()) == (200, "Thanks!")
    row = await desk.http.post("/v1/balance/donate", params={"token": "cashuBnonsense"})
    assert refused(row) == (400, "invalid_cashu_token")
    stranger = await desk.create(2)
    spent = await desk.http.post("/v1/balance/donate", params={"token": stranger.token})
    assert refused(spent) == (400, "cashu_token_already_spent")


async def test_a_key_looks_at_itself(desk: Desk) -> None:
    parent = await desk.create(21)
    child = await child_of(parent, balance_limit=5000, requests_per_minute=7)
    answer = await desk.http.get("/v1/key", headers=parent.headers)
    told = answer.json()["data"]
    assert (told["usage"], told["limit"], told["limit_remaining"]) == (0, 0.021, 0.021)
    assert (told["limit_remaining_msats"], told["is_free_tier"]) == (21_000, False)
    assert told["rate_limit"] == {"requests": -1, "interval": "60s"}
    assert parent.key not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    told = (await desk.http.get("/v1/key", headers=child.headers)).json()["data"]
    assert (told["limit_msats"], told["is_child"]) == (5000, True)
    assert told["rate_limit"]["requests"] == 7
    assert refused(await desk.http.get("/v1/key")) == (401, "missing_api_key")


async def test_who_may_do_what(desk: Desk) -> None:
    """I-24: each cell is the code that somebody gets who names the parent's child."""
    parent, stranger = await desk.create(21), await desk.create(21)
    child, target = await child_of(parent), await child_of(parent)
    somebody = Customer(desk=desk, token="", key=f"sk-{'1' * 64}")
    named, to = {"child_key": target.key}, (await info(parent))["key_id"]
    table: dict[tuple[str, str], tuple[object, tuple[str, str, str]]] = {
        # (method, path): body, and what the child, a stranger's key and no key get
        ("POST", "/child-key"): ({}, ("child_key", "", "invalid_api_key")),
        ("POST", "/child-key/reset"): (named, ("child_key", "not_found", "invalid_api_key")),
        ("POST", "/revoke"): (named, ("child_key", "not_found", "invalid_api_key")),
        ("POST", "/transfer"): (
            {"to": to, "amount_msats": 1},
            ("child_key", "", "invalid_api_key"),
        ),
        ("POST", "/refund"): ({"amount_sats": 1}, ("child_key", "", "key_not_found")),
        ("POST", "/refund/quote"): (
            {"lightning_address": "a@b.example", "amount_sats": 1},
            ("child_key", "", "key_not_found"),
        ),
        ("GET", "/refund/wd_1"): (None, ("refund_not_found", "refund_not_found", "key_not_found")),
        ("GET", "/info"): (None, ("", "", "invalid_api_key")),
        ("GET", "/history"): (None, ("", "", "invalid_api_key")),
        ("GET", "/transactions"): (None, ("", "", "invalid_api_key")),
        ("GET", "/v1/key"): (None, ("", "", "invalid_api_key")),
        ("GET", f"/v1/receipts/req_{'1' * 32}"): (
            None,
            ("receipt_not_found", "receipt_not_found", "receipt_not_found"),
        ),
    }
    before = await parent.balance()
    for (method, path), (body, expected) in table.items():
        for caller, code in zip((child, stranger, somebody), expected, strict=True):
            if path == "/refund/quote" and not code:
                continue  # an address is asked for over the network
            headers = {**caller.headers, "idempotency-key": f"{path} {caller.key[-4:]}"}
            url = path if path.startswith("/v1") else f"/v1/balance{path}"
            answer = await desk.http.request(method, url, headers=headers, json=body)
            got = "" if answer.status_code == 200 else answer.json()["error"]["code"]
            assert (method, path, got) == (method, path, code)
            assert target.key not in answer.text
            assert parent.key not in answer.text
    assert await parent.balance() == before + 1  # the stranger's transfer
    assert (await target.get("/info")).status_code == 200
