from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.sse import EventSplitter, EventTooLarge, data_of, with_data

PIECES = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"data:", b":c", b"a", b"\xff", b"id: 1"]),
    max_size=30,
).map(b"".join)


def split(data: bytes, cuts: list[int], event_bytes_max: int = 1024) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter(event_bytes_max=event_bytes_max)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    events: list[bytes] = []
    for start, end in pairwise(places):
        events += splitter.feed(data[start:end])
    return events, splitter.flush()


@given(PIECES, st.lists(st.integers(min_value=0), max_size=10))
def test_events_and_tail_are_the_input(data: bytes, cuts: list[int]) -> None:
    events, tail = split(data, cuts)
    assert b"".join(events) + tail == data
    assert all(events)


@given(PIECES)
def test_no_split_changes_the_events(data: bytes) -> None:
    whole = split(data, [])
    assert split(data, list(range(len(data)))) == whole
    for cut in range(len(data)):
        assert split(data, [cut]) == whole


@pytest.mark.parametrize(
    ("data", "events", "tail"),
    [
        (b"data: a\n\ndata: b\n\n", [b"data: a\n\n", b"data: b\n\n"], b""),
        (b"data: a\r\n\r\ndata: b\r\n", [b"data: a\r\n\r\n"], b"data: b\r\n"),
        (b"data: a\r\rdata: b\r\r", [b"data: a\r\r"], b"data: b\r\r"),  # a LF may yet follow
        (b"data: a\n\r\nx", [b"data: a\n\r\n"], b"x"),
        (b"data: a\r\n\nx", [b"data: a\r\n\n"], b"x"),
        (b"data: a\r\ndata: b\n\n", [b"data: a\r\ndata: b\n\n"], b""),
        (b"\ndata: a\n\n", [b"\ndata: a\n\n"], b""),
        (b"", [], b""),
    ],
)
def test_an_event_ends_with_an_empty_line(data: bytes, events: list[bytes], tail: bytes) -> None:
    assert split(data, []) == (events, tail)


def test_flush_empties_the_splitter() -> None:
    splitter = EventSplitter()
    list(splitter.feed(b"data: a"))
    assert splitter.flush() == b"data: a"
    assert splitter.flush() == b""
    assert list(splitter.feed(b"\n\ndata: b\n\n")) == [b"\n\n", b"data: b\n\n"]


def test_a_chunk_counts_even_if_its_events_are_not_read() -> None:
    splitter = EventSplitter()
    splitter.feed(b"data: a\n")
    assert list(splitter.feed(b"\n")) == [b"data: a\n\n"]


@pytest.mark.parametrize("data", [b"data: a\n\n" + b"x" * 17, b"data: a\n\n" + b"x" * 16 + b"\n\n"])
def test_an_event_too_large_raises_after_those_that_fit(data: bytes) -> None:
    for size in range(1, len(data) + 1):
        splitter = EventSplitter(event_bytes_max=16)
        events: list[bytes] = []
        with pytest.raises(EventTooLarge) as error:
            read_into(events, splitter, data, size)
        assert events == [b"data: a\n\n"]
        assert error.value.status == 502


def read_into(events: list[bytes], splitter: EventSplitter, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        for event in splitter.feed(data[start : start + size]):
            events += [event]  # one by one: what came before the error must be kept


def test_a_chunk_of_one_event_too_large_raises() -> None:
    with pytest.raises(EventTooLarge):
        split(b"x" * 15 + b"\n\n", [], 16)


def test_an_event_of_the_largest_size_passes() -> None:
    assert split(b"x" * 14 + b"\n\n", [], 16) == ([b"x" * 14 + b"\n\n"], b"")
    assert split(b"x" * 14 + b"\n\n", list(range(16)), 16) == ([b"x" * 14 + b"\n\n"], b"")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a\n\n", b" a"),
        (b"data: a\r\n\r\n", b"a"),
        (b"data: a\rb\n\n", b"a"),
        (b"data: a\ndata:b\n\n", b"a\nb"),
        (b"data\n\n", b""),
        (b"data:\ndata\n\n", b"\n"),
        (b": comment\n\n", None),
        (b"event: x\nid: 1\ndata: y\nretry: 3\n\n", b"y"),
        (b"database: x\n\n", None),
        (b" data: x\n\n", None),
        (b"\n\n", None),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
    ],
)
def test_data(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data


LINES = st.lists(
    st.sampled_from([b"data: x", b"data:y", b"data", b":c", b"event: e", b"\xef\xbb\xbf"])
)


@given(LINES)
def test_the_quick_ways_find_the_same_data(lines: list[bytes]) -> None:
    event = b"".join(line + b"\n" for line in lines) + b"\n"
    assert data_of(event) == data_of(event.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(
    ("event", "after"),
    [
        (b"data: a\n\n", b"data: new\n\n"),
        (b"data:a\r\n\r\n", b"data:new\r\n\r\n"),
        (b"event: e\rdata: a\rid: 1\r\r", b"event: e\rdata: new\rid: 1\r\r"),
        (b"data: a\n:c\ndata: b\n\n", b"data: new\n:c\n\n"),
        (b"data\n\n", b"data: new\n\n"),
        (b"\xef\xbb\xbfdata: a\n\n", b"\xef\xbb\xbfdata: new\n\n"),
        (b":c\n\n", b":c\n\n"),
    ],
)
def test_other_data(event: bytes, after: bytes) -> None:
    assert with_data(event, b"new") == after


def test_other_data_of_several_lines() -> None:
    event = with_data(b"id: 1\r\ndata: a\r\n\r\n", b"b\nc")
    assert event == b"id: 1\r\ndata: b\r\ndata: c\r\n\r\n"
    assert data_of(event) == b"b\nc"
