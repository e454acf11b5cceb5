"""A key costs an invite where the operator wants it so: one use each, never two, never none."""

import asyncio
from datetime import timedelta

import pytest

from routstr.errors import InvalidParameter, InviteRequired, MintUnreachable, TokenRedemptionFailed
from routstr.flows.deposit import redeem_bearer
from routstr.flows.house.invites import end_invite, invites, make_invite
from routstr.flows.house.settings import change_settings
from routstr.flows.invoice import InvoiceWish, create_invoice, look_at_invoices
from routstr.flows.keys import Created, Terms, create_key
from tests.fakes.mint import Trouble
from tests.fakes.upstream_script import Gate
from tests.harness.till import ON_SQLITE, Till

SWAP = "/v1/swap"
KEYSETS = "/v1/keysets"
DOWN = Trouble(path="/v1/restore", processed=False, cut=True)


@pytest.fixture
async def shut(till: Till) -> Till:
    """A node that lets nobody in without an invite."""
    await change_settings(till.ctx, {"needs_invite": True}, changed_by="ann")
    return till


async def code(till: Till, uses: int = 1) -> str:
    return (await make_invite(till.ctx, uses=uses, note="for Bob", actor="ann")).code


async def create(till: Till, token: str, invite: str | None, repeat: str | None = None) -> Created:
    return await create_key(till.ctx, token, Terms(), idempotency_key=repeat, invite=invite)


async def uses(till: Till) -> tuple[int, int]:
    """Taken and left."""
    [invite], total = await invites(till.ctx)
    assert total == 1
    return invite.uses, invite.uses_left


async def test_one_invite_is_one_key_and_repeats_are_free(shut: Till) -> None:
    invite, token = await code(shut), shut.mint.issue(21)
    first = await create(shut, token, invite, "k")
    assert await uses(shut) == (1, 0)
    assert (await create(shut, token, None, "k")).api_key == first.api_key
    assert (await redeem_bearer(shut.ctx, token)).id == first.key_id
    await shut.topup(first, shut.mint.issue(1))
    calls = len(shut.mint.calls)
    other = shut.mint.issue(4)
    for refused in (invite, None, "invite-00", "x" * 500):
        with pytest.raises(InviteRequired):
            await create(shut, other, refused)
        with pytest.raises(InviteRequired):
            await redeem_bearer(shut.ctx, other, invite=refused)
        with pytest.raises(InviteRequired):
            await create_invoice(shut.ctx, InvoiceWish(amount_sat=5, invite=refused))
    assert len(shut.mint.calls) == calls
    assert await uses(shut) == (1, 0)


async def test_a_crowd_with_one_use_opens_one_key(shut: Till) -> None:
    invite = await code(shut)
    results = await asyncio.gather(
        *(create(shut, shut.mint.issue(2), invite) for _ in range(6)), return_exceptions=True
    )
    assert len([each for each in results if isinstance(each, Created)]) == 1
    assert {type(each) for each in results} == {Created, InviteRequired}
    assert await uses(shut) == (1, 0)
    assert await shut.value("SELECT count(*) FROM deposit") == 1


async def test_what_the_mint_refuses_gives_its_use_back(shut: Till) -> None:
    invite = await code(shut)
    spent = shut.mint.issue(2)
    shut.mint.trouble(Trouble(path=SWAP, processed=False, status=400, code=10_001))
    with pytest.raises(TokenRedemptionFailed):
        await create(shut, spent, invite)
    assert await uses(shut) == (0, 1)
    await create(shut, shut.mint.issue(2), invite)
    assert await uses(shut) == (1, 0)


@ON_SQLITE
async def test_a_repeat_opens_nothing_once_the_first_came_to_nothing(shut: Till) -> None:
    """A token that is known needs no invite; as soon as it is not, it does."""
    invite, token = await code(shut), shut.mint.issue(2)
    swap, keysets = Gate(), Gate()
    shut.mint.trouble(Trouble(path=SWAP, processed=False, gate=swap, status=400, code=10_001))
    first = asyncio.create_task(create(shut, token, invite))
    await shut.mint.called(1, SWAP)
    asked = len([each for each in shut.mint.calls if each.path == KEYSETS])
    await shut.later(400)  # what is known of the mint is old
    shut.mint.trouble(Trouble(path=KEYSETS, gate=keysets))
    again = asyncio.create_task(create(shut, token, None))
    await shut.mint.called(asked + 1, KEYSETS)
    for gate, task in ((swap, first), (keysets, again)):
        gate.open()
        with pytest.raises(TokenRedemptionFailed):
            await task
    assert await uses(shut) == (0, 1)


async def test_a_key_that_opens_late_takes_the_use_it_held(shut: Till) -> None:
    """Nobody knows for a while, another one tries, then the money comes: credited, counted once."""
    invite, token = await code(shut), shut.mint.issue(21)
    shut.mint.cut_next_answer(SWAP)
    shut.mint.trouble(DOWN)
    with pytest.raises(MintUnreachable):
        await create(shut, token, invite)
    assert await uses(shut) == (0, 1)
    with pytest.raises(InviteRequired):
        await create(shut, shut.mint.issue(1), invite)
    await shut.resume()
    await shut.resume()
    assert await uses(shut) == (1, 0)
    key_id = (await redeem_bearer(shut.ctx, token)).id
    assert key_id is not None
    assert await shut.balance(key_id) == 21_000


@ON_SQLITE
async def test_an_invoice_holds_its_use_until_it_is_paid(shut: Till) -> None:
    invite = await code(shut)
    wish = InvoiceWish(amount_sat=5, invite=invite)
    made = await create_invoice(shut.ctx, wish)
    with pytest.raises(InviteRequired):
        await create_invoice(shut.ctx, wish)
    assert await uses(shut) == (0, 1)
    shut.mint.quotes.pay(made.bolt11)
    await shut.later(3)
    await look_at_invoices(shut.ctx)
    assert await uses(shut) == (1, 0)


@ON_SQLITE
async def test_an_invite_can_be_ended_and_is_bounded(shut: Till) -> None:
    invite = await code(shut, uses=3)
    [made], _ = await invites(shut.ctx, search="bob")
    await end_invite(shut.ctx, made.id, actor="ann")
    with pytest.raises(InviteRequired):
        await create(shut, shut.mint.issue(2), invite)
    past = shut.ctx.clock.now() - timedelta(seconds=1)
    for wrong in ({"uses": 0}, {"uses": 10**9}, {"note": "a\nb"}, {"expires_at": past}):
        with pytest.raises(InvalidParameter):
            await make_invite(shut.ctx, actor="ann", **wrong)
    stored = await shut.value("SELECT count(*) FROM invite WHERE code_hash LIKE '%invite-%'")
    assert stored == 0
