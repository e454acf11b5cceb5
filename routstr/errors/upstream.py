"""What the upstream did; nothing of it is charged."""

from routstr.errors.base import RoutstrError


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
