"""Pages that take forms: each body is read within bounds before anybody parses it (SR-11, SR-12).

router = APIRouter(route_class=PageRoute, include_in_schema=False)
"""

from contextlib import suppress
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from routstr.errors import UnsupportedMediaType
from routstr.web.bodies import Bodies, ClientGone, headers_of
from routstr.web.scope import context_of

FORM: Final = "application/x-www-form-urlencoded"
FORM_BYTES_MAX: Final = 256 * 1024
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class PageRoute(APIRoute):
    """A page; what it is sent is a plain form of at most 256 KiB, or nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._bodies = Bodies()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises UnsupportedMediaType for what is no form."""
        if scope["method"] in READS or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        ctx, headers = context_of(scope), headers_of(scope)
        with suppress(ClientGone), self._bodies.reading(ctx, bytes_max=FORM_BYTES_MAX) as reading:
            body = await reading.body(headers, receive)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            is_packed = headers.get("content-encoding", "identity").lower() != "identity"
            if body and (kind != FORM or is_packed):
                raise UnsupportedMediaType
            await super().handle(scope, _once(body, receive), send)


def _once(body: bytes, receive: Receive) -> Receive:
    """What was read already; then whatever the server has to say."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message
