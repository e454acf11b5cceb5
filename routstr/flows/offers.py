"""What a Lightning payment would cost: an invoice that can be paid, and a mint's quote for it.

Nothing here moves money. An invoice, an address and a quote are strangers' words: each is compared
with what was asked for before it is acted upon.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog

from routstr.core.bolt11 import BadInvoice, Invoice, decode_invoice
from routstr.core.money import MSAT_PER_SAT, ceil_div, floor_div, msat_from_unit
from routstr.ecash.keyset import fee
from routstr.ecash.proof import Keyset
from routstr.ecash.selection import choose_cover, worth
from routstr.errors import (
    BalanceTooSmall,
    InsufficientBalance,
    InvalidInvoice,
    InvalidParameter,
    MintShort,
    MintUnreachable,
    NoBalance,
    RequestsInFlight,
    TokenRedemptionFailed,
)
from routstr.flows.context import Context
from routstr.flows.mints import active_keyset, known_mint
from routstr.flows.sources import Source
from routstr.gateways.mint_failure import MintMisbehaved, MintRefused, MintUnknown
from routstr.gateways.mint_quotes import MeltQuote, QuoteState
from routstr.ledger.purse import purse_at
from routstr.ledger.reads import KeyView
from routstr.ledger.reads_ecash import MintRow

log = structlog.get_logger()

ResultT = TypeVar("ResultT")

INVOICES_MAX: Final = 3
NETWORK: Final = "lnbc"
UNASKED: Final = "No mint can be asked to pay this just now. Nothing was debited."
# What the fee is taken for before a mint has been asked; the mint's own word decides.
FEE_GUESS_MIN_MSAT: Final = 2 * MSAT_PER_SAT
FEE_GUESS_PERCENT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PayWish:
    """Where a key's owner wants money sent: an invoice, or an address and how much.

    Without an amount an address gets everything that is left after the fees.
    """

    invoice: str | None = field(default=None, repr=False)
    lightning_address: str | None = field(default=None, repr=False)
    amount_sat: int | None = None
    mint_url: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None

    @property
    def empties(self) -> bool:
        """Is everything to be sent?"""
        return self.invoice is None and self.amount_sat is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """An invoice that may be paid, its amount, and who was named as its recipient."""

    bolt11: str = field(repr=False)
    invoice: Invoice = field(repr=False)
    amount_msat: int
    recipient: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A mint's quote for a bill. `fee_amount` is the most that all fees can be, in the unit."""

    source: Source
    mint: MintRow
    keyset: Keyset
    quote: MeltQuote
    fee_amount: int

    @property
    def total_msat(self) -> int:
        """The most that will be debited."""
        return msat_from_unit(self.quote.amount + self.fee_amount, self.source.unit)


def read_invoice(text: str) -> tuple[str, Invoice]:
    """An invoice somebody brought, as text and read. Raises InvalidInvoice."""
    text = text.strip().lower().removeprefix("lightning:")
    try:
        return text, decode_invoice(text)
    except BadInvoice as error:
        raise InvalidInvoice(f"Not payable: {error}.", param="invoice") from error


def read_bill(ctx: Context, given: str, *, amount_sat: int | None) -> Bill:
    """An invoice that may be paid. Raises InvalidInvoice, InvalidParameter for another amount."""
    text, invoice = read_invoice(given)
    bill = _checked(ctx, text, invoice, recipient=text)
    if amount_sat is not None and msat_from_unit(amount_sat, "sat") != bill.amount_msat:
        raise InvalidParameter("The invoice is over another amount.", param="amount_sats")
    return bill


def _checked(ctx: Context, text: str, invoice: Invoice, *, recipient: str) -> Bill:
    """Raises InvalidInvoice for one without an amount, expired, or of another network."""
    if invoice.prefix != NETWORK:
        raise InvalidInvoice("The invoice is of another network.", param="invoice")
    if not invoice.amount_msat:
        raise InvalidInvoice("The invoice names no amount.", param="invoice")
    if invoice.expires_at <= ctx.clock.now().timestamp():
        raise InvalidInvoice("The invoice has expired.", param="invoice")
    return Bill(bolt11=text, invoice=invoice, amount_msat=invoice.amount_msat, recipient=recipient)


async def with_bill(
    ctx: Context, key: KeyView, wish: PayWish, use: Callable[[Bill], Awaitable[ResultT]]
) -> ResultT:
    """What `use` makes of the bill; for everything, of one small enough that its fees fit too.

    `use` raises InsufficientBalance or MintShort, with its `shortfall_msat`, for one that is too
    large. Raises what `read_bill` and the address raise, and RequestsInFlight, NoBalance,
    BalanceTooSmall.
    """
    if wish.invoice is not None:
        return await use(read_bill(ctx, wish.invoice, amount_sat=wish.amount_sat))
    address = wish.lightning_address
    assert address is not None, "an invoice or an address"
    amount_msat = _whole_sats(_first_guess(key) if wish.empties else _asked_msat(wish))
    _check_covers(key, amount_msat)  # strangers are asked only for those who can pay
    params = await ctx.lnurl.resolve(address)
    for left in reversed(range(INVOICES_MAX)):
        text = await ctx.lnurl.invoice(params, amount_msat)
        bill = _checked(ctx, text.lower(), decode_invoice(text), recipient=address)
        try:
            return await use(bill)
        except (InsufficientBalance, MintShort) as error:
            missing_msat = error.details.get("shortfall_msat")
            if not wish.empties or not left or not isinstance(missing_msat, int):
                raise
            amount_msat = _whole_sats(amount_msat - missing_msat)
    raise AssertionError("the last round returns or raises")


