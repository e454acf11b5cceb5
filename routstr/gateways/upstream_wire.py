"""One connection to an upstream: a request out, its answer in, then the next (HTTP/1.1, RFC 9112).

Laws
- One exchange at a time. The next may begin only after an answer that was whole, said nothing of
  closing, and found the request sent to its end. What comes unasked ends the connection.
- Nothing is ever resent, and after `abort()` no further byte leaves.
- An answer's length is told once or not believed: two lengths, a length beside a coding, or another
  coding than chunked make it no answer (RFC 9112 §6.3), because two readers could cut it in two
  places.
- Every byte of a body that arrived can be taken before what went wrong after it is told, and an
  end that broke off is never a clean one.
- What is unread is bounded: beyond `READ_BUFFER_BYTES` the socket is left alone until it is taken.
  So is what is no body: `BARE_BYTES_MAX` of heads, trailers and chunk extensions in a row.
"""

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Final, cast

import httptools

READ_BUFFER_BYTES: Final = 64 * 1024
BARE_BYTES_MAX: Final = 64 * 1024
ONE_WRITE_BYTES_MAX: Final = 16 * 1024  # copied behind the head, to leave in one segment with it
BODY_AT_ONCE_BYTES_MAX: Final = 1024 * 1024  # a longer one is written in pieces, with the loop free
BODY_PIECE_BYTES: Final = 256 * 1024
CLOCK_TICK_S: Final = 0.002  # event loops tell time, and ring, to the millisecond

_LENGTH, _CODING, _ENCODING = b"content-length", b"transfer-encoding", b"content-encoding"
_FRAMING: Final = frozenset({_LENGTH, _CODING, _ENCODING})
_BODYLESS: Final = (204, 304)


class Phase(Enum):
    """Where a connection's exchange is."""

    KEPT = 1  # there is none
    ASKED = 2  # sent, or being sent; no head yet
    BODY = 3  # the head is here
    WHOLE = 4  # so is the body
    BROKEN = 5  # of no use any more; `failure` says why


# Looked up once: an enum's members are slow to reach, and this is asked for every piece.
_KEPT, _ASKED, _BODY, _WHOLE, _BROKEN = Phase


class BadAnswer(Exception):
    """What came is no HTTP answer."""


class Ended(ConnectionError):
    """The connection ended, by them or by us, with the exchange unfinished."""


