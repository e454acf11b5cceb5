"""`/metrics`: it counts what happened, it is the operator's alone, and it names nobody."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from routstr.core.histogram import Histogram
from tests.fakes.upstream_script import Fault, Script
from tests.harness.funding import told, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order
from tests.harness.till import ON_SQLITE


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


async def scraped(shop: Shop) -> dict[tuple[str, str], float]:
    """Value by sample name and by its labels' values."""
    answer = await shop.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@ON_SQLITE
async def test_what_happened_is_counted(shop: Shop) -> None:
    key = await shop.key()
    await shop.http.post(PATH, headers=key.headers, json=order())
    await shop.http.post(PATH, headers=key.headers, json=order(stream=True))
    await shop.http.post(PATH, headers=key.headers, json=order(model="none"))
    await shop.http.post(PATH, headers={"authorization": f"Bearer sk-{'0' * 64}"}, json=order())
    again = {**key.headers, "idempotency-key": "once"}
    for _ in range(2):
        await shop.http.post(PATH, headers=again, json=order())
    shop.upstream.default = Script(fault=Fault.RESET_BEFORE_HEADERS)
    await shop.http.post(PATH, headers=key.headers, json=order())
    await shop.quiet()
    seen = await scraped(shop)
    assert seen["routstr_requests_total", "completed"] == 3
    assert seen["routstr_requests_total", "upstream_failed"] == 1
    assert seen["routstr_requests_total", "refused"] == 2
    assert seen["routstr_requests_total", "replayed"] == 1
    assert seen["routstr_refusals_total", "invalid_model"] == 1
    assert seen["routstr_refusals_total", "invalid_api_key"] == 1
    charged_msat = -sum(row.amount_msat for row in await usage_rows(shop.ctx, key))
    assert seen["routstr_charged_msat_total", "completed"] == charged_msat > 0
    assert seen["routstr_at_risk_msat_total", "upstream_failed"] == 792
    assert seen["routstr_request_seconds_count", ""] == 4
    assert seen["routstr_first_byte_seconds_count", ""] == 1
    assert seen["routstr_exposure_msat", ""] == 0
    assert seen["routstr_exposure_msat_max", ""] == shop.ctx.ledger.held_msat_max
    assert seen["routstr_ledger_batch_size_count", ""] == shop.ctx.ledger.batches
    assert seen["routstr_upstream_up", "fake"] == 1
    assert seen["routstr_audit_breaches", "I-1"] == 0


@ON_SQLITE
async def test_the_row_of_a_request_says_how_long_it_took(shop: Shop) -> None:
    key = await shop.key()
    await shop.http.post(PATH, headers=key.headers, json=order())
    await shop.http.post(PATH, headers=key.headers, json=order(stream=True))
    stream, whole = await usage_rows(shop.ctx, key)
    said = {name: int(str(told(whole)[name])) for name in ("ms", "added_us")}
    assert said["ms"] * 1000 + 1000 >= said["added_us"] > 0
    assert "first_ms" not in told(whole)
    assert int(str(told(stream)["ms"])) >= int(str(told(stream)["first_ms"])) >= 0


@ON_SQLITE
async def test_only_this_machine_itself_and_the_operator_may_read_it(shop: Shop) -> None:
    told = dict.fromkeys(("x-forwarded-for", "forwarded", "via", "x-real-ip"), "127.0.0.1")
    page = {"origin": "https://evil.example", "sec-fetch-site": "none", "host": "evil.example"}
    for name, value in {**told, **page}.items():
        answer = await shop.http.get("/metrics", headers={name: value})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_required"), name
    # what Tor and many a proxy pass on looks like a call of this machine's own
    facts = shop.ctx.live.now.facts
    for public in (
        replace(facts, onion_url="http://abc.onion"),
        replace(facts, http_url="https://node.example"),
    ):
        shop.ctx.live.replace(replace(shop.ctx.live.now, facts=public))
        assert (await shop.http.get("/metrics")).status_code == 403


@ON_SQLITE
async def test_nothing_in_it_is_a_users(shop: Shop) -> None:
    key = await shop.key()
    await shop.http.post(PATH, headers=key.headers, json=order())
    text = (await shop.http.get("/metrics")).text
    for secret in (key.text, key.text[3:20], key.id, "Count to three"):
        assert secret not in text


def test_a_histogram_counts_each_once_and_up_to_its_bound() -> None:
    histogram = Histogram((1, 10))
    for value in (0, 1, 2, 10, 11):
        histogram.note(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.cumulative() == [(1, 2), (10, 4), (None, 5)]
    assert (histogram.count, histogram.total) == (5, 24)
