"""`make seed`: a node that has lived for 60 days, in whole books, to try pages and jobs on.

`make seed KEYS=100000 TRANSACTIONS=5000000` fills the database that the node's settings name
(DATABASE_URL, or SQLite in DATA_DIR), which must be new. `routstr audit --full` finds it whole:
each key's chain, each deposit with its operation, outputs and coins, each withdrawal with its coin.
What is not real is the mint: nobody takes its coins back, and their secrets are one sealed text.
`LEAN=1` is for sizes that no page is tried on, ten million keys and more (`seed_lean.py`).
"""

import asyncio
import os
import re
import secrets
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import insert, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.seed_lean import ROWS_PER_KEY, LeanWriter
from bench.seed_rows import OUT_EVERY, UNCLAIMED_MAX, Sealed, Size, Writer
from routstr.assembly import Ids, open_ledger
from routstr.config import load_settings
from routstr.ecash import bdhke
from routstr.ecash.keyset import keyset_id, residue31
from routstr.ecash.proof import Proof
from routstr.ecash.token import Token, encode_token_v4
from routstr.errors import ConfigError
from routstr.flows.house.rollup import MINUTES_KEPT, floor_to, times_of
from routstr.ledger.engine import Database, Dialect
from routstr.ledger.partitions import make_months
from routstr.ledger.reads import DEPOSIT, KEY, TRANSACTION, WITHDRAWAL
from routstr.ledger.sagas import KEYSET, MINT
from routstr.ledger.usage import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    Part,
    SaveUsage,
    save_usage,
    spans_of,
    sum_up,
)
from routstr.ledger.vacuum import SAMPLE_ROWS
from routstr.ledger.vault import Vault
from routstr.log import configure

KEYS: Final = 100_000
TRANSACTIONS: Final = 5_000_000
DAYS: Final = 60
LEAN_DAYS: Final = 360
MINT_URL: Final = "https://mint.seed.example"
COIN_BITS: Final = 41

# Quicker made at the end than kept on the way: what SQLite lets go of, and what PostgreSQL does.
LATE_INDEXES: Final = re.compile(r"ix_(transaction_(?!first|default|y)|reservation_)\w+$")
LATE_KEYS: Final = text(
    "SELECT CAST(c.conrelid AS regclass) AS of, c.conname AS name,"
    " pg_get_constraintdef(c.oid) AS key FROM pg_constraint c"
    " WHERE c.contype IN ('p', 'u') AND (c.conrelid IN (SELECT relid FROM"
    " pg_partition_tree(CAST('\"transaction\"' AS regclass)))"
    " OR c.conrelid = CAST('transaction_operation' AS regclass))"
)

Run = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """What was made, and how long each step took in seconds."""

    keys: int
    requests: int
    steps: dict[str, float]


