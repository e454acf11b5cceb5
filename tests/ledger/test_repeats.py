"""A command that runs twice, at once or later, does its work once and answers the same."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from routstr.errors import IdempotencyMismatch
from routstr.ledger.accounts import OpenKey, Transfer
from routstr.ledger.book import KeyRef
from routstr.ledger.catalog import FinishJob, SaveMint, TakeJob
from routstr.ledger.columns import Sealed
from routstr.ledger.commands import Command, RowCommand
from routstr.ledger.deposits import FailDeposit, ReplaceDepositOperation
from routstr.ledger.holds import Expire, Extend, Hold, Renew, Settled
from routstr.ledger.idempotency import (
    FirstTry,
    ForgetAnswers,
    RequestClaim,
    ReserveOnce,
    SettleKeeping,
)
from routstr.ledger.leases import Claim, DropLeases, Postpone
from routstr.ledger.sagas import MarkSent, Operation, OperationState
from routstr.ledger.teams import RevokeChild
from routstr.ledger.withdrawals import FailWithdrawal
from tests.ledger.node import (
    MINT_URL,
    Node,
    credit_command,
    issue_command,
    make_children,
    new_key,
    reserve,
    settle,
)

AnyCommand = Command[Any] | RowCommand[Any]
ANSWER = Sealed("v1|k|n|c|t")
Scene = Callable[[Node], Awaitable[AnyCommand]]


async def funded(node: Node, name: str = "k") -> KeyRef:
    key = await node.open_key(name)
    await node.fund(key, [8, 4], salt=name)  # stored as 1, 1, 2, 4, 4
    return key


async def held(node: Node, *, lease_s: float = 90) -> KeyRef:
    key = await funded(node)
    await node.ledger.submit(reserve("h", key, 1000, quote_msat=5000, lease_s=lease_s))
    return key


async def begun_deposit(node: Node) -> Operation:
    begun = await node.ledger.submit(
        node.begin("dep", node.signer.proofs([4], salt="d"), new=new_key("d"))
    )
    assert begun.operation is not None
    return begun.operation


async def begun_swap(node: Node) -> tuple[KeyRef, Operation]:
    key = await funded(node)
    await node.ledger.submit(node.withdraw("w0", key, 3))  # leaves 1, 4, 4
    begun = await node.ledger.submit(node.withdraw("w", key, 2))
    assert begun.operation is not None
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    return key, begun.operation


async def open_key(node: Node) -> AnyCommand:
    return OpenKey(key=new_key("k"))


async def reserving(node: Node) -> AnyCommand:
    return reserve("h", await funded(node), 1000, quote_msat=50_000)


def once(name: str, key: KeyRef, *, body: str = "b") -> ReserveOnce:
    claim = RequestClaim(path="/chat/completions", key_digest="k", fingerprint=body)
    hold = reserve(name, key, 1000, quote_msat=50_000)
    return ReserveOnce(reserve=hold, claim=claim, ttl_s=3600)


def keeping(name: str, key: KeyRef, cost_msat: int, *, ttl_s: float = 600) -> SettleKeeping:
    return SettleKeeping(settle=settle(name, key, cost_msat), answer=ANSWER, ttl_s=ttl_s)


async def reserving_once(node: Node) -> AnyCommand:
    return once("h", await funded(node))


async def reserving_anew(node: Node) -> AnyCommand:
    key = await funded(node)
    await node.ledger.submit(once("h0", key))
    await node.ledger.submit(settle("h0", key, 0))
    return once("h", key)


async def settling_keeping(node: Node) -> AnyCommand:
    key = await funded(node)
    await node.ledger.submit(once("h", key))
    return keeping("h", key, 700)


async def extending(node: Node) -> AnyCommand:
    await held(node)
    return Extend(hold_id="h", api_key_id="key_k", amount_msat=3000)


async def settling(node: Node) -> AnyCommand:
    return settle("h", await held(node), 700)


async def releasing(node: Node) -> AnyCommand:
    return settle("h", await held(node), 0)


async def expiring(node: Node) -> AnyCommand:
    await held(node, lease_s=-1)
    return Expire(hold_id="h", api_key_id="key_k")


async def beginning_deposit(node: Node) -> AnyCommand:
    return node.begin("dep", node.signer.proofs([4], salt="d"), new=new_key("d"))


async def beginning_top_up(node: Node) -> AnyCommand:
    key = await funded(node)
    proofs = node.signer.proofs([4], salt="d")
    return node.begin("dep", proofs, target=key, idempotency_key="i", fingerprint="f")


async def crediting(node: Node) -> AnyCommand:
    operation = await begun_deposit(node)
    await node.ledger.submit(MarkSent(operation_id=operation.id))
    return credit_command(node.signer, operation, None)


async def failing_deposit(node: Node) -> AnyCommand:
    operation = await begun_deposit(node)
    await node.ledger.submit(MarkSent(operation_id=operation.id))
    return FailDeposit(operation=operation, code="10001", error_code="refused")


async def replacing(node: Node) -> AnyCommand:
    operation = await begun_deposit(node)
    await node.ledger.submit(MarkSent(operation_id=operation.id))
    return ReplaceDepositOperation(
        operation=operation,
        code="12002",
        keyset_id=node.signer.keyset.id,
        output_amounts=[1, 2],
        face_amount=4,
        fee_amount=1,
        credit_msat=3000,
        owner="one",
        lease_s=30,
    )


async def withdrawing(node: Node) -> AnyCommand:
    return node.withdraw("w", await funded(node), 3)


async def withdrawing_by_swap(node: Node) -> AnyCommand:
    key = await funded(node)
    await node.ledger.submit(node.withdraw("w0", key, 3))
    return node.withdraw("w", key, 2, idempotency_key="i", fingerprint="f")


async def issuing(node: Node) -> AnyCommand:
    key, operation = await begun_swap(node)
    return issue_command(node.signer, operation, key)


async def failing_withdrawal(node: Node) -> AnyCommand:
    _, operation = await begun_swap(node)
    return FailWithdrawal(operation=operation, api_key_id="key_k", code="11005", message="no")


async def transferring(node: Node) -> AnyCommand:
    payer, payee = await funded(node), await node.open_key("p")
    return Transfer(transfer_id="t", payer=payer, payee=payee, amount_msat=12_000)


async def making_children(node: Node) -> AnyCommand:
    return make_children(await funded(node), "c", "d", cost_msat=1000, balance_limit_msat=5)


async def settling_by_child(node: Node) -> AnyCommand:
    parent = await funded(node)
    await node.ledger.submit(make_children(parent, "c", balance_limit_msat=500))
    await node.ledger.submit(reserve("h", KeyRef(id="key_c"), 400, quote_msat=5000))
    return settle("h", parent, 700, spender_id="key_c", tokens=9)


async def revoking(node: Node) -> AnyCommand:
    parent = await funded(node)
    await node.ledger.submit(make_children(parent, "c"))
    return RevokeChild(parent=parent, child=KeyRef(id="key_c"))


async def marking_sent(node: Node) -> AnyCommand:
    return MarkSent(operation_id=(await begun_deposit(node)).id)


async def saving_mint(node: Node) -> AnyCommand:
    return SaveMint(mint_url=MINT_URL, keysets=[node.signer.keyset])


async def finishing_job(node: Node) -> AnyCommand:
    await node.ledger.submit(TakeJob(name="tidy", owner="one", lease_s=30))
    return FinishJob(name="tidy", owner="one", ok=True, result={"n": 3}, next_in_s=60)


SCENES: list[Scene] = [
    open_key,
    reserving,
    extending,
    settling,
    reserving_once,
    reserving_anew,
    settling_keeping,
    releasing,
    expiring,
    beginning_deposit,
    beginning_top_up,
    crediting,
    failing_deposit,
    replacing,
    withdrawing,
    withdrawing_by_swap,
    issuing,
    failing_withdrawal,
    transferring,
    making_children,
    settling_by_child,
    revoking,
    marking_sent,
    saving_mint,
    finishing_job,
]
# What only says when a row was touched last.
TIMES = ("updated_at", "answered_at", "finished_at", "next_run_at")


def undated(result: object) -> object:
    """A repeat does not say when its hold ended, because the balances it tells are today's."""
    return replace(result, ended_at=None) if isinstance(result, Settled) else result


