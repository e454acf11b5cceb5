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
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select, update

from routstr.core.hold import HoldState
from routstr.errors import IdempotencyMismatch, InvalidApiKey
from routstr.ledger.allowance import check_alive, parties_of
from routstr.ledger.book import Account, Book, KeyRef
from routstr.ledger.claims import ClaimRow, KeptAnswer, Place
from routstr.ledger.columns import Sealed
from routstr.ledger.commands import Command, RowCommand, Transaction
from routstr.ledger.holds import Hold, Reserve, Settle, Settled
from routstr.ledger.tables import table_of
from routstr.ledger.tables_house import Idempotency

IDEMPOTENCY: Final = table_of(Idempotency)


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
    """The request that has the claim. Without `has_answer` it runs, or its answer is gone.

    `available_msat` is what the key could spend right after an answer that is kept.
    """

    hold_id: str
    is_running: bool
    charged_msat: int
    available_msat: int = 0
    has_answer: bool = False

    @property
    def left_nothing(self) -> bool:
        """It ended, charged nothing, and there is no answer to give again."""
        return not self.is_running and not self.charged_msat and not self.has_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveOnce(Command[Hold | FirstTry]):
    """Claim and hold in one commit, or the first try that was there, and nothing held.

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

    def places(self, book: Book) -> Sequence[Place]:
        """The one claim, of an account that exists."""
        try:
            return (self._place(book.account(self.reserve.caller)),)
        except InvalidApiKey:
            return ()

    def apply(self, book: Book) -> Hold | FirstTry:
        """Look for the first try, then hold."""
        account = book.account(self.reserve.caller)
        check_alive(parties_of(book, account))
        place, hold_id = self._place(account), self.reserve.hold_id
        row = book.claims.find(place)
        if row is not None and row.hold_id != hold_id:
            first = _first_try(book, row)
            is_alive = first.is_running or row.expires_at > book.now
            if is_alive and row.fingerprint != self.claim.fingerprint:
                raise IdempotencyMismatch
            if is_alive and not first.left_nothing:
                return first
        hold = self.reserve.apply(book)
        if row is None or row.hold_id != hold_id:
            book.claims.put(
                ClaimRow(
                    place=place,
                    hold_id=hold_id,
                    fingerprint=self.claim.fingerprint,
                    expires_at=book.now + timedelta(seconds=self.ttl_s),
                )
            )
        return hold

    def _place(self, account: Account) -> Place:
        return Place(scope=f"{account.id} {self.claim.path}", key=self.claim.key_digest)


def _first_try(book: Book, row: ClaimRow) -> FirstTry:
    """Its hold as the book has it, if this very batch made or ended it, else as its row had it."""
    hold = book.hold(row.hold_id)
    state = row.state if hold is None else hold.state
    charged_msat = row.settled_msat if hold is None else hold.settled_msat
    return FirstTry(
        hold_id=row.hold_id,
        is_running=state == HoldState.HELD,
        charged_msat=charged_msat or 0,
        available_msat=row.available_msat or 0,
        has_answer=row.answer_until is not None and row.answer_until > book.now,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleKeeping(Command[Settled]):
    """Settle, and keep the answer for `ttl_s`, in one commit.

    A hold that ended before, its lease over, keeps nothing; a repeat changes nothing.
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

    def apply(self, book: Book) -> Settled:
        """Charge once, keep once."""
        hold = book.hold(self.settle.hold_id)
        was_held = hold is not None and hold.state == HoldState.HELD
        settled = self.settle.apply(book)
        if was_held:
            book.claims.keep(
                KeptAnswer(
                    hold_id=self.settle.hold_id,
                    answer=self.answer,
                    until=book.now + timedelta(seconds=self.ttl_s),
                    available_msat=settled.available_msat,
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
