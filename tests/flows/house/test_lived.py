"""A node that has lived: its books are whole, its sums are its rows', its lists use an index."""

import re
from typing import Any

import pytest
from sqlalchemy import Select, text

from bench.seed import seed
from bench.seed_rows import key_id
from routstr.errors import ConfigError
from routstr.flows.audit import audit
from routstr.flows.context import Context
from routstr.flows.house.rollup import rollup
from routstr.flows.house.usage import usage
from routstr.ledger.book import KeyRef
from routstr.ledger.reads import DEPOSIT, INVOICE, WITHDRAWAL
from routstr.ledger.reads_house_keys import KeySearch, keys_query
from routstr.ledger.reads_house_lists import ChainSearch, ListSearch, chain_query, list_query
from tests.flows.house.selling import sell_to
from tests.harness.clock import MovableClock

SUMS = "requests, charged_msat, margin_msat, absorbed_msat, at_risk_msat, input_tokens"
LIFE_H = 24 * 6
FIRST = "span_s, start_at, model, upstream, outcome"


async def parts(ctx: Context) -> list[tuple[object, ...]]:
    """Every sum that is kept."""
    found: list[tuple[object, ...]] = []
    async with ctx.database.reading() as connection:
        for table, names in (("usage_part", f"{FIRST}, {SUMS}"), ("usage_span", "*")):
            rows = await connection.execute(text(f"SELECT {names} FROM {table}"))
            found += sorted((table, *map(str, row)) for row in rows)
    return found


async def test_a_seeded_node_is_whole_its_sums_its_rows_and_its_lists_quick(
    lived: Context,
) -> None:
    """One test, because living takes a while."""
    await the_books_are_whole_and_the_sums_are_the_rows(lived)
    await every_list_goes_by_an_index(lived)
    await summing_up_again_changes_nothing_and_finds_what_is_late(lived)


async def the_books_are_whole_and_the_sums_are_the_rows(lived: Context) -> None:
    report = await audit(lived, full=True, deep=False, is_running=False)
    assert report.ok, report.broken
    async with lived.database.reading() as connection:
        rows = await connection.execute(
            text("SELECT amount, request_data FROM \"transaction\" WHERE type = 'usage'")
        )
        amounts = [row.amount for row in rows]
    sold = await usage(lived, hours=LIFE_H)
    assert sold.total.sums.requests == len(amounts)
    assert sold.total.sums.charged_msat == -sum(amounts)
    for shares in (sold.by_model, sold.by_upstream, sold.by_outcome):
        assert sum(share.sums.requests for share in shares) == len(amounts)
        assert sum(share.sums.charged_msat for share in shares) == -sum(amounts)
    with pytest.raises(ConfigError, match="has lived"):
        await seed(
            lived.database,
            lived.wallet.vault,
            keys=1,
            transactions=10,
            now=lived.clock.now(),
        )


async def summing_up_again_changes_nothing_and_finds_what_is_late(lived: Context) -> None:
    made = await parts(lived)
    async with lived.database.writer.begin() as connection:
        for table in ("usage_part", "usage_span"):
            await connection.execute(text(f"DELETE FROM {table}"))
    for _ in range(2):
        await rollup(lived)
        assert await parts(lived) == made
    before = (await usage(lived, hours=LIFE_H)).total.sums.requests
    await sell_to(lived, KeyRef(id=key_id(0)))
    assert (await usage(lived, hours=LIFE_H)).total.sums.requests == before + 1
    assert isinstance(lived.clock, MovableClock)
    lived.clock.advance(90)
    await rollup(lived)
    assert (await usage(lived, hours=LIFE_H)).total.sums.requests == before + 1


async def plan(ctx: Context, query: Select[Any]) -> str:
    """How the engine would find the rows, with only the indexes to go by."""
    is_lite = ctx.database.dialect == "sqlite"
    dialect = ctx.database.reader.dialect
    sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN " if is_lite else "EXPLAIN "
    async with ctx.database.reading() as connection:
        if not is_lite:
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            await connection.exec_driver_sql("SET LOCAL enable_sort = off")
        return "\n".join(str(tuple(row)) for row in await connection.exec_driver_sql(explain + sql))


async def every_list_goes_by_an_index(lived: Context) -> None:
    now = lived.clock.now()
    of_key = ChainSearch(key_id=key_id(0))
    asked = {
        "uq_transaction_api_key_id_sequence": chain_query(of_key).limit(50),
        "ix_transaction_moved": chain_query(ChainSearch(is_moved=True)).limit(50),
        "ix_apikey_created_at": keys_query(KeySearch(now=now), limit=50, after=None),
        "ix_withdrawal_created_at": list_query(WITHDRAWAL, ListSearch()).limit(50),
        "ix_deposit_created_at": list_query(DEPOSIT, ListSearch()).limit(50),
        "ix_lightning_invoice_created_at": list_query(INVOICE, ListSearch()).limit(50),
    }
    for index, query in asked.items():
        found = await plan(lived, query)
        # SQLite names the index of a constraint by itself, PostgreSQL that of a month
        name = index.replace("uq_transaction_", r"uq_transaction_(\w+_)?")
        name = name.replace(
            "ix_transaction_moved", r"(ix_transaction_moved|transaction_\w+_id_idx)"
        )
        if "uq_" in index:
            name = f"({name}|sqlite_autoindex_transaction)"
        assert re.search(name, found), (index, found)
        assert "TEMP B-TREE FOR ORDER BY" not in found.replace("LAST TERM OF ", ""), found
