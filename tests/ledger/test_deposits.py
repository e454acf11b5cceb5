"""From a token's proofs to a balance: intent, credit, refusal, and every second try."""

import asyncio
from dataclasses import replace

import pytest

from routstr.errors import (
    IdempotencyMismatch,
    InvalidApiKey,
    KeyRevoked,
    Pending,
    TokenAlreadySpent,
)
from routstr.ledger.accounts import NewKey, PruneSealedKeys
from routstr.ledger.book import KeyRef
from routstr.ledger.deposits import FailDeposit, ReplaceDepositOperation
from routstr.ledger.leases import Claim
from routstr.ledger.sagas import MarkSent, OperationState
from tests.ledger.node import Node, Signer, credit_command, new_key, ys_of


async def test_a_token_opens_a_key_with_its_net_worth(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=100, salt=5), url="https://mint.example")
    proofs = node.signer.proofs([8, 4, 1], salt="s")
    begun = await node.ledger.submit(node.begin("dep", proofs, new=new_key("k")))
    assert begun.operation is not None
    assert begun.operation.state is OperationState.PREPARED
    assert sum(output.amount for output in begun.operation.outputs) == 12
    assert [dict(each)["secret"] for each in begun.operation.inputs] == [
        proof.secret for proof in proofs
    ]
    assert begun.deposit.api_key_id is None
    await node.assert_sound()
    credited = await node.credit(begun)
    assert (credited.api_key_id, credited.credit_msat) == ("key_k", 12_000)
    assert await node.value("SELECT total_deposited FROM apikey") == 12_000
    assert await node.value("SELECT sum(amount) FROM proof WHERE state = 'unspent'") == 12
    await node.assert_sound()


async def test_msat_mints_are_credited_as_they_are(node: Node) -> None:
    await node.save_mint(Signer(unit="msat", salt=5), url="https://mint.example")
    key = await node.open_key("k")
    credited = await node.fund(key, [1024, 1], salt="s")
    assert credited.credit_msat == 1025
    begun = await node.ledger.submit(node.withdraw("w", key, None))
    assert begun.withdrawal.amount_msat == 1025
    await node.assert_sound()


async def test_counters_move_on_and_outputs_never_repeat(node: Node) -> None:
    key = await node.open_key("k")
    seen: set[str] = set()
    for n in range(3):
        proofs = node.signer.proofs([8], salt=f"s{n}")
        begun = await node.ledger.submit(node.begin(f"d{n}", proofs, target=key))
        assert begun.operation is not None
        counters = [output.counter for output in begun.operation.outputs]
        assert counters == list(range(4 * n, 4 * n + 4))
        seen |= {output.b_ for output in begun.operation.outputs}
    assert len(seen) == 12


async def test_the_same_token_attaches_to_its_deposit(node: Node) -> None:
    key = await node.open_key("k")
    proofs = node.signer.proofs([8, 4], salt="s")
    first = await node.ledger.submit(node.begin("d1", proofs, target=key))
    again = await node.ledger.submit(node.begin("d2", proofs[::-1], target=key))
    assert again.deposit.id == "d1"
    assert again.operation is None
    credited = await node.credit(first)
    after = await node.ledger.submit(node.begin("d3", proofs, target=key))
    assert (after.deposit.id, after.deposit.state) == ("d1", "credited")
    with pytest.raises(TokenAlreadySpent):  # its maker knows it too, and gets no key with it
        await node.ledger.submit(node.begin("d4", proofs, new=new_key("n")))
    assert credited.api_key_id == key.id
    await node.assert_sound()


@pytest.mark.parametrize("amounts", [[8], [8, 4, 2]], ids=["part of it", "more than it"])
async def test_a_known_proof_in_another_token_is_spent(node: Node, amounts: list[int]) -> None:
    key = await node.open_key("k")
    await node.ledger.submit(node.begin("d1", node.signer.proofs([8, 4], salt="s"), target=key))
    other = node.signer.proofs(amounts, salt="s")
    with pytest.raises(TokenAlreadySpent):
        await node.ledger.submit(node.begin("d2", other, target=key))
    with pytest.raises(TokenAlreadySpent):
        await node.ledger.submit(node.begin("d2", other, new=new_key("n")))


