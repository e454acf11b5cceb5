"""The audit: every invariant of guarantees, section 3, that the tables can tell, in one snapshot.

It only reads. A running node never looks broken to it, because everything is read in one
transaction that sees one moment (REPEATABLE READ on PostgreSQL). A full audit reads every row, a
fast one what is open and what has moved since `since`, the last clean run; heads, backing and the
schema's guards are read whole by both. What `--deep` asks of the mints is in `flows/audit.py`.

I-13, I-16, I-17, I-19 to I-22 and I-24 to I-26 are proved by tests alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from routstr.ledger.audit_ecash import HELD, msat
from routstr.ledger.audit_queries import Window, money_queries
from routstr.ledger.audit_rows import bad_prices, bad_tokens
from routstr.ledger.audit_schema import guard_queries, secret_queries
from routstr.ledger.engine import Database, Dialect, ReadConnection
from routstr.ledger.vault import Vault

TOGETHER_ON_SQLITE: Final = 8
EXAMPLES_MAX: Final = 5
PATIENCE_S: Final = 60
# Rows carry the time at which their transaction began; one that began before the last clean run
# may have been committed after it.
OVERLAP_S: Final = 300
FAST_TIMEOUT_MS: Final = 60_000
FULL_TIMEOUT_MS: Final = 3_600_000

TITLES: Final[Mapping[str, str]] = {
    "I-1": "The book adds up",
    "I-2": "Conservation by type",
    "I-3": "Backing",
    "I-4": "Never negative",
    "I-5": "Immutable chain",
    "I-6": "Credited once",
    "I-7": "Atomic credit",
    "I-8": "Nothing stranded",
    "I-9": "A hold ends once",
    "I-10": "Unknown is not failed",
    "I-11": "Withdrawal never lost",
    "I-12": "Outputs used once",
    "I-14": "Price fixity",
    "I-15": "Idempotency",
    "I-18": "Exposure bounded",
    "I-23": "No secret in clear",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariant:
    """One invariant's result: 0 breaches is fine; `examples` are ids, never secrets."""

    name: str
    title: str
    breaches: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """The node's ecash of one mint and unit, in msat; `held` includes `reserved`."""

    mint_url: str
    unit: str
    held_msat: int
    reserved_msat: int
    issued_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The node's money, in msat. The surplus is the operator's: held - balances - pending."""

    balances_msat: int
    holds_msat: int
    pending_withdrawals_msat: int
    held_msat: int
    surplus_msat: int
    purses: tuple[Purse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MintFindings:
    """What a mint said of our proofs (NUT-07), in a deep audit.

    `spent_elsewhere` are Ys we take for ours and the mint for spent, `stranded` operations left
    open at a mint that answers. `claimed` is how many proofs that we gave out were spent, and
    `silent` the kind of failure of a mint that did not say.
    """

    mint_url: str
    asked: int
    claimed: int
    spent_elsewhere: tuple[str, ...] = ()
    stranded: tuple[str, ...] = ()
    silent: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was found; silence proves nothing."""
        return not self.spent_elsewhere and not self.stranded


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an audit found; `ok` when no invariant is broken. Only a deep one has `mints`."""

    ok: bool
    full: bool
    checked_at: datetime
    invariants: tuple[Invariant, ...]
    totals: Totals
    mints: tuple[MintFindings, ...] = ()

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the invariants that are."""
        return tuple(each.name for each in self.invariants if each.breaches)


async def audit(
    database: Database,
    vault: Vault,
    *,
    full: bool,
    now: datetime,
    held_msat_max: int,
    since: datetime | None = None,
    is_running: bool = True,
) -> AuditReport:
    """Evaluate them all. Needs no mint, and no running node.

    `since` is when the last clean audit was; without it a fast one looks as far as a full one does.
    `held_msat_max` is the node's limit of what all holds promise (I-18). With `is_running` False,
    holds past their deadline and operations that nobody drives are no breach: the node is stopped.
    """
    window = Window(
        since=None if full or since is None else since - timedelta(seconds=OVERLAP_S),
        late=now - timedelta(seconds=PATIENCE_S),
        held_msat_max=held_msat_max,
    )
    found = {name: Invariant(name=name, title=title, breaches=0) for name, title in TITLES.items()}
    async with database.reading() as reading:
        connection = await _snapshot(reading, database.dialect, full=window.since is None)
        statements = _statements(database.dialect, full=window.since is None, is_running=is_running)
        rows = [
            row
            for sql in statements
            for row in (await connection.execute(window.statement(sql))).all()
        ]
        for query in sorted({(row.query, row.name, row.n) for row in rows}):
            examples = [row.id for row in rows if row.query == query[0]]
            _add(found, query[1], query[2], examples)
        tokens = await bad_tokens(connection, window, vault)
        _add(found, "I-11", len(tokens), tokens)
        prices = await bad_prices(connection, window)
        _add(found, "I-14", len(prices), prices)
        totals = await _totals(connection)
    return AuditReport(
        ok=not any(each.breaches for each in found.values()),
        full=window.since is None,
        checked_at=now,
        invariants=tuple(found.values()),
        totals=totals,
    )


