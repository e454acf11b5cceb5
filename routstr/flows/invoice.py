"""Money by Lightning: an invoice of a mint, shown, looked at, and in the end paid or given up.

Algorithm B, steps 1 and 2. Asking a mint for an invoice needs no row: until the invoice is shown
nobody can pay it, and it is shown only once it is committed with all that is needed to take its
ecash. From then on it is looked at by query, whoever made it and whoever died: every 2 s to 60 s
while it can be paid, hourly for a day after that, then daily for 30 days.

An invoice is known by a capability of 128 random bits; the database holds its keyed hash, so that
a copy of it shows nobody's key.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import structlog

from routstr.core.bolt11 import BadInvoice, Invoice, decode_invoice
from routstr.core.money import msat_from_unit
from routstr.ecash.bdhke import public_key
from routstr.ecash.node_keys import quote_key
from routstr.errors import (
    InviteRequired,
    InvoiceNotFound,
    LightningMintRateLimited,
    LightningMintUnreachable,
    MintRateLimited,
    Overloaded,
    RoutstrError,
)
from routstr.flows.context import Context
from routstr.flows.deposit import new_key
from routstr.flows.invited import invite_hash
from routstr.flows.keys import Terms
from routstr.flows.minting import mint_paid
from routstr.flows.mints import active_keyset, known_mint, split_on
from routstr.flows.operate import check_deposits
from routstr.gateways.mint import MintQuote, QuoteState
from routstr.gateways.mint_failure import MintLimited, MintMisbehaved, MintRefused, MintUnknown
from routstr.gateways.mint_limits import Priority
from routstr.ledger.accounts import NewKey
from routstr.ledger.book import KeyRef
from routstr.ledger.invoices import (
    CREATED_KEY_TTL_S,
    TOPUP_KEY_TTL_S,
    ClaimLooks,
    Closed,
    CloseInvoice,
    InvoiceStatus,
    Look,
    SaveInvoice,
)
from routstr.ledger.reads_invoices import (
    InvoiceRow,
    find_invoice,
    has_due_look,
    payable_invoices,
)

log = structlog.get_logger()

UNIT: Final = "sat"
ID_PREFIX: Final = "inv_"
ID_HEX: Final = 32
PAYABLE_MAX: Final = 1_000  # each is looked at once a minute; who has a key may make it twice that
PAYABLE_S_MIN: Final = 60
LOOKS_MAX: Final = 20
ANSWER_WAIT_S: Final = 5.0  # somebody waits for an answer, and the mint may be silent
MISSED: Final = "invoice"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceWish:
    """What an invoice is asked for: a new key with its terms, or a key that exists.

    `shown_key` is the text of the key that is topped up, if it is known.
    """

    amount_sat: int
    target: KeyRef | None = None
    shown_key: str | None = field(default=None, repr=False)
    terms: Terms = field(default_factory=Terms)
    invite: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoiced:
    """An invoice to be paid; `invoice_id` is the capability, shown here and kept nowhere."""

    invoice_id: str = field(repr=False)
    bolt11: str = field(repr=False)
    amount_sat: int
    expires_at: datetime
    payment_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceView:
    """How an invoice stands; `api_key` only while it may be shown to who asks."""

    status: InvoiceStatus
    api_key: str | None = field(repr=False)
    amount_sat: int
    paid_at: datetime | None
    created_at: datetime
    expires_at: datetime


# ── asking for one ────────────────────────────────────────────────────────────────────────────


async def create_invoice(ctx: Context, wish: InvoiceWish) -> Invoiced:
    """An invoice of the first mint that gives a good one.

    Raises LightningMintUnreachable or LightningMintRateLimited when none does, Overloaded while
    too many wait to be paid, Paused, InviteRequired, and InvalidParameter for the terms.
    """
    now = ctx.clock.now()
    wish.terms.check(now)
    await check_deposits(ctx, msat_from_unit(wish.amount_sat, UNIT))
    if wish.target is None:
        await invite_hash(ctx, wish.invite)
    async with ctx.database.reading() as connection:
        payable_max = PAYABLE_MAX if wish.target is None else 2 * PAYABLE_MAX
        if await payable_invoices(connection, now) >= payable_max:
            raise Overloaded("Too many invoices wait to be paid; try again later.")
    is_limited = False
    for url in ctx.facts.mints:
        try:
            invoiced = await _ask(ctx, url, wish)
        except InviteRequired:  # its last use went to somebody else meanwhile
            raise
        except (MintRateLimited, MintLimited) as error:
            is_limited = True
            log.info("mint_gave_no_invoice", mint_url=url, reason=type(error).__name__)
        except (RoutstrError, MintUnknown, MintRefused) as error:
            log.info("mint_gave_no_invoice", mint_url=url, reason=type(error).__name__)
        except MintMisbehaved as error:
            log.error("mint_misbehaved", mint_url=url, reason=str(error))
        else:
            return invoiced
    raise LightningMintRateLimited if is_limited else LightningMintUnreachable


async def _ask(ctx: Context, url: str, wish: InvoiceWish) -> Invoiced:
    """Its keysets first: what could not be taken must not be paid."""
    mint = await known_mint(ctx, url)
    split_on(active_keyset(mint.keysets, UNIT), wish.amount_sat)
    capability = ctx.new_id("inv").removeprefix(ID_PREFIX)
    row_id = _row_id(ctx, capability)
    pubkey = public_key(quote_key(ctx.wallet.seed, row_id))
    quote = await ctx.mints.request_mint_quote(
        url,
        amount=wish.amount_sat,
        unit=UNIT,
        pubkey=pubkey,
        priority=Priority.REDEEM,  # anybody may ask: money that has come goes first
    )
    invoice = checked_invoice(quote, amount_sat=wish.amount_sat, pubkey=pubkey)
    ctx.failpoint("invoice.quoted")
    expires_at = _expires_at(ctx, quote, invoice)
    bolt11 = quote.bolt11.lower()
    is_ours = await ctx.ledger.submit(
        SaveInvoice(
            invoice_id=row_id,
            api_key_id=None if wish.target is None else wish.target.id,
            shown_key=wish.shown_key,
            new_key=None if wish.target is not None else await _new_key(ctx, wish),
            mint_url=url,
            unit=UNIT,
            amount=wish.amount_sat,
            credit_msat=msat_from_unit(wish.amount_sat, UNIT),
            bolt11=bolt11,
            payment_hash=invoice.payment_hash,
            quote_id=quote.quote_id,
            expires_at=expires_at,
        )
    )
    if not is_ours:
        raise MintMisbehaved("the mint gave out an invoice twice")
    ctx.failpoint("invoice.saved")
    return Invoiced(
        invoice_id=capability,
        bolt11=bolt11,
        amount_sat=wish.amount_sat,
        expires_at=expires_at,
        payment_hash=invoice.payment_hash,
    )


def checked_invoice(quote: MintQuote, *, amount_sat: int, pubkey: str) -> Invoice:
    """The quote's invoice, if both are what was asked for. Raises MintMisbehaved.

    The network is not looked at: whose sats a mint deals in is for who lists it to know.
    """
    if quote.pubkey != pubkey:
        raise MintMisbehaved("the mint did not bind its quote to our key")
    if quote.unit != UNIT or quote.amount != amount_sat:
        raise MintMisbehaved("the mint quoted another amount or unit")
    if quote.state is not QuoteState.UNPAID:
        raise MintMisbehaved("the mint calls a new quote paid")
    try:
        invoice = decode_invoice(quote.bolt11)
    except BadInvoice as error:
        raise MintMisbehaved(f"the mint's invoice is none: {error}") from error
    if invoice.amount_msat != msat_from_unit(amount_sat, UNIT):
        raise MintMisbehaved("the mint's invoice is over another amount")
    return invoice


def _expires_at(ctx: Context, quote: MintQuote, invoice: Invoice) -> datetime:
    """Until when it can be paid: as the mint, the invoice and the node allow. MintMisbehaved."""
    now_s = int(ctx.clock.now().timestamp() // 1)
    ends_s = [now_s + ctx.limits.invoice_ttl_s, invoice.expires_at]
    if quote.expiry_s is not None:
        ends_s.append(quote.expiry_s)
    if min(ends_s) < now_s + min(PAYABLE_S_MIN, ctx.limits.invoice_ttl_s):
        raise MintMisbehaved("the mint's invoice expires too soon")
    return datetime.fromtimestamp(min(ends_s), UTC)


async def _new_key(ctx: Context, wish: InvoiceWish) -> NewKey:
    terms = wish.terms
    return replace(
        new_key(ctx),
        expires_at=terms.expires_at,
        balance_limit_msat=terms.balance_limit_msat,
        limit_reset=terms.balance_limit_reset,
        invite=await invite_hash(ctx, wish.invite),
    )


def _row_id(ctx: Context, capability: str) -> str:
    return ID_PREFIX + ctx.wallet.vault.key_hash(f"invoice {capability}")[:ID_HEX]


# ── how it stands ─────────────────────────────────────────────────────────────────────────────


async def invoice_status(ctx: Context, invoice_id: str) -> InvoiceView:
    """How the invoice of that capability stands, by the mint's own word if it is time to ask.

    Raises InvoiceNotFound; RateLimited instead once there were too many of those.
    """
    row_id = _row_id(ctx, invoice_id)
    async with ctx.database.reading() as connection:
        row = await find_invoice(connection, invoice_id=row_id)
    return await _view(ctx, row, shows_topped_up=True)


async def recover(ctx: Context, bolt11: str) -> InvoiceView:
    """The same by the invoice's text, which payers see too: it shows a new key only.

    Raises what `invoice_status` raises.
    """
    text, row = bolt11.strip().lower().removeprefix("lightning:"), None
    if text.isascii() and text.isalnum():  # PostgreSQL takes no NUL for a text
        async with ctx.database.reading() as connection:
            row = await find_invoice(connection, bolt11=text)
    return await _view(ctx, row, shows_topped_up=False)


async def _view(ctx: Context, row: InvoiceRow | None, *, shows_topped_up: bool) -> InvoiceView:
    if row is None:
        ctx.misses.check(MISSED)
        ctx.misses.note(MISSED)
        raise InvoiceNotFound
    if row.status == "pending":
        row = await _look_at_once(ctx, row)
    is_shown = row.purpose == "create" or shows_topped_up
    is_over = row.status == "pending" and row.expires_at <= ctx.clock.now()
    return InvoiceView(
        status="expired" if is_over else row.status,
        api_key=_unsealed(ctx, row) if is_shown else None,
        amount_sat=row.amount,
        paid_at=row.paid_at,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _unsealed(ctx: Context, row: InvoiceRow) -> str | None:
    """The key's text while it may be shown: a new one until it is used, another for an hour."""
    if row.sealed_key is None or row.status != "paid" or row.paid_at is None:
        return None
    if row.purpose == "create" and row.first_used_at is not None:
        return None
    ttl_s = CREATED_KEY_TTL_S if row.purpose == "create" else TOPUP_KEY_TTL_S
    if (ctx.clock.now() - row.paid_at).total_seconds() > ttl_s:
        return None
    place = {"table": "lightning_invoice", "column": "sealed_key", "row_id": row.id}
    return ctx.wallet.vault.open(row.sealed_key, **place)


