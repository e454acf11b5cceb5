"""The answer of a node at its limit, given before anything of the request is parsed or made.

Refusing has to cost next to nothing, or being asked for three times too much would leave no time
for what can be served. So a plain paid request that came in one piece is answered here, on the
bytes: what a stranger could have meant in two ways goes the ordinary way, where the same limit is
looked at again (`web/proxy.py`). The answer is the one envelope's.
"""

import asyncio
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response

from routstr.core.dialects import DIALECTS
from routstr.errors import Overloaded
from routstr.web.errors import error_response

ID: Final = "req_" + "0" * 32  # stands for the request's own in an answer made in advance
_TARGETS: Final = tuple(f"{prefix}{path}" for path in DIALECTS for prefix in ("/v1", ""))
_VERSION: Final = b" HTTP/1.1\r\n"
_LINE_BYTES_MAX: Final = max(map(len, _TARGETS)) + len(b"POST ") + len(_VERSION)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n)")
# A browser's page needs more headers, a payment its token back, the rest a parser's care
_UNUSUAL: Final = re.compile(
    rb"\r\n(?:origin|x-cashu|transfer-encoding|expect|upgrade|connection(?!:[ \t]*keep-alive\r\n)"
    rb"|content-length(?!:)|[^\r\n:]*[ \t:]:|[ \t])"
)


class Refusal:
    """Says, on the bytes a connection has brought, whether there is no room for their request."""

    def __init__(self, app: FastAPI) -> None:
        """`app` has the context in its state once it is open."""
        self._app = app
        self._answers = {f"POST {path}".encode(): _answer(path) for path in _TARGETS}

    def __call__(self, data: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
        """The whole answer to `data`, a request, with the server's own `headers`; None to read it.

        What is let in takes its place at once: requests that came together see each other.
        """
        answer = self._answers.get(data[: data.find(_VERSION, 0, _LINE_BYTES_MAX)])
        ctx = getattr(self._app.state, "ctx", None)
        if answer is None or ctx is None:
            return None
        admission = ctx.admission
        if not admission.is_full:
            if not admission.knocking:
                asyncio.get_running_loop().call_soon(admission.settle_in)
            admission.knock()
            return None
        if not _is_plain(data):
            return None
        ctx.meters.note_refused(Overloaded.code)
        head, rest = answer
        own = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        return head + own + rest.replace(ID.encode(), ctx.new_id("req").encode())


def _is_plain(data: bytes) -> bool:
    """Whether it is one whole request with a body, which every parser reads the same."""
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2].lower()
    lines = head.count(b"\r\n")
    if end < 0 or head.count(b"\n") != lines or head.count(b"\r") != lines:
        return False
    lengths = _LENGTH.findall(head)
    return (
        len(lengths) == 1
        and end + 4 + int(lengths[0]) == len(data)
        and head.count(b"\r\ncontent-length") == 1
        and _UNUSUAL.search(head) is None
    )


def _answer(path: str) -> tuple[bytes, bytes]:
    """Its first line, and the rest of it, behind the server's own headers."""
    response: Response = error_response(Overloaded(), request_id=ID, path=path)
    ids = [(b"x-routstr-request-id", ID.encode()), (b"x-request-id", ID.encode())]
    lines = b"".join(b"%b: %b\r\n" % pair for pair in [*response.raw_headers, *ids])
    status = HTTPStatus(response.status_code)
    first = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    return first, lines + b"\r\n" + bytes(response.body)
