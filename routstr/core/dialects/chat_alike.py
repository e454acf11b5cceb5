"""Chunks like the last one but for a word: most of a stream, counted without reading them as JSON.

Laws: it only saves time. What it counts is what `read_piece` would have; it vouches for nothing
else of an event than that it is like one that was read, and what it does not know it leaves alone.

A shape is an event with one or two of its strings left open, none of them a name. What stands there
may be any text without quotes, escapes and controls: then the parser sees the same JSON, and since
how much text is in a chunk depends on the length of such strings alone, two lengths of each tell
the rule. A string that does not count at either may be shorter than another one that is counted in
its place, as of one thought under several names the longest is: so it may be no longer than those.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from routstr.core.dialects.chat_answer import Piece

_PREFIX: Final = b"data: "
_END: Final = b"\n\n"
_PLAIN: Final = re.compile(rb'[^"\\\x00-\x1f]+')
_SHORT: Final = b"x"
_LONG: Final = b"x" * 100
_EVENT_BYTES_MAX: Final = 16 * 1024  # what is longer is worth its reading, and is not kept
# Learning reads an event a few times more; that many like it pay for it.
_COST: Final = 8
_CREDIT: Final = 4 * _COST


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """The parts between what is open, and how a chunk's text grows with the first and the last."""

    head: bytes
    middle: bytes
    tail: bytes
    base_bytes: int
    first: int
    last: int

    def text_bytes_of(self, event: bytes) -> int | None:
        if not (event.startswith(self.head) and event.endswith(self.tail)):
            return None
        word = event[len(self.head) : len(event) - len(self.tail)]
        if not self.middle:
            return self.base_bytes + self.first * len(word) if _fits(word, self.first) else None
        word, _, other = word.partition(self.middle)
        if not (_fits(word, self.first) and _fits(other, self.last)):
            return None
        return self.base_bytes + self.first * len(word) + self.last * len(other)


class Alike:
    """What one stream's chunks with output look like; `read` gives the piece in an event's data."""

    __slots__ = ("_before", "_credit", "_read", "_shape")

    def __init__(self, read: Callable[[bytes], Piece | None]) -> None:
        """Nothing is known yet."""
        self._read = read
        self._before = b""
        self._shape: _Shape | None = None
        self._credit = _CREDIT

    def text_bytes_of(self, event: bytes) -> int | None:
        """The output's text in an event like the last one learned, in UTF-8 bytes; else None."""
        if self._shape is None:
            return None
        text_bytes = self._shape.text_bytes_of(event)
        if text_bytes is not None:
            self._credit += 1
        return text_bytes

    def learn(self, event: bytes, piece: Piece) -> None:
        """Take an event that was read, and `piece` found in it, for what the next ones are like."""
        before, self._before = self._before, event if len(event) <= _EVENT_BYTES_MAX else b""
        if not before or not self._before or self._credit < _COST or not _is_passing(piece):
            return
        self._credit -= _COST
        self._shape = _shape_of(before, event, piece, self._read)


def _shape_of(
    before: bytes, event: bytes, piece: Piece, read: Callable[[bytes], Piece | None]
) -> _Shape | None:
    """The event, open where it is not as the one before; None if a piece does not tell a rule."""
    if not (event.startswith(_PREFIX) and event.endswith(_END)):
        return None
    shorter = min(len(before), len(event))
    start = event.rfind(b'"', 0, _alike_bytes(before, event, shorter)) + 1
    end_alike = _alike_bytes(before[::-1], event[::-1], shorter)
    other = event.rfind(b'"', 0, len(event) - end_alike) + 1
    end, other_end = event.find(b'"', start), event.find(b'"', other)
    if not len(_PREFIX) < start <= end <= other_end:
        return None
    if _is_name(event, end) or _is_name(event, other_end):
        return None
    head, tail = event[:start], event[other_end:]
    middle = event[end:other] if start < other else b""

    def text_bytes_with(word: bytes, other_word: bytes) -> int | None:
        made = head + word + (middle + other_word if middle else b"") + tail
        found = read(made[len(_PREFIX) : -len(_END)])
        return found.output_text_bytes if found is not None and _is_like(found, piece) else None

    least = text_bytes_with(_SHORT, _SHORT)
    with_first, with_last = text_bytes_with(_LONG, _SHORT), text_bytes_with(_SHORT, _LONG)
    both = text_bytes_with(_LONG, _LONG)
    if least is None or with_first is None or with_last is None or both is None:
        return None
    grown = len(_LONG) - len(_SHORT)
    first = 1 if with_first - least == grown else 0
    last = 1 if with_last - least == grown else 0
    if (with_first, with_last) != (least + first * grown, least + last * grown):
        return None
    if both != least + (first + last) * grown:
        return None
    return _Shape(
        head=head,
        middle=middle,
        tail=tail,
        base_bytes=least - (first + last) * len(_SHORT),
        first=first,
        last=last,
    )


def _is_name(event: bytes, end: int) -> bool:
    """Whether the string that ends there is a name, of which more counts than its length."""
    return event[end + 1 :].lstrip().startswith(b":")


def _is_passing(piece: Piece) -> bool:
    """Whether it is output and nothing else."""
    return piece.output_seen and not piece.finished and piece.usage is None and not piece.is_error


def _is_like(piece: Piece, other: Piece) -> bool:
    """Whether they say the same but for the length of their text."""
    return _is_passing(piece) and piece.indexes == other.indexes


def _alike_bytes(one: bytes, other: bytes, bytes_max: int) -> int:
    """How many bytes from the start are the same in both, by halves."""
    low, high = 0, bytes_max
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _fits(word: bytes, growth: int) -> bool:
    """Whether a chunk with it is as those were that told how its text grows."""
    return (growth == 1 or len(word) <= len(_LONG)) and _is_plain(word)


def _is_plain(word: bytes) -> bool:
    """Whether it can stand in any JSON string as it is: not empty, UTF-8, nothing to escape."""
    if not _PLAIN.fullmatch(word):
        return False
    if word.isascii():
        return True
    try:
        word.decode()
    except UnicodeDecodeError:
        return False
    return True
