"""The receipt of a paid request: what it says, the bytes that are signed, and whether it adds up.

Laws: it holds integers and strings only, and what the ledger committed only, so the same request
has the same bytes at any time; whoever has it can recompute what was charged, offline, knowing
nothing of this node. Source: `docs/receipts.md`; RFC 8785 for the bytes.

The signed bytes are the canonical JSON of every member but `signature`; the signature is BIP-340's
over their SHA-256.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from routstr.core.money import ceil_div
from routstr.core.outcome import Evidence
from routstr.errors import RoutstrError

VERSION: Final = 1
RECEIPT_BYTES_MAX: Final = 64 * 1024
SIGNATURE: Final = "signature"

Line = tuple[str, int, int, int]
"""A line of a bill: the class of what was used, how many, the msat for every `per`, and `per`."""

_HEX_64: Final = re.compile(r"[0-9a-f]{64}")
_HEX_128: Final = re.compile(r"[0-9a-f]{128}")
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([0-9a-f]{128})")

_NUMBERS: Final = (
    "absorbed_msats", "charged_msats", "cost_msats", "quote_msats", "settled_at", "v",
)  # fmt: skip
_BALANCE: Final = "balance_after_msats"
_TEXTS: Final = (
    "evidence", "model", "outcome", "price_version", "pubkey", "request_id", "request_sha256",
)  # fmt: skip
_MEMBERS: Final = frozenset({*_NUMBERS, *_TEXTS, "lines"})
_LINE_NUMBERS: Final = ("count", "per", "rate_msats")
_LINE_MEMBERS: Final = frozenset({*_LINE_NUMBERS, "class"})


class NoReceipt(RoutstrError):
    """This is no receipt."""


class UnsoundReceipt(RoutstrError):
    """The receipt contradicts itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """How a hold ended, as its rows say; amounts in msat, the time in Unix seconds.

    `request_sha256` (64 hex) is of the body as received. `balance_after_msat` is the payer's, None
    where it is not the asker's to know.
    """

    request_id: str
    request_sha256: str
    model_id: str
    price_version: str
    lines: Sequence[Line]
    outcome: str
    evidence: str
    quote_msat: int
    charged_msat: int
    absorbed_msat: int
    balance_after_msat: int | None
    settled_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReceipt:
    """A receipt in both its forms, each made when it is asked for: hardly anybody wants both.

    `members` are what is signed, `signed` their bytes, `signature` has 128 hex.
    """

    members: Mapping[str, object]
    signed: bytes
    signature: str

    @property
    def document(self) -> bytes:
        """The receipt as JSON."""
        return canonical({**self.members, SIGNATURE: self.signature})

    @property
    def compact(self) -> str:
        """For a header: base64url of the signed bytes, a dot, and the signature in hex."""
        payload = base64.urlsafe_b64encode(self.signed).rstrip(b"=").decode()
        return f"{payload}.{self.signature}"


# ── making one ────────────────────────────────────────────────────────────────────────────────


def signed_receipt(
    settlement: Settlement, *, pubkey: str, sign: Callable[[bytes], str]
) -> SignedReceipt:
    """The receipt of a settlement.

    `pubkey` is the signer's x-only key (64 hex); `sign` makes its signature (128 hex) of 32 bytes.
    """
    members = _members(settlement, pubkey)
    signed = canonical(members)
    return SignedReceipt(members=members, signed=signed, signature=sign(digest(signed)))


def canonical(members: Mapping[str, object]) -> bytes:
    """The canonical JSON of integers, strings, lists and objects whose names are ASCII (RFC 8785).

    Integers are written out in full, also those that a double could not hold.
    """
    return orjson.dumps(members, option=orjson.OPT_SORT_KEYS)


def digest(signed: bytes) -> bytes:
    """What the signature is over."""
    return hashlib.sha256(signed).digest()


def _members(settlement: Settlement, pubkey: str) -> dict[str, object]:
    members: dict[str, object] = {
        "v": VERSION,
        "request_id": settlement.request_id,
        "request_sha256": settlement.request_sha256,
        "model": settlement.model_id,
        "price_version": settlement.price_version,
        "lines": [
            {"class": name, "count": count, "rate_msats": rate_msat, "per": per}
            for name, count, rate_msat, per in settlement.lines
        ],
        "outcome": settlement.outcome,
        "evidence": settlement.evidence,
        "cost_msats": settlement.charged_msat + settlement.absorbed_msat,
        "quote_msats": settlement.quote_msat,
        "charged_msats": settlement.charged_msat,
        "absorbed_msats": settlement.absorbed_msat,
        "settled_at": settlement.settled_at,
        "pubkey": pubkey,
    }
    if settlement.balance_after_msat is not None:
        members[_BALANCE] = settlement.balance_after_msat
    return members


