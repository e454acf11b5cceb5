"""What was sold, as the operator's pages tell it: before it is summed up, and after."""

from routstr.flows.house.rollup import rollup
from routstr.flows.house.usage import error_details, usage
from tests.flows.house.selling import sell
from tests.harness.till import Till


async def test_what_is_not_summed_up_yet_counts_as_what_is(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    for ms in (10, 20, 30, 40):
        await sell(till, key, ms=ms)
    await sell(till, key, cost_msat=0, outcome="stalled", ms=900)
    for _ in range(3):
        for hours in (1, 24, 720):
            sold = await usage(till.ctx, hours=hours)
            sums = sold.total.sums
            assert (sums.requests, sold.total.failed, sums.charged_msat) == (5, 1, 580)
            assert (sums.margin_msat, sums.at_risk_msat, sums.input_tokens) == (180, 1000, 15)
            assert 30 <= (sold.total.ms_p50 or 0) <= 50
            assert 700 <= (sold.total.added_us_p99 or 0) <= 1000
            assert sum(point.sums.requests for point in sold.points) == 5
            [model] = sold.by_model
            assert (model.name, model.sums.requests, model.failed) == ("model-a", 5, 1)
            assert [each.name for each in sold.by_outcome] == ["completed", "stalled"]
        errors = await error_details(till.ctx, hours=24)
        assert [each.outcome for each in errors.failures] == ["stalled"]
        assert errors.by_outcome == {"stalled": 1}
        till.clock.advance(120)
        ok, _ = await rollup(till.ctx)
        assert ok
    kept = "SELECT sum(requests) FROM usage_part WHERE span_s = "
    if till.ctx.database.dialect == "sqlite":  # PostgreSQL's clock goes its own pace
        assert [await till.value(kept + str(span_s)) for span_s in (60, 3600, 86_400)] == [5] * 3
