"""What a mint's bad answer proves: a definite refusal, or nothing at all.

Law: only a status 400 with a code of the table, or a 422, is a "no". Everything else is unknown,
and unknown is a state with a way out (restore, checkstate, the quote), never a failure.
Source: ecash.md section 4, NUT-00 and the error codes of the NUTs.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

MALFORMED_REQUEST: Final = 422
"""Stands for the status 422, which comes without a code: the mint could not parse our request."""


class Refusal(StrEnum):
    """What a code says about the one and only POST of an operation."""

    SPENT = "spent"  # restore and checkstate; empty restore → spent elsewhere
    PENDING = "pending"  # inputs, outputs or quote in another operation: wait
    OUTPUTS_SIGNED = "outputs_signed"  # ours, or a stale counter: restore
    PAYMENT_FAILED = "payment_failed"  # melt: GET the quote; UNPAID and UNSPENT → refund
    QUOTE_PAID = "quote_paid"  # GET the quote; not paid → safe
    QUOTE_UNPAID = "quote_unpaid"  # wait
    QUOTE_EXPIRED = "quote_expired"  # safe, ask for a new quote
    SAFE = "safe"  # nothing happened and nothing will
    SAFE_REFRESH = "safe_refresh"  # as SAFE; refresh the keysets, then one successor
    SAFE_OUR_BUG = "safe_our_bug"  # as SAFE; alert, the request was wrong
    UNKNOWN = "unknown"  # a code outside the table proves nothing

    @property
    def is_safe(self) -> bool:
        """Marked S in the table: with an empty restore and UNSPENT inputs it ends the operation."""
        return self in _SAFE


_SAFE: Final = frozenset(
    {Refusal.QUOTE_EXPIRED, Refusal.SAFE, Refusal.SAFE_REFRESH, Refusal.SAFE_OUR_BUG}
)

SAFE_REFUSALS: Final[Mapping[int, Refusal]] = {
    0: Refusal.SAFE,  # nutshell: unknown input keyset, bad point, no quote
    10001: Refusal.SAFE,
    11000: Refusal.SAFE_REFRESH,  # nutshell's 11005; also P2PK failure, unknown output keyset
    11001: Refusal.SPENT,
    11002: Refusal.PENDING,
    11003: Refusal.OUTPUTS_SIGNED,
    11004: Refusal.PENDING,
    11005: Refusal.SAFE_REFRESH,
    **dict.fromkeys(range(11006, 11018), Refusal.SAFE_OUR_BUG),
    12001: Refusal.SAFE_REFRESH,
    12002: Refusal.SAFE_REFRESH,
    12003: Refusal.SAFE_REFRESH,
    20001: Refusal.QUOTE_UNPAID,
    20002: Refusal.OUTPUTS_SIGNED,
    20004: Refusal.PAYMENT_FAILED,
    20005: Refusal.PENDING,
    20006: Refusal.QUOTE_PAID,
    20007: Refusal.QUOTE_EXPIRED,
    20008: Refusal.SAFE_OUR_BUG,
    20009: Refusal.SAFE_OUR_BUG,
    MALFORMED_REQUEST: Refusal.SAFE_OUR_BUG,
}


def classify(code: int) -> Refusal:
    """The column "first and only POST" of ecash.md section 4; UNKNOWN for a code not listed."""
    return SAFE_REFUSALS.get(code, Refusal.UNKNOWN)


class MintFailure(Exception):
    """A mint did not do what was asked. Messages hold no body, token, secret or quote id."""


class MintRefused(MintFailure):
    """The mint said no, with a code. `refusal` is what that means for a first and only POST.

    `detail_kind` is the JSON type of the mint's own words, which are never kept: they may repeat
    a proof.
    """

    def __init__(self, code: int, *, detail_kind: str) -> None:
        """Keep the code and its class."""
        super().__init__(f"the mint refused with code {code}")
        self.code = code
        self.refusal = classify(code)
        self.detail_kind = detail_kind


class MintUnknown(MintFailure):
    """No usable answer: time-out, reset, 5xx, malformed. What the mint did is not known.

    `was_sent` False means that not a byte of the request left, so nothing can have happened.
    """

    def __init__(self, reason: str, *, was_sent: bool = True, status: int | None = None) -> None:
        """Keep why, and the HTTP status if there was one."""
        super().__init__(reason)
        self.reason = reason
        self.was_sent = was_sent
        self.status = status


class MintLimited(MintUnknown):
    """The mint is limiting us (429), or our own lane to it is full or paused."""

    def __init__(self, reason: str, *, retry_after_s: int, was_sent: bool = True) -> None:
        """Keep when to ask again, in whole seconds."""
        super().__init__(reason, was_sent=was_sent, status=429 if was_sent else None)
        self.retry_after_s = retry_after_s


class MintMisbehaved(MintFailure):
    """The mint broke the protocol provably: stop using it, and alert."""
