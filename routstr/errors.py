"""Every error the node can answer with: class = status, type and code; docstring = default message.

The tree is drawn once, here. `web/errors.py` turns any of these into the one envelope of the HTTP
contract; nothing else decides a status. A class without a status of its own is a 500: a 4xx is
chosen, never inherited by accident.

Messages are for the person who sent the request. They never hold a token, a key, a secret or a
word of a prompt.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

Detail = int | str | bool | None | list[str]

RETRY_AFTER_S: Final = 5


class RoutstrError(Exception):
    """Something failed on our side."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    code: ClassVar[str] = "internal_error"
    retry_after_default_s: ClassVar[int | None] = None
    ends_by_itself: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        details: Mapping[str, Detail] | None = None,
        retry_after_s: int | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what the envelope will show; without a message the docstring's first line speaks."""
        self.message = message or (type(self).__doc__ or "").strip().partition("\n")[0]
        self.param = param
        self.details = dict(details or {})
        self.retry_after_s = self.retry_after_default_s if retry_after_s is None else retry_after_s
        # What `x-should-retry` says: true only where a repeat can help and cannot pay twice.
        self.should_retry = self._is_passing if should_retry is None else should_retry
        self.headers = dict(headers or {})
        self.refund_token: str | None = None  # what a payment without an account gets back
        super().__init__(self.message)

    @property
    def _is_passing(self) -> bool:
        return self.ends_by_itself or self.status in {408, 424, 425, 429, 502, 503}


# ── 400: the request itself is wrong ──────────────────────────────────────────────────────────


class InvalidRequest(RoutstrError):
    """The request is malformed."""

    status, type, code = 400, "invalid_request_error", "invalid_parameter"


class InvalidJson(InvalidRequest):
    """The request body is not acceptable JSON."""

    code = "invalid_json"


class InvalidModel(InvalidRequest):
    """This node does not offer that model."""

    code = "invalid_model"


class InvalidParameter(InvalidRequest):
    """A parameter has a value this node cannot accept."""


class UnsupportedParameter(InvalidRequest):
    """A parameter could raise the cost and has no price here."""

    code = "unsupported_parameter"


class InvalidInvoice(InvalidRequest):
    """The Lightning invoice cannot be paid by this node."""


class InvalidLightningAddress(InvalidRequest):
    """The Lightning address does not exist, or cannot receive that amount."""


class NoBalance(InvalidRequest):
    """No balance to refund"""

    code = "no_balance"


class BalanceTooSmall(InvalidRequest):
    """The balance is too small to refund."""

    code = "balance_too_small"


class RequestsInFlight(InvalidRequest):
    """Cannot refund key. There are ongoing requests for this api key."""

    code = "requests_in_flight"
    ends_by_itself = True  # with the holds


# ── 400 and 422: the ecash is wrong ───────────────────────────────────────────────────────────


class TokenError(RoutstrError):
    """The Cashu token could not be used."""

    status, type, code = 400, "cashu_error", "cashu_token_redemption_failed"


class InvalidToken(TokenError):
    """The Cashu token is malformed."""

    type, code = "invalid_token", "invalid_cashu_token"


class TokenAlreadySpent(TokenError):
    """The Cashu token was already spent."""

    type, code = "token_already_spent", "cashu_token_already_spent"


class UntrustedMint(TokenError):
    """This node does not accept that mint."""

    type, code = "untrusted_mint", "cashu_untrusted_source_mint"


class TokenZeroValue(TokenError):
    """The Cashu token is worth nothing."""

    code = "cashu_token_zero_value"


class TokenRedemptionFailed(TokenError):
    """The mint refused the Cashu token."""


class SwapFeesExceedAmount(RoutstrError):
    """The mint's fees are higher than the token's value."""

    status, type, code = 422, "mint_error", "cashu_token_swap_fees_exceed_amount"


class IdempotencyMismatch(RoutstrError):
    """This Idempotency-Key was used with another request body."""

    status, type, code = 422, "invalid_request_error", "idempotency_mismatch"


# ── 401, 402, 403, 404, 405: who, with what money, and where ──────────────────────────────────


class MissingApiKey(RoutstrError):
    """No API key was given. Send a Cashu token or an sk- key as `Authorization: Bearer`."""

    status, type, code = 401, "invalid_request_error", "missing_api_key"


class InvalidApiKey(RoutstrError):
    """Key not found"""

    status, type, code = 401, "invalid_request_error", "invalid_api_key"


class RefundKeyNotFound(InvalidApiKey):
    """Key not found"""

    code = "key_not_found"


class InsufficientBalance(RoutstrError):
    """The key cannot pay for the smallest answer."""

    status, type, code = 402, "insufficient_quota", "insufficient_balance"