def _asked_msat(wish: PayWish) -> int:
    assert wish.amount_sat is not None, "whoever empties names no amount"
    return msat_from_unit(wish.amount_sat, "sat")


def _first_guess(key: KeyView) -> int:
    """What is left of everything after a usual fee. Raises RequestsInFlight, NoBalance."""
    if key.reserved_msat:
        raise RequestsInFlight
    if not key.available_msat:
        raise NoBalance
    without_percent = floor_div(key.available_msat * 100, 100 + FEE_GUESS_PERCENT)
    return min(without_percent, key.available_msat - FEE_GUESS_MIN_MSAT)


def _whole_sats(amount_msat: int) -> int:
    """Rounded down. Raises BalanceTooSmall when nothing is left."""
    sats = floor_div(amount_msat, MSAT_PER_SAT)
    if sats < 1:
        raise BalanceTooSmall("The balance does not cover the fees of a Lightning payment.")
    return msat_from_unit(sats, "sat")


async def make_offer(ctx: Context, key: KeyView, bill: Bill, source: Source) -> Offer:
    """Ask a mint what paying the bill costs, if key and node have the money for it there.

    Its keysets are asked for anew: a melt refused for one that retired would be a failed payment.

    Raises InsufficientBalance, MintShort, MintUnreachable, UntrustedMint, and InvalidInvoice when
    the mint will not pay.
    """
    amount = ceil_div(bill.amount_msat, msat_from_unit(1, source.unit))
    _check_covers(key, msat_from_unit(amount, source.unit))
    mint = await known_mint(ctx, source.mint_url, since_s=ctx.monotonic_s())
    try:
        keyset = active_keyset(mint.keysets, source.unit, ctx.clock.now())
    except TokenRedemptionFailed as error:
        raise MintShort from error
    await _inputs_fee(ctx, mint, source.unit, amount)  # nobody is asked about what cannot be paid
    try:
        quote = await ctx.mints.request_melt_quote(
            source.mint_url, bolt11=bill.bolt11, unit=source.unit
        )
    except MintRefused as error:
        log.info("melt_quote_refused", mint_url=source.mint_url, code=str(error.code))
        raise InvalidInvoice("The mint will not pay this invoice.", param="invoice") from error
    except (MintUnknown, MintMisbehaved) as error:
        raise MintUnreachable(UNASKED) from error
    _check_quote(ctx, quote, amount, source)
    _check_covers(key, msat_from_unit(amount + quote.fee_reserve, source.unit))
    input_fee = await _inputs_fee(ctx, mint, source.unit, amount + quote.fee_reserve)
    offer = Offer(
        source=source,
        mint=mint,
        keyset=keyset,
        quote=quote,
        fee_amount=quote.fee_reserve + input_fee,
    )
    _check_covers(key, offer.total_msat)
    return offer


def _check_covers(key: KeyView, required_msat: int) -> None:
    """Raises InsufficientBalance, with the figures. The ledger looks again when it debits."""
    shortfall_msat = required_msat - key.available_msat
    if shortfall_msat > 0:
        raise InsufficientBalance(
            "The key cannot pay this and its fees.",
            details={
                "required_msat": required_msat,
                "available_msat": key.available_msat,
                "held_msat": key.reserved_msat,
                "shortfall_msat": shortfall_msat,
            },
        )


def _check_quote(ctx: Context, quote: MeltQuote, amount: int, source: Source) -> None:
    """Raises InvalidInvoice for what was paid before, MintUnreachable for another quote."""
    if quote.state is not QuoteState.UNPAID:
        raise InvalidInvoice("The invoice is paid, or being paid.", param="invoice")
    is_expired = quote.expiry_s is not None and quote.expiry_s <= ctx.clock.now().timestamp()
    if quote.amount != amount or quote.unit not in {None, source.unit} or is_expired:
        log.error("mint_misbehaved", mint_url=source.mint_url, reason="quoted another payment")
        raise MintUnreachable(UNASKED)


async def _inputs_fee(ctx: Context, mint: MintRow, unit: str, amount: int) -> int:
    """The most that the coins for `amount` cost to spend. Raises MintShort without such coins."""
    async with ctx.database.reading() as connection:
        purse, fee_ppk = await purse_at(connection, mint.id, unit)
    cover = choose_cover(purse, amount, fee_ppk=fee_ppk)
    if cover is None:
        missing = amount + fee([fee_ppk] * sum(purse.values())) - worth(purse)
        raise MintShort(details={"shortfall_msat": msat_from_unit(max(missing, 1), unit)})
    return fee([fee_ppk] * sum(cover.values()))
