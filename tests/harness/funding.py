"""Money for a test's key without a mint, and the questions every test asks the books at its end."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text

from routstr.flows.context import Context
from routstr.flows.deposit import preview_of
from routstr.ledger.accounts import NewKey, OpenKey
from routstr.ledger.book import Book, KeyRef
from routstr.ledger.commands import Command
from routstr.ledger.reads import StatementRow, find_key, statement
from routstr.ledger.teams import ChildTerms, MakeChildren, NewChild

# Guarantees, section 3: I-5 and I-9, then I-4 and every hold ended; each counts breaches.
AUDIT = {
    "chain": """
        SELECT count(*) FROM (
          SELECT *, row_number() OVER w AS n,
                 coalesce(lag(balance_after) OVER w, 0) + amount AS want
          FROM "transaction" WINDOW w AS (PARTITION BY api_key_id ORDER BY sequence)) x
        WHERE sequence <> n OR balance_after <> want""",
    "head": """
        SELECT count(*) FROM apikey k WHERE k.balance <> (
          SELECT coalesce(sum(t.amount), 0) FROM "transaction" t WHERE t.api_key_id = k.id)""",
    "ended_once": """
        SELECT count(*) FROM reservation r WHERE r.state <> 'held' AND NOT EXISTS (
          SELECT 1 FROM "transaction" t WHERE t.operation_id = 'end:' || r.id
          AND t.type = 'usage' AND t.amount = -r.settled_amount AND r.settled_amount <= r.amount
          AND r.settled_amount <= r.quote_amount)""",
    "reserved": "SELECT coalesce(sum(reserved), 0) FROM apikey",
    "held": "SELECT count(*) FROM reservation WHERE state = 'held'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fund(Command[None]):
    """Credit a key out of nothing."""

    key_id: str
    amount_msat: int

    @property
    def keys(self) -> Sequence[KeyRef]:
        return (KeyRef(id=self.key_id),)

    def apply(self, book: Book) -> None:
        account = book.account(KeyRef(id=self.key_id))
        book.post(account, self.amount_msat, "deposit", f"fund:{secrets.token_hex(8)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FundedKey:
    """A key with its text."""

    id: str
    text: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.text}"}


async def funded_key(ctx: Context, amount_msat: int) -> FundedKey:
    """A new key worth `amount_msat`."""
    api_key = f"sk-{secrets.token_hex(32)}"
    key = NewKey(id=ctx.new_id("key"), hash=ctx.wallet.vault.key_hash(api_key))
    await ctx.ledger.submit(OpenKey(key=key))
    if amount_msat:
        await fund(ctx, key.id, amount_msat)
    return FundedKey(id=key.id, text=api_key)


async def child_of(ctx: Context, parent: FundedKey, **terms: Any) -> FundedKey:
    """A child key of its; `terms` are fields of ChildTerms."""
    child = FundedKey(id=ctx.new_id("key"), text=f"sk-{secrets.token_hex(32)}")
    key_hash = ctx.wallet.vault.key_hash(child.text)
    command = MakeChildren(
        parent=KeyRef(id=parent.id),
        children=[NewChild(id=child.id, hash=key_hash, preview=preview_of(child.text))],
        terms=ChildTerms(**terms),
        fingerprint="f",
        cost_msat=0,
    )
    await ctx.ledger.submit(command)
    return child


async def fund(ctx: Context, key_id: str, amount_msat: int) -> None:
    await ctx.ledger.submit(Fund(key_id=key_id, amount_msat=amount_msat))


async def balance_msat(ctx: Context, key: FundedKey) -> int:
    async with ctx.database.reading() as connection:
        view = await find_key(connection, KeyRef(id=key.id))
    assert view is not None
    return view.balance_msat


async def usage_rows(ctx: Context, key: FundedKey) -> list[StatementRow]:
    """The key's paid requests, newest first."""
    async with ctx.database.reading() as connection:
        rows = await statement(connection, key.id, limit=500, before=None)
    return [row for row in rows if row.type == "usage"]


def told(row: StatementRow) -> Mapping[str, object]:
    """What a row says of its request."""
    assert row.request_data is not None
    return row.request_data


async def assert_books_are_clean(ctx: Context) -> None:
    """Nothing is held or reserved, every hold ended once, every chain is whole."""
    async with ctx.database.reading() as connection:
        breaches = {
            name: int((await connection.execute(text(sql))).scalar_one())
            for name, sql in AUDIT.items()
        }
    assert breaches == dict.fromkeys(AUDIT, 0)
