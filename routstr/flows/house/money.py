"""The operator's lists of money: in, out and under way, and what lies at each mint.

Pages go on with `before`, the id of the last row shown; the JSON API's `offset` is bounded. A
`total` is exact up to 2,000 and stops there; only the whole audit chain's is exact, because every
key stores the length of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

from routstr.core.money import ceil_div
from routstr.ecash.selection import worth
from routstr.errors import InvalidParameter
from routstr.flows.context import Context
from routstr.flows.house.overview import MintHealth, mint_health
from routstr.flows.mints import expires_soon
from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads_ecash import MintRow, find_mint
from routstr.ledger.reads_house import mints_seen, purse
from routstr.ledger.reads_house_keys import find_key_row, key_totals
from routstr.ledger.reads_house_lists import (
    COUNTED_MAX,
    ChainRow,
    ChainSearch,
    CoinPile,
    DepositLine,
    InvoiceLine,
    ListSearch,
    OperationLine,
    WithdrawalLine,
    chain_query,
    chain_rows,
    coin_piles,
    count_lines,
    count_up_to,
    deposit_lines,
    invoice_lines,
    open_operations,
    withdrawal_lines,
)
from routstr.ledger.reads_wallet import Coins, KeysetSeen, coins, coins_of, keysets_seen

LIMIT_MAX: Final = 500
OFFSET_MAX: Final = 10_000
OPERATIONS_MAX: Final = 200
NUMBER_DIGITS_MAX: Final = 18

WITHDRAWAL_STATES: Final = ("pending", "completed", "failed", "claimed", "reclaimed")
INVOICE_STATES: Final = (
    *("pending", "settlement_pending", "paid", "expired", "cancelled"),
    "reconciliation_required",
)
DEPOSIT_STATES: Final = ("pending", "credited", "failed")
ROW_TYPES: Final = (
    *("deposit", "usage", "withdrawal", "refund", "transfer_in", "transfer_out"),
    *("fee", "expiry"),
)

RowT = TypeVar("RowT")
LineT = TypeVar("LineT", bound=WithdrawalLine | InvoiceLine | DepositLine, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed(Generic[RowT]):
    """A page of a list. `before` leads to the next one; None: this is the last.

    `total` is None unless it was asked for, and `is_least` when there are at least so many.
    """

    rows: tuple[RowT, ...]
    before: str | None
    total: int | None = None
    is_least: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What of a list is wanted. `search` is the id of a row or of a key."""

    status: str | None = None
    search: str = ""
    limit: int = 50
    offset: int = 0
    before: str | None = None
    with_total: bool = False


async def withdrawals(ctx: Context, ask: Ask) -> Listed[WithdrawalLine]:
    """Withdrawals of all keys and of the profit, newest first. Raises InvalidParameter."""
    return await _lines(ctx, ask, "withdrawals", withdrawal_lines, WITHDRAWAL_STATES)


async def invoices(ctx: Context, ask: Ask) -> Listed[InvoiceLine]:
    """Lightning invoices of all keys, newest first. Raises InvalidParameter."""
    return await _lines(ctx, ask, "invoices", invoice_lines, INVOICE_STATES)


async def deposits(ctx: Context, ask: Ask) -> Listed[DepositLine]:
    """Tokens that were brought, newest first. Raises InvalidParameter."""
    return await _lines(ctx, ask, "deposits", deposit_lines, DEPOSIT_STATES)


class _Reader(Protocol[LineT]):
    async def __call__(
        self, connection: ReadConnection, search: ListSearch, *, limit: int, offset: int,
        before: str | None,
    ) -> Sequence[LineT]: ...  # fmt: skip


async def _lines(
    ctx: Context, ask: Ask, name: str, read: _Reader[LineT], states: Sequence[str]
) -> Listed[LineT]:
    search = _lines_search(ask, states)
    async with ctx.database.reading() as connection:
        rows = await read(
            connection, search, limit=ask.limit + 1, offset=ask.offset, before=ask.before
        )
        total = await _total(connection, name, search, ask)
    return _listed(rows, ask, [row.id for row in rows], total)


