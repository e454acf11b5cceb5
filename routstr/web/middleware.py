"""What every request passes first and last, as plain ASGI: id, limits, CORS, a last net.

The id is the answer's `x-request-id` and, for a paid request, its hold's. Source: contract,
section 1; guarantees, SR-9 and SR-11.
"""

import re
from collections.abc import Collection
from typing import Final, Protocol

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from routstr.errors import InvalidRequest, RequestTooLarge, RoutstrError
from routstr.web.errors import error_response, unforeseen
from routstr.web.scope import context_of

HEADER_LINE_BYTES: Final = 4  # ": " and CRLF
PREFLIGHT_S: Final = 86_400

EXPOSED: Final = (
    "x-routstr-request-id", "x-routstr-max-cost-msats", "x-routstr-provider",
    "x-routstr-output-limit", "x-routstr-cost-msats", "x-routstr-input-cost-msats",
    "x-routstr-output-cost-msats", "x-routstr-cost-usd", "x-routstr-receipt", "x-routstr-change",
    "x-routstr-claim-secret", "x-routstr-error-scope", "x-request-id", "x-cashu",
    "idempotent-replayed", "retry-after", "x-should-retry", "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
)  # fmt: skip

_CORS: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", ", ".join(EXPOSED).encode()),
)
_NO_STORE: Final = (b"cache-control", b"no-store")
_PRIVATE: Final = re.compile(r"/admin(?:/|$)")
# What is somebody's own: no cache keeps it, no browser has it after a log-out, no proxy gives it
_UNKEPT: Final = re.compile(
    r"/v1/(?:balance|wallet|receipts|key)(?:/|$)|(?:/v2)?/lightning(?:/|$)|/(?:admin|metrics)(?:/|$)"
)
_HEADER_NAMES: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")


class HeaderLimits(Protocol):
    """Bounds of a request's head (SR-11)."""

    @property
    def header_bytes_max(self) -> int:
        """All names and values, with what separates them."""
        ...

    @property
    def header_lines_max(self) -> int:
        """How many there may be."""
        ...


def install_middleware(app: FastAPI, limits: HeaderLimits) -> None:
    """Wrap `app` in it."""
    app.add_middleware(
        NodeMiddleware,
        header_bytes_max=limits.header_bytes_max,
        header_lines_max=limits.header_lines_max,
    )


def guarded(part: ASGIApp, limits: HeaderLimits) -> ASGIApp:
    """`part` inside of it, for what is served without the app's own stack."""
    return NodeMiddleware(
        part,
        header_bytes_max=limits.header_bytes_max,
        header_lines_max=limits.header_lines_max,
    )


class NodeMiddleware:
    """Outside of every route, inside of the app, whose state has the context."""

    def __init__(self, app: ASGIApp, *, header_bytes_max: int, header_lines_max: int) -> None:
        self._app = app
        self._header_bytes_max = header_bytes_max
        self._header_lines_max = header_lines_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other scopes pass untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = context_of(scope).new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        bind_contextvars(request_id=request_id)  # of this request's task, and of those it starts
        answer = _Answer(send, _headers_for(request_id, scope), scope["path"])
        try:
            self._check(scope)
            if _is_preflight(scope):
                await _answer_preflight(scope, answer.send)
            else:
                await self._app(scope, receive, answer.send)
        except RoutstrError as error:
            await self._fail(error, answer, scope, receive)
        except Exception as error:  # noqa: BLE001 - the last net: all leaves in one shape
            if isinstance(error, OSError) and answer.has_begun:
                return  # the client is gone (ASGI 2.4)
            await self._fail(unforeseen(error, scope["path"]), answer, scope, receive)

    async def _fail(
        self, error: RoutstrError, answer: "_Answer", scope: Scope, receive: Receive
    ) -> None:
        if not answer.has_begun:
            response = error_response(
                error, request_id=scope["state"]["request_id"], path=scope["path"]
            )
            await response(scope, receive, answer.send)

    def _check(self, scope: Scope) -> None:
        """Refuse what is too long or could be read as two lines (SR-9, SR-11)."""
        headers: Collection[tuple[bytes, bytes]] = scope["headers"]
        values = b"".join([value for _, value in headers])
        if _has_control(values):
            raise InvalidRequest("A header holds a control character.")
        names_bytes = sum([len(name) + HEADER_LINE_BYTES for name, _ in headers])
        header_bytes = names_bytes + len(values)
        if len(headers) > self._header_lines_max or header_bytes > self._header_bytes_max:
            raise RequestTooLarge("The request has too many or too long headers.")
        if _has_control(scope["path"].encode()) or _has_control(scope["query_string"]):
            raise InvalidRequest("The path holds a control character.")
        if b"%00" in scope["query_string"] and _PRIVATE.match(scope["path"]):
            raise InvalidRequest("The query holds a NUL, which is in no name and no id.")


class _Answer:
    """The answer on its way out, given its headers as it begins."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]], path: str) -> None:
        self._send = send
        self._headers = headers
        self._is_unkept = _UNKEPT.match(path) is not None
        self.has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = [*message.get("headers", ()), *self._headers]
            if self._is_unkept:
                headers = [pair for pair in headers if pair[0] != _NO_STORE[0]] + [_NO_STORE]
            message = {**message, "headers": headers}
        await self._send(message)


def _has_control(text: bytes) -> bool:
    return b"\n" in text or b"\r" in text or b"\x00" in text


def _headers_for(request_id: str, scope: Scope) -> list[tuple[bytes, bytes]]:
    id_bytes = request_id.encode()
    ids = [(b"x-routstr-request-id", id_bytes), (b"x-request-id", id_bytes)]
    return [*ids, *_CORS] if _is_cross_origin(scope) else ids


def _is_cross_origin(scope: Scope) -> bool:
    """Whether a browser asks for another site's page, anywhere but at the admin's."""
    return _header(scope, b"origin") is not None and not _PRIVATE.match(scope["path"])


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return None


def _is_preflight(scope: Scope) -> bool:
    return (
        scope["method"] == "OPTIONS"
        and _is_cross_origin(scope)
        and _header(scope, b"access-control-request-method") is not None
    )


async def _answer_preflight(scope: Scope, send: Send) -> None:
    """Allow what is asked for: no cookie means anything here, so no origin is special."""
    asked = _header(scope, b"access-control-request-headers") or b""
    headers = [
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE, OPTIONS"),
        (b"access-control-max-age", str(PREFLIGHT_S).encode()),
        (b"content-length", b"0"),
    ]
    if _HEADER_NAMES.fullmatch(asked):
        headers.append((b"access-control-allow-headers", asked))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
