"""What is wrong with the request itself, with who sent it, or with where it went."""

from routstr.errors.base import RoutstrError

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


class ChildKey(InvalidRequest):
    """A child key has no money of its own."""

    code = "child_key"


class KeyNotEmpty(InvalidRequest):
    """There is money left on the key. Withdraw it first, or revoking would lock it in."""

    code = "key_not_empty"


class RequestsInFlight(InvalidRequest):
    """Cannot refund key. There are ongoing requests for this api key."""

    code = "requests_in_flight"
    ends_by_itself = True  # with the holds


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


class BalanceLimitExceeded(RoutstrError):
    """The key has spent what it may spend."""

    status, type, code = 402, "balance_limit_exceeded", "balance_limit_exceeded"


class PermissionDenied(RoutstrError):
    """The key may not do this."""

    status, type, code = 403, "permission_error", "key_revoked"


class InviteRequired(PermissionDenied):
    """A new key needs an invite here; ask whoever runs this node. Nothing was taken."""

    code = "invite_required"


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


# ── 408, 410, 413, 415, 422, 425, 429: limits, timing, repeats ────────────────────────────────


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


class AnswerGone(RoutstrError):
    """This request was answered and paid before, and its answer is not kept; details say more."""

    status, type, code = 410, "gone", "answer_gone"


class IdempotencyMismatch(RoutstrError):
    """This Idempotency-Key was used with another request body."""

    status, type, code = 422, "invalid_request_error", "idempotency_mismatch"
