"""The one error envelope: every refusal, foreseen or not, leaves the node in this shape.

Source: contract, section 1. `/v1/messages*` adds a top-level type, balance and Lightning answers a
`detail` for older clients.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from routstr.core.envelope import error_object, is_upstreams, status_of
from routstr.errors import (
    RETRY_AFTER_S,
    InvalidJson,
    InvalidParameter,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    RequestTooLarge,
    RoutstrError,
    ServiceUnavailable,
    SwapFeesExceedAmount,
    TokenError,
    UnsupportedMediaType,
)
from routstr.flows.oneshot import MinimumBalanceRequired
from routstr.web.pages.mishap import page_of
from routstr.web.scope import request_id_of

log = structlog.get_logger()

JSON: Final = "application/json"
_MESSAGES: Final = re.compile(r"(?:/v1)?/messages(?:/|$)")
_WITH_DETAIL: Final = re.compile(r"/v1/(?:balance|wallet)(?:/|$)|(?:/v2)?/lightning(?:/|$)")
_INFO_AND_CREATE: Final = re.compile(r"/v1/(?:balance|wallet)(?:/(?:info|create)?)?/?")

_BY_STATUS: Final[Mapping[int, type[RoutstrError]]] = {
    400: InvalidRequest,
    404: NotFound,
    405: MethodNotAllowed,
    408: RequestTimeout,
    413: RequestTooLarge,
    415: UnsupportedMediaType,
    503: ServiceUnavailable,
}


def error_body(error: RoutstrError, request_id: str, path: str) -> dict[str, object]:
    """The envelope as a JSON value; `path` is the request's, without its query."""
    said = error_object(error)
    body: dict[str, object] = {"error": said, "request_id": request_id}
    if _MESSAGES.match(path):
        body = {"type": "error", **body}
    if isinstance(error, MinimumBalanceRequired):
        body["detail"] = error.details
    if _WITH_DETAIL.match(path):
        body["detail"] = {"error": said} if _is_detailed(error, path) else error.message
    return body


def error_headers(error: RoutstrError) -> dict[str, str]:
    """The headers that go with it."""
    headers = {
        "content-type": JSON,
        "x-should-retry": "true" if error.should_retry else "false",
        **error.headers,
    }
    if error.should_retry or error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s or RETRY_AFTER_S)
    if is_upstreams(error):
        headers["x-routstr-error-scope"] = "upstream"
    return headers


def error_response(error: RoutstrError, *, request_id: str, path: str) -> Response:
    """The whole answer."""
    return Response(
        orjson.dumps(error_body(error, request_id, path)),
        status_code=status_of(error),
        headers=error_headers(error),
    )


def answer_error(request: Request, error: RoutstrError) -> Response:
    """The answer to `request`: the envelope, and on the dashboard a page."""
    for_people = page_of(request, error)
    if for_people is not None:
        return for_people
    path = str(request.scope["path"])
    return error_response(error, request_id=request_id_of(request.scope), path=path)


def install_errors(app: FastAPI) -> None:
    """Put the envelope around everything that can go wrong in `app`."""
    app.add_exception_handler(RoutstrError, _on_ours)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(Exception, _on_unforeseen)


def unforeseen(error: Exception, path: str) -> RoutstrError:
    """What an exception that nobody caught is answered with; the log names where, never what."""
    log.error("unexpected_error", path=path, exc_info=error)
    return RoutstrError()


async def _on_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, RoutstrError)
    return answer_error(request, error)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = answer_error(request, _of_status(error.status_code))
    response.status_code = error.status_code
    response.headers.update(error.headers or {})
    return response


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return answer_error(request, _of_validation(error))


async def _on_unforeseen(request: Request, error: Exception) -> Response:
    return answer_error(request, unforeseen(error, str(request.scope["path"])))


def _of_status(status: int) -> RoutstrError:
    """Our error for a status that the framework chose."""
    kind = _BY_STATUS.get(status)
    if kind is not None:
        return kind()
    if 400 <= status < 500:
        return InvalidRequest(HTTPStatus(status).phrase, should_retry=False)
    return RoutstrError()


def _of_validation(error: RequestValidationError) -> RoutstrError:
    """The first complaint, without the value it is about."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return InvalidJson()
    place = [str(part) for part in first["loc"][1:]]
    param = ".".join(place) or str(first["loc"][0])
    message = str(first["msg"])
    return InvalidParameter(f"{param}: {message[:1].lower()}{message[1:]}", param=param)


def _is_detailed(error: RoutstrError, path: str) -> bool:
    if error.status == HTTPStatus.UNAUTHORIZED:
        return True
    is_token_error = isinstance(error, TokenError | SwapFeesExceedAmount)
    return is_token_error and _INFO_AND_CREATE.fullmatch(path) is not None