async def test_proofs_of_two_deposits_are_spent(node: Node) -> None:
    key = await node.open_key("k")
    both = [node.signer.proofs([8], salt=salt) for salt in ("a", "b")]
    for n, proofs in enumerate(both):
        await node.ledger.submit(node.begin(f"d{n}", proofs, target=key))
    with pytest.raises(TokenAlreadySpent):
        await node.ledger.submit(node.begin("d2", [*both[0], *both[1]], target=key))


async def test_another_account_gets_nothing_of_it(node: Node) -> None:
    key, thief = await node.open_key("k"), await node.open_key("t")
    proofs = node.signer.proofs([8], salt="s")
    await node.ledger.submit(node.begin("d1", proofs, target=key))
    with pytest.raises(TokenAlreadySpent):
        await node.ledger.submit(node.begin("d2", proofs, target=thief))


async def test_a_failed_deposit_frees_its_token_and_its_idempotency_key(node: Node) -> None:
    key = await node.open_key("k")
    proofs = node.signer.proofs([8], salt="s")
    command = node.begin("d1", proofs, target=key, idempotency_key="i", fingerprint="f")
    begun = await node.ledger.submit(command)
    assert begun.operation is not None
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    failed = FailDeposit(operation=begun.operation, code="10001", error_code="refused")
    await node.ledger.submit(failed)
    assert await node.value("SELECT error_code FROM deposit WHERE id = 'd1'") == "refused"
    await node.assert_sound()
    again = await node.ledger.submit(
        node.begin("d2", proofs, target=key, idempotency_key="i", fingerprint="f")
    )
    await node.credit(again)
    await node.ledger.submit(failed)
    assert await node.balance(key) == 8000
    await node.assert_sound()


async def test_an_idempotency_key_is_for_one_token(node: Node) -> None:
    key = await node.open_key("k")
    first, other = (node.signer.proofs([8], salt=salt) for salt in "ab")
    await node.ledger.submit(
        node.begin("d1", first, target=key, idempotency_key="i", fingerprint="a")
    )
    with pytest.raises(IdempotencyMismatch):
        await node.ledger.submit(
            node.begin("d2", other, target=key, idempotency_key="i", fingerprint="b")
        )
    mine = await node.open_key("m")
    await node.ledger.submit(
        node.begin("d3", other, target=mine, idempotency_key="i", fingerprint="b")
    )


async def test_only_a_living_key_is_topped_up(node: Node) -> None:
    await node.open_key("k")
    await node.execute("UPDATE apikey SET revoked_at = created_at")
    proofs = node.signer.proofs([8], salt="s")
    with pytest.raises(KeyRevoked):
        await node.ledger.submit(node.begin("d", proofs, target=KeyRef(id="key_k")))
    with pytest.raises(InvalidApiKey):
        await node.ledger.submit(node.begin("d", proofs, target=KeyRef(hash="unknown")))
    assert await node.value("SELECT count(*) FROM deposit_input") == 0


async def test_a_refusal_heard_before_a_takeover_ends_nothing(node: Node) -> None:
    proofs = node.signer.proofs([8], salt="s")
    begun = await node.ledger.submit(node.begin("d", proofs, new=new_key("k"), lease_s=-1))
    assert begun.operation is not None
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    taken = await node.ledger.submit(Claim(owner="two", lease_s=30))
    with pytest.raises(Pending):
        await node.ledger.submit(
            FailDeposit(operation=begun.operation, code="10001", error_code="refused")
        )
    await node.ledger.submit(credit_command(node.signer, taken[0], None))
    await node.assert_sound()


