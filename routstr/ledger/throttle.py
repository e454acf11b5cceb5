"""How often somebody may try a password or a code: counted before each try, in the database.

Laws
- A try is counted before anybody looks at it, and given back when it was right; so a thousand
  tries at once are a thousand tries.
- Each wrong try beyond the free ones doubles the wait, up to the scope's own most: nobody is shut
  out for longer than that.
- While a scope is blocked nothing is tried and nothing is counted, right or wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, insert, select, update

from routstr.errors import RateLimited
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import LoginThrottle

THROTTLE = table_of(LoginThrottle)

FORGOTTEN_S: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleScope:
    """Whose tries are counted together: `name` is a digest."""

    name: str
    free: int
    wait_s_max: int

    def wait_s(self, failures: int) -> int:
        """How long to wait after so many tries."""
        beyond = failures - self.free
        return 0 if beyond < 0 else min(2 ** min(beyond, 30), self.wait_s_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeTry(RowCommand[None]):
    """Count a try in each scope. Refuses with RateLimited while one of them is blocked."""

    attempt: str
    scopes: Sequence[ThrottleScope]

    async def run(self, transaction: Transaction) -> None:
        """Look at all, then count in all; a repeat was counted."""
        connection, now = transaction.connection, transaction.book.now
        await connection.execute(delete(THROTTLE).where(THROTTLE.c.expires_at <= now))
        names = sorted(scope.name for scope in self.scopes)
        rows = {
            row.scope: row
            for row in await connection.execute(
                select(THROTTLE)
                .where(THROTTLE.c.scope.in_(names))
                .order_by(THROTTLE.c.scope)
                .with_for_update()
            )
        }
        if any(row.last_attempt == self.attempt for row in rows.values()):
            return
        blocked = [row.blocked_until for row in rows.values() if row.blocked_until is not None]
        wait_s = max(((until - now).total_seconds() for until in blocked), default=0)
        if wait_s > 0:
            raise RateLimited(
                "Too many wrong tries; wait before the next one.", retry_after_s=int(wait_s) + 1
            )
        for scope in self.scopes:
            row = rows.get(scope.name)
            failures = 1 if row is None else row.failures + 1
            values = self._values(scope, failures, now)
            if row is None:
                await connection.execute(
                    insert(THROTTLE).values(scope=scope.name, first_at=now, **values)
                )
            else:
                await connection.execute(
                    update(THROTTLE).where(THROTTLE.c.scope == scope.name).values(**values)
                )

    def _values(self, scope: ThrottleScope, failures: int, now: datetime) -> dict[str, object]:
        wait_s = scope.wait_s(failures)
        return {
            "failures": failures,
            "last_attempt": self.attempt,
            "blocked_until": now + timedelta(seconds=wait_s) if wait_s else None,
            "expires_at": now + timedelta(seconds=FORGOTTEN_S + wait_s),
        }


async def forgive(transaction: Transaction, scopes: Sequence[ThrottleScope]) -> None:
    """Somebody was right: what was counted in these scopes is forgotten."""
    if scopes:
        names = [scope.name for scope in scopes]
        await transaction.connection.execute(delete(THROTTLE).where(THROTTLE.c.scope.in_(names)))
