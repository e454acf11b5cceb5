"""Lightning invoices (BOLT-11), read only: how much, for what, until when, on which network.

Laws: whatever arrives, BadInvoice is all that is raised; what is ambiguous between two readers (a
field twice, an amount of no whole msat, a sum above all bitcoin) is refused. The node never routes
a payment itself, so features, route hints and fallback addresses are the paying mint's affair.

The signature is checked: it must recover to a key, and to the one in the `n` field if there is one.
That costs a tenth of a millisecond and proves that nobody changed the text, not who the payee is.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from coincurve import PublicKey

from routstr.ecash.bech32 import ALPHABET, Checksum, InvalidBech32, decode_words, regroup

INVOICE_CHARS_MAX: Final = 4_096
DEFAULT_EXPIRY_S: Final = 3_600
EXPIRY_S_MAX: Final = 2**32
AMOUNT_MSAT_MAX: Final = 21_000_000 * 10**11  # all bitcoin there will ever be

# Amounts are written in bitcoin; the multipliers give msat. Pico is a tenth of a msat, see below.
_MSAT: Final = {"": 10**11, "m": 10**8, "u": 10**5, "n": 10**2}
_PREFIX: Final = re.compile(r"ln(bcrt|bc|tbs|tb)(?:([1-9][0-9]{0,19})([munp]?))?")
_TIMESTAMP_WORDS: Final = 7
_SIGNATURE_WORDS: Final = 104
_HASH_WORDS: Final = 52
_KEY_WORDS: Final = 53
_FIELD_HEAD_WORDS: Final = 3


class BadInvoice(ValueError):
    """Not an invoice this node will have paid; the message never holds a part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """What an invoice says. Hashes are lower-case hex; `created_at` is a Unix time in seconds.

    `prefix` names the network: lnbc, lntb, lntbs (signet) or lnbcrt. A description is anybody's
    text: escape it before showing it.
    """

    prefix: str
    amount_msat: int | None
    payment_hash: str = field(repr=False)
    description: str | None = field(repr=False)
    description_hash: str | None = field(repr=False)
    created_at: int
    expiry_s: int

    @property
    def expires_at(self) -> int:
        """The Unix time in seconds after which nobody should pay."""
        return self.created_at + self.expiry_s


def decode_invoice(text: str) -> Invoice:
    """Read an invoice in lower or upper case, without `lightning:`. Raises BadInvoice. BOLT-11."""
    if len(text) > INVOICE_CHARS_MAX:
        raise BadInvoice("the invoice is too long")
    try:
        human, words = decode_words(text, Checksum.BECH32)
    except InvalidBech32 as error:
        raise BadInvoice("the invoice is mistyped or cut off") from error
    prefix, amount_msat = _prefix_and_amount(human)
    if len(words) < _TIMESTAMP_WORDS + _SIGNATURE_WORDS:
        raise BadInvoice("the invoice is cut off")
    covered, signature = words[:-_SIGNATURE_WORDS], words[-_SIGNATURE_WORDS:]
    fields = _fields(covered[_TIMESTAMP_WORDS:])
    _check_signature(human, covered, signature, fields.get("n"))
    if "p" not in fields:
        raise BadInvoice("the invoice has no payment hash")
    return Invoice(
        prefix=prefix,
        amount_msat=amount_msat,
        payment_hash=_bytes(fields["p"]).hex(),
        description=_text(fields["d"]) if "d" in fields else None,
        description_hash=_bytes(fields["h"]).hex() if "h" in fields else None,
        created_at=_number(words[:_TIMESTAMP_WORDS]),
        expiry_s=_expiry_s(fields.get("x")),
    )


def _prefix_and_amount(human: str) -> tuple[str, int | None]:
    found = _PREFIX.fullmatch(human)
    if found is None:
        raise BadInvoice("the invoice is for another network, or its amount is malformed")
    currency, digits, multiplier = found.groups()
    if digits is None:
        return f"ln{currency}", None
    if multiplier == "p":
        if not digits.endswith("0"):
            raise BadInvoice("the invoice asks for a part of a millisatoshi")
        amount_msat = int(digits[:-1])
    else:
        amount_msat = int(digits) * _MSAT[multiplier]
    if amount_msat > AMOUNT_MSAT_MAX:
        raise BadInvoice("the invoice asks for more than there is")
    return f"ln{currency}", amount_msat


# The tags this node reads, and how many words make them valid (None: any number).
_LENGTHS: Final = {"p": _HASH_WORDS, "h": _HASH_WORDS, "n": _KEY_WORDS, "d": None, "x": None}


def _fields(words: Sequence[int]) -> dict[str, Sequence[int]]:
    """The fields by tag. One with a length of another version is skipped, as BOLT-11 says."""
    fields: dict[str, Sequence[int]] = {}
    for tag, value in _tagged(words):
        if tag not in _LENGTHS or _LENGTHS[tag] not in (None, len(value)):
            continue
        if tag in fields:
            raise BadInvoice("the invoice has a field twice")
        fields[tag] = value
    return fields


def _tagged(words: Sequence[int]) -> Iterator[tuple[str, Sequence[int]]]:
    at = 0
    while at < len(words):
        head, at = words[at : at + _FIELD_HEAD_WORDS], at + _FIELD_HEAD_WORDS
        if len(head) < _FIELD_HEAD_WORDS:
            raise BadInvoice("a field of the invoice is cut off")
        end = at + _number(head[1:])
        if end > len(words):
            raise BadInvoice("a field of the invoice is cut off")
        yield ALPHABET[head[0]], words[at:end]
        at = end


def _check_signature(
    human: str, covered: Sequence[int], signature: Sequence[int], key: Sequence[int] | None
) -> None:
    byte_count = (len(covered) * 5 + 7) >> 3
    padded = regroup([*covered, 0, 0], 5, 8)[:byte_count]  # zero bits up to a whole byte
    digest = hashlib.sha256(human.encode() + bytes(padded)).digest()
    try:
        recovered = PublicKey.from_signature_and_message(_bytes(signature), digest, hasher=None)
    except ValueError as error:
        raise BadInvoice("the invoice's signature is no signature") from error
    if key is not None and recovered.format() != _bytes(key):
        raise BadInvoice("the invoice's signature is not its payee's")


def _expiry_s(words: Sequence[int] | None) -> int:
    if words is None:
        return DEFAULT_EXPIRY_S
    expiry_s = _number(words)
    if expiry_s > EXPIRY_S_MAX:
        raise BadInvoice("the invoice's expiry is out of range")
    return expiry_s


def _text(words: Sequence[int]) -> str:
    try:
        return _bytes(words).decode()
    except UnicodeDecodeError:
        raise BadInvoice("the invoice's description is no text") from None


def _bytes(words: Sequence[int]) -> bytes:
    """The whole bytes in the words; the bits left over are padding."""
    return bytes(regroup(words, 5, 8))


def _number(words: Sequence[int]) -> int:
    """Big-endian."""
    number = 0
    for word in words:
        number = number << 5 | word
    return number
