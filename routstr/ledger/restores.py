"""Coins had back from the mints with the seed alone, after the database was lost (ecash, 4 E).

Laws
- Only a database that has not lived takes a seed from outside, and only a mint this database never
  dealt with is restored: anything else would use an output twice, or count a coin twice.
- One commit per keyset: its coins, and the counter behind everything the mint ever signed. What is
  here already is not stored again, so a restore that was killed is simply run again.
- While a restore is under way the database says so, and no node starts on it: of a keyset not
  scanned yet it would use the outputs of the life before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import orjson
from sqlalchemy import func, insert, select, text, update

from routstr.ecash.outputs import Output, blinded_messages_json
from routstr.ecash.proof import Proof
from routstr.errors import ConfigError, RestoreRefused
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.engine import Database, ReadConnection
from routstr.ledger.reads import SETTING, plain_setting
from routstr.ledger.sagas import (
    KEYSET,
    OPERATION,
    OUTPUT,
    Operation,
    OperationState,
    Purpose,
    store_proofs,
)
from routstr.ledger.seed import ACCEPTANCE_INDEX, acceptance_index, sealed_mnemonic, stored_mnemonic
from routstr.ledger.seed import NAME as MNEMONIC
from routstr.ledger.vault import Vault

RESTORE: Final = "wallet_restore"
KEEP: Final[tuple[Purpose, ...]] = ("keep",)
NODE_ALIVE_S: Final = 60
NOT_EMPTY: Final = (
    "this database has a wallet of its own with ecash in it; restore into an empty one"
)
HAS_LIVED: Final = text(
    "SELECT 1 FROM mint_operation UNION ALL SELECT 1 FROM proof UNION ALL SELECT 1 FROM apikey"
    " UNION ALL SELECT 1 FROM keyset WHERE next_counter > 0 LIMIT 1"
)


# ── before: the seed ──────────────────────────────────────────────────────────────────────────


async def adopt_mnemonic(
    database: Database,
    vault: Vault,
    mnemonic: str,
    *,
    acceptance_key: int,
    now: datetime,
) -> None:
    """Make this the database's mnemonic, and mark a restore as under way; a repeat is fine.

    With a mnemonic that is new here the acceptance key moves on: to one more than before, and at
    least to `acceptance_key`. Raises RestoreRefused for a database that has lived with another
    seed, or that a node is using.
    """
    index = max(await acceptance_index(database) + 1, acceptance_key)
    async with database.writer.begin() as connection:
        await _check_unused(connection, database, now)
        mark = await plain_setting(ReadConnection(connection), RESTORE)
        if mark is not None and mark.get("backup") is not None and mark.get("state") != "done":
            raise RestoreRefused("this database is a half restored backup; finish that first")
        known = await stored_mnemonic(ReadConnection(connection), vault)
        if known != mnemonic:
            if (await connection.execute(HAS_LIVED)).first() is not None:
                raise RestoreRefused(NOT_EMPTY)
            version = await _next_version(connection, MNEMONIC)
            sealed = sealed_mnemonic(vault, mnemonic)
            await connection.execute(
                insert(SETTING).values(
                    name=MNEMONIC,
                    version=version,
                    sealed_value=sealed,
                    changed_by="restore",
                    created_at=now,
                )
            )
            await put_setting(connection, ACCEPTANCE_INDEX, {"index": index}, now)
        await put_setting(connection, RESTORE, {"state": "running"}, now)


async def finish_restore(database: Database, *, now: datetime) -> None:
    """Every mint was scanned: nodes may start again."""
    async with database.writer.begin() as connection:
        await put_setting(connection, RESTORE, {"state": "done"}, now)


async def check_restored(connection: ReadConnection) -> None:
    """Raises ConfigError while a restore of this database was begun and not finished."""
    value = await plain_setting(connection, RESTORE)
    if value is None or value.get("state") == "done":
        return
    if value.get("backup") is not None:
        raise ConfigError(
            "this database is a half restored backup: run `routstr backup restore` again"
        )
    raise ConfigError(
        "the wallet of this database is half restored: run `routstr wallet restore` again"
    )


async def _check_unused(connection: LedgerConnection, database: Database, now: datetime) -> None:
    """On SQLite the lock has said it; on PostgreSQL the jobs of a node tell that it lives."""
    if database.dialect == "sqlite":
        return
    since = now - timedelta(seconds=NODE_ALIVE_S)
    alive = text("SELECT 1 FROM job_run WHERE started_at > :since LIMIT 1")
    if (await connection.execute(alive, {"since": since})).first() is not None:
        raise RestoreRefused(
            "a node has used this database within the last minute: stop it, wait, and repeat this"
        )


async def _next_version(connection: LedgerConnection, name: str) -> int:
    highest = select(func.max(SETTING.c.version)).where(SETTING.c.name == name)
    return int(await connection.scalar(highest) or 0) + 1


async def put_setting(
    connection: LedgerConnection, name: str, value: Mapping[str, object], now: datetime
) -> None:
    """A new version of what a restore keeps in mind."""
    await connection.execute(
        insert(SETTING).values(
            name=name,
            version=await _next_version(connection, name),
            value=dict(value),
            changed_by="restore",
            created_at=now,
        )
    )


# ── the coins ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRestored(RowCommand[int]):
    """Keep what a mint has signed of one keyset and calls unspent; yields what that is worth.

    `outputs`, `proofs` and `ys` go position by position; `next_counter` is one more than the
    highest counter ever signed. Refuses with RestoreRefused at a mint this database dealt with,
    unless it `has_lived`, as the copy in a backup has: then it yields what is new here.
    """

    mint_id: str
    mint_url: str
    unit: str
    keyset_id: str
    outputs: Sequence[Output] = field(repr=False)
    proofs: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)
    next_counter: int
    owner: str
    has_lived: bool = False

    async def run(self, transaction: Transaction) -> int:
        """Store those not here yet, and move the counter forward."""
        connection = transaction.connection
        lived = select(OPERATION.c.id).where(
            OPERATION.c.mint_id == self.mint_id, OPERATION.c.kind != "restore"
        )
        if not self.has_lived and await connection.scalar(lived.limit(1)) is not None:
            raise RestoreRefused(f"{NOT_EMPTY} ({self.mint_url})")
        stored = select(OUTPUT.c.counter).where(OUTPUT.c.keyset_id == self.keyset_id)
        known = set((await connection.execute(stored)).scalars())
        fresh = [n for n, output in enumerate(self.outputs) if output.counter not in known]
        if fresh:
            await self._store(transaction, fresh)
        await connection.execute(
            update(KEYSET)
            .where(KEYSET.c.id == self.keyset_id, KEYSET.c.next_counter < self.next_counter)
            .values(next_counter=self.next_counter)
        )
        kept = fresh if self.has_lived else range(len(self.proofs))
        return sum(self.proofs[n].amount for n in kept)

    async def _store(self, transaction: Transaction, fresh: Sequence[int]) -> None:
        outputs = tuple(self.outputs[n] for n in fresh)
        operation = self._operation(transaction.wallet.new_id("op"), outputs)
        seal = transaction.wallet.vault.seal
        now = transaction.book.now
        await transaction.connection.execute(
            insert(OPERATION).values(
                id=operation.id,
                kind=operation.kind,
                state=operation.state,
                mint_id=self.mint_id,
                unit=self.unit,
                request=seal(
                    operation.body.decode(),
                    table="mint_operation",
                    column="request",
                    row_id=operation.id,
                ),
                input_amount=operation.input_amount,
                fee_amount=0,
                lease_owner=self.owner,
                attempts=0,
                next_attempt_at=now,
                created_at=now,
                ended_at=now,
            )
        )
        rows = [
            {
                "operation_id": operation.id,
                "position": position,
                "keyset_id": output.keyset_id,
                "counter": output.counter,
                "amount": output.amount,
                "b_": output.b_,
                "purpose": "keep",
            }
            for position, output in enumerate(outputs)
        ]
        await transaction.connection.execute(insert(OUTPUT), rows)
        proofs, ys = [self.proofs[n] for n in fresh], [self.ys[n] for n in fresh]
        await store_proofs(transaction, operation, proofs, ys, withdrawal_id=None)

    def _operation(self, operation_id: str, outputs: tuple[Output, ...]) -> Operation:
        """What brought the coins, as the books know it: nothing went in, and nobody was paid."""
        return Operation(
            id=operation_id,
            kind="restore",
            state=OperationState.DONE,
            mint_id=self.mint_id,
            mint_url=self.mint_url,
            unit=self.unit,
            body=orjson.dumps({"outputs": blinded_messages_json(outputs)}),
            outputs=outputs,
            purposes=KEEP * len(outputs),
            input_amount=sum(output.amount for output in outputs),
            fee_amount=0,
            deposit_id=None,
            withdrawal_id=None,
            predecessor_id=None,
            attempts=0,
            lease_owner=self.owner,
        )