async def _look_at_once(ctx: Context, row: InvoiceRow) -> InvoiceRow:
    """Ask the mint for who waits, unless it was asked a moment ago; the row as it is after that."""
    looks = await ctx.ledger.submit(ClaimLooks(limit=1, invoice_id=row.id))
    for look in looks:
        work = _take(ctx, look, Priority.ISSUE)
        with suppress(TimeoutError, RoutstrError):  # how it stands is in its row all the same
            async with asyncio.timeout(ANSWER_WAIT_S):
                await ctx.tasks.carry_through(work, name="invoice")
    async with ctx.database.reading() as connection:
        after = await find_invoice(connection, invoice_id=row.id)
    assert after is not None
    return after


# ── looking at them all ───────────────────────────────────────────────────────────────────────


async def look_at_invoices(ctx: Context) -> int:
    """Ask the mints about all invoices that are due, mint by mint side by side; how many were."""
    looked = 0
    while True:
        async with ctx.database.reading() as connection:
            is_due = await has_due_look(connection, ctx.clock.now())
        if not is_due:
            return looked
        looks = await ctx.ledger.submit(ClaimLooks(limit=LOOKS_MAX))
        by_mint: dict[str, list[Look]] = defaultdict(list)
        for look in looks:
            by_mint[look.mint_url].append(look)
        async with asyncio.TaskGroup() as group:
            for same_mint in by_mint.values():
                group.create_task(_take_all(ctx, same_mint))
        looked += len(looks)
        if len(looks) < LOOKS_MAX:
            return looked


