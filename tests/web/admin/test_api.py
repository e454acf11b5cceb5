"""The operator's API over HTTP: settings, invites, keys, lists; each behind its door."""

import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog

from routstr.log import configure
from tests.harness.funding import balance_msat
from tests.harness.house import House, open_house
from tests.harness.shop import PATH, order
from tests.harness.till import ON_SQLITE

API = "/admin/api"
LISTS = (
    "/temporary-balances",
    "/transactions",
    "/withdrawals",
    "/lightning-invoices",
    "/invites",
)


@pytest.fixture
def logged() -> Iterator[None]:
    """Lines are written as the node writes them."""
    configure("INFO", json=True, stream=io.StringIO())
    yield
    structlog.reset_defaults()


async def got(house: House, path: str, **query: Any) -> Any:
    answer = await house.admin.get(f"{API}{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@ON_SQLITE
async def test_settings_are_shown_changed_and_taken_back(database_url: str) -> None:
    async with open_house(database_url) as house:
        path = f"{API}/settings"
        shown = await got(house, "/settings")
        assert (shown["name"]["editable"], shown["database_url"]["editable"]) == (True, False)
        said = {"name": "New", "deposits": False, "secret_key": "[REDACTED]", "npub": None}
        changed = (await house.admin.patch(path, json=said)).json()
        assert (changed["name"]["value"], changed["name"]["source"]) == ("New", "changed")
        assert changed["name"]["changed_by"] == "admin"
        assert (await house.http.get("/v1/info")).json()["name"] == "New"
        for wrong in ({"secret_key": "x"}, {"keep_alive_after_s": -1}, {"nonsense": 1}):
            answer = await house.admin.patch(path, json=wrong)
            assert code_of(answer) == (400, "invalid_parameter")
            assert answer.json()["error"]["param"] == next(iter(wrong))
        address = {"payout_to": "me@example.com"}
        assert code_of(await house.admin.patch(path, json=address)) == (401, "totp_required")
        confirmed = {"x-admin-totp": await house.totp()}
        answer = await house.admin.patch(path, json=address, headers=confirmed)
        assert answer.json()["payout_to"]["value"] == "me@example.com"
        await house.admin.patch(path, json={"name": None})
        history = (await got(house, "/settings/name/history"))["history"]
        assert [each["value"] for each in history] == [None, "New"]
        assert (await got(house, "/settings"))["name"]["source"] != "changed"


@ON_SQLITE
async def test_invites_are_made_listed_and_ended(database_url: str) -> None:
    async with open_house(database_url) as house:
        made = (await house.admin.post(f"{API}/invites", json={"uses": 2, "note": "Bob"})).json()
        assert made["code"].startswith("invite-")
        listed = await got(house, "/invites", search="bob")
        assert (listed["total"], listed["invites"][0]["uses_left"]) == (1, 2)
        assert "code" not in listed["invites"][0]
        for status in (200, 200):
            ended = await house.admin.delete(f"{API}/invites/{made['id']}")
            assert ended.status_code == status
        assert code_of(await house.admin.delete(f"{API}/invites/ivt_0"))[0] == 404
        bad = await house.admin.post(f"{API}/invites", json={"uses": 2, "unknown": 1})
        assert code_of(bad) == (400, "invalid_parameter")


@ON_SQLITE
async def test_a_key_is_found_bound_and_ended(database_url: str) -> None:
    async with open_house(database_url) as house:
        key = await house.shop.key(100_000)
        await house.http.post(PATH, headers=key.headers, json=order())
        await house.shop.quiet()
        for search in (key.id, key.text):
            [line] = (await got(house, "/temporary-balances", search=search))["balances"]
            assert line["balance"] == await balance_msat(house.ctx, key)
        found = await got(house, "/temporary-balances", offset=1)
        assert (found["balances"], found["total"], found["totals"]["keys"]) == ([], 1, 1)
        assert key.text not in str(found)
        path = f"{API}/apikeys/{key.id}"
        limits = {"balance_limit": 5, "validity_date": 2**32, "allowed_models": ["a"]}
        bound = (await house.admin.patch(path, json=limits)).json()
        assert {name: bound[name] for name in limits} == limits
        assert (await house.admin.patch(path, json={"revoked": True})).json()["revoked_at"]
        refused = await house.http.post(PATH, headers=key.headers, json=order())
        assert code_of(refused) == (403, "key_revoked")
        assert code_of(await house.admin.patch(path, json={})) == (400, "invalid_parameter")
        rows = await got(house, "/transactions", search=key.id)
        assert [row["type"] for row in rows["transactions"]] == ["usage", "deposit"]
        assert rows["total"] == 2


@ON_SQLITE
async def test_every_list_refuses_what_no_page_is(database_url: str) -> None:
    async with open_house(database_url) as house:
        for path in LISTS:
            empty = await got(house, path, limit=1, offset=3)
            assert empty["total"] == 0
            for wrong in ({"limit": 0}, {"limit": 501}, {"offset": -1}, {"offset": 10**9},
                          {"limit": "x"}, {"search": "x" * 500}):  # fmt: skip
                answer = await house.admin.get(f"{API}{path}", params=wrong)
                assert code_of(answer) == (400, "invalid_parameter"), (path, wrong)
                assert answer.json()["error"]["param"] in wrong
            assert code_of(await house.http.get(f"{API}{path}")) == (403, "admin_required")


@ON_SQLITE
async def test_an_upstream_is_added_tried_changed_and_its_key_never_told(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        path, key = f"{API}/upstream-providers", "sk-theirs-0123456789"
        said: dict[str, Any] = {
            "slug": "second",
            "provider_type": "openai-compatible",
            "base_url": house.shop.upstream.base_url,
            "api_key": key,
            "provider_fee": 1.05,
        }
        assert code_of(await house.admin.post(path, json=said)) == (401, "totp_required")
        confirmed = {"x-admin-totp": await house.totp()}
        added = await house.admin.post(path, json=said, headers=confirmed)
        assert (added.status_code, added.json()["provider_fee"]) == (200, 1.05), added.text
        listed = await got(house, "/upstream-providers")
        assert listed["total"] == 2
        assert key not in str(listed)
        changed = await house.admin.patch(
            f"{path}/second", json={"api_key": "[REDACTED]", "enabled": False, "provider_fee": 1}
        )
        assert (changed.json()["enabled"], changed.json()["provider_fee"]) == (False, 1.0)
        moved = {"base_url": "https://elsewhere.example/v1"}
        answer = await house.admin.patch(f"{path}/second", json=moved)
        assert code_of(answer) == (401, "totp_required")
        # a program needs no code, and yet it cannot have the key sent to where it can read it
        for elsewhere in (moved, {"base_url": "http://127.0.0.1:1/v1"}):
            answer = await house.http.patch(f"{path}/second", json=elsewhere, headers=house.bearer)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "api_key")
        tried = (await house.admin.post(f"{path}/second/test")).json()
        assert (tried["ok"], key in str(tried)) == (False, False)
        assert (await got(house, "/upstream-providers/second/models"))["db_models"] == []
        assert (await house.admin.delete(f"{path}/second")).json() == {"removed": True}
        assert code_of(await house.admin.get(f"{path}/second")) == (404, "not_found")
        done = (await got(house, "/actions"))["actions"]
        assert [each["action"] for each in done[:3]] == [
            "upstream.remove",
            "upstream.change",
            "upstream.add",
        ]
        assert key not in str(done)


@ON_SQLITE
async def test_jobs_usage_and_one_request_are_told(database_url: str, logged: None) -> None:
    async with open_house(database_url) as house:
        key = await house.shop.key(100_000)
        bought = await house.http.post(PATH, headers=key.headers, json=order())
        await house.shop.quiet()
        request_id = bought.headers["x-request-id"]
        told = await got(house, f"/logs/{request_id}")
        assert told["reservation"]["state"] == "settled"
        assert told["transactions"][0]["amount_msat"] == -told["reservation"]["settled_msat"]
        assert "Count to three" not in str(told)
        structlog.get_logger().info("probe", request_id=request_id, reason=f"Bearer {key.text}")
        lines = (await got(house, f"/logs/{request_id}"))["logs"]
        assert lines[0]["event"] == "probe"
        assert key.text not in str(lines)
        assert (await got(house, "/logs", search="probe", limit=1))["logs"] == lines[:1]
        assert code_of(await house.admin.get(f"{API}/logs/req_0"))[0] == 404
        jobs = {job["name"] for job in (await got(house, "/jobs"))["jobs"]}
        assert jobs >= {"audit", "follow", "payout"}
        run = await house.admin.post(f"{API}/jobs/audit/run")
        assert run.status_code == 202
        for name in ("metrics", "summary", "dashboard", "error-details", "revenue-by-model"):
            await got(house, f"/usage/{name}", hours=24)
        summary = await got(house, "/usage/summary", hours=1)
        assert summary["total"]["sums"]["requests"] == 1
        assert (await got(house, "/usage/revenue-by-model"))["models"][0]["name"] == "fake-model"
        assert await got(house, "/balances") == []
        assert (await got(house, "/backups"))["total"] == 0