@pytest.mark.parametrize("scene", SCENES)
async def test_later(node: Node, scene: Scene) -> None:
    command = await scene(node)
    first = await node.ledger.submit(command)
    rows = await node.rows(*TIMES)
    assert undated(await node.ledger.submit(command)) == undated(first)
    assert await node.rows(*TIMES) == rows
    await node.assert_sound()


@pytest.mark.parametrize("scene", SCENES)
async def test_at_once(node: Node, scene: Scene) -> None:
    command = await scene(node)
    before = node.ledger.batches
    first, second = await asyncio.gather(node.ledger.submit(command), node.ledger.submit(command))
    assert node.ledger.batches == before + 1
    assert undated(first) == undated(second)
    await node.assert_sound()


async def test_a_claim_stands_as_its_hold_does(node: Node) -> None:
    """In one batch with what happened to the hold, as well as later."""
    key = await funded(node)

    async def told(*commands: AnyCommand) -> Any:
        return (await asyncio.gather(*map(node.ledger.submit, commands)))[-1]

    running = FirstTry(hold_id="h", is_running=True, charged_msat=0)
    assert await told(once("h", key), once("h2", key)) == running
    assert await told(once("h2", key)) == running
    with pytest.raises(IdempotencyMismatch):
        await told(once("h2", key, body="other"))
    assert isinstance(await told(settle("h", key, 0), once("h2", key)), Hold)
    answered = FirstTry(
        hold_id="h2",
        is_running=False,
        charged_msat=700,
        available_msat=11_300,
        has_answer=True,
    )
    assert await told(keeping("h2", key, 700), once("h3", key)) == answered
    late = await told(reserve("other", key, 10), keeping("h2", key, 900))
    assert late.charged_msat == 700
    assert await node.value("SELECT count(*) FROM idempotency WHERE available_after = 11300") == 1
    assert await told(once("h3", key)) == answered
    await node.assert_sound()


