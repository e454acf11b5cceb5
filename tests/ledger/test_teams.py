"""Child keys and caps: a child spends its parent's money, within its own limit and its parent's."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from routstr.core.hold import HoldState
from routstr.core.quota import Rates
from routstr.errors import (
    BalanceLimitExceeded,
    ChildKey,
    IdempotencyMismatch,
    InsufficientBalance,
    KeyExpired,
    KeyNotEmpty,
    KeyRevoked,
    ModelNotAllowed,
    NotFound,
    RateLimited,
)
from routstr.ledger.accounts import NewKey, OpenKey, Transfer
from routstr.ledger.book import KeyRef
from routstr.ledger.holds import Expire, Extend, Hold
from routstr.ledger.teams import ResetChild, RevokeChild, RevokeSelf
from tests.harness.till import ON_SQLITE
from tests.ledger.node import Node, make_children, reserve, running_node, settle

CHILD = KeyRef(id="key_c")


async def family(node: Node, *, sat: int = 64, **terms: Any) -> KeyRef:
    parent = await node.open_key("p")
    await node.fund(parent, [sat], salt="p")
    await node.ledger.submit(make_children(parent, "c", **terms))
    return parent


async def numbers(node: Node, key: KeyRef, *columns: str) -> list[object]:
    return [
        await node.value(f"SELECT {column} FROM apikey WHERE id = :id", id=key.id)
        for column in columns
    ]


async def spend(node: Node, parent: KeyRef, hold_id: str, cost_msat: int) -> None:
    await node.ledger.submit(reserve(hold_id, CHILD, cost_msat))
    await node.ledger.submit(settle(hold_id, parent, cost_msat, spender_id=CHILD.id))


async def test_a_child_spends_its_parents_money(node: Node) -> None:
    parent = await family(node)
    hold = await node.ledger.submit(reserve("h", CHILD, 1000, quote_msat=4000))
    assert (hold.api_key_id, hold.spender_id) == (parent.id, CHILD.id)
    assert await node.held(parent) == 1000
    grown = await node.ledger.submit(
        Extend(hold_id="h", api_key_id="key_p", spender_id=CHILD.id, amount_msat=3000)
    )
    assert grown.amount_msat == 3000
    assert await numbers(node, CHILD, "limit_held", "running") == [3000, 1]
    settled = await node.ledger.submit(settle("h", parent, 2500, spender_id=CHILD.id))
    assert (settled.charged_msat, settled.available_msat) == (2500, 61_500)
    for key in (parent, CHILD):
        assert await numbers(node, key, "total_spent", "total_requests", "running") == [2500, 1, 0]
    assert await numbers(node, CHILD, "balance", "version", "limit_held") == [0, 0, 0]
    said = await node.value(
        "SELECT request_data ->> 'spender' FROM \"transaction\" WHERE type = 'usage'"
    )
    assert said == CHILD.id
    await node.ledger.submit(reserve("late", CHILD, 10, lease_s=-1))
    ended = await node.ledger.submit(
        Expire(hold_id="late", api_key_id="key_p", spender_id=CHILD.id)
    )
    assert ended.state is HoldState.EXPIRED
    await node.assert_sound()


async def test_50_reserves_at_a_childs_cap_are_exactly_k(node: Node) -> None:
    parent = await family(node, balance_limit_msat=7_300)
    results = await asyncio.gather(
        *(node.ledger.submit(reserve(f"h{n}", CHILD, 1000)) for n in range(50)),
        return_exceptions=True,
    )
    held = [each for each in results if isinstance(each, Hold)]
    assert len(held) == 7
    refused = [each for each in results if isinstance(each, BaseException)]
    assert {type(each) for each in refused} == {BalanceLimitExceeded}
    assert refused[0].details == {  # type: ignore[attr-defined]  # all are of that type
        "required_msat": 1000,
        "available_msat": 300,
        "held_msat": 7000,
        "shortfall_msat": 700,
    }
    assert await node.held(parent) == 7000
    await node.assert_sound()


async def test_two_nodes_keep_one_cap(postgres_url: str) -> None:
    async with (
        running_node(postgres_url, owner="one") as one,
        running_node(postgres_url, owner="two") as two,
    ):
        parent = await family(one, sat=64, balance_limit_msat=9_000)
        await one.ledger.submit(make_children(parent, "d"))
        nodes, children = (one, two), (CHILD, KeyRef(id="key_d"))
        results = await asyncio.gather(
            *(
                nodes[n % 2].ledger.submit(
                    nodes[n % 2].reserve(f"h{n}", children[n // 2 % 2], 1000)
                )
                for n in range(100)
            ),
            return_exceptions=True,
        )
        held = [each.spender_id for each in results if isinstance(each, Hold)]
        assert held.count("key_c") == 9
        assert held.count("key_d") == 50
        assert await one.held(parent) == 59_000
        await asyncio.gather(
            *(
                nodes[n % 2].ledger.submit(
                    settle(each.id, parent, 1500, spender_id=each.spender_id)
                )
                for n, each in enumerate(each for each in results if isinstance(each, Hold))
            )
        )
        assert await numbers(one, CHILD, "total_spent", "limit_held", "running") == [9000, 0, 0]
        await one.assert_sound()


async def test_a_charge_above_the_cap_is_absorbed(node: Node) -> None:
    parent = await family(node, balance_limit_msat=3000)
    await node.ledger.submit(reserve("h", CHILD, 1000, quote_msat=8000))
    await node.ledger.submit(reserve("other", CHILD, 500))
    settled = await node.ledger.submit(settle("h", parent, 6000, spender_id=CHILD.id))
    assert (settled.charged_msat, settled.absorbed_msat) == (2500, 3500)
    assert settled.available_msat == 0
    extend = Extend(hold_id="other", api_key_id="key_p", spender_id=CHILD.id, amount_msat=501)
    await node.ledger.submit(extend)  # its quote is reached: nothing to do
    await node.assert_sound()


async def test_a_stream_cannot_grow_above_the_cap(node: Node) -> None:
    await family(node, balance_limit_msat=3000)
    hold = await node.ledger.submit(reserve("h", CHILD, 1000, quote_msat=8000))
    assert hold.payable_msat == 3000
    extend = Extend(hold_id="h", api_key_id="key_p", spender_id=CHILD.id, amount_msat=3001)
    with pytest.raises(BalanceLimitExceeded):
        await node.ledger.submit(extend)
    await node.assert_sound()


async def test_the_parents_limit_bounds_its_children(node: Node) -> None:
    key = NewKey(id="key_p", hash="p", balance_limit_msat=2000)
    parent = KeyRef(id=await node.ledger.submit(OpenKey(key=key)))
    await node.fund(parent, [64], salt="p")
    await node.ledger.submit(make_children(parent, "c", "d", balance_limit_msat=1500))
    await spend(node, parent, "h1", 1500)
    with pytest.raises(BalanceLimitExceeded) as refusal:
        await node.ledger.submit(reserve("h2", KeyRef(id="key_d"), 501))
    assert not refusal.value.should_retry
    await node.ledger.submit(reserve("h3", parent, 500))
    with pytest.raises(BalanceLimitExceeded) as own:
        await node.ledger.submit(reserve("h4", parent, 1))
    assert own.value.should_retry
    with pytest.raises(InsufficientBalance):
        await node.ledger.submit(reserve("h5", parent, 64_001))
    await node.assert_sound()


@ON_SQLITE
async def test_a_cap_renews_at_midnight_utc_and_when_the_parent_says(node: Node) -> None:
    node.clock.time = datetime(2025, 3, 31, 23, 59, tzinfo=UTC)
    parent = await family(node, balance_limit_msat=1000, limit_reset="daily")
    await spend(node, parent, "h1", 900)
    with pytest.raises(BalanceLimitExceeded):
        await node.ledger.submit(reserve("h2", CHILD, 101))
    await node.ledger.submit(reserve("over", CHILD, 100))
    node.clock.advance(60)
    with pytest.raises(BalanceLimitExceeded):
        await node.ledger.submit(reserve("h3", CHILD, 901))  # what runs counts in the new day
    await node.ledger.submit(reserve("h4", CHILD, 900))
    await node.ledger.submit(settle("over", parent, 100, spender_id=CHILD.id))
    await node.ledger.submit(settle("h4", parent, 900, spender_id=CHILD.id))
    with pytest.raises(BalanceLimitExceeded):
        await node.ledger.submit(reserve("h5", CHILD, 1))
    await node.ledger.submit(ResetChild(parent=parent, child=CHILD))
    await spend(node, parent, "h6", 1000)
    node.clock.advance(-120)  # another node's clock is behind: no day begins again
    with pytest.raises(BalanceLimitExceeded):
        await node.ledger.submit(reserve("h7", CHILD, 1))
    await node.assert_sound()


async def test_what_the_parent_may_not_a_child_may_not(node: Node) -> None:
    parent = await family(node, allowed_models=("m", "n"))
    await node.ledger.submit(reserve("running", CHILD, 10, quote_msat=100))
    for change, error in (
        ("allowed_models = '[\"n\"]'", ModelNotAllowed),
        ("expires_at = created_at", KeyExpired),
        ("revoked_at = created_at", KeyRevoked),
    ):
        await node.execute(f"UPDATE apikey SET {change} WHERE id = 'key_p'")
        with pytest.raises(error):
            await node.ledger.submit(reserve("h", CHILD, 10))
    extend = Extend(hold_id="running", api_key_id="key_p", spender_id=CHILD.id, amount_msat=50)
    with pytest.raises(KeyRevoked):
        await node.ledger.submit(extend)
    settled = await node.ledger.submit(settle("running", parent, 10, spender_id=CHILD.id))
    assert settled.charged_msat == 10
    await node.assert_sound()


async def test_a_revoked_child_is_dead_at_once_and_its_hold_ends_by_itself(node: Node) -> None:
    parent = await family(node)
    await node.ledger.submit(reserve("running", CHILD, 10))
    refused, revoked = await asyncio.gather(
        node.ledger.submit(RevokeChild(parent=parent, child=CHILD)),
        node.ledger.submit(reserve("same batch", CHILD, 10)),
        return_exceptions=True,
    )
    assert (refused, type(revoked)) == (None, KeyRevoked)
    with pytest.raises(KeyRevoked):
        await node.ledger.submit(reserve("h", CHILD, 10))
    await node.ledger.submit(settle("running", parent, 10, spender_id=CHILD.id))
    await node.ledger.submit(RevokeChild(parent=parent, child=CHILD))
    await node.assert_sound()


async def test_a_child_is_its_parents_alone_and_has_no_money(node: Node) -> None:
    parent = await family(node)
    stranger = await node.open_key("s")
    await node.fund(stranger, [8], salt="s")
    for who, whom in ((stranger, CHILD), (CHILD, CHILD), (parent, stranger), (CHILD, parent)):
        for command in (ResetChild(parent=who, child=whom), RevokeChild(parent=who, child=whom)):
            with pytest.raises(NotFound):
                await node.ledger.submit(command)
    for payer, payee in ((CHILD, stranger), (parent, CHILD)):
        with pytest.raises(ChildKey):
            await node.ledger.submit(
                Transfer(transfer_id="t", payer=payer, payee=payee, amount_msat=1)
            )
    with pytest.raises(ChildKey):
        await node.ledger.submit(make_children(CHILD, "grandchild"))
    deposit = node.begin("dep", node.signer.proofs([4], salt="c"), target=CHILD)
    with pytest.raises(ChildKey):
        await node.ledger.submit(deposit)
    await node.assert_sound()


async def test_children_are_made_and_paid_for_once(node: Node) -> None:
    parent = await node.open_key("p")
    await node.fund(parent, [8], salt="p")
    make = make_children(parent, "c", "d", cost_msat=1500)
    first = await node.ledger.submit(make)
    again = await node.ledger.submit(make)
    assert (first.cost_msat, first.available_msat, first.is_first) == (3000, 5000, True)
    assert (again.cost_msat, again.available_msat, again.is_first) == (3000, 5000, False)
    with pytest.raises(IdempotencyMismatch):
        await node.ledger.submit(make_children(parent, "c", fingerprint="other"))
    with pytest.raises(InsufficientBalance):
        await node.ledger.submit(make_children(parent, "e", "f", "g", "h", cost_msat=1500))
    assert await node.value("SELECT count(*) FROM apikey WHERE parent_id = 'key_p'") == 2
    await node.assert_sound()


async def test_a_key_revokes_itself_only_when_nothing_can_come_back_to_it(node: Node) -> None:
    parent = await family(node, sat=4)
    revoke = RevokeSelf(key=parent)
    with pytest.raises(KeyNotEmpty):
        await node.ledger.submit(revoke)
    await node.ledger.submit(node.withdraw("w", parent, None))
    with pytest.raises(KeyNotEmpty):  # nobody claimed the token, so it may come back
        await node.ledger.submit(revoke)
    await node.execute("UPDATE withdrawal SET status = 'claimed'")
    await node.ledger.submit(revoke)
    await node.ledger.submit(revoke)
    with pytest.raises(KeyRevoked):
        await node.ledger.submit(reserve("h", CHILD, 0))


async def test_a_transfer_is_repeated_as_it_was(node: Node) -> None:
    payer, payee = await node.open_key("p"), await node.open_key("q")
    await node.fund(payer, [8], salt="p")
    transfer = Transfer(transfer_id="t", payer=payer, payee=payee, amount_msat=3000)
    first = await node.ledger.submit(transfer)
    await node.ledger.submit(reserve("h", payer, 1000))
    assert await node.ledger.submit(transfer) == first
    assert first.available_msat == 5000
    for payee_id, amount in (("key_q", 3001), ("key_p", 3000)):
        other = Transfer(
            transfer_id="t", payer=payer, payee=KeyRef(id=payee_id), amount_msat=amount
        )
        with pytest.raises(IdempotencyMismatch):
            await node.ledger.submit(other)
    await node.assert_sound()


# ── rates ─────────────────────────────────────────────────────────────────────────────────────


@ON_SQLITE
async def test_requests_and_tokens_a_minute(node: Node) -> None:
    node.clock.time = datetime(2025, 1, 1, 12, 0, 20, tzinfo=UTC)
    parent = await family(node, requests_per_minute=2)
    rates = Rates(tokens_per_minute=100)
    first = await node.ledger.submit(reserve("h1", CHILD, 10, rates=rates))
    assert first.rates is not None
    assert first.rates.requests is not None
    assert first.rates.tokens is not None
    assert (first.rates.requests.remaining, first.rates.tokens.remaining) == (1, 100)
    assert await node.ledger.submit(reserve("h1", CHILD, 10, rates=rates)) == first
    await node.ledger.submit(reserve("h2", CHILD, 10, rates=rates))
    with pytest.raises(RateLimited) as refusal:
        await node.ledger.submit(reserve("h3", CHILD, 10, rates=rates))
    assert refusal.value.retry_after_s == 40
    assert refusal.value.headers["x-ratelimit-remaining-requests"] == "0"
    assert refusal.value.headers["x-ratelimit-reset-requests"] == "40s"
    await node.ledger.submit(settle("h1", parent, 10, spender_id=CHILD.id, tokens=120))
    with pytest.raises(RateLimited):  # a child's tokens are its parent's, too
        await node.ledger.submit(reserve("h4", parent, 10, rates=rates))
    node.clock.advance(40)
    await node.ledger.submit(reserve("h5", parent, 10, rates=rates))
    await node.ledger.submit(reserve("h6", CHILD, 10, rates=rates))
    await node.assert_sound()


async def test_running_requests_are_counted_across_children(node: Node) -> None:
    parent = await family(node)
    await node.ledger.submit(make_children(parent, "d", concurrent_max=1))
    other, rates = KeyRef(id="key_d"), Rates(concurrent_max=2)
    await node.ledger.submit(reserve("h1", other, 10, rates=rates))
    with pytest.raises(RateLimited) as refusal:
        await node.ledger.submit(reserve("h2", other, 10, rates=rates))
    assert refusal.value.retry_after_s == 1
    await node.ledger.submit(reserve("h3", CHILD, 10, rates=rates))
    with pytest.raises(RateLimited):
        await node.ledger.submit(reserve("h4", parent, 10, rates=rates))
    await node.ledger.submit(settle("h1", parent, 10, spender_id="key_d"))
    await node.ledger.submit(reserve("h5", other, 10, rates=rates))
    await node.assert_sound()
