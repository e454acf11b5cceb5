"""Dead keys, old bodies, limits of yesterday: what goes is what nobody needs."""

import asyncio
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import BigInteger, Text, insert, text, update

from routstr.errors import AnswerGone, InvalidApiKey, KeyRevoked
from routstr.flows.audit import audit
from routstr.flows.change import ChangeSwept, change_by_token
from routstr.flows.deposit import redeem_bearer
from routstr.flows.house.pruning import foresee_prune, prune
from routstr.flows.house.tidying import (
    delete_keys,
    foresee_delete_keys,
    foresee_reset_limits,
    reset_limits,
    vacuum,
)
from routstr.flows.keys import own_key
from routstr.flows.reconcile import reconcile
from routstr.flows.refunds import read_withdrawal
from routstr.flows.withdraw import Wish, withdraw
from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.book import KeyRef
from routstr.ledger.columns import UtcTime
from routstr.ledger.erasure import TOMBSTONE, Erased, EraseKeys
from routstr.ledger.reads import find_key
from routstr.ledger.tables import (
    ApiKey,
    Deposit,
    Transaction,
    Withdrawal,
    table_of,
)
from routstr.ledger.tables_admin import AdminSession, AdminUser, LoginThrottle
from routstr.ledger.tables_house import LightningInvoice
from routstr.ledger.teams import RevokeChild
from tests.fakes.mint import FakeMint
from tests.harness.till import ON_SQLITE, Till, open_till, worth, ys_of
from tests.ledger.node import make_children, reserve, settle

KEY = table_of(ApiKey)
IDLE_S: Final = 180 * 86_400
OLD: Final = timedelta(seconds=IDLE_S + 60)
MONTH_S: Final = 31 * 86_400


async def write(till: Till, *statements: Any) -> None:
    async with till.ctx.database.writer.begin() as connection:
        for statement in statements:
            await connection.execute(statement)


# ── dead keys ─────────────────────────────────────────────────────────────────────────────────

