"""The deep audit: what the mints say of our proofs, and what their silence does not."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from routstr.errors import MintUnreachable
from routstr.flows.audit import audit
from routstr.flows.operate import AUDIT_JOB
from routstr.flows.resume import resume
from routstr.ledger.audit import AuditReport, MintFindings, report_json, report_rows
from routstr.ledger.catalog import FinishJob, TakeJob
from tests.fakes.mint import FakeMint, MintCall, Trouble
from tests.fakes.upstream_script import Gate
from tests.harness.till import Till, open_till, ys_of

CHECK = "/v1/checkstate"


@pytest.fixture
async def robbed(database_url: str, mint: FakeMint) -> AsyncIterator[Till]:
    """A till whose coins others may spend, so that it need not be sound at its end."""
    async with open_till(database_url, mint, is_sound_at_end=False) as till:
        yield till


async def deep(till: Till, *, is_running: bool = True) -> AuditReport:
    return await audit(till.ctx, full=True, deep=True, is_running=is_running)


def only(report: AuditReport) -> MintFindings:
    [mint] = report.mints
    return mint


def ys_asked(call: MintCall) -> list[str]:
    ys = call.json["Ys"]
    assert isinstance(ys, list)
    return ys


async def our_coins(till: Till) -> list[str]:
    count = await till.value("SELECT count(*) FROM proof WHERE state = 'unspent'")
    coins = [
        await till.value(
            "SELECT y FROM proof WHERE state = 'unspent' ORDER BY y LIMIT 1 OFFSET :n", n=n
        )
        for n in range(count)
    ]
    return [str(y) for y in coins]


async def test_without_deep_no_mint_is_asked(till: Till) -> None:
    await till.create(till.mint.issue(21))
    calls = len(till.mint.calls)
    report = await audit(till.ctx, full=True, deep=False)
    assert (report.ok, report.mints, len(till.mint.calls)) == (True, (), calls)


async def test_a_mint_that_agrees_is_fine(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    view = await till.withdraw(key, 5)
    assert view.token is not None
    report = await deep(till)
    coins = await our_coins(till)
    assert only(report) == MintFindings(
        mint_url=till.mint.url, asked=len(coins) + len(ys_of(view.token)), claimed=0
    )
    till.mint.set_spent(ys_of(view.token))
    report = await deep(till)
    assert report.ok
    assert only(report).claimed == len(ys_of(view.token))


async def test_a_coin_of_ours_that_the_mint_calls_spent_is_named(robbed: Till) -> None:
    await robbed.create(robbed.mint.issue(21))
    stolen, *_ = await our_coins(robbed)
    robbed.mint.set_spent([stolen])
    report = await deep(robbed)
    assert not report.ok
    assert report.broken == ()  # the books know nothing of it
    assert only(report).spent_elsewhere == (stolen,)
    assert f"1 spent elsewhere: {stolen}" in report_rows(report)[-1][2]
    assert stolen in json.dumps(report_json(report))


async def test_a_coin_that_leaves_while_the_mint_answers_is_no_theft(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    gate = Gate()
    till.mint.trouble(Trouble(path=CHECK, answer_gate=gate))
    auditing = asyncio.create_task(deep(till))
    coins = await our_coins(till)
    till.mint.set_spent(coins)  # the next to have them is quick
    await till.mint.called(path=CHECK)
    await till.withdraw(key)
    gate.open()
    report = await auditing
    assert report.ok
    assert only(report).spent_elsewhere == ()


async def test_silence_proves_nothing(till: Till) -> None:
    await till.create(till.mint.issue(21))
    till.mint.trouble(Trouble(path=CHECK, processed=False, cut=True))
    report = await deep(till)
    assert report.ok
    assert (only(report).asked, only(report).silent) == (0, "MintUnknown")
    assert "no answer" in report_rows(report)[-1][2]


async def test_nonsense_proves_nothing_either(till: Till) -> None:
    await till.create(till.mint.issue(21))
    till.mint.trouble(Trouble(path=CHECK, tamper=lambda _: {"states": []}))
    report = await deep(till)
    assert report.ok
    assert only(report).silent is not None


async def test_a_mint_no_longer_trusted_is_not_asked(till: Till) -> None:
    await till.create(till.mint.issue(21))
    calls = len(till.mint.calls)
    till.ctx.mints.allow([])
    report = await deep(till)
    assert (report.ok, only(report).silent) == (True, "UntrustedMint")
    assert len(till.mint.calls) == calls
    till.ctx.mints.allow([till.mint.url])


async def test_many_coins_are_asked_in_batches(till: Till) -> None:
    for _ in range(12):
        await till.create(till.mint.issue(2**20 - 1))
    coins = await our_coins(till)
    assert len(coins) > 200
    report = await deep(till)
    assert only(report).asked == len(coins)
    asked = [ys_asked(call) for call in till.mint.calls if call.path == CHECK]
    assert [len(ys) for ys in asked] == [200, len(coins) - 200]
    assert sorted(y for ys in asked for y in ys) == sorted(coins)


async def test_an_operation_left_open_at_a_mint_that_answers_is_named(till: Till) -> None:
    await till.create(till.mint.issue(21))
    till.mint.trouble(*[Trouble(path="/v1/", processed=False, cut=True)] * 3)
    with pytest.raises(MintUnreachable):
        await till.create(till.mint.issue(5))
    assert only(await deep(till)).stranded == ()
    await till.later(120)
    report = await deep(till)
    assert not report.ok
    assert len(only(report).stranded) == 1
    assert (await deep(till, is_running=False)).ok
    await resume(till.ctx)
    assert (await deep(till)).ok


async def test_a_clean_run_bounds_the_next_fast_one(till: Till) -> None:
    async def finish(*, ok: bool) -> None:
        await till.ctx.ledger.submit(TakeJob(name=AUDIT_JOB, owner="one", lease_s=30))
        await till.ctx.ledger.submit(
            FinishJob(name=AUDIT_JOB, owner="one", ok=ok, result={}, next_in_s=-1)
        )

    async def is_full(*, full: bool = False) -> bool:
        return (await audit(till.ctx, full=full, deep=False)).full

    assert await is_full()
    await finish(ok=True)
    assert not await is_full()
    assert await is_full(full=True)
    await finish(ok=False)
    assert await is_full()
