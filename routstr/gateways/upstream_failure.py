"""How an upstream can fail, by what it proves about the request, and what the caller then hears.

Only `UpstreamNotSent` proves that nothing was served; every other failure may already have cost the
operator money, so whoever asks again does it at the operator's expense. Nothing here resends.
"""

from typing import ClassVar

from routstr.errors import (
    RETRY_AFTER_S,
    RoutstrError,
    UpstreamRequestFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)


class UpstreamFailure(Exception):
    """The upstream failed; `hold_id` names the hold the request ran under, `kind` what happened."""

    kind: ClassVar[str] = "failed"

    def __init__(self, reason: str, *, hold_id: str) -> None:
        """Keep a reason that names no address, key or content."""
        super().__init__(reason)
        self.reason = reason
        self.hold_id = hold_id


class UpstreamNotSent(UpstreamFailure):
    """No byte of the request was sent: refused, no such host, bad TLS, connect time-out."""

    kind = "not_sent"


class UpstreamLost(UpstreamFailure):
    """The connection ended after the request was sent and before an answer: maybe served."""

    kind = "lost"


class UpstreamGarbled(UpstreamLost):
    """What came back is no HTTP answer we can use: broken headers, or an encoding not asked for."""

    kind = "garbled"


class UpstreamSlow(UpstreamFailure):
    """No answer's head within the deadline; the request may still be served."""

    kind = "slow"


class UpstreamCut(UpstreamFailure):
    """The body ended before its end: reset, truncated, bad chunking, or closed by us."""

    kind = "cut"


class UpstreamStalled(UpstreamFailure):
    """The body fell silent for longer than the idle limit, or ran past the total limit."""

    kind = "stalled"


class UpstreamTooLarge(UpstreamFailure):
    """The body is larger than the caller accepts."""

    kind = "too_large"


def answer_for(failure: UpstreamFailure) -> RoutstrError:
    """What the caller hears when this failure came before any byte reached them (contract 2)."""
    if isinstance(failure, UpstreamSlow | UpstreamStalled):
        return UpstreamTimeout(retry_after_s=RETRY_AFTER_S)
    if isinstance(failure, UpstreamGarbled | UpstreamCut | UpstreamTooLarge):
        return UpstreamRequestFailed(retry_after_s=RETRY_AFTER_S)
    return UpstreamUnavailable(retry_after_s=RETRY_AFTER_S)
