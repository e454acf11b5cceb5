"""The commands of who may log in: made once, proved by a code that is good once, changed.

Laws
- The first admin is made by whoever has the set-up link, of which only a digest is stored; making
  him is what uses the link up.
- A code's step is taken by a guarded UPDATE, a recovery code by its removal under the row's lock:
  no two processes take one twice. The attempt that took it may repeat itself.
- Whatever changes how somebody proves who he is ends his sessions; what is done is noted in the
  same transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, delete, insert, or_, select, update

from routstr.errors import InvalidCredentials, SetupRefused
from routstr.ledger.actions import ActionNote, write_note
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.reads import SETTING
from routstr.ledger.sessions import SESSION, NewSession, write_session
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import AdminUser
from routstr.ledger.throttle import THROTTLE, ThrottleScope, forgive
from routstr.ledger.vault import Vault

ADMIN = table_of(AdminUser)

ADMIN_NAME: Final = "admin"
SETUP_LINK: Final = "admin_setup_link"
TOTP_PLACE: Final = {"table": "admin_user", "column": "totp_secret"}


def sealed_totp(vault: Vault, secret: str, user_id: str) -> str:
    """A TOTP secret, in base32, as its row keeps it."""
    return vault.seal(secret, row_id=user_id, **TOTP_PLACE)


# ── the set-up ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepSetupLink(RowCommand[bool]):
    """From now on the link of that digest is the one; False where there is an admin already.

    With `is_first` also where there was a link before.
    """

    digest: str
    is_first: bool
    note: ActionNote

    async def run(self, transaction: Transaction) -> bool:
        """Add a version; two processes that begin together keep one of theirs."""
        connection = transaction.connection
        if await connection.scalar(select(ADMIN.c.id)) is not None:
            return False
        last = await _last_link(transaction)
        if last is not None and last.value == {"digest": self.digest}:
            return True
        if self.is_first and last is not None:
            return False
        await connection.execute(
            insert(SETTING).values(
                name=SETUP_LINK,
                version=1 if last is None else last.version + 1,
                value={"digest": self.digest},
                changed_by=self.note.actor,
                created_at=transaction.book.now,
            )
        )
        await write_note(transaction, self.note)
        return True


async def _last_link(transaction: Transaction) -> Row[Any] | None:
    rows = await transaction.connection.execute(
        select(SETTING.c.value, SETTING.c.version)
        .where(SETTING.c.name == SETUP_LINK)
        .order_by(SETTING.c.version.desc())
        .limit(1)
    )
    return rows.one_or_none()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateAdmin(RowCommand[None]):
    """Make the one admin, with a session that can only go on with the set-up.

    `totp_secret` is base32. Refuses with SetupRefused when the link is not the one, or was used.
    """

    user_id: str
    link_digest: str
    password_hash: str = field(repr=False)
    totp_secret: str = field(repr=False)
    session: NewSession
    note: ActionNote

    async def run(self, transaction: Transaction) -> None:
        """Insert him once; of two at once the name's uniqueness lets one through."""
        connection, now = transaction.connection, transaction.book.now
        holder = await connection.scalar(select(ADMIN.c.id))
        if holder == self.user_id:
            return
        link = await _last_link(transaction)
        if holder is not None or link is None or link.value != {"digest": self.link_digest}:
            raise SetupRefused
        await connection.execute(
            insert(ADMIN).values(
                id=self.user_id,
                name=ADMIN_NAME,
                password_hash=self.password_hash,
                totp_secret=sealed_totp(transaction.wallet.vault, self.totp_secret, self.user_id),
                created_at=now,
                updated_at=now,
            )
        )
        await write_session(transaction, self.user_id, self.session)
        await write_note(transaction, self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrol(RowCommand[None]):
    """A first code proved the TOTP secret: keep the recovery codes and change the session.

    Refuses with InvalidCredentials where the secret is another one by now, or is proved already.
    """

    user_id: str
    sealed_secret: str = field(repr=False)
    step: int
    code_hashes: Sequence[str] = field(repr=False)
    session: NewSession
    note: ActionNote

    async def run(self, transaction: Transaction) -> None:
        """Update him; every session he had so far ends."""
        done = await transaction.connection.execute(
            update(ADMIN)
            .where(
                ADMIN.c.id == self.user_id,
                ADMIN.c.totp_secret == self.sealed_secret,
                or_(ADMIN.c.enrolled_at.is_(None), ADMIN.c.totp_last_by == self.session.id),
            )
            .values(
                enrolled_at=transaction.book.now,
                totp_last_step=self.step,
                totp_last_by=self.session.id,
                recovery_codes=list(self.code_hashes),
                updated_at=transaction.book.now,
            )
        )
        if done.rowcount != 1:
            raise InvalidCredentials
        await end_all(transaction, self.user_id)
        await write_session(transaction, self.user_id, self.session)
        await write_note(transaction, self.note)


# ── proving ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A right code as it was checked: the step of a TOTP code, or the hash of a recovery code.

    `sealed_secret` is the secret it was checked against, `attempt` names this use of it.
    """

    user_id: str
    attempt: str
    sealed_secret: str = field(repr=False)
    step: int | None = None
    code_hash: str | None = field(default=None, repr=False)


async def take_proof(transaction: Transaction, proof: Proof) -> None:
    """Use a code up. Raises InvalidCredentials when it was used, or proves nothing any more."""
    connection, now = transaction.connection, transaction.book.now
    rows = await connection.execute(
        select(ADMIN).where(ADMIN.c.id == proof.user_id).with_for_update()
    )
    row = rows.one_or_none()
    if row is None or row.totp_secret != proof.sealed_secret:
        raise InvalidCredentials
    if row.totp_last_by == proof.attempt:
        return
    taken = update(ADMIN).where(ADMIN.c.id == proof.user_id)
    if proof.step is not None:
        later = or_(ADMIN.c.totp_last_step.is_(None), ADMIN.c.totp_last_step < proof.step)
        taken = taken.where(later).values(totp_last_step=proof.step)
    else:
        codes = list(row.recovery_codes or [])
        if proof.code_hash not in codes:
            raise InvalidCredentials
        codes.remove(proof.code_hash)
        taken = taken.values(recovery_codes=codes)
    done = await connection.execute(taken.values(totp_last_by=proof.attempt, updated_at=now))
    if done.rowcount != 1:
        raise InvalidCredentials


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeProof(RowCommand[None]):
    """Use a code up for one act of a session. Refuses with InvalidCredentials."""

    session_id: str
    proof: Proof
    forgives: Sequence[ThrottleScope]

    async def run(self, transaction: Transaction) -> None:
        """Take it, and say in the session when."""
        await take_proof(transaction, self.proof)
        await transaction.connection.execute(
            update(SESSION)
            .where(SESSION.c.id == self.session_id)
            .values(totp_at=transaction.book.now)
        )
        await forgive(transaction, self.forgives)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIn(RowCommand[None]):
    """Open a session for a right password and, once there is an app, a right code.

    Refuses with InvalidCredentials: the code was used, or the password was changed meanwhile.
    """

    user_id: str
    password_hash: str = field(repr=False)
    proof: Proof | None
    session: NewSession
    forgives: Sequence[ThrottleScope]
    note: ActionNote

    async def run(self, transaction: Transaction) -> None:
        """Take the code and open the session, or neither."""
        connection = transaction.connection
        row = (await connection.execute(select(ADMIN).where(ADMIN.c.id == self.user_id))).one()
        needs_proof = row.enrolled_at is not None
        if row.password_hash != self.password_hash or needs_proof != (self.proof is not None):
            raise InvalidCredentials
        if self.proof is not None:
            await take_proof(transaction, self.proof)
        await connection.execute(
            delete(SESSION).where(SESSION.c.expires_at <= transaction.book.now)
        )
        await write_session(transaction, self.user_id, self.session)
        await forgive(transaction, self.forgives)
        await write_note(transaction, self.note)


# ── changing ──────────────────────────────────────────────────────────────────────────────────


async def end_all(transaction: Transaction, user_id: str) -> None:
    """End every session of somebody; his tokens for programs stay."""
    await transaction.connection.execute(
        delete(SESSION).where(SESSION.c.admin_user_id == user_id, SESSION.c.kind != "token")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePassword(RowCommand[None]):
    """Another password; `was` None is for somebody who owns the machine. Ends all sessions.

    Refuses with InvalidCredentials when the password is not the one that was checked.
    """

    user_id: str
    password_hash: str = field(repr=False)
    was: str | None = field(repr=False)
    note: ActionNote

    async def run(self, transaction: Transaction) -> None:
        """Update it."""
        allowed = ADMIN.c.id == self.user_id
        if self.was is not None:
            allowed &= ADMIN.c.password_hash.in_((self.was, self.password_hash))
        done = await transaction.connection.execute(
            update(ADMIN)
            .where(allowed)
            .values(password_hash=self.password_hash, updated_at=transaction.book.now)
        )
        if done.rowcount != 1:
            raise InvalidCredentials
        await end_all(transaction, self.user_id)
        if self.was is None:  # who owns the machine need not wait for others' wrong tries
            await transaction.connection.execute(delete(THROTTLE))
        await write_note(transaction, self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceCodes(RowCommand[None]):
    """Other recovery codes; those before are worth nothing any more."""

    user_id: str
    code_hashes: Sequence[str] = field(repr=False)
    note: ActionNote

    async def run(self, transaction: Transaction) -> None:
        """Update them."""
        await transaction.connection.execute(
            update(ADMIN)
            .where(ADMIN.c.id == self.user_id)
            .values(recovery_codes=list(self.code_hashes), updated_at=transaction.book.now)
        )
        await write_note(transaction, self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetTotp(RowCommand[None]):
    """Forget the app and its recovery codes: the next log-in, or `session`, connects another."""

    user_id: str
    totp_secret: str = field(repr=False)
    session: NewSession | None = None
    note: ActionNote

    async def run(self, transaction: Transaction) -> None:
        """Seal the new secret; every session ends."""
        sealed = sealed_totp(transaction.wallet.vault, self.totp_secret, self.user_id)
        await transaction.connection.execute(
            update(ADMIN)
            .where(ADMIN.c.id == self.user_id)
            .values(
                totp_secret=sealed,
                totp_last_step=None,
                totp_last_by=None,
                recovery_codes=None,
                enrolled_at=None,
                updated_at=transaction.book.now,
            )
        )
        await end_all(transaction, self.user_id)
        if self.session is not None:
            await write_session(transaction, self.user_id, self.session)
        await write_note(transaction, self.note)