async def transactions(ctx: Context, ask: Ask, *, is_moved: bool = False) -> Listed[ChainRow]:
    """Rows of all audit chains, newest first; `status` is a type, `is_moved` leaves usage out.

    `search` is a key's id or an operation's. The total of all rows, and of one key's, is exact: it
    is stored with the keys. Raises InvalidParameter.
    """
    _check(ask, ROW_TYPES)
    search = ChainSearch(type=ask.status, is_moved=is_moved)
    if ask.search.startswith("key_"):
        search = ChainSearch(type=ask.status, is_moved=is_moved, key_id=ask.search)
    elif ask.search:
        search = ChainSearch(type=ask.status, is_moved=is_moved, operation_id=ask.search)
    before = None if ask.before is None else _number(ask.before)
    async with ctx.database.reading() as connection:
        rows = await chain_rows(
            connection, search, limit=ask.limit + 1, offset=ask.offset, before=before
        )
        total = await _chain_total(connection, search) if ask.with_total else None
    ids = [str(each.row.id if search.key_id is None else each.row.sequence) for each in rows]
    return _listed(rows, ask, ids, total)


async def _chain_total(connection: ReadConnection, search: ChainSearch) -> tuple[int, bool]:
    is_whole = search.type is None and not search.is_moved and search.operation_id is None
    if is_whole and search.key_id is not None:
        key = await find_key_row(connection, search.key_id)
        return (0 if key is None else key.rows), False
    if is_whole:
        owner = await find_key_row(connection, OWNER_KEY_ID)
        users = await key_totals(connection)
        return users.rows + (0 if owner is None else owner.rows), False
    count = await count_up_to(connection, chain_query(search))
    return count, count >= COUNTED_MAX


async def _total(
    connection: ReadConnection, name: str, search: ListSearch, ask: Ask
) -> tuple[int, bool] | None:
    if not ask.with_total:
        return None
    count = await count_lines(connection, name, search)
    return count, count >= COUNTED_MAX


def _listed(
    rows: Sequence[RowT], ask: Ask, ids: Sequence[str], total: tuple[int, bool] | None
) -> Listed[RowT]:
    """The rows without the one that tells that there are more."""
    has_more = len(rows) > ask.limit
    count, is_least = total or (None, False)
    return Listed(
        rows=tuple(rows[: ask.limit]),
        before=ids[ask.limit - 1] if has_more else None,
        total=count,
        is_least=is_least,
    )


def _lines_search(ask: Ask, states: Sequence[str]) -> ListSearch:
    _check(ask, states)
    is_key = ask.search.startswith("key_")
    return ListSearch(
        status=ask.status,
        key_id=ask.search if is_key else None,
        id=None if is_key else ask.search or None,
    )


def _check(ask: Ask, states: Sequence[str]) -> None:
    if ask.status is not None and ask.status not in states:
        raise InvalidParameter(f"One of {', '.join(states)}.", param="status")
    if not 1 <= ask.limit <= LIMIT_MAX:
        raise InvalidParameter(f"From 1 to {LIMIT_MAX}.", param="limit")
    if not 0 <= ask.offset <= OFFSET_MAX:
        raise InvalidParameter(f"From 0 to {OFFSET_MAX}; go on with `before`.", param="offset")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > NUMBER_DIGITS_MAX:
        raise InvalidParameter("The id of a row.", param="before")
    return int(text)


# ── what lies at each mint ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class MintBalance:
    """Ecash at a mint in its unit: all, what users own of it, and the operator's.

    Keys have no mint: what users own in all is laid on each mint in the share it has of the wallet,
    so that the shares add up; the operator has the rest.
    """

    mint_url: str
    unit: str
    wallet: int
    users: int
    owner: int


