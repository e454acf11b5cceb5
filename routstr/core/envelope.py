"""How an error is said: the `error` object of the one envelope, for answers and for streams.

Source: contract, sections 1 and 2. The code is always a string; an upstream's own rejection keeps
the upstream's words.
"""

from routstr.errors import RoutstrError, UpstreamError, UpstreamRejected


def status_of(error: RoutstrError) -> int:
    """The HTTP status it is answered with."""
    return error.upstream_status if isinstance(error, UpstreamRejected) else error.status


def is_upstreams(error: RoutstrError) -> bool:
    """Whether the upstream, not this node, is where it went wrong."""
    return isinstance(error, UpstreamError | UpstreamRejected)


def error_object(error: RoutstrError) -> dict[str, object]:
    """`{message, type, code, param, details?, upstream_status?, refund_token?}`."""
    said: dict[str, object] = {
        "message": error.message,
        "type": error.type,
        "code": error.code,
        "param": error.param,
    }
    if isinstance(error, UpstreamRejected):
        said |= {"type": error.upstream_type, "code": error.upstream_code}
    if error.details:
        said["details"] = error.details
    if isinstance(error, UpstreamError | UpstreamRejected) and error.upstream_status is not None:
        said["upstream_status"] = error.upstream_status
    if error.refund_token is not None:
        said["refund_token"] = error.refund_token
    return said
