"""`/admin/api/{balances,transactions,withdrawals,lightning-invoices}`: the money, list by list."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import JsonValue

from routstr.flows.house.money import Ask, balances, invoices, transactions, withdrawals
from routstr.web.admin.guard import Reading
from routstr.web.admin.shape import InPage, Page, Shown, Unix
from routstr.web.deps import Ctx

router = APIRouter(prefix="/admin/api", tags=["admin"])

Status = Annotated[str | None, Query(max_length=40)]


class Balance(Shown):
    """Ecash at a mint, in its unit: all of it, users' and yours."""

    mint_url: str
    unit: str
    wallet_balance: int
    user_balance: int
    owner_balance: int


class Row(Shown):
    """A row of a key's audit chain; amounts in msat, signed."""

    id: int
    key_id: str
    sequence: int
    type: str
    amount_msat: int
    balance_after_msat: int
    description: str | None
    operation_id: str
    request_data: dict[str, JsonValue] | None
    created_at: Unix


class Rows(Shown):
    """A page of them, the newest first; with `total_is_least` there are more."""

    transactions: list[Row]
    total: int
    total_is_least: bool


class WithdrawalLine(Shown):
    """A withdrawal, without its token."""

    id: str
    key_id: str
    way: str
    status: str
    amount_msat: int
    fee_msat: int
    unit: str
    mint_url: str
    created_at: Unix
    completed_at: Unix | None
    error: str | None
    retries: int


class Withdrawals(Shown):
    """A page of them, the newest first."""

    withdrawals: list[WithdrawalLine]
    total: int
    total_is_least: bool


class InvoiceLine(Shown):
    """A Lightning invoice, without its text; `amount` in the unit."""

    id: str
    key_id: str | None
    purpose: str
    status: str
    amount: int
    unit: str
    credit_msat: int
    mint_url: str
    created_at: Unix
    expires_at: Unix
    paid_at: Unix | None


class Invoices(Shown):
    """A page of them, the newest first."""

    invoices: list[InvoiceLine]
    total: int
    total_is_least: bool


def _ask(page: Page, status: str | None) -> Ask:
    return Ask(
        status=status or None,
        search=page.search.strip(),
        limit=page.limit,
        offset=page.offset,
        with_total=True,
    )


@router.get("/balances")
async def list_balances(admin: Reading, ctx: Ctx) -> list[Balance]:
    """What lies at each mint, and whose it is."""
    return [
        Balance(
            mint_url=each.mint_url,
            unit=each.unit,
            wallet_balance=each.wallet,
            user_balance=each.users,
            owner_balance=each.owner,
        )
        for each in await balances(ctx)
    ]


@router.get("/transactions")
async def list_transactions(
    admin: Reading, ctx: Ctx, page: InPage, type_: Annotated[Status, Query(alias="type")] = None
) -> Rows:
    """Every change of every balance; `search` is a key's id or an operation's."""
    found = await transactions(ctx, _ask(page, type_))
    rows = [
        Row.model_validate(
            {
                "id": each.row.id,
                "key_id": each.key_id,
                "sequence": each.row.sequence,
                "type": each.row.type,
                "amount_msat": each.row.amount_msat,
                "balance_after_msat": each.row.balance_after_msat,
                "description": each.row.description,
                "operation_id": each.row.operation_id,
                "request_data": each.row.request_data,
                "created_at": each.row.created_at,
            }
        )
        for each in found.rows
    ]
    return Rows(transactions=rows, total=found.total or 0, total_is_least=found.is_least)


@router.get("/withdrawals")
async def list_withdrawals(
    admin: Reading, ctx: Ctx, page: InPage, status: Status = None
) -> Withdrawals:
    """What left, of users and of yours; `search` is its id or a key's."""
    found = await withdrawals(ctx, _ask(page, status))
    lines = [WithdrawalLine.model_validate(each) for each in found.rows]
    return Withdrawals(withdrawals=lines, total=found.total or 0, total_is_least=found.is_least)


@router.get("/lightning-invoices")
async def list_invoices(admin: Reading, ctx: Ctx, page: InPage, status: Status = None) -> Invoices:
    """Invoices that open keys or top them up; `search` is its id or a key's."""
    found = await invoices(ctx, _ask(page, status))
    lines = [InvoiceLine.model_validate(each) for each in found.rows]
    return Invoices(invoices=lines, total=found.total or 0, total_is_least=found.is_least)