# ── judging one ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReceipt:
    """Somebody's receipt, all of whose members have the right shape; nothing else is known yet."""

    members: Mapping[str, object]
    signature: str

    def text(self, name: str) -> str:
        """A member that is text."""
        value = self.members[name]
        assert isinstance(value, str)
        return value

    def number(self, name: str) -> int:
        """A member that is a number."""
        value = self.members[name]
        assert isinstance(value, int)
        return value

    @property
    def digest(self) -> bytes:
        """What the signature must be over."""
        return digest(canonical(self.members))


def read_receipt(text: bytes) -> ReadReceipt:
    """The receipt in `text`, in either form; blanks and the order of members mean nothing.

    Raises NoReceipt for anything else: another version, a member too few or too many or twice, a
    number that is no integer from 0 on.
    """
    if len(text) > RECEIPT_BYTES_MAX:
        raise NoReceipt("A receipt is not that long.")
    try:
        stripped = text.decode().strip()
        compact = _COMPACT.fullmatch(stripped)
        if compact is None:
            members = _parsed(stripped)
            signature = members.pop(SIGNATURE, None)
        else:
            members = _parsed(_decoded(compact[1]).decode())
            signature = compact[2]
        canonical(members)  # no lone surrogate, no number beyond 64 bits
    except (ValueError, TypeError, RecursionError) as error:
        raise NoReceipt from error
    _check_shape(members)
    if not isinstance(signature, str) or _HEX_128.fullmatch(signature) is None:
        raise NoReceipt("The receipt's signature is not 128 hexadecimal digits.")
    return ReadReceipt(members=members, signature=signature)


def check_sums(receipt: ReadReceipt) -> None:
    """Raises UnsoundReceipt, saying which sum is wrong, unless the receipt adds up.

    What is due is the exact sum of the lines, rounded up once. It is the cost where the evidence is
    exact; an estimate may have cost less; without evidence nothing was charged. The cost is what
    was charged and what the node bore, and no charge is above the quote.
    """
    due_msat, cost_msat = _due_msat(receipt), receipt.number("cost_msats")
    charged_msat, absorbed_msat = receipt.number("charged_msats"), receipt.number("absorbed_msats")
    quote_msat, evidence = receipt.number("quote_msats"), receipt.text("evidence")
    if evidence == Evidence.EXACT and cost_msat != due_msat:
        raise UnsoundReceipt(f"The lines come to {due_msat} msat, the cost is {cost_msat}.")
    if evidence == Evidence.ESTIMATED and cost_msat > due_msat:
        raise UnsoundReceipt(f"The lines come to {due_msat} msat, the estimate is {cost_msat}.")
    if evidence == Evidence.NONE and cost_msat:
        raise UnsoundReceipt(f"Nothing proves use, and the cost is {cost_msat} msat.")
    if charged_msat + absorbed_msat != cost_msat:
        raise UnsoundReceipt("What was charged and what the node bore are not the cost.")
    if charged_msat > quote_msat:
        raise UnsoundReceipt(f"{charged_msat} msat were charged, the quote was {quote_msat}.")


def _due_msat(receipt: ReadReceipt) -> int:
    """The lines' exact sum, over the product of what they count in, rounded up once."""
    lines = receipt.members["lines"]
    assert isinstance(lines, list)
    above, below = 0, 1
    for line in lines:
        above = above * line["per"] + line["count"] * line["rate_msats"] * below
        below *= line["per"]
    return ceil_div(above, below)


def _parsed(text: str) -> dict[str, object]:
    value = json.loads(
        text,
        object_pairs_hook=_without_repeats,
        parse_float=_refused,
        parse_constant=_refused,
    )
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _refused(text: str) -> object:
    raise ValueError(f"{text} is no integer")


def _decoded(base64url: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(base64url + "=" * (-len(base64url) % 4))
    except binascii.Error as error:
        raise ValueError("no base64url") from error


def _check_shape(members: Mapping[str, object]) -> None:
    if members.get("v") != VERSION:
        raise NoReceipt("The receipt is of a version that this program does not know.")
    lines = members.get("lines")
    is_whole = (
        members.keys() - {_BALANCE} == _MEMBERS
        and all(_is_count(members[name]) for name in _NUMBERS)
        and _is_count(members.get(_BALANCE, 0))
        and all(isinstance(members[name], str) for name in _TEXTS)
        and isinstance(lines, list)
        and all(_is_line(line) for line in lines)
    )
    if not is_whole:
        raise NoReceipt("The receipt lacks members, or has others than its version knows.")
    if members["evidence"] not in set(Evidence):
        raise NoReceipt("The receipt names no evidence that its version knows.")
    if not all(_HEX_64.fullmatch(str(members[name])) for name in ("pubkey", "request_sha256")):
        raise NoReceipt("The receipt's key or hash is not 64 hexadecimal digits.")


def _is_line(line: object) -> bool:
    return (
        isinstance(line, dict)
        and line.keys() == _LINE_MEMBERS
        and isinstance(line["class"], str)
        and all(_is_count(line[name]) for name in _LINE_NUMBERS)
        and line["per"] > 0
    )


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
