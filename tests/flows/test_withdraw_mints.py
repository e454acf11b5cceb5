"""Which mint and unit a withdrawal is paid from, and who pays for change."""

from collections.abc import AsyncIterator

import pytest

from routstr.ecash.token import BODY_BYTES_MAX, Token, decode_token, encode_token_v4
from routstr.errors import (
    BalanceTooSmall,
    MintShort,
    Paused,
    RoutstrError,
    UntrustedMint,
)
from routstr.flows.keys import Created
from routstr.flows.operate import AUDIT_JOB, finish_job, take_job
from routstr.flows.resume import resume
from routstr.flows.withdraw import Wish, WithdrawalView, withdraw
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.till import ON_SQLITE, Till, open_till, worth, ys_of

SWAP = "/v1/swap"
RESTORE = "/v1/restore"
LOST = Trouble(path="/v1/", processed=False, cut=True)


def owner(key: Created) -> KeyRef:
    return KeyRef(id=key.key_id)


async def is_good(till: Till, view: WithdrawalView) -> bool:
    """A token that the mint takes: somebody else can spend it."""
    assert view.token is not None
    return set(till.mint.state_of(ys_of(view.token)).values()) == {"UNSPENT"}


async def posts(till: Till, path: str = SWAP) -> int:
    return len([call for call in till.mint.calls if call.path == path])


# ── which mint, what fee ──────────────────────────────────────────────────────────────────────


async def test_the_withdrawer_pays_the_mints_fee_for_change(database_url: str) -> None:
    async with FakeMint(fee_ppk=1_000) as mint, open_till(database_url, mint) as till:
        key = await till.create(mint.issue(64))  # 63 after the fee, in six coins
        assert await till.balance(key) == 63_000
        await till.withdraw(key, 1)
        view = await till.withdraw(key, 33)  # 32 and 1 were 33; without the 1 it needs change
        assert (view.amount_msat, view.status) == (33_000, "completed")
        assert view.fee_msat > 0
        assert await till.balance(key) == 63_000 - 1_000 - 33_000 - view.fee_msat
        assert worth(view.token) == 33
        rest = await till.withdraw(key)
        assert await till.balance(key) == 0
        assert worth(rest.token) * 1000 + rest.fee_msat == 29_000 - view.fee_msat


@ON_SQLITE
async def test_a_fee_the_balance_cannot_pay(database_url: str) -> None:
    async with FakeMint(fee_ppk=1_000) as mint, open_till(database_url, mint) as till:
        rich = await till.create(mint.issue(4))  # 3 left: 1 and 2
        poor = await till.create(mint.issue(2))  # 1 left
        await till.withdraw(rich, 1)
        await till.withdraw(rich, 1)
        with pytest.raises(RoutstrError) as caught:
            await till.withdraw(poor)  # the purse holds a 2 alone: to break it costs 1
        assert isinstance(caught.value, BalanceTooSmall)
        assert await till.balance(poor) == 1_000


async def test_msats_are_paid_in_msats(database_url: str) -> None:
    async with FakeMint(units=("sat", "msat")) as mint, open_till(database_url, mint) as till:
        key = await till.create(mint.issue(1_500, "msat"))
        view = await till.withdraw(key, 1)
        assert (view.unit, worth(view.token), view.available_msat) == ("msat", 1_000, 500)
        rest = await till.withdraw(key)
        assert (rest.unit, worth(rest.token), await till.balance(key)) == ("msat", 500, 0)


@ON_SQLITE
async def test_a_mint_that_is_not_listed(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    with pytest.raises(UntrustedMint):
        await withdraw(till.ctx, owner(key), Wish(mint_url="https://mint.example"))
    assert await till.balance(key) == 21_000


@pytest.fixture
async def two_mints(sqlite_url: str, mint: FakeMint) -> AsyncIterator[tuple[Till, FakeMint]]:
    async with (
        FakeMint(units=("msat", "sat")) as other,
        open_till(sqlite_url, mint, more_mints=[other.url], is_sound_at_end=False) as till,
    ):
        yield till, other


async def test_a_mint_that_cannot_pay_hides_none_that_can(
    two_mints: tuple[Till, FakeMint],
) -> None:
    till, other = two_mints
    rich = await till.create(other.issue(50))
    key = await till.create(till.mint.issue(21))
    await till.topup(key, other.issue(5))
    view = await till.withdraw(key, 24)  # neither purse was filled by this key alone
    assert worth(view.token) == 24
    assert view.mint_url == other.url
    with pytest.raises(MintShort):
        await withdraw(till.ctx, owner(rich), Wish(amount_sat=40, mint_url=till.mint.url))
    assert await till.balance(rich) == 50_000


async def test_more_coins_than_a_mint_takes_at_once(sqlite_url: str) -> None:
    """A purse of nothing but small change: refused, not left open for ever."""
    async with FakeMint(orders=1) as mint, open_till(sqlite_url, mint) as till:
        key = await till.create(_hundred(mint))
        for _ in range(5):
            await till.topup(key, _hundred(mint))
        with pytest.raises(MintShort):
            await till.withdraw(key)
        assert await till.balance(key) == 600_000
        assert await posts(till) == 6  # the deposits'
        assert worth((await till.withdraw(key, 100)).token) == 100


def _hundred(mint: FakeMint) -> str:
    proofs = tuple(
        proof
        for _ in range(100)
        for proof in decode_token(mint.issue(1), bytes_max=BODY_BYTES_MAX).proofs
    )
    return encode_token_v4(Token(mint_url=mint.url, unit="sat", proofs=proofs))


@ON_SQLITE
async def test_a_paused_node_gives_nothing_out(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    assert await take_job(till.ctx, AUDIT_JOB, lease_s=60)
    await finish_job(till.ctx, AUDIT_JOB, ok=False, result={"breaches": {"I-3": 1}}, next_in_s=60)
    with pytest.raises(Paused):
        await till.withdraw(key)
    assert await till.balance(key) == 21_000
    assert await resume(till.ctx) == 0
