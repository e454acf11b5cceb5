"""From a balance to ecash: exact coins at once, else a swap; refusals give everything back."""

import asyncio
from dataclasses import replace

import pytest

from routstr.ecash.bdhke import dleq_ok_for_proof, verify
from routstr.ecash.token import BODY_BYTES_MAX, Token, decode_token
from routstr.errors import (
    BalanceTooSmall,
    IdempotencyMismatch,
    InsufficientBalance,
    InvalidApiKey,
    InvalidParameter,
    KeyRevoked,
    MintShort,
    NoBalance,
    RequestsInFlight,
)
from routstr.ledger.book import KeyRef
from routstr.ledger.issued import WithdrawalView
from routstr.ledger.sagas import MarkSent
from routstr.ledger.withdrawals import FailWithdrawal
from tests.ledger.node import (
    MINT_URL,
    Node,
    Signer,
    issue_command,
    reserve,
    settle,
    ys_of,
)


def token_of(node: Node, view: WithdrawalView) -> Token:
    """The token, each of whose proofs the mint has signed."""
    assert view.token is not None
    token = decode_token(view.token, bytes_max=BODY_BYTES_MAX)
    assert token.mint_url == MINT_URL
    for proof in token.proofs:
        assert verify(proof.secret, proof.c, node.signer.private_keys[proof.amount])
    return token


async def states(node: Node, token: Token) -> set[object]:
    return {await node.value("SELECT state FROM proof WHERE y = :y", y=y) for y in token.ys()}


