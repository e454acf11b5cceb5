"""Reserve, extend, settle, expire: what a request may cost, and that it ends once."""

from datetime import UTC, datetime, timedelta

import pytest

from routstr.core.hold import HoldState
from routstr.errors import (
    InsufficientBalance,
    InvalidApiKey,
    KeyExpired,
    KeyRevoked,
    ModelNotAllowed,
    NotFound,
    Overloaded,
)
from routstr.ledger.accounts import NewKey, NoteUse, OpenKey
from routstr.ledger.book import KeyRef
from routstr.ledger.executor import ExecutorLimits
from routstr.ledger.holds import Expire, Extend
from tests.ledger.node import Node, new_key, reserve, running_node, settle

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


async def funded(node: Node, name: str = "k", *, sat: int = 8) -> KeyRef:
    key = await node.open_key(name)
    await node.fund(key, [sat], salt=name)
    return key


async def test_a_hold_takes_what_is_wanted_or_what_is_left(node: Node) -> None:
    key = await funded(node)
    first = await node.ledger.submit(reserve("h1", key, 5000, quote_msat=6000))
    assert (first.amount_msat, first.payable_msat) == (5000, 6000)
    rest = await node.ledger.submit(reserve("h2", key, 9000, minimum_msat=100))
    assert (rest.amount_msat, rest.payable_msat) == (3000, 3000)
    with pytest.raises(InsufficientBalance) as refusal:
        await node.ledger.submit(reserve("h3", key, 9000, minimum_msat=100))
    assert refusal.value.details == {
        "required_msat": 100,
        "available_msat": 0,
        "held_msat": 8000,
        "shortfall_msat": 100,
    }
    assert refusal.value.should_retry
    await node.assert_sound()


async def test_a_key_that_could_never_pay_is_not_told_to_try_again(node: Node) -> None:
    key = await node.open_key("k")
    with pytest.raises(InsufficientBalance) as refusal:
        await node.ledger.submit(reserve("h", key, 10))
    assert not refusal.value.should_retry


async def test_a_key_is_found_by_its_hash_and_its_first_use_noted(node: Node) -> None:
    await funded(node)
    by_hash = KeyRef(hash=new_key("k").hash)
    await node.ledger.submit(reserve("h1", KeyRef(id="key_k"), 10))
    assert await node.value("SELECT first_used_at FROM apikey") is None
    await node.ledger.submit(reserve("h2", by_hash, 10))
    first = await node.value("SELECT first_used_at FROM apikey")
    assert first is not None
    node.clock.advance(5)
    await node.ledger.submit(reserve("h3", by_hash, 10))
    await node.ledger.submit(NoteUse(caller=by_hash))
    assert await node.value("SELECT first_used_at FROM apikey") == first
    with pytest.raises(InvalidApiKey):
        await node.ledger.submit(reserve("h4", KeyRef(hash="0" * 64), 10))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("revoked_at = created_at", KeyRevoked),
        ("expires_at = created_at", KeyExpired),
        ("allowed_models = '[\"other\"]'", ModelNotAllowed),
        ("allowed_models = '[]'", ModelNotAllowed),
        ("allowed_models = '[\"m\"]'", None),
        ("allowed_models = 'null'", None),
    ],
)
async def test_only_a_key_with_permission_holds(
    node: Node, change: str, error: type[Exception] | None
) -> None:
    key = await funded(node)
    await node.execute(f"UPDATE apikey SET {change}")
    if error is None:
        await node.ledger.submit(reserve("h", key, 10))
        return
    with pytest.raises(error):
        await node.ledger.submit(reserve("h", key, 10))
    assert await node.held(key) == 0


async def test_a_key_with_terms_expires_when_they_say(node: Node) -> None:
    for name, expires_at in (("old", PAST), ("new", FUTURE)):
        key = NewKey(id=f"key_{name}", hash=name, expires_at=expires_at)
        await node.ledger.submit(OpenKey(key=key))
    with pytest.raises(KeyExpired):
        await node.ledger.submit(reserve("h1", KeyRef(id="key_old"), 0))
    await node.ledger.submit(reserve("h2", KeyRef(id="key_new"), 0))


@pytest.mark.parametrize(
    ("cost", "charged", "absorbed", "state"),
    [
        (0, 0, 0, HoldState.RELEASED),
        (999, 999, 0, HoldState.SETTLED),
        (1000, 1000, 0, HoldState.SETTLED),
        (3000, 3000, 0, HoldState.SETTLED),  # above the hold, within the quote
        (9000, 4000, 5000, HoldState.SETTLED),  # never above the quote
    ],
)
async def test_the_charge_is_bounded(
    node: Node, cost: int, charged: int, absorbed: int, state: HoldState
) -> None:
    key = await funded(node)
    await node.ledger.submit(reserve("h", key, 1000, quote_msat=4000))
    settled = await node.ledger.submit(settle("h", key, cost))
    assert (settled.charged_msat, settled.absorbed_msat) == (charged, absorbed)
    assert (settled.state, settled.balance_msat) == (state, 8000 - charged)
    assert await node.held(key) == 0
    assert await node.value("SELECT total_spent FROM apikey") == charged
    await node.assert_sound()


