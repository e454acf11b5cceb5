"""What the tests of the operator's pages share: requests that were sold, without an upstream."""

from routstr.flows.context import Context
from routstr.flows.keys import Created
from routstr.ledger.book import KeyRef
from routstr.ledger.holds import Reserve, Settle
from tests.harness.till import Till


async def sell(
    till: Till, key: Created, *, cost_msat: int = 145, outcome: str = "completed", ms: int = 20
) -> None:
    """One request of that outcome, which costs its upstream 100 msat."""
    await sell_to(till.ctx, KeyRef(id=key.key_id), cost_msat=cost_msat, outcome=outcome, ms=ms)


async def sell_to(
    ctx: Context,
    caller: KeyRef,
    *,
    cost_msat: int = 145,
    outcome: str = "completed",
    ms: int = 20,
) -> None:
    """The same, of any node and key."""
    ledger = ctx.ledger
    reserve = Reserve(
        hold_id=ctx.new_id("req"),
        caller=caller,
        wanted_msat=1000,
        minimum_msat=1000,
        quote_msat=1000,
        model_id="model-a",
        price_snapshot={},
        owner="test",
        lease_s=90,
    )
    hold = await ledger.submit(reserve)
    said = {
        "outcome": outcome,
        "evidence": "estimated",
        "model": "model-a",
        "upstream": "upstream-a",
        "usage": {"input_tokens": 3, "output_tokens": 4},
        "at_risk_msat": 0 if cost_msat else 1000,
        "ms": ms,
        "added_us": 812,
        **({"upstream_msat": 100} if cost_msat else {}),
    }
    await ledger.submit(
        Settle(
            hold_id=hold.id,
            api_key_id=hold.api_key_id,
            cost_msat=cost_msat,
            description="model-a",
            request_data=said,
        )
    )
