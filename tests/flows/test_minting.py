"""Between PAID and the credit: whatever dies, gets lost or is refused, one credit in the end."""

import pytest
from sqlalchemy import text

from routstr.flows.resume import resume
from tests.fakes.mint import Trouble
from tests.flows.paying import DAY_S, MINT, invoice, look, mints, status, total
from tests.harness.till import ON_SQLITE, Till

STEPS = (
    "invoice.looked_at",
    "invoice.paid_seen",
    "invoice.begun",
    "mint.prepared",
    "mint.sent",
    "mint.answered",
    "invoice.signed",
    "invoice.credited",
)


async def heal(till: Till) -> None:
    """What the jobs do, once all leases have run out."""
    await look(till)
    await till.resume()


async def test_whatever_step_it_breaks_at_one_credit_follows(till: Till) -> None:
    for count, step in enumerate(STEPS, start=1):
        made = await invoice(till, 2)
        till.mint.quotes.pay(made.bolt11)

        def fail(step: str = step) -> None:
            del till.marks.at[step]
            raise ZeroDivisionError

        till.marks.at[step] = fail
        assert await look(till) == 1, step
        assert till.marks.at == {}, step
        await heal(till)
        assert (await status(till, made)).status == "paid", step
        assert await total(till) == count * 2_000, step
    assert await till.held() == till.mint.unspent_total() == 16
    assert mints(till) == len(STEPS)  # what was signed was restored, never asked for again


TROUBLES = {
    "the answer is lost": Trouble(path=MINT, cut=True),
    "half of it": Trouble(path=MINT, half=True),
    "the request is lost": Trouble(path=MINT, processed=False, cut=True),
    "the mint breaks before": Trouble(path=MINT, processed=False, status=500),
    "and after": Trouble(path=MINT, status=500),
    "the mint limits": Trouble(path=MINT, processed=False, status=429),
    "it is still at it": Trouble(path=MINT, status=400, code=20005),
    "it says issued": Trouble(path=MINT, status=400, code=20002),
    "it says signed": Trouble(path=MINT, status=400, code=11003),
    "it says unpaid": Trouble(path=MINT, processed=False, status=400, code=20001),
    "it signs nothing": Trouble(path=MINT, body=b'{"signatures":[]}'),
}


@ON_SQLITE
async def test_whatever_the_mint_answers_one_credit_follows(till: Till) -> None:
    for count, (what, trouble) in enumerate(TROUBLES.items(), start=1):
        made = await invoice(till, 2)
        till.mint.quotes.pay(made.bolt11)
        till.mint.trouble(trouble)
        await look(till)
        await heal(till)
        assert (await status(till, made)).status == "paid", what
        assert await total(till) == count * 2_000, what
    assert await till.held() == till.mint.unspent_total() == 2 * len(TROUBLES)


@ON_SQLITE
async def test_what_was_signed_in_another_life_is_no_payment(till: Till) -> None:
    """A node on an old copy makes outputs a second time; the quote says they are not this one's."""
    made = await invoice(till)
    till.mint.quotes.pay(made.bolt11)
    till.mint.lose_next_request(MINT)
    till.mint.trouble(Trouble(path="/v1/restore", processed=False, cut=True))
    await look(till)
    sql = text("SELECT keyset_id, amount, b_ FROM mint_output")
    async with till.ctx.database.reading() as connection:
        for row in (await connection.execute(sql)).all():
            till.mint.ledger.sign({"id": row.keyset_id, "amount": row.amount, "B_": row.b_})
    await till.resume()
    assert await till.operations() == [("watch", "doubtful")]
    assert (await total(till), await till.held()) == (0, 0)


# ── the keys rotate ───────────────────────────────────────────────────────────────────────────


async def test_new_keys_meanwhile_need_a_new_body(till: Till) -> None:
    made = await invoice(till)
    till.mint.quotes.pay(made.bolt11)
    till.mint.rotate()
    await look(till)
    assert (await status(till, made)).status == "paid"
    assert [state for state, _ in await till.operations()] == ["failed", "done"]
    assert (mints(till), await till.held()) == (2, 21)


@ON_SQLITE
async def test_but_only_after_a_definite_no(till: Till) -> None:
    """The refusal of a repeat is definite a minute later; then the successor may differ."""
    made = await invoice(till)
    till.mint.quotes.pay(made.bolt11)
    till.mint.rotate()
    till.mint.lose_next_request(MINT)
    await look(till)
    assert await till.operations() == [("watch", "stale")]
    await till.resume()
    assert [state for state, _ in await till.operations()] == ["failed", "done"]
    assert (await status(till, made)).status == "paid"


# ── the mint took the payment, and gives nothing ──────────────────────────────────────────────


@ON_SQLITE
@pytest.mark.parametrize("heals", [True, False])
async def test_a_mint_that_refuses_what_was_paid_is_watched_for_a_day(
    till: Till, *, heals: bool
) -> None:
    made = await invoice(till)
    quote = till.mint.quotes.pay(made.bolt11)
    quote.id, name = "quote-lost", quote.id  # it has never heard of it
    for _ in range(2):
        await look(till)
    quote.id = name
    till.mint.trouble(*[Trouble(path=MINT, processed=False, status=400, code=20007)] * 99)
    await look(till)
    assert [state for state, _ in await till.operations()] == ["watch"]
    assert (await status(till, made)).status == "settlement_pending"
    if heals:
        till.mint._troubles.clear()
    await till.later(DAY_S)
    await resume(till.ctx)
    await till.later(DAY_S)
    await resume(till.ctx)
    wanted = ("paid", 21_000) if heals else ("reconciliation_required", 0)
    assert ((await status(till, made)).status, await total(till)) == wanted


@ON_SQLITE
async def test_a_quote_that_is_unpaid_again_is_waited_for(till: Till) -> None:
    made = await invoice(till)
    quote = till.mint.quotes.pay(made.bolt11)
    till.marks.at["mint.sent"] = lambda: setattr(quote, "state", "UNPAID")
    await look(till)
    assert [state for state, _ in await till.operations()] == ["waiting"]
    till.mint.quotes.pay(made.bolt11)
    await till.resume()
    assert (await status(till, made)).status == "paid"
