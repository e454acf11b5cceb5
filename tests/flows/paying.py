"""What the tests of invoices share: a till whose customers pay by Lightning."""

from datetime import datetime
from typing import Final

from routstr.flows.invoice import (
    Invoiced,
    InvoiceView,
    InvoiceWish,
    create_invoice,
    invoice_status,
    look_at_invoices,
)
from routstr.flows.keys import Created
from routstr.ledger.book import KeyRef
from tests.harness.till import Till

MINT: Final = "/v1/mint/bolt11"
QUOTE: Final = "/v1/mint/quote/bolt11/"
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S


async def invoice(till: Till, amount_sat: int = 21) -> Invoiced:
    """An invoice for a new key."""
    return await create_invoice(till.ctx, InvoiceWish(amount_sat=amount_sat))


async def topup_invoice(till: Till, key: Created, amount_sat: int = 21) -> Invoiced:
    """An invoice onto a key."""
    wish = InvoiceWish(amount_sat=amount_sat, target=KeyRef(id=key.key_id), shown_key=key.api_key)
    return await create_invoice(till.ctx, wish)


async def status(till: Till, made: Invoiced) -> InvoiceView:
    """How it stands; asks the mint only if it was not asked a moment ago."""
    return await invoice_status(till.ctx, made.invoice_id)


async def look(till: Till, after_s: float = 61) -> int:
    """Time passes, and the watcher does its round."""
    await till.later(after_s)
    return await look_at_invoices(till.ctx)


async def total(till: Till) -> int:
    """What all keys have."""
    return int(await till.value("SELECT coalesce(sum(balance), 0) FROM apikey"))


def mints(till: Till) -> int:
    """How often the mint was asked for ecash."""
    return len([call for call in till.mint.calls if call.path == MINT])


def looks(till: Till) -> int:
    """How often it was asked about a quote."""
    return len([call for call in till.mint.calls if call.path.startswith(QUOTE)])


def until_s(till: Till, when: datetime) -> float:
    """Seconds from now until then."""
    return (when - till.ctx.clock.now()).total_seconds()
