"""What the node knows of its mints, and the lease and result of each job."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import insert, or_, select, update

from routstr.ecash.keyset import residue31
from routstr.ecash.proof import Keyset
from routstr.errors import UntrustedMint
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.sagas import KEYSET, MINT
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import JobRun

JOB = table_of(JobRun)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveMint(RowCommand[str]):
    """Remember what a mint answered just now; yields its id. Counters are never touched.

    Refuses with UntrustedMint when a keyset belongs to another mint, shares the 31 bits that
    derive secrets with another keyset (SR-6), or shows other keys than before.
    """

    mint_url: str
    keysets: Sequence[Keyset]
    nuts: Collection[int] = ()

    async def run(self, transaction: Transaction) -> str:
        """Insert or update each."""
        mint_id = await self._mint(transaction)
        known = await transaction.connection.execute(select(KEYSET))
        by_id = {row.id: row for row in known}
        by_residue = {row.residue31: row.id for row in by_id.values()}
        for keyset in self.keysets:
            row, residue = by_id.get(keyset.id), residue31(keyset.id)
            if row is None and residue in by_residue:
                raise UntrustedMint("A keyset of this mint collides with another one.")
            if row is not None and row.mint_id != mint_id:
                raise UntrustedMint("A keyset of this mint belongs to another mint.")
            keys = {str(amount): key for amount, key in keyset.keys.items()}
            if row is not None and row.keys != keys:
                raise UntrustedMint("This mint changed the keys of a keyset.")
            by_residue[residue] = keyset.id
            await self._keyset(transaction, mint_id, keyset, keys, residue, is_new=row is None)
        return mint_id

    async def _mint(self, transaction: Transaction) -> str:
        now = transaction.book.now
        found = await transaction.connection.scalar(
            select(MINT.c.id).where(MINT.c.url == self.mint_url)
        )
        answer = {"nuts": sorted(self.nuts), "answered_at": now}
        if found is not None:
            await transaction.connection.execute(
                update(MINT).where(MINT.c.id == found).values(**answer)
            )
            return str(found)
        mint_id = transaction.wallet.new_id("mint")
        await transaction.connection.execute(
            insert(MINT).values(
                id=mint_id, url=self.mint_url, created_at=now, updated_at=now, **answer
            )
        )
        return mint_id

    async def _keyset(
        self,
        transaction: Transaction,
        mint_id: str,
        keyset: Keyset,
        keys: Mapping[str, str],
        residue: int,
        *,
        is_new: bool,
    ) -> None:
        values = {
            "active": keyset.active,
            "input_fee_ppk": keyset.input_fee_ppk,
            "final_expiry": keyset.final_expiry,
            "updated_at": transaction.book.now,
        }
        if is_new:
            await transaction.connection.execute(
                insert(KEYSET).values(
                    id=keyset.id,
                    mint_id=mint_id,
                    unit=keyset.unit,
                    keys=keys,
                    next_counter=0,
                    residue31=residue,
                    **values,
                )
            )
        else:
            await transaction.connection.execute(
                update(KEYSET).where(KEYSET.c.id == keyset.id).values(**values)
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeJob(RowCommand[bool]):
    """Take the lease of a job that is due; False when it is not, or another process has it.

    One that `is_asked` for need not be due.
    """

    name: str
    owner: str
    lease_s: float
    orphaned: bool = False
    is_asked: bool = False

    async def run(self, transaction: Transaction) -> bool:
        """Compare-and-set."""
        now, connection = transaction.book.now, transaction.connection
        until = now + timedelta(seconds=self.lease_s)
        if await connection.scalar(select(JOB.c.name).where(JOB.c.name == self.name)) is None:
            await connection.execute(
                insert(JOB).values(
                    name=self.name,
                    lease_owner=self.owner,
                    lease_until=until,
                    next_run_at=now,
                    started_at=now,
                )
            )
            return True
        free = or_(JOB.c.lease_until.is_(None), JOB.c.lease_until < now)
        condition = JOB.c.name == self.name
        if not self.orphaned:
            condition = condition & free
        if not self.orphaned and not self.is_asked:
            condition = condition & (JOB.c.next_run_at <= now)
        taken = await connection.execute(
            update(JOB)
            .where(condition)
            .values(lease_owner=self.owner, lease_until=until, started_at=now)
        )
        return taken.rowcount == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishJob(RowCommand[None]):
    """Write a job's result, give its lease back, and say when it is due next.

    One that broke off (`result` None) has found nothing out: what was last found out stands, so
    that no accident lifts or causes what hangs on it.
    """

    name: str
    owner: str
    ok: bool
    result: Mapping[str, object] | None
    next_in_s: float

    async def run(self, transaction: Transaction) -> None:
        """Only the owner of the lease may."""
        now, execute = transaction.book.now, transaction.connection.execute
        mine = (JOB.c.name == self.name) & (JOB.c.lease_owner == self.owner)
        is_told, said = mine, self.result
        if said is None:
            is_told, said = mine & JOB.c.finished_at.is_(None), {}
        await execute(
            update(JOB).where(is_told).values(finished_at=now, ok=self.ok, result=dict(said))
        )
        next_at = now + timedelta(seconds=self.next_in_s)
        await execute(update(JOB).where(mine).values(lease_until=None, next_run_at=next_at))