# What may be true of a key, and whether it keeps the key alive.
COLUMNS: Final[dict[str, dict[str, Any]]] = {
    "balance": {"balance": 5, "reserved": 0},
    "reserved": {"balance": 5, "reserved": 5},
    "running": {"running": 1},
    "limit_held": {"limit_held": 3},
    "spent": {"total_spent": 500, "total_requests": 2},
    "new": {"created_at": timedelta(0)},
    "used": {"last_used_at": timedelta(0)},
    "used long ago": {"last_used_at": OLD},
    "revoked": {"revoked_at": OLD},
    "expired": {"expires_at": OLD},
}
ROWS: Final[dict[str, tuple[Any, dict[str, Any]]]] = {
    "pending": (Withdrawal, {"status": "pending", "way": "token"}),
    "token out": (Withdrawal, {"status": "completed", "way": "token"}),
    "claimed": (Withdrawal, {"status": "claimed", "way": "token"}),
    "paid out": (Withdrawal, {"status": "completed", "way": "lightning"}),
    "deposit": (Deposit, {"state": "pending"}),
    "credited": (Deposit, {"state": "credited"}),
    "invoice": (LightningInvoice, {"status": "pending"}),
    "minting": (LightningInvoice, {"status": "settlement_pending"}),
    "doubtful": (LightningInvoice, {"status": "reconciliation_required"}),
    "paid": (LightningInvoice, {"status": "paid"}),
    "row": (Transaction, {"timestamp": OLD}),
    "new row": (Transaction, {"timestamp": timedelta(0)}),
}
LIVE: Final = {
    *("balance", "reserved", "running", "limit_held", "new", "used", "pending", "token out"),
    *("deposit", "invoice", "minting", "doubtful", "new row"),
}
WITH_ROWS: Final = set(ROWS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A key, what is true of it, and whose child it is."""

    id: str
    traits: frozenset[str]
    parent: "Case | None" = None

    @property
    def is_quiet(self) -> bool:
        return self.id != OWNER_KEY_ID and not self.traits & LIVE

    @property
    def may_die(self) -> bool:
        alive_by_parent = self.parent is not None and not (
            "revoked" in self.traits or self.parent.is_quiet
        )
        return self.is_quiet and not alive_by_parent


def some_keys(dice: random.Random) -> list[Case]:
    """Families of one to three, each key with none to three of all that may be true."""
    traits, found = sorted([*COLUMNS, *ROWS]), []
    for number in range(60):
        parent = Case(id=f"key_{number}", traits=_drawn(dice, traits))
        found.append(parent)
        own = [each for each in traits if each not in {"balance", "reserved"}]
        for child in range(dice.choice((0, 0, 0, 1, 2))):
            name = f"{parent.id}_{child}"
            found.append(Case(id=name, traits=_drawn(dice, own), parent=parent))
    return [*found, Case(id=OWNER_KEY_ID, traits=frozenset())]


def _drawn(dice: random.Random, traits: list[str]) -> frozenset[str]:
    return frozenset(dice.sample(traits, dice.choice((0, 1, 1, 2, 3))))


@pytest.mark.parametrize("seed", range(2))
async def test_no_living_key_is_ever_erased(database_url: str, mint: FakeMint, seed: int) -> None:
    async with open_till(database_url, mint, is_sound_at_end=False) as till:
        cases = some_keys(random.Random(seed))
        await _insert_all(till, cases)
        while (await foresee_delete_keys(till.ctx))["delete"]:  # children first, then parents
            await delete_keys(till.ctx)
        hashes = await _hashes(till)
        dead = {case.id for case in cases if case.may_die}
        living = {case.parent.id for case in cases if case.parent and case.id not in dead}
        for case in cases:
            if case.id not in dead or case.id in living:
                assert hashes.get(case.id) == f"hash {case.id}", case
            elif case.traits & WITH_ROWS or any(
                other.parent is case and other.id in hashes for other in cases
            ):
                assert hashes.get(case.id) == f"{TOMBSTONE}{case.id}", case
            else:
                assert case.id not in hashes, case
        assert await _hashes(till) == hashes


async def _hashes(till: Till) -> dict[str, str]:
    async with till.ctx.database.reading() as connection:
        rows = await connection.execute(text("SELECT id, key_hash FROM apikey"))
        return {row.id: row.key_hash for row in rows}


async def _insert_all(till: Till, cases: list[Case]) -> None:
    now = till.clock.now()

    def as_time(value: Any) -> Any:
        return now - value if isinstance(value, timedelta) else value

    statements = []
    for case in cases:
        row: dict[str, Any] = {"created_at": OLD, "balance": 0, "reserved": 0}
        for trait in sorted(case.traits & set(COLUMNS), reverse=True):  # `used` wins
            row |= COLUMNS[trait]
        row |= {"id": case.id, "key_hash": f"hash {case.id}", "version": 0}
        row |= {"total_deposited": 0, "parent_id": case.parent and case.parent.id}
        row = {"total_spent": 0, "total_requests": 0} | row
        statements.append(insert(KEY).values({k: as_time(v) for k, v in row.items()}))
        for trait in sorted(case.traits & set(ROWS)):
            table, own = ROWS[trait]
            values = _row_of(table, f"{case.id} {trait}") | own | {"api_key_id": case.id}
            values = {k: as_time(v) for k, v in values.items()}
            statements.append(insert(table_of(table)).values(values))
    await write(till, *statements)


def _row_of(table: Any, name: str) -> dict[str, Any]:
    money = {"mint_url": "https://mint.example", "unit": "sat", "created_at": OLD}
    if table is Transaction:
        chain = {"sequence": hash(name) % 2**40, "amount": 0, "balance_after": 0}
        return {**chain, "type": "usage", "operation_id": name}
    if table is Withdrawal:
        return {**money, "id": name, "amount": 1000, "fee_amount": 0, "retry_count": 0}
    if table is Deposit:
        return {**money, "id": name, "source": "cashu", "face_amount": 1, "credit_msat": 1000}
    bill = {"bolt11": name, "payment_hash": name, "expires_at": OLD, "purpose": "topup"}
    return {**money, **bill, "id": name, "amount": 1, "credit_msat": 1000}


async def test_what_tells_whose_it_was_is_gone_and_opens_nothing(
    database_url: str, mint: FakeMint
) -> None:
    async with open_till(database_url, mint, dead_key_idle_s=0) as till:
        token = mint.issue(8)
        key, change = await till.create(token), mint.issue(4)
        once = await till.create(change)
        await till.ctx.ledger.submit(make_children(KeyRef(id=key.key_id), "child"))
        mine = KeyRef(hash=till.ctx.wallet.vault.key_hash(key.api_key))
        for each in (key, once):
            mint.set_spent(ys_of(str((await till.withdraw(each)).token)))
        await write(
            till,
            text("UPDATE deposit SET source = 'x-cashu' WHERE api_key_id = :id").bindparams(
                id=once.key_id
            ),
        )
        await till.later(1)
        assert await foresee_delete_keys(till.ctx) == {"delete": 0, "delete_msat": 0}
        await reconcile(till.ctx)  # the mint says that both tokens were claimed
        assert (await delete_keys(till.ctx))[1] == {"erased": 1, "deleted": 1, "after": ""}
        assert (await delete_keys(till.ctx))[1] == {"erased": 1, "deleted": 0, "after": ""}
        assert (await delete_keys(till.ctx))[1] == {"erased": 0, "deleted": 0, "after": ""}
        again = EraseKeys(key_ids=[key.key_id, "key_child"], idle_s=0)
        assert await till.ctx.ledger.submit(again) == Erased(erased=1, deleted=1)
        with pytest.raises(InvalidApiKey):
            await own_key(till.ctx, mine)
        with pytest.raises(KeyRevoked):
            await own_key(till.ctx, await redeem_bearer(till.ctx, token))
        with pytest.raises(KeyRevoked):
            await till.topup(key, mint.issue(1))
        with pytest.raises(ChangeSwept):
            await change_by_token(till.ctx, change)
        dump = await till.dump()
        assert key.api_key[-4:] not in str(dump["deposit"] + dump["apikey"])
        assert str(mine.hash) not in str(dump)


@ON_SQLITE
async def test_erased_children_are_not_made_again(till: Till) -> None:
    """Not by a repeat of what made them, were it years later; and they are not paid for again."""
    key = await till.create(till.mint.issue(21))
    parent = KeyRef(id=key.key_id)
    first = make_children(parent, "a", "b", cost_msat=1_000)
    second = make_children(parent, "c", "d")
    for made, gone in ((first, "key_a"), (second, "key_c")):
        await till.ctx.ledger.submit(made)
        await till.ctx.ledger.submit(RevokeChild(parent=parent, child=KeyRef(id=gone)))
        await till.later(1)
        await till.ctx.ledger.submit(EraseKeys(key_ids=[gone], idle_s=0))
        with pytest.raises(AnswerGone):
            await till.ctx.ledger.submit(made)
    assert await till.balance(key) == 19_000


async def test_what_came_to_life_meanwhile_lives_on(database_url: str, mint: FakeMint) -> None:
    """The list is old when the command runs; what it says is looked at again under the lock."""
    async with open_till(database_url, mint, dead_key_idle_s=0) as till:
        keys = [await till.create(mint.issue(2)) for _ in range(2)]
        for each in keys:
            mint.set_spent(ys_of(str((await till.withdraw(each)).token)))
        await till.later(1)
        await reconcile(till.ctx)
        stale = EraseKeys(key_ids=[each.key_id for each in keys], idle_s=0)
        ledger = till.ctx.ledger
        await till.topup(keys[0], mint.issue(4))
        told = await asyncio.gather(
            ledger.submit(stale), *(ledger.submit(stale) for _ in range(3)), return_exceptions=True
        )
        assert told == [Erased(erased=1, deleted=0)] * 4
        assert await till.balance(keys[0]) == 4_000
        assert worth((await till.withdraw(keys[0])).token) == 4


# ── what piles up ─────────────────────────────────────────────────────────────────────────────


async def test_old_bodies_go_and_nothing_misses_them(till: Till) -> None:
    key = await till.create(till.mint.issue(32))
    wish = Wish(amount_sat=21, idempotency_key="a", fingerprint="f")
    view = await withdraw(till.ctx, KeyRef(id=key.key_id), wish)
    sizes = "SELECT min(length(request)) FROM mint_operation"
    assert (await prune(till.ctx))[1]["bodies"] == 0
    assert int(await till.value(sizes)) > 80
    await till.later(MONTH_S)
    young = await till.create(till.mint.issue(8))
    count = int(await till.value("SELECT count(*) FROM mint_operation")) - 1
    assert (await foresee_prune(till.ctx))["bodies"] == count
    assert (await prune(till.ctx))[1]["bodies"] == count
    assert (await prune(till.ctx))[1]["bodies"] == 0
    assert int(await till.value(sizes)) == 58
    assert int(await till.value("SELECT max(length(request)) FROM mint_operation")) > 80
    report = await audit(till.ctx, full=True, deep=True)
    assert report.ok
    again = await withdraw(till.ctx, KeyRef(id=key.key_id), wish)
    assert (again.id, again.token, again.is_replay) == (view.id, view.token, True)
    assert await till.resume() == 0
    await reconcile(till.ctx)
    assert (await read_withdrawal(till.ctx, KeyRef(id=key.key_id), view.id)).status == "reclaimed"
    assert await till.balance(key) + await till.balance(young) == 40_000


@ON_SQLITE
async def test_log_ins_that_are_over_are_forgotten(till: Till) -> None:
    over, later = till.clock.now(), till.clock.now() + timedelta(days=1)
    user = {"id": "adm", "name": "ada", "password_hash": "h"}
    session = {"id": "s", "admin_user_id": "adm", "token_hash": "t", "kind": "cookie", "scopes": []}
    await write(
        till,
        _filled(AdminUser, over, **user),
        _filled(AdminSession, over, **session),
        _filled(LoginThrottle, over, scope="old"),
        _filled(LoginThrottle, over, scope="new", expires_at=later),
    )
    assert (await foresee_prune(till.ctx))["logins"] == 2
    assert (await prune(till.ctx))[1]["logins"] == 2
    assert await till.value("SELECT scope FROM login_throttle") == "new"


def _filled(row: Any, at: datetime, **values: Any) -> Any:
    """An INSERT with every time at that moment and every number 1, but for `values`."""
    kinds = {UtcTime: at, BigInteger: 1, Text: "x"}
    table = table_of(row)
    usual = {c.name: kinds.get(type(c.type)) for c in table.columns if not c.nullable}
    return insert(table).values({**usual, **values})


# ── limits, and the database ──────────────────────────────────────────────────────────────────


async def test_a_limit_of_yesterday_is_written_as_it_counts(till: Till) -> None:
    key = await till.create(till.mint.issue(21), balance_limit_msat=5_000,
                            balance_limit_reset="daily")  # fmt: skip
    ref = KeyRef(id=key.key_id)
    await till.ctx.ledger.submit(reserve("h", ref, 3_000))
    await till.ctx.ledger.submit(settle("h", ref, 3_000))
    await reset_limits(till.ctx)
    assert (await reset_limits(till.ctx))[1] == {"reset": 0}
    yesterday = till.clock.now() - timedelta(days=1, hours=1)
    await write(till, update(KEY).where(KEY.c.id == key.key_id).values(limit_since=yesterday))
    async with till.ctx.database.reading() as connection:
        view = await find_key(connection, ref)
        assert view is not None
        assert view.cap is not None
        counted = view.cap.at(till.clock.now())
    assert (counted.left_msat, view.limit_base_msat) == (5_000, 0)
    assert await foresee_reset_limits(till.ctx) == {"reset": 1}
    assert (await reset_limits(till.ctx))[1] == {"reset": 1}
    async with till.ctx.database.reading() as connection:
        after = await find_key(connection, ref)
    assert after is not None
    assert after.cap == counted
    assert await foresee_reset_limits(till.ctx) == {"reset": 0}


async def test_the_ledger_goes_on_while_the_database_is_tidied(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    ref = KeyRef(id=key.key_id)
    tidying = asyncio.create_task(vacuum(till.ctx))
    for number in range(20):
        await till.ctx.ledger.submit(reserve(f"h{number}", ref, 100))
        await till.ctx.ledger.submit(settle(f"h{number}", ref, 100))
    ok, result = await tidying
    assert (ok, result) == (True, {"tables": 9})
    assert await till.balance(key) == 19_000
