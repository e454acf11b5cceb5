"""The bounds of a request's head, in bytes and in time, below the app (SR-11, SR-12).

Uvicorn's protocol keeps what came of a head until it is whole, however long it gets and however
long that takes, and it lets a client ask on and on before it was answered. Nobody has shown a key
at that point, so every one of these waits has a bound here. Trailers (RFC 9112 §7.1.2) are heads
in all but name: they are bounded alike, and then dropped, as nothing here has a use for them.
What follows of a body that was answered before its end may take as long as a head; and who reads
nothing of an answer is waited for as long as the app would, by the connection itself, as an answer
that is whole has no app behind it.
"""

import asyncio
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from routstr.web.wire import EXTENSION

URL_BYTES_MAX: Final = 65_535  # httptools refuses longer ones
REQUEST_LINE_BYTES_MAX: Final = URL_BYTES_MAX + 1_024  # method, version, spaces, line ends

PIECE_BYTES: Final = 16 * 1024  # how much is parsed between two looks at the count
PIPELINED_MAX: Final = 16  # requests that wait behind the one being answered

_CLOSING: Final = b"\r\nconnection: close\r\n"

# What a whole request is answered with at once, given the server's own headers, if it is refused
Refuse = Callable[[bytes, Iterable[tuple[bytes, bytes]]], bytes | None]


class Part(StrEnum):
    """Which part of a message comes next."""

    IDLE = "idle"  # none: the last message is whole
    HEAD = "head"
    BODY = "body"
    TRAILER = "trailer"  # or a chunk's data, which the parser cannot tell apart in advance


class TooEarly(Exception):
    """Too many requests wait for their answers; raised to stop the parser."""


class BoundedHeadProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which refuses a head that is too long, too slow, or too early.

    A head may be `head_bytes_max` long, or a piece longer where it began in the middle of one.
    """

    head_bytes_max: ClassVar[int]
    head_lines_max: ClassVar[int]
    head_timeout_s: ClassVar[float]
    client_stall_s: ClassVar["staticmethod[[], float]"]  # how long a client may read too little

    _part: Part = Part.IDLE
    _part_bytes: int = 0  # since the last message or head was whole; a body's do not count
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _is_lost: bool = False
    _left: Callable[[], None] | None = None  # told when the client leaves

    def connection_made(  # type: ignore[override]  # as uvicorn has it
        self, transport: asyncio.Transport
    ) -> None:
        """Wait for the first head, but not for ever."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell who answers."""
        self._stop_head_timer()
        self._stop_stall_timer()
        self._is_lost = True
        super().connection_lost(exc)
        if self._left is not None:
            self._left()

    def when_left(self, call: Callable[[], None] | None) -> None:
        """What is called once the client has left, now if it has; None for nothing.

        It is noticed only while the connection is read, which a large body may have paused.
        """
        self._left = call
        if call is None:
            return
        if self._is_lost:
            call()
        else:
            self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Parse piece by piece, until a head is found to be too long; but for what is refused."""
        # Who reads no answers is not given more of them: the ordinary way waits until he does.
        is_read = not self.flow.write_paused
        if self._part is Part.IDLE and is_read and not self._is_answering():
            refusal = self.refuse(data)
            if refusal is not None:
                self._answer_unread(refusal)
                return
        start = 0
        while start < len(data) and not self.transport.is_closing():
            piece = data[start : start + self._room()]
            start += len(piece)
            self._parse(piece)
        if self._is_answering():
            self._stop_head_timer()
        else:
            self._start_head_timer()

    def refuse(self, data: bytes) -> bytes | None:
        """What a request is answered with that is not even read; None for none."""
        return None

    def _answer_unread(self, answer: bytes) -> None:
        """Answer what was not parsed; the next head may take as long as the first one."""
        self._unset_keepalive_if_required()
        self._stop_head_timer()
        self.transport.write(answer)
        if _CLOSING in answer:  # as every answer of a node that is about to stop says
            self.transport.close()
        self._start_head_timer()

    def _room(self) -> int:
        if self._part is Part.BODY:
            return PIECE_BYTES
        return min(PIECE_BYTES, self.head_bytes_max - self._part_bytes)

    def _parse(self, piece: bytes) -> None:
        if self._part is not Part.BODY:
            self._part_bytes += len(piece)
        super().data_received(piece)
        if self._part_bytes >= self.head_bytes_max and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def send_400_response(self, msg: str) -> None:
        """Answer and close; only close where it would end up in another request's answer."""
        if self._part in (Part.IDLE, Part.HEAD):
            is_its_turn = not self._is_answering()
        else:
            is_its_turn = not self.pipeline and not self.cycle.response_started
        if is_its_turn:
            super().send_400_response(msg)
        else:
            self.transport.close()

    # ── what the parser finds ─────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """A request begins; what came before it in this piece counts as its own."""
        self._part = Part.HEAD
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, and one too many, for which the middleware refuses; drop a trailer."""
        if self._part is Part.HEAD and len(self.headers) <= self.head_lines_max:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if len(self.pipeline) >= PIPELINED_MAX:
            raise TooEarly
        super().on_headers_complete()
        # Before its task runs, which is the loop's next turn
        self.scope["extensions"] = {EXTENSION: {"wire": CycleWire(self, self.cycle)}}
        self._enter(Part.BODY)

    def on_chunk_header(self) -> None:
        """A chunk begins; the last one has trailers in the place of data."""
        self._part = Part.TRAILER

    def on_body(self, body: bytes) -> None:
        """It has data."""
        self._enter(Part.BODY)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._enter(Part.IDLE)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on as uvicorn does; for what had begun in the meantime, the time begins now."""
        super().on_response_complete()
        if self._part is not Part.IDLE and not self._is_answering():
            self._start_head_timer()

    def _enter(self, part: Part) -> None:
        self._part = part
        self._part_bytes = 0

    # ── time ──────────────────────────────────────────────────────────────────────────────────

    def _is_answering(self) -> bool:
        """Whether a request is being answered, or waits for that; then time is the app's affair."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _start_head_timer(self) -> None:
        """From the first byte; the next ones give no more time."""
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def pause_writing(self) -> None:
        """Too much is unread by the client; if that stays so, nobody is there."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self.client_stall_s(), self.transport.abort)

    def resume_writing(self) -> None:
        """It was read."""
        self._stop_stall_timer()
        super().resume_writing()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None


class CycleWire:
    """The wire of one request (`wire.py`)."""

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: BoundedHeadProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle

    @property
    def is_whole(self) -> bool:
        """Whether the body has come to its end."""
        return not self._cycle.more_body

    @property
    def is_free(self) -> bool:
        """Whether to send does not wait now."""
        return not self._cycle.flow.write_paused

    def when_left(self, call: Callable[[], None] | None) -> None:
        """What is called once the client has left; one request is answered at a time."""
        self._protocol.when_left(call)


def bounded_head(
    *,
    bytes_max: int,
    lines_max: int,
    timeout_s: float,
    stall_s: Callable[[], float],
    refusal: Refuse | None = None,
) -> type[BoundedHeadProtocol]:
    """The protocol with these bounds, for uvicorn's `http`.

    `bytes_max` counts the request line, too; of more than `lines_max` headers one is kept, so that
    the middleware sees there are too many. A connection is closed `timeout_s` after it was made or
    a head began, if that is not whole, and dropped when its client read too little for `stall_s()`.
    `refusal` is asked first of what begins a request.
    """

    class Bounded(BoundedHeadProtocol):
        head_bytes_max = bytes_max
        head_lines_max = lines_max
        head_timeout_s = timeout_s
        client_stall_s = staticmethod(stall_s)

        def refuse(self, data: bytes) -> bytes | None:
            return refusal and refusal(data, self.server_state.default_headers)

    return Bounded