async def _take_all(ctx: Context, looks: Sequence[Look]) -> None:
    """One after the other; one that breaks keeps none of the others from being looked at."""
    for look in looks:
        taken = _take(ctx, look, Priority.FLOAT)
        (broken,) = await asyncio.gather(taken, return_exceptions=True)
        if isinstance(broken, Exception) and not isinstance(broken, RoutstrError):
            log.error("look_broken", mint_url=look.mint_url, exc_info=broken)


async def _take(ctx: Context, look: Look, priority: Priority) -> None:
    """Ask how the quote stands, and do what follows. Raises what `mint_paid` raises."""
    try:
        quote = await ctx.mints.mint_quote(look.mint_url, look.quote_id, priority=priority)
    except (MintRefused, MintUnknown, RoutstrError):
        if look.is_last:
            await _close(ctx, look, "reconciliation_required")
        return
    ctx.failpoint("invoice.looked_at")
    if quote.state is QuoteState.PAID:
        await mint_paid(ctx, look)
    elif quote.state is QuoteState.ISSUED:  # but not to us: no operation was ever begun
        await _close(ctx, look, "reconciliation_required")
    elif look.is_last:
        is_unpaid = quote.state is QuoteState.UNPAID
        await _close(ctx, look, "expired" if is_unpaid else "reconciliation_required")


async def _close(ctx: Context, look: Look, status: Closed) -> None:
    has_closed = await ctx.ledger.submit(CloseInvoice(invoice_id=look.invoice_id, status=status))
    if has_closed and status == "reconciliation_required":
        log.error("invoice_in_doubt", mint_url=look.mint_url)