class PermissionDenied(RoutstrError):
    """The key may not do this."""

    status, type, code = 403, "permission_error", "key_revoked"


class KeyExpired(PermissionDenied):
    """The key has expired."""

    code = "key_expired"


class KeyRevoked(PermissionDenied):
    """The key was revoked."""

    code = "key_revoked"


class ModelNotAllowed(PermissionDenied):
    """The key may not use that model."""

    code = "model_not_allowed"


class NotFound(RoutstrError):
    """There is nothing here."""

    status, type, code = 404, "not_found_error", "not_found"


class RouteNotPriced(NotFound):
    """This node sells no such route."""

    code = "route_not_priced"


class RefundNotFound(NotFound):
    """Refund not found"""

    code = "refund_not_found"


class MethodNotAllowed(RoutstrError):
    """That method is not allowed here."""

    status, type, code = 405, "not_found_error", "not_found"


# ── 408, 413, 415, 425, 429: limits and timing ────────────────────────────────────────────────


class RequestTimeout(RoutstrError):
    """The request arrived too slowly."""

    status, type, code = 408, "invalid_request_error", "request_timeout"


class RequestTooLarge(RoutstrError):
    """The request is larger than this node accepts."""

    status, type, code = 413, "invalid_request_error", "request_too_large"


class UnsupportedMediaType(RoutstrError):
    """Send plain JSON, not another media type or encoding."""

    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class Pending(RoutstrError):
    """The operation is still running; repeat the request to learn its result."""

    status, type, code = 425, "pending", "operation_in_progress"


class RefundPending(Pending):
    """The mint has not answered yet; the debit stands and repeating the request attaches to it."""

    code = "refund_pending"


class RateLimited(RoutstrError):
    """Too many requests."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


# ── 424, 502, 4xx of the upstream ─────────────────────────────────────────────────────────────


class UpstreamError(RoutstrError):
    """The upstream failed. Nothing was charged."""

    status, type, code = 502, "upstream_error", "upstream_request_failed"

    def __init__(
        self,
        message: str | None = None,
        *,
        upstream_status: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """Keep the upstream's own status beside ours."""
        super().__init__(message, retry_after_s=retry_after_s)
        self.upstream_status = upstream_status


class UpstreamRequestFailed(UpstreamError):
    """The upstream's answer could not be used. Nothing was charged."""

    status, type, code = 502, "api_error", "upstream_request_failed"


class UpstreamUnavailable(UpstreamError):
    """The upstream is not available. Nothing was charged."""

    status, code = 424, "UPSTREAM_UNAVAILABLE"


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer in time. Nothing was charged."""

    status, code = 424, "UPSTREAM_TIMEOUT"


class UpstreamRateLimit(UpstreamError):
    """The upstream is limiting requests. Nothing was charged."""

    status, code = 429, "UPSTREAM_RATE_LIMIT"


class UpstreamRejected(RoutstrError):
    """The upstream rejected the request. Nothing was charged.

    Status, type, code and param are the upstream's own (400, 404, 413, 415 and 422 only).
    """

    status, type, code = 400, "invalid_request_error", "invalid_parameter"

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int,
        type: str,  # noqa: A002 - the envelope's own word
        code: str,
        param: str | None = None,
    ) -> None:
        """Keep the upstream's words, already redacted by the gateway."""
        super().__init__(message, param=param)
        self.upstream_status = status
        self.upstream_type = type
        self.upstream_code = code


# ── 503: not now ──────────────────────────────────────────────────────────────────────────────


class MintUnreachable(RoutstrError):
    """The mint cannot be reached. Nothing is lost: send the same token again later."""

    status, type, code = 503, "mint_unreachable", "cashu_mint_unreachable"
    retry_after_default_s = RETRY_AFTER_S


class MintRateLimited(MintUnreachable):
    """The mint is limiting requests. Nothing is lost: send the same token again later."""

    type, code = "mint_rate_limited", "cashu_mint_rate_limited"


class ServiceUnavailable(RoutstrError):
    """The node cannot take this request now."""

    status, type, code = 503, "service_unavailable", "not_ready"
    retry_after_default_s = RETRY_AFTER_S


class Overloaded(ServiceUnavailable):
    """The node is at its limit; try again shortly."""

    code = "overloaded"


class MintShort(ServiceUnavailable):
    """The node holds too little ecash of that mint just now. Nothing was debited."""


class LightningAddressUnreachable(ServiceUnavailable):
    """The Lightning address cannot be reached now. Nothing was debited."""


class Paused(ServiceUnavailable):
    """The operator has paused this for now."""

    code = "paused"


# ── not answers: the node refuses to start ────────────────────────────────────────────────────


class ConfigError(Exception):
    """A setting is missing or unsafe; the message is one line naming the setting and why."""