async def seed(
    database: Database,
    vault: Vault,
    *,
    keys: int,
    transactions: int,
    now: datetime,
    days: int = DAYS,
    lean: bool = False,
) -> Seeded:
    """Fill a database that is migrated and new. Raises ConfigError for one that has lived.

    Lean books have no more than the audit needs, and no sums: the job that makes them is quick.
    """
    if lean:
        requests = max(1, transactions - ROWS_PER_KEY * keys - 1)
    else:
        requests = transactions - keys - -(-keys // OUT_EVERY)
    if keys < 1 or requests < 1:
        raise ConfigError("TRANSACTIONS: more than KEYS and a fifth of them")
    async with database.reading() as connection:
        for table in (MINT, KEY, DEPOSIT, TRANSACTION):
            if await connection.scalar(select(literal(1)).select_from(table).limit(1)):
                raise ConfigError("DATABASE_URL: this database has lived; seed a new one")
    end_ms = int(now.timestamp() * 1000)
    size = Size(keys=keys, requests=requests, begin_ms=end_ms - days * DAY_S * 1000, end_ms=end_ms)
    sealed = await _mint(database, vault, keys, now)
    steps: dict[str, float] = {}
    work = _lived(database.dialect, size, sealed)
    if lean:
        work = LeanWriter(database.dialect, size, sealed).work()
    if database.dialect == "sqlite":
        await database.close()  # its connections open again by themselves
        await asyncio.to_thread(_write_sqlite, str(database.writer.url.database), work, steps)
    else:
        await make_months(database, since=now - timedelta(days=days))
        await _write_postgres(database, work, steps)
    if lean:
        return Seeded(keys=keys, requests=requests, steps=steps)
    started_s = time.perf_counter()
    await _unclaimed(database, vault, sealed, keys)
    steps["tokens"] = time.perf_counter() - started_s
    started_s = time.perf_counter()
    await roll_up(database, since=now - timedelta(days=days), until=now)
    steps["sums"] = time.perf_counter() - started_s
    return Seeded(keys=keys, requests=requests, steps=steps)


def _lived(dialect: Dialect, size: Size, sealed: Sealed) -> dict[str, list[str]]:
    writer = Writer(dialect, size, sealed)
    return {
        "plan": writer.plan(),
        "keys": writer.keys(),
        "ecash": [*writer.brought(), *writer.coins()],
        "holds": [writer.holds()],
        "chain": [writer.chain()],
    }


# ── the ecash that the numbers need ───────────────────────────────────────────────────────────


async def _mint(database: Database, vault: Vault, keys: int, now: datetime) -> Sealed:
    """A mint with a keyset whose keys somebody could have."""
    private = {1 << bit: f"{(bit + 3) * 7919:064x}" for bit in range(COIN_BITS)}
    public = {amount: bdhke.public_key(key) for amount, key in private.items()}
    id_ = keyset_id(public, unit="sat", input_fee_ppk=0, final_expiry=None, version="00")
    mint_id = f"mint_{secrets.token_hex(16)}"
    times = {"updated_at": now, "created_at": now}
    async with database.writer.begin() as connection:
        await connection.execute(
            insert(MINT).values(
                id=mint_id, url=MINT_URL, name="Seed", nuts=[4, 5, 7], answered_at=now, **times
            )
        )
        await connection.execute(
            insert(KEYSET).values(
                id=id_,
                mint_id=mint_id,
                unit="sat",
                active=True,
                input_fee_ppk=0,
                keys={str(amount): key for amount, key in public.items()},
                next_counter=2 * keys,
                residue31=residue31(id_),
                updated_at=now,
            )
        )

    def blob(table: str, column: str) -> str:
        return vault.seal("seed", table=table, column=column, row_id="seed")

    return Sealed(
        secret=blob("proof", "secret"),
        request=blob("mint_operation", "request"),
        quote=blob("lightning_invoice", "quote_id"),
        mint_id=mint_id,
        mint_url=MINT_URL,
        keyset_id=id_,
    )


async def _unclaimed(database: Database, vault: Vault, sealed: Sealed, keys: int) -> None:
    """Tokens that open, for the withdrawals that nobody has claimed."""
    point = bdhke.public_key(f"{7919:064x}")
    async with database.writer.begin() as connection:
        for number in range(min(UNCLAIMED_MAX, -(-keys // OUT_EVERY))):
            proof = Proof(
                amount=1 << number % 6,
                keyset_id=sealed.keyset_id,
                secret=secrets.token_hex(32),
                c=point,
            )
            token = Token(mint_url=sealed.mint_url, unit="sat", proofs=(proof,))
            id_ = f"wd_{number * OUT_EVERY + 1:032x}"
            kept = vault.seal(
                encode_token_v4(token), table="withdrawal", column="token", row_id=id_
            )
            await connection.execute(
                update(WITHDRAWAL).where(WITHDRAWAL.c.id == id_).values(token=kept)
            )


# ── writing ───────────────────────────────────────────────────────────────────────────────────


def _write_sqlite(path: str, work: dict[str, list[str]], steps: dict[str, float]) -> None:
    """Without journal or sync: a seed that dies is thrown away and made again."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in (
            "journal_mode=OFF",
            "synchronous=OFF",
            "locking_mode=EXCLUSIVE",
            "cache_size=-2000000",
            "temp_store=FILE" if "plan" not in work else "temp_store=MEMORY",
            "foreign_keys=OFF",
        ):
            connection.execute(f"PRAGMA {pragma}")
        late = [
            (name, sql)
            for name, sql in connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            )
            if LATE_INDEXES.match(name)
        ]
        again = [sql for _, sql in late]
        before = [f"DROP INDEX {name}" for name, _ in late]
        for step, statements in {"": before, **work, "indexes": again}.items():
            started_s = time.perf_counter()
            connection.execute("BEGIN")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")
            steps[step] = time.perf_counter() - started_s
        connection.execute("DROP TABLE IF EXISTS seed_use")
        connection.execute(f"PRAGMA analysis_limit={SAMPLE_ROWS}")
        connection.execute("ANALYZE")
        connection.execute("PRAGMA locking_mode=NORMAL")
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


async def _write_postgres(
    database: Database, work: dict[str, list[str]], steps: dict[str, float]
) -> None:
    """In one transaction, references unchecked where the server lets us."""
    async with database.writer.begin() as connection:
        for setting in (
            "statement_timeout = 0",
            "idle_in_transaction_session_timeout = 0",
            "synchronous_commit = off",
            "work_mem = '512MB'",
            "temp_buffers = '512MB'",
            "maintenance_work_mem = '512MB'",
        ):
            await connection.exec_driver_sql(f"SET LOCAL {setting}")
        is_super = await connection.scalar(text("SHOW is_superuser"))
        if is_super == "on":
            await connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        rows = await connection.exec_driver_sql(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
        )
        late = [(row.indexname, row.indexdef) for row in rows if LATE_INDEXES.match(row.indexname)]
        keys = (await connection.execute(LATE_KEYS)).all()
        before = [f"DROP INDEX {name}" for name, _ in late]
        before += [f"ALTER TABLE {key.of} DROP CONSTRAINT {key.name}" for key in keys]
        # Told of an index of partitions is only what it is of its own.
        again = [sql.replace(" ON ONLY ", " ON ") for _, sql in late]
        again += [f"ALTER TABLE {key.of} ADD CONSTRAINT {key.name} {key.key}" for key in keys]
        for step, statements in {"": before, **work, "indexes": again}.items():
            started_s = time.perf_counter()
            for statement in statements:
                await connection.exec_driver_sql(statement)
            if step == "chain" and is_super == "on":  # no trigger has noted them
                await connection.exec_driver_sql(
                    'INSERT INTO transaction_operation SELECT operation_id FROM "transaction"'
                )
            if step == "plan":
                await connection.exec_driver_sql("ANALYZE seed_use, seed_key, seed_coin")
            steps[step] = time.perf_counter() - started_s
        for table in ("seed_use", "seed_key", "seed_coin"):
            await connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
    async with database.writer.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.exec_driver_sql("SET statement_timeout = 0")
        await plain.exec_driver_sql("VACUUM ANALYZE")
        await plain.exec_driver_sql("SET statement_timeout = 5000")


async def roll_up(database: Database, *, since: datetime, until: datetime) -> None:
    """The sums that the job would have made, for a database no node runs on; in one commit."""
    async with database.writer.begin() as connection:
        if database.dialect == "postgresql":
            await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        day = floor_to(since, DAY_S)
        while day < until:
            for save in await _sums_of_day(connection, database.dialect, day, until):
                await save_usage(connection, database.dialect, save)
            day += timedelta(seconds=DAY_S)


async def _sums_of_day(
    connection: AsyncConnection, dialect: Dialect, day: datetime, until: datetime
) -> list[SaveUsage]:
    """Its hours, the day of them, and its minutes if they are kept."""
    end = day + timedelta(seconds=DAY_S)
    parts, times = await sum_up(connection, dialect, HOUR_S, day, end)
    hours = spans_of(parts, times)
    whole = _joined([replace(part, start_at=day) for part in parts])
    days = spans_of(whole, {day: times_of(hours)})
    saves = [
        SaveUsage(span_s=HOUR_S, since=day, until=end, spans=hours, parts=parts),
        SaveUsage(span_s=DAY_S, since=day, until=end, spans=days, parts=whole),
    ]
    first = max(day, floor_to(until - MINUTES_KEPT, HOUR_S))
    if end > first:
        last = floor_to(min(end, until), MINUTE_S)
        parts, times = await sum_up(connection, dialect, MINUTE_S, first, last)
        spans = spans_of(parts, times)
        saves.append(SaveUsage(span_s=MINUTE_S, since=first, until=last, spans=spans, parts=parts))
    return saves


def _joined(parts: list[Part]) -> list[Part]:
    """One part for each model, upstream and outcome."""
    found: dict[tuple[str, str, str], Part] = {}
    for part in parts:
        name = (part.model, part.upstream, part.outcome)
        known = found.get(name)
        found[name] = part if known is None else replace(part, sums=known.sums + part.sums)
    return list(found.values())


def _number(name: str, usual: int) -> int:
    """Raises ConfigError."""
    given = os.environ.get(name) or str(usual)
    if not given.isdigit():
        raise ConfigError(f"{name}: {given} is no number")
    return int(given)


async def main() -> int:
    """Seed what the settings name; the exit status."""
    configure("WARNING", json=False)
    sizes = {"KEYS": KEYS, "TRANSACTIONS": TRANSACTIONS}
    lean = bool(_number("LEAN", 0))
    try:
        keys, transactions = (_number(name, usual) for name, usual in sizes.items())
        settings = load_settings()
        async with AsyncExitStack() as stack:
            database, _, wallet = await open_ledger(settings, Ids(), stack)
            started_s = time.perf_counter()
            made = await seed(
                database,
                wallet.vault,
                keys=keys,
                transactions=transactions,
                now=datetime.now(UTC),
                days=_number("DAYS", LEAN_DAYS if lean else DAYS),
                lean=lean,
            )
            took_s = time.perf_counter() - started_s
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    steps = " ".join(f"{name}={seconds:.1f}" for name, seconds in made.steps.items() if name)
    print(f"{made.keys} keys and {made.requests} requests on {database.dialect}")
    print(f"seeded_s={took_s:.1f} {steps}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
