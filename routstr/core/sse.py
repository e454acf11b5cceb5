"""Server-sent events, byte for byte (WHATWG HTML 9.2).

Law: the events given out, then the tail, are exactly the bytes taken in, whatever the chunks
were. A line ends with LF, CRLF or CR; an event ends with an empty line.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from routstr.errors import UpstreamRequestFailed

EVENT_BYTES_MAX: Final = 1024 * 1024

# Atomic groups (`(?>`): the two bytes of one CRLF must never count as two line ends.
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
_END_BYTES_MAX: Final = 4
_LF_END: Final = b"\n\n"
_BOM: Final = b"\xef\xbb\xbf"


class EventTooLarge(UpstreamRequestFailed):
    """The upstream sent an event larger than this node accepts."""

    def __init__(self, ready: bytes = b"") -> None:
        """`ready` is what came whole before it and may still be handed on."""
        super().__init__()
        self.ready = ready


class EventSplitter:
    """Chunks in, whole events out as their exact bytes, end included."""

    __slots__ = ("_buffer", "_event_bytes_max", "_searched")

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """Take a chunk and give the events it completes, one by one.

        Raises EventTooLarge after the last event that fits; the stream is of no use from there.
        """
        if not self._buffer and self._is_whole(chunk):  # as usual, at a tenth of the price
            if chunk.find(_LF_END) == len(chunk) - len(_LF_END):
                return (chunk,)
            return [event + _LF_END for event in chunk[: -len(_LF_END)].split(_LF_END)]
        self._buffer += chunk  # here, not in the iterator: a chunk counts even if nobody looks
        return self._whole_events()

    def flush(self) -> bytes:
        """The bytes of the unfinished event, at the end of the stream; b"" if there are none."""
        tail = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return tail

    def _is_whole(self, chunk: bytes) -> bool:
        """Whether it ends where an event does, and all its lines end with LF."""
        return (
            len(chunk) <= self._event_bytes_max
            and chunk.endswith(_LF_END)
            and not chunk.endswith(b"\n" + _LF_END)  # there the last LF may begin an event
            and b"\r" not in chunk
        )

    def _whole_events(self) -> Iterator[bytes]:
        while event := self._take():
            yield event
        if len(self._buffer) > self._event_bytes_max:
            raise EventTooLarge

    def _take(self) -> bytes:
        found = _EVENT_END.search(self._buffer, self._searched)
        end = found.end() if found else 0
        # A CR at the very end may be the first half of a CRLF: the next byte decides.
        if not end or (end == len(self._buffer) and self._buffer[-1:] == b"\r"):
            self._searched = max(0, len(self._buffer) - _END_BYTES_MAX)
            return b""
        if end > self._event_bytes_max:
            raise EventTooLarge
        event = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._searched = 0
        return event


def data_of(event: bytes) -> bytes | None:
    """The event's data, its lines joined by LF; None for comments and events without data."""
    if event.startswith(b"data: ") and event.endswith(b"\n\n"):
        data = event[6:-2]
        if b"\n" not in data and b"\r" not in data:
            return data  # the usual shape, at a tenth of the price
    elif event.endswith(b"\n\n") and b"\r" not in event:
        head, _, data = event[:-2].partition(b"\ndata: ")
        if data and b"\n" not in data and b"\n" not in head and b"data" not in head:
            return data  # the same behind `event: …`
    lines = [_data_in(line) for line, _ in _lines_of(event.removeprefix(_BOM))]
    data_lines = [line for line in lines if line is not None]
    return b"\n".join(data_lines) if data_lines else None


def with_data(event: bytes, data: bytes) -> bytes:
    """`event` with other data; fields, comments and line ends stay as they are."""
    out, is_written = bytearray(), False
    bom = _BOM if event.startswith(_BOM) else b""
    for line, end in _lines_of(event.removeprefix(_BOM)):
        old = _data_in(line)
        if old is None:
            out += line + end
        elif not is_written:
            is_written = True
            prefix = line[: len(line) - len(old)] if old else b"data: "
            for part in data.split(b"\n"):
                out += prefix + part + end
    return bom + bytes(out)


def _lines_of(event: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each line with its line end."""
    for found in _LINE.finditer(event):
        if found.group():
            yield found.group(1), found.group(2)


def _data_in(line: bytes) -> bytes | None:
    """The value of a `data` field line, without its one leading space; None for other lines."""
    name, _, value = line.partition(b":")
    return value.removeprefix(b" ") if name == b"data" else None