async def balances(ctx: Context) -> list[MintBalance]:
    """What `/balances` answers, by mint and unit."""
    async with ctx.database.reading() as connection:
        held = await coins(connection)
        row = await purse(connection)
    wallet_msat = row.unspent_msat + row.reserved_msat + row.locked_msat
    owed_msat = row.users_msat + row.pending_msat + row.swap_fees_msat
    found = []
    for coin in held:
        wallet = coin.unspent + coin.reserved + coin.locked
        users = wallet
        if wallet_msat > owed_msat:
            users = ceil_div(wallet * owed_msat, wallet_msat)
        found.append(
            MintBalance(
                mint_url=coin.mint_url,
                unit=coin.unit,
                wallet=wallet,
                users=users,
                owner=wallet - users,
            )
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Denomination:
    """The coins of one amount: free ones, and how many the change float wants; in the unit."""

    amount: int
    unspent: int
    wanted: int
    reserved: int
    locked: int
    issued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetShown:
    """A keyset with its coins; `ends_soon`: within a month. Coins of no amount are left out."""

    seen: KeysetSeen
    ends_soon: bool
    coins: tuple[Denomination, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MintShown:
    """A mint: how it is, its keysets, what lies there, in msat by state."""

    health: MintHealth
    nuts: tuple[int, ...]
    keysets: tuple[KeysetShown, ...]
    coins: tuple[Coins, ...]


async def mints(ctx: Context) -> tuple[MintShown, ...]:
    """Every mint that is accepted, or where something is; asks none of them."""
    now = ctx.clock.now()
    async with ctx.database.reading() as connection:
        seen = await mints_seen(connection)
        keysets = await keysets_seen(connection)
        piles = await coin_piles(connection)
        held = _coins(keysets, piles)
        health = mint_health(ctx, seen, held, now)
        known = {each.url: await find_mint(connection, each.url) for each in health}
    nuts = {mint.url: tuple(mint.nuts) for mint in seen}
    by_keyset: dict[str, list[CoinPile]] = {}
    for pile in piles:
        by_keyset.setdefault(pile.keyset_id, []).append(pile)
    return tuple(
        MintShown(
            health=each,
            nuts=nuts.get(each.url, ()),
            keysets=tuple(
                _keyset_shown(ctx, known[each.url], keyset, by_keyset.get(keyset.id, ()), now)
                for keyset in keysets
                if keyset.mint_url == each.url
            ),
            coins=tuple(coin for coin in held if coin.mint_url == each.url),
        )
        for each in health
    )


def _coins(keysets: Sequence[KeysetSeen], piles: Sequence[CoinPile]) -> list[Coins]:
    """The piles put together, by mint and unit."""
    by_id = {keyset.id: keyset for keyset in keysets}
    found: dict[tuple[str, str], dict[str, int]] = {}
    for pile in piles:
        keyset = by_id[pile.keyset_id]
        amounts = found.setdefault((keyset.mint_url, keyset.unit), {})
        amounts[pile.state] = amounts.get(pile.state, 0) + pile.amount * pile.count
    return coins_of(found)


def _keyset_shown(
    ctx: Context,
    mint: MintRow | None,
    seen: KeysetSeen,
    piles: Sequence[CoinPile],
    now: datetime,
) -> KeysetShown:
    counts: dict[str, dict[int, int]] = {}
    for pile in piles:
        counts.setdefault(pile.state, {})[pile.amount] = pile.count
    keyset = next((each for each in mint.keysets if each.id == seen.id), None) if mint else None
    unspent: Mapping[int, int] = counts.get("unspent", {})
    wanted: Mapping[int, int] = {}
    if keyset is not None and keyset.active:
        wanted = ctx.limits.float_goal(keyset.keys).targets(worth(unspent))
    amounts = sorted({*wanted, *(pile.amount for pile in piles)})
    return KeysetShown(
        seen=seen,
        ends_soon=keyset is not None and expires_soon(keyset, now),
        coins=tuple(
            Denomination(
                amount=amount,
                unspent=unspent.get(amount, 0),
                wanted=wanted.get(amount, 0),
                reserved=counts.get("reserved", {}).get(amount, 0),
                locked=counts.get("locked", {}).get(amount, 0),
                issued=counts.get("issued", {}).get(amount, 0),
            )
            for amount in amounts
        ),
    )


async def operations(ctx: Context) -> list[OperationLine]:
    """Calls to mints that have no end yet, the oldest first; at most `OPERATIONS_MAX`."""
    async with ctx.database.reading() as connection:
        return await open_operations(connection, limit=OPERATIONS_MAX)
