"""What the operator has paused is refused over HTTP, at no cost, and nothing else is."""

from collections.abc import Mapping

from routstr.flows.house.settings import change_settings
from tests.harness.funding import balance_msat
from tests.harness.shop import PATH, open_shop, order
from tests.harness.till import ON_SQLITE


@ON_SQLITE
async def test_a_paused_node_serves_nothing_new_and_repeats_what_was_bought(
    database_url: str,
) -> None:
    async with open_shop(database_url) as shop:
        key = await shop.key(100_000)
        named = {**key.headers, "idempotency-key": "bought"}
        bought = await shop.http.post(PATH, headers=named, json=order())
        await shop.quiet()
        left_msat = await balance_msat(shop.ctx, key)
        await change_settings(shop.ctx, {"spending": False}, changed_by="ann")
        for headers in (key.headers, {**key.headers, "idempotency-key": "new"}, {"x-cashu": "x"}):
            answer = await shop.http.post(PATH, headers=headers, json=order())
            said = answer.json()["error"]
            assert (answer.status_code, said["code"]) == (503, "paused")
            assert answer.headers["x-should-retry"] == "true"
        again = await shop.http.post(PATH, headers=named, json=order())
        assert (again.status_code, again.content) == (200, bought.content)
        assert await balance_msat(shop.ctx, key) == left_msat
        ready = await shop.http.get("/ready")
        assert (ready.status_code, ready.json()["checks"]["paused"]) == (200, "spending")
        await change_settings(shop.ctx, {}, resets=["spending"], changed_by="ann")
        assert (await shop.http.post(PATH, headers=key.headers, json=order())).status_code == 200


@ON_SQLITE
async def test_nobody_is_asked_to_pay_what_would_be_refused(database_url: str) -> None:
    """A wallet that pays a 402 locks its ecash to this node."""
    async with open_shop(database_url) as shop:
        key = await shop.key(100_000)
        asked: tuple[tuple[str, Mapping[str, str], Mapping[str, object]], ...] = (
            (PATH, {}, order()),
            ("/v1/balance/request", key.headers, {"amount_sats": 7}),
        )
        for switch, refused in (("deposits", asked), ("spending", asked[:1])):
            await change_settings(shop.ctx, {switch: False}, changed_by="ann")
            for path, headers, body in refused:
                named = {**headers, "idempotency-key": "new"}
                answer = await shop.http.post(path, headers=named, json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "paused")
                assert "x-cashu" not in answer.headers
            await change_settings(shop.ctx, {}, resets=[switch], changed_by="ann")
        assert (await shop.http.post(PATH, json=order())).status_code == 402