async def test_an_answer_is_forgotten_and_then_its_claim(node: Node) -> None:
    key = await funded(node)
    for name, cost_msat in (("h", 700), ("free", 0)):
        claim = RequestClaim(path="/x", key_digest=name, fingerprint="b")
        held = replace(once(name, key), claim=claim)
        await node.ledger.submit(held)
        await node.ledger.submit(keeping(name, key, cost_msat, ttl_s=-1))
        again = await node.ledger.submit(replace(held, reserve=reserve(f"{name}2", key, 5)))
        gone = FirstTry(hold_id="h", is_running=False, charged_msat=700, available_msat=11_300)
        assert isinstance(again, Hold) if name == "free" else again == gone
    forget = ForgetAnswers(limit=10)
    assert await node.ledger.submit(forget) == 1
    assert await node.value("SELECT count(answer) FROM idempotency") == 0
    expired = replace(once("h4", key), ttl_s=-1)
    assert isinstance(await node.ledger.submit(expired), Hold)
    running = FirstTry(hold_id="h4", is_running=True, charged_msat=0)
    assert await node.ledger.submit(once("h5", key)) == running
    await node.ledger.submit(settle("h4", key, 5))
    assert await node.ledger.submit(forget) == 1
    assert await node.value("SELECT count(*) FROM idempotency") == 2
    assert isinstance(await node.ledger.submit(once("h6", key, body="other")), Hold)
    await node.assert_sound()


async def test_renewing_twice_keeps_alive_what_is_alive(node: Node) -> None:
    key = await held(node)
    await node.ledger.submit(reserve("other", key, 10, owner="two"))
    await node.ledger.submit(reserve("ended", key, 10))
    await node.ledger.submit(settle("ended", key, 1))
    names = dict.fromkeys(["h", "other", "ended", "unknown"], "key_k")
    renew = Renew(holds=names, owner="one", lease_s=500)
    assert await node.ledger.submit(renew) == {"h"}
    assert await node.ledger.submit(renew) == {"h"}
    await node.assert_sound()


async def test_a_lease_is_taken_once(node: Node) -> None:
    operation = await begun_deposit(node)
    claim = Claim(owner="two", lease_s=30, operation_id=operation.id)
    assert await node.ledger.submit(claim) == ()
    back = Postpone(
        operation_id=operation.id,
        owner=operation.lease_owner or "",
        state=OperationState.PREPARED,
        wait_s=0,
    )
    await node.ledger.submit(back)
    assert [each.id for each in await node.ledger.submit(claim)] == [operation.id]
    assert await node.ledger.submit(claim) == ()
    assert await node.ledger.submit(DropLeases()) == 1
    due = Claim(owner="three", lease_s=30)
    assert [each.id for each in await node.ledger.submit(due)] == [operation.id]


async def test_postponing_never_wakes_what_has_ended(node: Node) -> None:
    operation = await begun_deposit(node)
    await node.ledger.submit(MarkSent(operation_id=operation.id))
    await node.ledger.submit(credit_command(node.signer, operation, None))
    late = Postpone(
        operation_id=operation.id,
        owner=operation.lease_owner or "",
        state=OperationState.SENT,
        wait_s=0,
        code="late",
    )
    await node.ledger.submit(late)
    assert await node.value("SELECT state FROM mint_operation") == "done"
    await node.assert_sound()


async def test_a_job_runs_once_when_it_is_due(node: Node) -> None:
    take = TakeJob(name="tidy", owner="one", lease_s=30)
    assert await node.ledger.submit(take)
    assert not await node.ledger.submit(take)
    not_mine = FinishJob(name="tidy", owner="two", ok=False, result={}, next_in_s=-1)
    await node.ledger.submit(not_mine)
    assert not await node.ledger.submit(take)
    mine = FinishJob(name="tidy", owner="one", ok=True, result={}, next_in_s=-1)
    await node.ledger.submit(mine)
    assert await node.ledger.submit(TakeJob(name="tidy", owner="two", lease_s=30))
    assert await node.ledger.submit(TakeJob(name="tidy", owner="one", lease_s=30, orphaned=True))


async def test_an_answer_is_kept_though_its_claim_came_in_the_same_batch(node: Node) -> None:
    key = await funded(node)
    before = node.ledger.batches
    await asyncio.gather(
        node.ledger.submit(once("h", key)), node.ledger.submit(keeping("h", key, 700))
    )
    assert node.ledger.batches == before + 1
    first = await node.ledger.submit(once("h2", key))
    assert isinstance(first, FirstTry)
    assert (first.hold_id, first.charged_msat, first.has_answer) == ("h", 700, True)