async def _snapshot(reading: ReadConnection, dialect: Dialect, *, full: bool) -> AsyncConnection:
    """One moment for all queries, and time for them; SQLite's readers see one moment anyway."""
    if dialect == "sqlite":
        return reading
    connection = await reading.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    timeout_ms = FULL_TIMEOUT_MS if full else FAST_TIMEOUT_MS
    for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
        await connection.execute(text(f"SET LOCAL {name} = {timeout_ms}"))
    return connection


@cache
def _statements(dialect: Dialect, *, full: bool, is_running: bool) -> tuple[str, ...]:
    """A few examples of each query, each with its count.

    On PostgreSQL one statement, so one round trip. On SQLite several: it takes 40 MB to read them
    all at once, and the process would keep most of that.
    """
    queries = (
        *money_queries(dialect, is_running=is_running),
        *guard_queries(dialect),
        *secret_queries(dialect, full=full),
    )
    selects = tuple(
        f"SELECT {number} AS query, '{name}' AS name, n, CAST(id AS text) AS id"
        f" FROM (SELECT count(*) OVER () AS n, id FROM ({query}) q{number}"
        f" ORDER BY id LIMIT {EXAMPLES_MAX}) x{number}"
        for number, (name, query) in enumerate(queries)
    )
    together = TOGETHER_ON_SQLITE if dialect == "sqlite" else len(selects)
    starts = range(0, len(selects), together)
    return tuple("\nUNION ALL\n".join(selects[at : at + together]) for at in starts)


def _add(found: dict[str, Invariant], name: str, breaches: int, examples: Sequence[str]) -> None:
    known = found[name]
    found[name] = replace(
        known,
        breaches=known.breaches + breaches,
        examples=(*known.examples, *examples)[:EXAMPLES_MAX],
    )


# ── what there is ─────────────────────────────────────────────────────────────────────────────

OWED: Final = """
SELECT (SELECT coalesce(sum(balance), 0) FROM apikey) AS balances,
  (SELECT coalesce(sum(amount), 0) FROM reservation WHERE state = 'held') AS holds,
  (SELECT coalesce(sum(amount + fee_amount), 0) FROM withdrawal WHERE status = 'pending') AS pending
"""
PURSES: Final = f"""
SELECT m.url, ks.unit,
  sum(CASE WHEN p.state IN {HELD} THEN {msat("p.amount", "ks.unit")} ELSE 0 END) AS held,
  sum(CASE WHEN p.state = 'reserved' THEN {msat("p.amount", "ks.unit")} ELSE 0 END) AS reserved,
  sum(CASE WHEN p.state = 'issued' THEN {msat("p.amount", "ks.unit")} ELSE 0 END) AS issued
FROM proof p JOIN keyset ks ON ks.id = p.keyset_id JOIN mint m ON m.id = ks.mint_id
GROUP BY m.url, ks.unit ORDER BY m.url, ks.unit
"""


async def _totals(connection: AsyncConnection) -> Totals:
    owed = (await connection.execute(text(OWED))).one()
    purses = tuple(
        Purse(
            mint_url=row.url,
            unit=row.unit,
            held_msat=int(row.held),
            reserved_msat=int(row.reserved),
            issued_msat=int(row.issued),
        )
        for row in await connection.execute(text(PURSES))
    )
    held_msat = sum(purse.held_msat for purse in purses)
    return Totals(
        balances_msat=int(owed.balances),
        holds_msat=int(owed.holds),
        pending_withdrawals_msat=int(owed.pending),
        held_msat=held_msat,
        surplus_msat=held_msat - int(owed.balances) - int(owed.pending),
        purses=purses,
    )


# ── for people and programs ───────────────────────────────────────────────────────────────────


def report_json(report: AuditReport) -> dict[str, object]:
    """The report as JSON takes it."""
    return {**asdict(report), "checked_at": report.checked_at.isoformat()}


def report_rows(report: AuditReport) -> list[tuple[str, str, str]]:
    """(name, title, what was found) of each invariant and each mint asked, for a table."""
    rows = [(each.name, each.title, _found(each)) for each in report.invariants]
    return rows + [("mint", each.mint_url, _said(each)) for each in report.mints]


def _found(invariant: Invariant) -> str:
    if invariant.breaches == 0:
        return "ok"
    return f"{invariant.breaches}: {', '.join(invariant.examples)}"


def _said(mint: MintFindings) -> str:
    found = f"{mint.asked} proofs asked, {mint.claimed} of those given out spent"
    for what, ids in (("spent elsewhere", mint.spent_elsewhere), ("stranded", mint.stranded)):
        if ids:
            found += f"; {len(ids)} {what}: {', '.join(ids[:EXAMPLES_MAX])}"
    return found if mint.silent is None else f"{found}; then no answer ({mint.silent})"
