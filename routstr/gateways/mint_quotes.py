"""Mint and melt quotes as a mint answers them, read with suspicion (NUT-04, 05, 08, 20, 23; SR-13).

Laws: an answer that is odd in any way is MintUnknown, also where the mint would have to be broken:
nothing here may turn a payment that could be under way into a failure. A quote id, an invoice or a
preimage is never part of an error or a repr. What a quote says (amount, unit, key, invoice, expiry)
is well-formed, no more: whoever asked compares it with what was asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import orjson

from routstr.core.bolt11 import INVOICE_CHARS_MAX
from routstr.ecash.bdhke import is_point
from routstr.ecash.errors import BadSignature
from routstr.ecash.outputs import signatures_from_json
from routstr.ecash.proof import BlindSignature
from routstr.gateways.mint_failure import MintUnknown

QUOTE_ID_CHARS_MAX: Final = 256  # as a stock mint has it
UNIT_CHARS_MAX: Final = 20
PREIMAGE_CHARS_MAX: Final = 256
AMOUNT_MAX: Final = 2**53

# Enters the path of a URL, so nothing that means something there: no dot, slash, percent or query.
_QUOTE_ID: Final = re.compile(r"[A-Za-z0-9_=-]+")
_INVOICE: Final = re.compile(r"ln[a-z0-9]+", re.IGNORECASE | re.ASCII)
_PRINTABLE: Final = re.compile(r"[!-~]+")


class QuoteState(StrEnum):
    """What a mint says of a quote (NUT-04, NUT-05). ISSUED is of mint quotes only."""

    UNPAID = "UNPAID"
    PENDING = "PENDING"
    PAID = "PAID"
    ISSUED = "ISSUED"


@dataclass(frozen=True, slots=True, kw_only=True)
class MintQuote:
    """An invoice of the mint's, to be paid for ecash (NUT-04, NUT-23); `amount` in `unit`.

    `expiry_s` is a Unix time. Amount, unit, expiry and key are None where the mint leaves them out.
    """

    quote_id: str = field(repr=False)
    bolt11: str = field(repr=False)
    amount: int | None
    unit: str | None
    state: QuoteState
    expiry_s: int | None
    pubkey: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeltQuote:
    """What the mint asks for paying an invoice (NUT-05, NUT-23), and how far it is with that.

    `amount` and `fee_reserve` are in `unit`, `expiry_s` is a Unix time. A preimage is what the mint
    says, of any shape: it proves nothing here, but UNPAID with a preimage is no "no". `change` is
    well-formed, no more: `ecash.outputs.unblind_change` judges it.
    """

    quote_id: str = field(repr=False)
    amount: int
    unit: str | None
    fee_reserve: int
    state: QuoteState
    expiry_s: int | None
    preimage: str | None = field(repr=False)
    change: tuple[BlindSignature, ...]


def quote_path(kind: str, quote_id: str) -> str:
    """The path that asks for a quote of `kind` (mint, melt). Raises MintUnknown, nothing sent."""
    if not _is_quote_id(quote_id):
        raise MintUnknown("that is no quote id", was_sent=False)
    return f"/v1/{kind}/quote/bolt11/{quote_id}"


def quote_id_of(body: bytes) -> str:
    """The quote that the body of a mint or melt names; the body is ours."""
    quote_id = orjson.loads(body)["quote"]
    assert isinstance(quote_id, str)
    return quote_id


def mint_quote_from_json(value: object, *, quote_id: str | None = None) -> MintQuote:
    """A mint quote: a new one, or the one with `quote_id`. Raises MintUnknown."""
    answer = _object(value)
    bolt11, pubkey, amount = answer.get("request"), answer.get("pubkey"), answer.get("amount")
    if not _is_invoice(bolt11):
        raise MintUnknown("a mint quote has no invoice")
    if pubkey is not None and not (isinstance(pubkey, str) and is_point(pubkey)):
        raise MintUnknown("a mint quote's key is no point on the curve")
    return MintQuote(
        quote_id=_quote_id(answer, quote_id),
        bolt11=str(bolt11),
        amount=None if amount is None else _number(amount, 1),
        unit=_unit(answer),
        state=_state(answer),
        expiry_s=_expiry_s(answer),
        pubkey=pubkey,
    )


def melt_quote_from_json(
    value: object, *, quote_id: str | None = None, bolt11: str | None = None
) -> MeltQuote:
    """A melt quote: a new one for `bolt11`, or the one with `quote_id`. Raises MintUnknown."""
    answer = _object(value)
    request = answer.get("request")
    if bolt11 is not None and request is not None and request != bolt11:
        raise MintUnknown("the mint quoted another invoice")
    state = _state(answer)
    if state is QuoteState.ISSUED:
        raise MintUnknown("a melt quote is in no state of melt quotes")
    return MeltQuote(
        quote_id=_quote_id(answer, quote_id),
        amount=_number(answer.get("amount"), 1),
        unit=_unit(answer),
        fee_reserve=_number(answer.get("fee_reserve"), 0),
        state=state,
        expiry_s=_expiry_s(answer),
        preimage=_preimage(answer),
        change=_change(answer),
    )


def _quote_id(answer: Mapping[str, object], asked: str | None) -> str:
    quote_id = answer.get("quote")
    if not isinstance(quote_id, str) or not _is_quote_id(quote_id):
        raise MintUnknown("a quote has no id that can be used")
    if asked is not None and quote_id != asked:
        raise MintUnknown("the mint answered for another quote")
    return quote_id


def _is_quote_id(text: str) -> bool:
    return len(text) <= QUOTE_ID_CHARS_MAX and _QUOTE_ID.fullmatch(text) is not None


def _is_invoice(value: object) -> bool:
    if not isinstance(value, str) or len(value) > INVOICE_CHARS_MAX:
        return False
    return _INVOICE.fullmatch(value) is not None


def _state(answer: Mapping[str, object]) -> QuoteState:
    state = answer.get("state")
    try:
        return QuoteState(state if isinstance(state, str) else "")
    except ValueError:
        raise MintUnknown("a quote is in no state of the protocol") from None


def _unit(answer: Mapping[str, object]) -> str | None:
    unit = answer.get("unit")
    if unit is None:
        return None
    if not isinstance(unit, str) or not 0 < len(unit) <= UNIT_CHARS_MAX:
        raise MintUnknown("a quote's unit is malformed")
    return unit


def _expiry_s(answer: Mapping[str, object]) -> int | None:
    """A Unix time, or None; some mints write "never" as 0."""
    expiry_s = answer.get("expiry")
    return None if expiry_s is None else _number(expiry_s, 0) or None


def _preimage(answer: Mapping[str, object]) -> str | None:
    """Backends disagree on its form, and a payment made must not look unknown for that."""
    preimage = answer.get("payment_preimage")
    if preimage is None or preimage == "":
        return None
    if (
        not isinstance(preimage, str)
        or len(preimage) > PREIMAGE_CHARS_MAX
        or _PRINTABLE.fullmatch(preimage) is None
    ):
        raise MintUnknown("a melt quote's preimage is malformed")
    return preimage


def _change(answer: Mapping[str, object]) -> tuple[BlindSignature, ...]:
    change = answer.get("change")
    if change is None:
        return ()
    try:
        return signatures_from_json(change)
    except BadSignature as error:
        raise MintUnknown("a melt quote's change is malformed") from error


def _number(value: object, minimum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= AMOUNT_MAX:
        raise MintUnknown("a quote's number is out of range")
    return value


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise MintUnknown("the mint's answer has another shape")
    return value