async def test_exact_coins_leave_at_once(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")  # stored as 1, 1, 2, 4
    begun = await node.ledger.submit(node.withdraw("w", key, 7))
    assert begun.operation is None
    view = begun.withdrawal
    assert (view.status, view.amount_msat, view.fee_msat) == ("completed", 7000, 0)
    assert view.available_msat == 1000
    token = token_of(node, view)
    assert token.amount == 7
    assert await states(node, token) == {"issued"}
    assert await node.value("SELECT sum(amount) FROM proof WHERE state = 'unspent'") == 1
    await node.assert_sound()


async def test_what_is_told_at_once_is_what_is_stored(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    first = await node.ledger.submit(node.withdraw("w", key, 5, idempotency_key="i"))
    again = await node.ledger.submit(node.withdraw("w2", key, 5, idempotency_key="i"))
    assert again.is_replay
    assert again.withdrawal == first.withdrawal


async def test_exact_coins_need_not_be_one_of_each_power(node: Node) -> None:
    key = await node.open_key("k")
    for salt in ("a", "b"):
        await node.fund(key, [1], salt=salt)  # so there is no 2
    begun = await node.ledger.submit(node.withdraw("w", key, 2))
    assert begun.operation is None
    assert [proof.amount for proof in token_of(node, begun.withdrawal).proofs] == [1, 1]
    await node.assert_sound()


async def test_a_revoked_account_gets_no_change(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    await node.execute("UPDATE apikey SET revoked_at = created_at")
    with pytest.raises(KeyRevoked):
        await node.ledger.submit(replace(node.withdraw("w", key, None), is_change=True))


async def test_coins_that_do_not_fit_are_swapped(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    await node.ledger.submit(node.withdraw("w1", key, 3))  # leaves 1, 4
    begun = await node.ledger.submit(node.withdraw("w2", key, 2))
    assert begun.operation is not None
    assert (begun.withdrawal.status, begun.withdrawal.token) == ("pending", None)
    assert await node.balance(key) == 3000
    assert await node.value("SELECT sum(amount) FROM proof WHERE state = 'reserved'") == 5
    await node.assert_sound()
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    view = await node.ledger.submit(issue_command(node.signer, begun.operation, key, dleq=True))
    token = token_of(node, view)
    assert (view.status, token.amount) == ("completed", 2)
    for proof in token.proofs:
        assert dleq_ok_for_proof(proof, node.signer.keyset.keys[proof.amount])
    assert await node.value("SELECT sum(amount) FROM proof WHERE state = 'spent'") == 5
    assert await node.value("SELECT sum(amount) FROM proof WHERE state = 'unspent'") == 3
    await node.assert_sound()


async def test_coins_given_out_later_keep_their_dleq(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    await node.ledger.submit(node.withdraw("w1", key, 3))
    begun = await node.ledger.submit(node.withdraw("w2", key, 2))
    assert begun.operation is not None
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    await node.ledger.submit(issue_command(node.signer, begun.operation, key, dleq=True))
    kept = await node.ledger.submit(node.withdraw("w3", key, 2))  # out of the swap's change
    proofs = token_of(node, kept.withdrawal).proofs
    keys = node.signer.keyset.keys
    assert any(dleq_ok_for_proof(proof, keys[proof.amount]) for proof in proofs)


async def test_the_mints_fee_is_the_withdrawers(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=500, salt=5))
    key = await node.open_key("k")
    await node.fund(key, [16, 16], salt="s")  # 31 net: 1, 2, 4, 8, 16
    await node.ledger.submit(node.withdraw("w1", key, 3))  # leaves 4, 8, 16
    begun = await node.ledger.submit(node.withdraw("w2", key, 5))
    assert begun.operation is not None
    assert (begun.withdrawal.amount_msat, begun.withdrawal.fee_msat) == (5000, 1000)
    assert await node.balance(key) == (31 - 3 - 5 - 1) * 1000
    await node.assert_sound()
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    view = await node.ledger.submit(issue_command(node.signer, begun.operation, key))
    assert token_of(node, view).amount == 5
    await node.assert_sound()


async def test_emptying_a_key_pays_the_fee_out_of_it(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=500, salt=5))
    key, other = await node.open_key("k"), await node.open_key("o")
    await node.fund(key, [16, 16], salt="s")  # 31 net: 1, 2, 4, 8, 16
    await node.fund(other, [2], salt="o")
    await node.ledger.submit(node.withdraw("w1", other, 1))
    await node.ledger.submit(reserve("h", key, 500))
    await node.ledger.submit(settle("h", key, 500))
    begun = await node.ledger.submit(node.withdraw("w2", key, None))
    view = begun.withdrawal
    assert view.amount_msat + view.fee_msat == 30_000
    assert await node.balance(key) == 500
    if begun.operation is not None:
        await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
        view = await node.ledger.submit(issue_command(node.signer, begun.operation, key))
    assert token_of(node, view).amount * 1000 == view.amount_msat
    await node.assert_sound()


async def test_the_last_coin_pays_its_own_fee(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=1000, salt=5))
    key = await node.open_key("k")
    await node.fund(key, [4, 1], salt="s")  # 3 net: 1, 2
    await node.ledger.submit(reserve("h", key, 1500))
    await node.ledger.submit(settle("h", key, 1500))  # 1.5 sat left, and coins of 1 and 2
    begun = await node.ledger.submit(node.withdraw("w", key, None))
    assert begun.withdrawal.amount_msat == 1000
    await node.assert_sound()


async def test_a_refusal_gives_coins_and_money_back(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=500, salt=5))
    key = await node.open_key("k")
    await node.fund(key, [16, 16], salt="s")
    await node.ledger.submit(node.withdraw("w1", key, 3))
    command = node.withdraw("w2", key, 5, idempotency_key="i", fingerprint="f")
    begun = await node.ledger.submit(command)
    assert begun.operation is not None
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    failed = await node.ledger.submit(
        FailWithdrawal(operation=begun.operation, api_key_id="key_k", code="11005", message="no")
    )
    assert (failed.status, failed.available_msat) == ("failed", 28_000)
    assert await node.balance(key) == 28_000
    assert await node.value("SELECT count(*) FROM proof WHERE state = 'reserved'") == 0
    await node.assert_sound()
    anew = await node.ledger.submit(
        node.withdraw("w3", key, 5, idempotency_key="i", fingerprint="f")
    )
    assert (anew.withdrawal.id, anew.is_replay) == ("w3", False)
    await node.assert_sound()


async def test_an_idempotency_key_pays_once(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    first = await node.ledger.submit(
        node.withdraw("w1", key, 3, idempotency_key="i", fingerprint="f")
    )
    again = await node.ledger.submit(
        node.withdraw("w2", key, 3, idempotency_key="i", fingerprint="f")
    )
    assert again.is_replay
    assert again.withdrawal == first.withdrawal
    with pytest.raises(IdempotencyMismatch):
        await node.ledger.submit(node.withdraw("w3", key, 4, idempotency_key="i", fingerprint="g"))
    assert await node.balance(key) == 5000
    await node.assert_sound()


async def test_what_cannot_be_paid_is_refused_before_anything_moves(node: Node) -> None:
    key, poor = await node.open_key("k"), await node.open_key("p")
    await node.fund(key, [8], salt="s")
    refusals = [
        (node.withdraw("w", KeyRef(id="nobody"), 1), InvalidApiKey),
        (node.withdraw("w", poor, None), NoBalance),
        (node.withdraw("w", key, 9), InsufficientBalance),
        (node.withdraw("w", key, 0), InvalidParameter),
        (node.withdraw("w", key, -1), InvalidParameter),
    ]
    before = await node.rows()
    for command, error in refusals:
        with pytest.raises(error):
            await node.ledger.submit(command)
    assert await node.rows() == before


async def test_a_key_with_running_requests_keeps_what_they_hold(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    await node.ledger.submit(reserve("h", key, 2000))
    with pytest.raises(RequestsInFlight):
        await node.ledger.submit(node.withdraw("w", key, None))
    with pytest.raises(InsufficientBalance):
        await node.ledger.submit(node.withdraw("w", key, 7))
    begun = await node.ledger.submit(node.withdraw("w", key, 6))
    assert begun.withdrawal.available_msat == 0
    await node.assert_sound()


async def test_less_than_the_mints_unit_stays_on_the_key(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    await node.ledger.submit(reserve("h", key, 500))
    await node.ledger.submit(settle("h", key, 500))
    begun = await node.ledger.submit(node.withdraw("w1", key, None))
    assert begun.withdrawal.amount_msat == 7000
    assert await node.balance(key) == 500
    with pytest.raises(BalanceTooSmall):
        await node.ledger.submit(node.withdraw("w2", key, None))
    await node.assert_sound()


async def test_a_purse_that_is_short_says_so(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    # Whoever swaps has most of the purse in his hands for the while.
    await node.ledger.submit(node.withdraw("w1", key, 1))
    await node.ledger.submit(node.withdraw("w2", key, 4))
    begun = await node.ledger.submit(node.withdraw("w3", key, 1))
    assert begun.withdrawal.status == "completed"
    other = await node.open_key("o")
    await node.fund(other, [1], salt="o")
    await node.execute("UPDATE proof SET state = 'spent' WHERE state = 'unspent'")
    with pytest.raises(MintShort):
        await node.ledger.submit(node.withdraw("w4", other, 1))
    assert await node.balance(other) == 1000


async def test_a_fee_that_eats_the_balance_is_refused(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=1000, salt=5))
    key, other = await node.open_key("k"), await node.open_key("o")
    await node.fund(key, [2], salt="s")  # 1 net
    await node.fund(other, [8, 1], salt="o")  # 7 net: 1, 2, 4
    await node.ledger.submit(node.withdraw("w1", other, 2))  # leaves 1, 1, 4
    await node.execute("UPDATE proof SET state = 'spent' WHERE amount = 1")
    with pytest.raises(BalanceTooSmall):
        await node.ledger.submit(node.withdraw("w2", key, None))
    with pytest.raises(InsufficientBalance):
        await node.ledger.submit(node.withdraw("w3", key, 1))
    assert await node.value("SELECT count(*) FROM proof WHERE state = 'reserved'") == 0


async def test_withdrawals_in_one_batch_never_share_a_coin(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    results = await asyncio.gather(
        *(node.ledger.submit(node.withdraw(f"w{n}", key, 1)) for n in range(9)),
        return_exceptions=True,
    )
    views = [each.withdrawal for each in results if not isinstance(each, BaseException)]
    tokens = [token_of(node, view) for view in views if view.token is not None]
    ys = [y for token in tokens for y in ys_of(token.proofs)]
    assert len(ys) == len(set(ys))
    await node.assert_sound()