async def test_a_successor_takes_the_inputs_over(node: Node) -> None:
    proofs = node.signer.proofs([8], salt="s")
    begun = await node.ledger.submit(node.begin("d", proofs, new=new_key("k")))
    assert begun.operation is not None
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    await node.save_mint(Signer(fee_ppk=100, salt=5), url="https://mint.example")
    node.clock.advance(1)
    successor = await node.ledger.submit(
        ReplaceDepositOperation(
            operation=begun.operation,
            code="12002",
            keyset_id=node.signer.keyset.id,
            output_amounts=[1, 2, 4],
            face_amount=8,
            fee_amount=1,
            credit_msat=7000,
            owner="one",
            lease_s=30,
        )
    )
    assert successor.inputs == begun.operation.inputs
    assert successor.predecessor_id == begun.operation.id
    await node.assert_sound()
    await node.ledger.submit(MarkSent(operation_id=successor.id))
    credited = await node.ledger.submit(credit_command(node.signer, successor, None))
    assert credited.credit_msat == 7000
    await node.assert_sound()


async def test_a_new_keys_text_waits_sealed_until_it_was_used(node: Node) -> None:
    proofs = node.signer.proofs([8], salt="s")
    await node.credit(await node.ledger.submit(node.begin("d", proofs, new=new_key("k"))))
    sealed = await node.value("SELECT sealed_key FROM deposit")
    assert isinstance(sealed, str)
    place = {"table": "deposit", "column": "sealed_key", "row_id": "d"}
    assert node.wallet.vault.open(sealed, **place) == "sk-k"
    assert await node.ledger.submit(PruneSealedKeys(ttl_s=600)) == 0
    await node.execute("UPDATE apikey SET first_used_at = created_at")
    assert await node.ledger.submit(PruneSealedKeys(ttl_s=600)) == 1
    assert await node.value("SELECT sealed_key FROM deposit") is None


async def test_a_new_keys_terms_are_those_it_was_asked_with(node: Node) -> None:
    terms = NewKey(
        id="key_t",
        hash="hash",
        text="sk-t",
        expires_at=node.clock.now(),
        balance_limit_msat=5000,
        limit_reset="daily",
    )
    proofs = node.signer.proofs([8], salt="s")
    await node.credit(await node.ledger.submit(node.begin("d", proofs, new=terms)))
    assert NewKey.from_terms(terms.terms()) == NewKey(
        id="key_t",
        hash="hash",
        expires_at=node.clock.now(),
        balance_limit_msat=5000,
        limit_reset="daily",
    )
    assert await node.value("SELECT balance_limit FROM apikey") == 5000
    assert await node.value("SELECT limit_reset FROM apikey") == "daily"
    assert await node.value("SELECT count(*) FROM apikey WHERE expires_at = created_at") == (
        0 if node.database.dialect == "postgresql" else 1
    )


async def test_many_deposits_at_once_are_each_their_own(node: Node) -> None:
    key = await node.open_key("k")
    tokens = [node.signer.proofs([4], salt=f"s{n}") for n in range(20)]
    begun = await asyncio.gather(
        *(
            node.ledger.submit(node.begin(f"d{n}", proofs, target=key))
            for n, proofs in enumerate(tokens)
        )
    )
    await asyncio.gather(*(node.credit(each) for each in begun))
    assert await node.balance(key) == 80_000
    assert await node.value("SELECT count(*) FROM deposit_input") == 20
    await node.assert_sound()


async def test_recovery_finds_what_nobody_drives_with_all_it_needs(node: Node) -> None:
    key = await node.open_key("k")
    proofs = node.signer.proofs([8], salt="s")
    begun = await node.ledger.submit(node.begin("d", proofs, target=key, lease_s=-1))
    assert begun.operation is not None
    claimed = await node.ledger.submit(Claim(owner="two", lease_s=30))
    assert claimed == (replace(begun.operation, lease_owner="two"),)
    await node.ledger.submit(MarkSent(operation_id=claimed[0].id))
    await node.ledger.submit(credit_command(node.signer, claimed[0], "key_k"))
    assert await node.ledger.submit(Claim(owner="three", lease_s=30)) == ()
    assert ys_of(proofs) == (await node.value("SELECT y FROM deposit_input"),)
    await node.assert_sound()