async def test_the_charge_never_takes_what_another_hold_has(node: Node) -> None:
    key = await funded(node)
    await node.ledger.submit(reserve("h1", key, 1000, quote_msat=8000))
    await node.ledger.submit(reserve("h2", key, 6500))
    settled = await node.ledger.submit(settle("h1", key, 8000))
    assert (settled.charged_msat, settled.absorbed_msat) == (1500, 6500)
    assert (settled.balance_msat, settled.available_msat) == (6500, 0)
    await node.assert_sound()


async def test_a_hold_grows_to_its_quote_and_no_further(node: Node) -> None:
    key = await funded(node)
    await node.ledger.submit(reserve("h", key, 1000, quote_msat=5000))
    grown = await node.ledger.submit(Extend(hold_id="h", api_key_id="key_k", amount_msat=3000))
    assert (grown.amount_msat, grown.payable_msat) == (3000, 5000)
    shrunk = await node.ledger.submit(Extend(hold_id="h", api_key_id="key_k", amount_msat=10))
    assert shrunk.amount_msat == 3000
    grown = await node.ledger.submit(Extend(hold_id="h", api_key_id="key_k", amount_msat=9000))
    assert grown.amount_msat == 5000
    assert await node.held(key) == 5000
    await node.assert_sound()


async def test_a_hold_cannot_grow_beyond_the_key_or_its_own_end(node: Node) -> None:
    key = await funded(node)
    extend = Extend(hold_id="h", api_key_id="key_k", amount_msat=5000)
    await node.ledger.submit(reserve("h", key, 1000, quote_msat=5000))
    await node.ledger.submit(reserve("other", key, 6000))
    with pytest.raises(InsufficientBalance):
        await node.ledger.submit(extend)
    await node.ledger.submit(settle("h", key, 10))
    with pytest.raises(NotFound):
        await node.ledger.submit(extend)
    with pytest.raises(NotFound):
        await node.ledger.submit(settle("nothing", key, 10))
    await node.assert_sound()


async def test_what_expired_can_not_be_charged_any_more(node: Node) -> None:
    key = await funded(node)
    await node.ledger.submit(reserve("h", key, 1000, lease_s=-1))
    await node.ledger.submit(Expire(hold_id="h", api_key_id="key_k"))
    late = await node.ledger.submit(settle("h", key, 700))
    assert (late.state, late.charged_msat, late.absorbed_msat) == (HoldState.EXPIRED, 0, 700)
    assert await node.balance(key) == 8000
    await node.assert_sound()


async def test_what_was_charged_does_not_expire(node: Node) -> None:
    key = await funded(node)
    await node.ledger.submit(reserve("h", key, 1000, lease_s=-1))
    await node.ledger.submit(settle("h", key, 700))
    late = await node.ledger.submit(Expire(hold_id="h", api_key_id="key_k"))
    assert (late.state, late.charged_msat) == (HoldState.SETTLED, 700)
    await node.assert_sound()


async def test_a_living_hold_expires_only_as_an_orphan(node: Node) -> None:
    key = await funded(node)
    await node.ledger.submit(reserve("h", key, 1000))
    with pytest.raises(NotFound):
        await node.ledger.submit(Expire(hold_id="h", api_key_id="key_k"))
    orphan = Expire(hold_id="h", api_key_id="key_k", orphaned=True)
    assert (await node.ledger.submit(orphan)).state is HoldState.EXPIRED
    with pytest.raises(NotFound):
        await node.ledger.submit(Expire(hold_id="nothing", api_key_id="key_k"))
    await node.assert_sound()


async def test_all_holds_together_stay_within_the_exposure_limit(database_url: str) -> None:
    limits = ExecutorLimits(held_msat_max=5000)
    async with running_node(database_url, limits=limits) as node:
        key = await funded(node)
        await node.ledger.submit(reserve("h1", key, 4000, quote_msat=7000))
        with pytest.raises(Overloaded):
            await node.ledger.submit(reserve("h2", key, 1001))
        with pytest.raises(Overloaded):
            await node.ledger.submit(Extend(hold_id="h1", api_key_id="key_k", amount_msat=5001))
        await node.ledger.submit(Extend(hold_id="h1", api_key_id="key_k", amount_msat=5000))
        await node.ledger.submit(settle("h1", key, 6000))
        assert node.ledger.held_msat == 0
        await node.ledger.submit(reserve("h3", key, 2000))
        assert node.ledger.held_msat == 2000


async def test_holds_of_before_the_start_count(database_url: str) -> None:
    limits = ExecutorLimits(held_msat_max=5000)
    async with running_node(database_url, limits=limits) as node:
        key = await funded(node)
        await node.ledger.submit(reserve("h1", key, 4000))
    async with running_node(database_url, limits=limits) as node:
        with pytest.raises(Overloaded):
            await node.ledger.submit(reserve("h2", key, 2000))


async def test_a_deadline_is_the_databases_own_time(node: Node) -> None:
    key = await funded(node)
    await node.ledger.submit(reserve("h", key, 1000, lease_s=90))
    late = node.clock.now() + timedelta(days=1)
    node.clock.time = late
    expire = Expire(hold_id="h", api_key_id="key_k")
    if node.database.dialect == "postgresql":  # this process's clock is wrong, and ignored
        with pytest.raises(NotFound):
            await node.ledger.submit(expire)
    else:
        assert (await node.ledger.submit(expire)).state is HoldState.EXPIRED
