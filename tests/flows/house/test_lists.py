"""The operator's lists: money that adds up, keys that are found, rows page by page."""

import pytest

from routstr.errors import InvalidParameter, NotFound
from routstr.flows.house.keys import (
    all_keys,
    find_keys,
    key_rows,
    key_shown,
    keys_found,
    revive_key,
    revoke_key,
    set_key_limits,
)
from routstr.flows.house.money import (
    Ask,
    balances,
    deposits,
    invoices,
    mints,
    operations,
    transactions,
    withdrawals,
)
from routstr.flows.house.overview import overview
from routstr.flows.payout import profit_msat
from routstr.ledger.profit import SURPLUS
from tests.flows.house.selling import sell
from tests.harness.till import ON_SQLITE, Till


async def test_the_money_adds_up_and_every_list_pages(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    await sell(till, key)
    await till.withdraw(key, 2)
    seen = await overview(till.ctx, hours=1)
    money = seen.money
    assert money.wallet_msat == money.users_msat + money.in_flight_msat + money.yours_msat
    assert (money.wallet_msat, money.users_msat, money.yours_msat) == (19_000, 18_855, 145)
    assert money.issued_msat == 2_000
    assert money.yours_msat == await till.value(SURPLUS)
    assert money.takeable_msat == await profit_msat(till.ctx) == 0  # the fees of mints come first
    assert [need.kind for need in seen.needs] == ["backup_old"]
    [mint] = seen.mints
    assert (mint.is_silent, mint.held_msat) == (False, 19_000)

    for read, count in ((withdrawals, 1), (invoices, 0), (deposits, 1), (transactions, 3)):
        whole = await read(till.ctx, Ask(with_total=True))
        assert (len(whole.rows), whole.total, whole.before) == (count, count, None)
        found: list[object] = []
        before = None
        for _ in range(count):
            page = await read(till.ctx, Ask(limit=1, before=before))
            found += page.rows
            before = page.before
        assert (tuple(found), before) == (whole.rows, None)
        of_key = await read(till.ctx, Ask(search=key.key_id, with_total=True))
        assert (of_key.rows, of_key.total) == (whole.rows, count)
    moved = await transactions(till.ctx, Ask(with_total=True), is_moved=True)
    assert [row.row.type for row in moved.rows] == ["withdrawal", "deposit"]
    assert moved.total == 2

    [balance] = await balances(till.ctx)
    assert (balance.wallet, balance.users, balance.owner) == (19, 19, 0)
    [shown] = await mints(till.ctx)
    [keyset] = shown.keysets
    assert sum(coin.amount * coin.unspent for coin in keyset.coins) == 19
    assert sum(coin.amount * coin.issued for coin in keyset.coins) == 2
    assert await operations(till.ctx) == []


async def test_keys_are_found_by_what_is_known_of_them(till: Till) -> None:
    keys = [await till.create(till.mint.issue(amount)) for amount in (21, 5, 8)]
    newest = [key.key_id for key in reversed(keys)]
    found, after = [], None
    for _ in keys:
        page = await find_keys(till.ctx, limit=1, after=after)
        found += [row.key.id for row in page.keys]
        after = page.after
    assert (found, after) == (newest, None)
    for search in (keys[1].api_key, keys[1].key_id, keys[1].key_id[:20], keys[1].api_key[:7]):
        page = await find_keys(till.ctx, search=search)
        assert [row.key.id for row in page.keys] == [keys[1].key_id]
    assert (await find_keys(till.ctx, search="%")).keys == ()
    totals = await all_keys(till.ctx)
    assert (totals.keys, totals.funded, totals.balance_msat, totals.rows) == (3, 3, 34_000, 3)
    shown = await key_shown(till.ctx, newest[0])
    assert (shown.key.key.balance_msat, shown.children) == (8_000, ())
    assert [each.row.type for each in await key_rows(till.ctx, newest[0])] == ["deposit"]


@ON_SQLITE
async def test_the_operator_ends_a_key_and_binds_it(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    changes = {"allowed_models": ["model-b"], "requests_per_minute": 0, "balance_limit_msat": 5}
    for _ in range(2):
        bound = await set_key_limits(till.ctx, key.key_id, changes, actor="ann")
        assert bound.allowed_models == ("model-b",)
        assert (bound.balance_limit_msat, bound.requests_per_minute) == (5, 0)
    cleared = dict.fromkeys(changes)
    assert (await set_key_limits(till.ctx, key.key_id, cleared, actor="ann")).allowed_models is None
    for _ in range(2):
        await revoke_key(till.ctx, key.key_id, actor="ann")
        assert await keys_found(till.ctx, shown="revoked") == 1
    await revive_key(till.ctx, key.key_id, actor="ann")
    await sell(till, key)
    for wrong in ({"parent_id": "x"}, {"balance_limit_msat": 0}, {"limit_reset": "hourly"}):
        with pytest.raises(InvalidParameter):
            await set_key_limits(till.ctx, key.key_id, wrong, actor="ann")
    with pytest.raises(NotFound):
        await revoke_key(till.ctx, "key_" + "0" * 32, actor="ann")
