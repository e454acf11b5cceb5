"""The node's own coins of one mint and unit: looking at them, and taking some for good.

Coins are taken inside the executor's transaction and guarded by state, so no two withdrawals, in
this process or another, can ever get the same one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Row,
    bindparam,
    func,
    or_,
    select,
    union_all,
    update,
)

from routstr.ecash.amounts import FloatGoal
from routstr.ecash.derivation import Deriver
from routstr.ecash.errors import InvalidAmount
from routstr.ecash.keyset import RETIRING_S, fee
from routstr.ecash.proof import Dleq, Proof
from routstr.ecash.secret import deriver
from routstr.ecash.selection import worth
from routstr.errors import MintShort
from routstr.ledger.commands import LostRace, Transaction, Wallet
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.sagas import KEYSET, PROOF

RESERVE: Final = (
    update(PROOF)
    .where(PROOF.c.y.in_(bindparam("ys", expanding=True)), PROOF.c.state == "unspent")
    .values(state="reserved")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Coins taken from the purse, worth `amount`; spending them costs `fee_amount` (NUT-02)."""

    proofs: tuple[Proof, ...] = field(repr=False)
    ys: tuple[str, ...]
    amount: int
    fee_amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Proofs of one token that was given out, and what swapping them costs (NUT-02)."""

    mint_id: str
    unit: str
    proofs: tuple[Proof, ...] = field(repr=False)
    amount: int
    fee_amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """One row of `proof` as drawn."""

    y: str
    keyset_id: str
    counter: int | None
    amount: int
    secret: str = field(repr=False)
    c: str
    e: str | None
    s: str | None
    input_fee_ppk: int


async def look(
    transaction: Transaction, mint_id: str, unit: str, *, lasting: bool = False
) -> tuple[dict[int, int], int]:
    """Counts per denomination, and the highest input fee among them in parts per thousand.

    With `lasting` without the coins of keysets that end within the month.
    """
    return await _counts(transaction.connection, _ours(transaction, mint_id, unit, lasting=lasting))


async def purse_at(
    connection: LedgerConnection, mint_id: str, unit: str
) -> tuple[dict[int, int], int]:
    """The same of all coins for whoever only looks: they may be gone the next moment."""
    return await _counts(connection, _unspent(mint_id, unit))


async def _counts(
    connection: LedgerConnection, ours: Sequence[ColumnElement[bool]]
) -> tuple[dict[int, int], int]:
    rows = await connection.execute(
        select(
            PROOF.c.amount,
            func.count().label("count_of"),
            func.max(KEYSET.c.input_fee_ppk).label("fee_ppk"),
        )
        .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
        .where(*ours)
        .group_by(PROOF.c.amount)
    )
    counts = [(int(row.amount), int(row.count_of), int(row.fee_ppk)) for row in rows]
    return {amount: n for amount, n, _ in counts}, max((ppk for _, _, ppk in counts), default=0)


def _ours(
    transaction: Transaction, mint_id: str, unit: str, *, lasting: bool
) -> list[ColumnElement[bool]]:
    ours = _unspent(mint_id, unit)
    if lasting:
        ours.append(_lasts(_month_ahead(transaction)))
    return ours


def _month_ahead(transaction: Transaction) -> int:
    return int(transaction.book.now.timestamp()) + RETIRING_S


def _lasts(until: object) -> ColumnElement[bool]:
    expiry = KEYSET.c.final_expiry
    return or_(expiry.is_(None), expiry == 0, expiry > until)


def _unspent(mint_id: str, unit: str) -> list[ColumnElement[bool]]:
    return [KEYSET.c.mint_id == mint_id, KEYSET.c.unit == unit, PROOF.c.state == "unspent"]


async def split_for(
    transaction: Transaction, goal: FloatGoal, mint_id: str, unit: str, amounts: Sequence[int]
) -> list[int]:
    """Coins worth as much as those, but of what the float there lacks."""
    counts, _ = await look(transaction, mint_id, unit)
    try:
        return goal.split(sum(amounts), counts)
    except InvalidAmount:  # more of them than one swap may have
        return list(amounts)


async def draw(
    transaction: Transaction,
    mint_id: str,
    unit: str,
    counts: Mapping[int, int],
    *,
    lasting: bool = False,
) -> Drawn:
    """Reserve exactly those coins. Raises LostRace when one was just taken by another process."""
    drawn = await pick(transaction, mint_id, unit, counts, lasting=lasting)
    if drawn is None:
        raise LostRace
    taken = await transaction.connection.execute(RESERVE, {"ys": drawn.ys})
    if taken.rowcount != len(drawn.ys):
        raise LostRace
    return drawn


async def pick(
    transaction: Transaction,
    mint_id: str,
    unit: str,
    counts: Mapping[int, int],
    *,
    lasting: bool = False,
) -> Drawn | None:
    """Those coins, not taken yet: whoever writes what becomes of them must find them unspent.

    None when there are not so many. Whichever the index finds first: a purse may hold very many.
    """
    wanted: dict[str, object] = {"mint_id": mint_id, "unit": unit}
    if lasting:
        wanted["ends_after"] = _month_ahead(transaction)
    for part, (amount, count) in enumerate(counts.items()):
        wanted |= {f"amount_{part}": amount, f"count_{part}": count}
    rows = await transaction.connection.execute(_picking(len(counts), lasting=lasting), wanted)
    coins = [_coin(row) for row in rows]
    if len(coins) != sum(counts.values()):
        return None
    return Drawn(
        proofs=_opened(coins, transaction.wallet),
        ys=tuple(coin.y for coin in coins),
        amount=worth(counts),
        fee_amount=fee(coin.input_fee_ppk for coin in coins),
    )


async def draw_these(transaction: Transaction, ys: Sequence[str], *, state: str) -> Drawn:
    """Reserve those coins, which must all be in that state. Raises MintShort if one is not."""
    rows = await transaction.connection.execute(
        select(PROOF, KEYSET.c.input_fee_ppk)
        .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
        .where(PROOF.c.y.in_(list(ys)), PROOF.c.state == state)
        .order_by(PROOF.c.y)
    )
    coins = [_coin(row) for row in rows]
    taken = await transaction.connection.execute(
        update(PROOF)
        .where(PROOF.c.y.in_([coin.y for coin in coins]), PROOF.c.state == state)
        .values(state="reserved")
    )
    if len(coins) != len(ys) or taken.rowcount != len(ys):
        raise MintShort("Some of these coins were taken meanwhile.")
    return Drawn(
        proofs=_opened(coins, transaction.wallet),
        ys=tuple(coin.y for coin in coins),
        amount=sum(coin.amount for coin in coins),
        fee_amount=fee(coin.input_fee_ppk for coin in coins),
    )


async def give_back(
    transaction: Transaction, operation_id: str, *, to: str, lost: Sequence[str] = ()
) -> None:
    """The coins an operation reserved and did not spend, but for those the mint went back on."""
    reserved = update(PROOF).where(
        PROOF.c.operation_id == operation_id, PROOF.c.state == "reserved"
    )
    if lost:
        await transaction.connection.execute(
            reserved.where(PROOF.c.y.in_(list(lost))).values(state="lost")
        )
    await transaction.connection.execute(reserved.values(state=to, operation_id=None))


async def open_issued(transaction: Transaction, withdrawal_id: str, ys: Sequence[str]) -> Issued:
    """Those proofs of a token that was given out. Raises MintShort if one is not, or not any more.

    They stay what they are; nobody but the mint can say who spends them.
    """
    rows = (
        await transaction.connection.execute(
            select(PROOF, KEYSET.c.input_fee_ppk, KEYSET.c.mint_id, KEYSET.c.unit)
            .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
            .where(
                PROOF.c.y.in_(list(ys)),
                PROOF.c.withdrawal_id == withdrawal_id,
                PROOF.c.state == "issued",
            )
            .order_by(PROOF.c.y)
        )
    ).all()
    if not rows or len(rows) != len(ys):
        raise MintShort("This token was claimed or taken back meanwhile.")
    coins = [_coin(row) for row in rows]
    return Issued(
        mint_id=rows[0].mint_id,
        unit=rows[0].unit,
        proofs=_opened(coins, transaction.wallet),
        amount=sum(coin.amount for coin in coins),
        fee_amount=fee(coin.input_fee_ppk for coin in coins),
    )


@cache
def _picking(parts: int, *, lasting: bool) -> CompoundSelect[Any]:
    """So many of each of `parts` amounts. Made once: making it costs more than running it."""
    ours = [
        KEYSET.c.mint_id == bindparam("mint_id"),
        KEYSET.c.unit == bindparam("unit"),
        PROOF.c.state == "unspent",
    ]
    if lasting:
        ours.append(_lasts(bindparam("ends_after")))
    coins = [
        select(PROOF, KEYSET.c.input_fee_ppk)
        .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
        .where(*ours, PROOF.c.amount == bindparam(f"amount_{part}"))
        .limit(bindparam(f"count_{part}"))
        .subquery()
        for part in range(parts)
    ]
    return union_all(*(select(each) for each in coins))


def _coin(row: Row[Any]) -> Coin:
    return Coin(
        y=row.y,
        keyset_id=row.keyset_id,
        counter=row.counter,
        amount=row.amount,
        secret=row.secret,
        c=row.c,
        e=row.e,
        s=row.s,
        input_fee_ppk=row.input_fee_ppk,
    )


def _opened(coins: Sequence[Coin], wallet: Wallet) -> tuple[Proof, ...]:
    derivers = {name: deriver(wallet.seed, name) for name in {each.keyset_id for each in coins}}
    return tuple(_open(coin, wallet, derivers[coin.keyset_id]) for coin in coins)


def _open(coin: Coin, wallet: Wallet, derive: Deriver) -> Proof:
    secret = wallet.vault.open(coin.secret, table="proof", column="secret", row_id=coin.y)
    dleq = None
    if coin.e is not None and coin.s is not None and coin.counter is not None:
        _, r = derive(coin.counter)
        dleq = Dleq(e=coin.e, s=coin.s, r=r)
    return Proof(amount=coin.amount, keyset_id=coin.keyset_id, secret=secret, c=coin.c, dleq=dleq)
