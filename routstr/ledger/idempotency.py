"""A paid request per Idempotency-Key: claimed with its hold, its answer kept with its charge.

Laws
- The claim and the hold it names are one commit, and so are the charge and the kept answer: whoever
  finds a charge finds what was bought for it, or that no repeat can have it any more.
- A claim has no state of its own. Its hold says whether the first try runs and what it came to; one
  that ended at cost 0 and left no answer leaves the key free for the same body.
- The client's key and body are here only as digests, and the answer is sealed.

Every change of a hold locks its key's row, and so does every claim, so nothing moves in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select, update

from routstr.core.hold import HoldState
from routstr.errors import IdempotencyMismatch, KeyRevoked
from routstr.ledger.book import KeyRef
from routstr.ledger.columns import Sealed
from routstr.ledger.commands import LostRace, RowCommand, Transaction
from routstr.ledger.holds import Hold, Reserve, Settle, Settled
from routstr.ledger.tables import Reservation, table_of
from routstr.ledger.tables_house import Idempotency

IDEMPOTENCY: Final = table_of(Idempotency)
RESERVATION: Final = table_of(Reservation)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestClaim:
    """What a request with an Idempotency-Key claims, within the path and the key that shows it.

    `key_digest` and `fingerprint` are digests of the client's key and of the body as received.
    """

    path: str
    key_digest: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstTry:
    """The request that has the claim. Without `sealed_answer` it runs, or its answer is gone.

    `available_msat` is what the key could spend right after an answer that is kept.
    """

    hold_id: str
    is_running: bool
    charged_msat: int
    available_msat: int = 0
    sealed_answer: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveOnce(RowCommand[Hold | FirstTry]):
    """RequestClaim and hold in one commit, or the first try that was there, and nothing held.

    A claim lasts `ttl_s`. Refuses with IdempotencyMismatch for another body, and with what
    `Reserve` refuses with; of a first try only a revoked key hears nothing.
    """

    reserve: Reserve
    claim: RequestClaim
    ttl_s: float

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The accounts of the hold."""
        return self.reserve.keys

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to be made, in case it was already."""
        return self.reserve.hold_ids

    @property
    def may_be_shed(self) -> bool:
        """As any new request."""
        return True

    async def run(self, transaction: Transaction) -> Hold | FirstTry:
        """Look for the first try, then hold."""
        book, claim, reserve = transaction.book, self.claim, self.reserve
        account = book.account(reserve.caller)
        if account.revoked_at is not None:
            raise KeyRevoked
        place = {"scope": f"{account.id} {claim.path}", "key": claim.key_digest}
        row = await _claimed(transaction, place)
        if row is not None and row.reservation_id != reserve.hold_id:
            first = _first_try(transaction, row)
            is_alive = first.is_running or row.expires_at > book.now
            if is_alive and row.fingerprint != claim.fingerprint:
                raise IdempotencyMismatch
            if is_alive and not _left_nothing(first):
                return first
        hold = reserve.apply(book)
        if row is None or row.reservation_id != reserve.hold_id:
            await self._write(transaction, place, row)
        return hold

    async def _write(
        self, transaction: Transaction, place: dict[str, str], row: Row[Any] | None
    ) -> None:
        """A new row, or the one of a try that is over, given to this one."""
        now = transaction.book.now
        values = {
            "reservation_id": self.reserve.hold_id,
            "fingerprint": self.claim.fingerprint,
            "answer": None,
            "answer_expires_at": None,
            "available_after": None,
            "created_at": now,
            "expires_at": now + timedelta(seconds=self.ttl_s),
        }
        if row is None:
            await transaction.connection.execute(insert(IDEMPOTENCY).values(**place, **values))
            return
        taken = await transaction.connection.execute(
            update(IDEMPOTENCY)
            .where(
                IDEMPOTENCY.c.scope == place["scope"],
                IDEMPOTENCY.c.key == place["key"],
                IDEMPOTENCY.c.reservation_id == row.reservation_id,
            )
            .values(**values)
        )
        if taken.rowcount != 1:
            raise LostRace


async def _claimed(transaction: Transaction, place: dict[str, str]) -> Row[Any] | None:
    found = await transaction.connection.execute(
        select(IDEMPOTENCY, RESERVATION.c.state, RESERVATION.c.settled_amount)
        .outerjoin(RESERVATION, RESERVATION.c.id == IDEMPOTENCY.c.reservation_id)
        .where(IDEMPOTENCY.c.scope == place["scope"], IDEMPOTENCY.c.key == place["key"])
    )
    return found.one_or_none()


def _first_try(transaction: Transaction, row: Row[Any]) -> FirstTry:
    """Its hold as the book has it, if this very batch made or ended it, else as its row has it."""
    book = transaction.book
    hold = book.hold(row.reservation_id)
    state = row.state if hold is None else hold.state
    charged_msat = row.settled_amount if hold is None else hold.settled_msat
    is_kept = row.answer is not None and row.answer_expires_at > book.now
    return FirstTry(
        hold_id=row.reservation_id,
        is_running=state == HoldState.HELD,
        charged_msat=charged_msat or 0,
        available_msat=row.available_after or 0,
        sealed_answer=row.answer if is_kept else None,
    )


def _left_nothing(first: FirstTry) -> bool:
    """It ended, charged nothing, and there is no answer to give again."""
    return not first.is_running and not first.charged_msat and first.sealed_answer is None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleKeeping(RowCommand[Settled]):
    """Settle, and keep the answer for `ttl_s`, in one commit.

    A hold that ended before, its lease over, keeps nothing. A repeat yields the first result.
    """

    settle: Settle
    answer: Sealed = field(repr=False)
    ttl_s: float

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The accounts of the hold."""
        return self.settle.keys

    @property
    def hold_ids(self) -> Sequence[str]:
        """The hold to end."""
        return self.settle.hold_ids

    async def run(self, transaction: Transaction) -> Settled:
        """Charge once, keep once."""
        book, connection = transaction.book, transaction.connection
        hold = book.hold(self.settle.hold_id)
        was_held = hold is not None and hold.state == HoldState.HELD
        settled = self.settle.apply(book)
        is_claim = IDEMPOTENCY.c.reservation_id == self.settle.hold_id
        if not was_held:
            first = await connection.scalar(select(IDEMPOTENCY.c.available_after).where(is_claim))
            return settled if first is None else replace(settled, available_msat=int(first))
        await connection.execute(
            update(IDEMPOTENCY)
            .where(is_claim)
            .values(
                answer=self.answer,
                answer_expires_at=book.now + timedelta(seconds=self.ttl_s),
                available_after=settled.available_msat,
            )
        )
        return settled


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetAnswers(RowCommand[int]):
    """Erase kept answers whose time is over and drop claims whose time is; `limit` of each."""

    limit: int

    async def run(self, transaction: Transaction) -> int:
        """How many were erased or dropped."""
        now, connection = transaction.book.now, transaction.connection
        old_answers = (
            select(IDEMPOTENCY.c.reservation_id)
            .where(IDEMPOTENCY.c.answer_expires_at <= now)
            .order_by(IDEMPOTENCY.c.answer_expires_at)
            .limit(self.limit)
        )
        old_claims = (
            select(IDEMPOTENCY.c.reservation_id)
            .where(IDEMPOTENCY.c.expires_at <= now)
            .order_by(IDEMPOTENCY.c.expires_at)
            .limit(self.limit)
        )
        erased = await connection.execute(
            update(IDEMPOTENCY)
            .where(IDEMPOTENCY.c.reservation_id.in_(old_answers))
            .values(answer=None, answer_expires_at=None)
        )
        dropped = await connection.execute(
            delete(IDEMPOTENCY).where(IDEMPOTENCY.c.reservation_id.in_(old_claims))
        )
        return int(erased.rowcount) + int(dropped.rowcount)