class Wire(asyncio.Protocol):
    """A connection: `send`, `heard` until `phase` has a head, `take` until there is no more.

    `heard_of` are the header names it keeps, in lower case. `on_lost` is called once, when the
    connection is gone.
    """

    __slots__ = (
        "_bare_bytes", "_heard_of", "_is_ended_by_close", "_is_full", "_is_keepable", "_is_paused",
        "_loop", "_on_lost", "_parser", "_pieces", "_rings_at_s", "_timer", "_transport",
        "_unread_bytes", "_unsent", "_until_s", "_waiter", "failure", "headers", "kept_until_s",
        "phase", "status",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        heard_of: frozenset[bytes],
        on_lost: Callable[["Wire"], None],
    ) -> None:
        self.phase = _KEPT
        self.failure: Exception | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}  # of the answer's head: first values, names lower
        self.kept_until_s: float = 0
        self._loop = loop
        self._heard_of = heard_of | _FRAMING
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        # As RFC 9112 §2.2 and many a server have it; neither moves where a body begins or ends.
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._bare_bytes = 0
        self._is_keepable = False
        self._is_ended_by_close = False  # the body has no end of its own
        self._is_paused = False  # we read no more for now
        self._is_full = False  # nor do they
        self._unsent: memoryview | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._until_s: float = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at_s: float = 0

    # ── the exchange ──────────────────────────────────────────────────────────────────────────

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request, all of it; only on a connection that is `KEPT`."""
        assert self.phase is _KEPT
        assert self._transport is not None
        self.phase = _ASKED
        self._bare_bytes = 0
        if len(body) <= ONE_WRITE_BYTES_MAX:
            self._transport.write(head + body)
        elif len(body) <= BODY_AT_ONCE_BYTES_MAX:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head)
            self._unsent = memoryview(body)
            self._send_more()

    async def heard(self, until_s: float) -> None:
        """Wait for a head, for bytes or for an end; TimeoutError at `until_s` of the loop's clock.

        One waiter at a time. Whoever is cancelled here owns the connection still.
        """
        assert self._waiter is None, "two readers of one answer"
        self._until_s = until_s
        if self._timer is None or until_s < self._rings_at_s:
            self._ring_at(until_s)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """What arrived of the body since the last time, b"" if nothing did."""
        pieces = self._pieces
        if not pieces:
            return b""
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._unread_bytes = 0
        if self._is_paused:
            self._is_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()
        return taken

    def is_usable(self) -> bool:
        """Whether another request may be sent, as far as is known."""
        return self.phase is _KEPT and self._transport is not None

    def is_gone(self) -> bool:
        """Whether it ended, and `on_lost` was called."""
        return self._transport is None

    def let_go(self) -> bool:
        """Forget the answer that is whole. True: the connection may carry another."""
        assert self.phase is _WHOLE
        self.take()
        if not self._is_keepable:
            self.abort()
            return False
        self.phase = _KEPT
        self.status = 0
        self.headers = {}
        return True

    def abort(self) -> None:
        """End the connection at once, whatever is unsent or unread."""
        self._break(Ended("closed by us"))

    # ── what the parser says ──────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """The first bytes of an answer, which may be one too many."""
        if self.phase is _WHOLE:
            self._spoil()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of a head, or of a body's trailers, which say nothing here."""
        name = name.lower()
        if self.phase is not _ASKED or name not in self._heard_of:
            return
        if name not in self.headers:
            self.headers[name] = value.strip(b" \t")
        elif name in _FRAMING:
            raise BadAnswer("its framing is told twice")

    def on_headers_complete(self) -> None:
        """The head is whole: an answer's, or one of those that come before it (RFC 9110 §15.2)."""
        status = self._parser.get_status_code()
        headers = self.headers
        if status < 200:
            if status in (0, 101) or self.phase is not _ASKED:
                raise BadAnswer("a status nobody asked for")
            headers.clear()
            return
        if self.phase is not _ASKED:
            raise BadAnswer("an answer nobody asked for")
        coding = headers.get(_CODING)
        if coding is not None and (_LENGTH in headers or coding.lower() != b"chunked"):
            raise BadAnswer("its length is not clear")
        has_end = coding is not None or _LENGTH in headers or status in _BODYLESS
        self._is_ended_by_close = not has_end
        self.status = status
        self.phase = _BODY

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(piece)
        self._unread_bytes += len(piece)
        self._bare_bytes = 0

    def on_message_complete(self) -> None:
        """The end of an answer, or of a head before it."""
        if self.phase is _BODY:
            self.phase = _WHOLE
            self._is_keepable = self._is_sent() and self._parser.should_keep_alive()

    # ── what the connection says ──────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it

    def data_received(self, data: bytes) -> None:
        """Bytes, which belong to the exchange that runs, if any does."""
        if self.phase is not _ASKED and self.phase is not _BODY:
            self._spoil()
            return
        self._bare_bytes += len(data)
        before = self._unread_bytes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self.phase is _WHOLE:  # only what follows it is garbage
                self._spoil()
            else:
                self._break(BadAnswer(str(error.__context__ or error)))
                return
        if self._unread_bytes != before:
            if self._unread_bytes > READ_BUFFER_BYTES and not self._is_paused:
                self._pause()
        elif self.phase is not _WHOLE and self._bare_bytes > BARE_BYTES_MAX:
            self._break(BadAnswer("too much that is no body"))
            return
        elif self.phase is _ASKED:
            return
        self._wake()

    def eof_received(self) -> None:
        """They say no more: the end of a body that has no other (RFC 9112 §6.3)."""
        if self.phase is _BODY and self._is_ended_by_close:
            self.phase = _WHOLE
            self._is_keepable = False
            self._wake()
        elif self.phase is _WHOLE:
            self._is_keepable = False
        else:
            self._break(Ended("ended early"))

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if self.phase is _WHOLE:
            self._is_keepable = False
        elif self.phase is not _BROKEN:
            self._break(exc or Ended("lost"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = self._unsent = None
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Too much is unsent."""
        self._is_full = True

    def resume_writing(self) -> None:
        """It was sent."""
        self._is_full = False
        self._send_more()

    # ── helpers ───────────────────────────────────────────────────────────────────────────────

    def _is_sent(self) -> bool:
        """Whether the request has left, to its last byte."""
        is_buffered = self._transport is None or self._transport.get_write_buffer_size() > 0
        return self._unsent is None and not is_buffered

    def _send_more(self) -> None:
        """Write the next piece of a long body, and come back when others have had their turn."""
        if self._unsent is None or self._is_full or self._transport is None:
            return
        piece, rest = self._unsent[:BODY_PIECE_BYTES], self._unsent[BODY_PIECE_BYTES:]
        self._unsent = rest or None
        self._transport.write(piece)
        if rest:
            self._loop.call_soon(self._send_more)

    def _pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _spoil(self) -> None:
        """Bytes that nobody asked for: an answer that is whole stays so, and is the last here."""
        if self.phase is _WHOLE:
            self._is_keepable = False
        else:
            self._break(BadAnswer("bytes nobody asked for"))

    def _break(self, failure: Exception) -> None:
        if self.phase is not _BROKEN:
            self.phase = _BROKEN
            self.failure = failure
            self._unsent = None
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ring_at(self, at_s: float) -> None:
        """One timer for every wait of this connection: it moves when it rings too early."""
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at_s = at_s
        self._timer = self._loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() + CLOCK_TICK_S >= self._until_s:
            self._waiter.set_exception(TimeoutError())
        else:
            self._ring_at(self._until_s)
