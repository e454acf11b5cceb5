"""The file of a backup: what went in comes out, and nothing else ever does."""

import hashlib
import io
import os
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.errors import RestoreRefused
from routstr.ledger.backup_file import (
    Header,
    read_backup,
    read_header,
    unwrap_master,
    wrap_master,
    write_backup,
)

KEY: Final = b"k" * 32
CHUNK: Final = 64  # so that a few hundred bytes are many chunks


def header_of(content: bytes, *, salt: bytes = bytes(32)) -> Header:
    return Header(
        created_at="2026-11-21T20:00:00+00:00",
        engine="sqlite",
        engine_version="3",
        revision="0010",
        key_id="0123abcd",
        content_sha256=hashlib.sha256(content).hexdigest(),
        content_bytes=len(content),
        salt=salt.hex(),
    )


def written(content: bytes, *, key: bytes = KEY, salt: bytes = bytes(32)) -> bytes:
    target = io.BytesIO()
    parts = (content[at : at + 50] for at in range(0, len(content), 50))
    digest = write_backup(parts, target, header_of(content, salt=salt), key, chunk_bytes=CHUNK)
    assert digest == hashlib.sha256(target.getvalue()).hexdigest()
    return target.getvalue()


def read(data: bytes, *, key: bytes = KEY) -> bytes:
    return b"".join(read_backup(io.BytesIO(data), key, chunk_bytes=CHUNK))


CONTENT: Final = os.urandom(500)


@given(content=st.binary(max_size=400))
def test_what_goes_in_comes_out(content: bytes) -> None:
    assert read(written(content)) == content
    assert read_header(io.BytesIO(written(content))) == header_of(content)


@given(at=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
def test_a_changed_bit_anywhere_is_refused(at: int, bit: int) -> None:
    data = bytearray(written(CONTENT))
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(RestoreRefused):
        read(bytes(data))


@given(length=st.integers(min_value=0))
def test_what_was_cut_or_grew_is_refused(length: int) -> None:
    data = written(CONTENT)
    with pytest.raises(RestoreRefused):
        read(data[: length % len(data)])
    with pytest.raises(RestoreRefused):
        read(data + data[-1 - length % CHUNK :])


def test_chunks_are_of_one_file_in_one_order() -> None:
    data, other = written(CONTENT), written(CONTENT, salt=bytes(31) + b"\1")
    preamble = len(data) - sum(chunk_sizes(data))
    chunks = [data[at : at + CHUNK + 16] for at in range(preamble, len(data), CHUNK + 16)]
    assert len(chunks) > 3
    swapped = data[:preamble] + b"".join([chunks[1], chunks[0], *chunks[2:]])
    shortened = data[:preamble] + b"".join(chunks[:-1])
    skipped = data[:preamble] + b"".join([chunks[0], *chunks[2:]])
    spliced = data[:preamble] + other[preamble : preamble + CHUNK + 16] + b"".join(chunks[1:])
    for forged in (swapped, shortened, skipped, spliced, data[:preamble] + other[preamble:]):
        assert len(forged) == len(data) or forged in (shortened, skipped)
        with pytest.raises(RestoreRefused):
            read(forged)


def chunk_sizes(data: bytes) -> list[int]:
    header_bytes = int.from_bytes(data[8:12], "big")
    body = len(data) - 12 - header_bytes
    return [min(CHUNK + 16, body - at) for at in range(0, body, CHUNK + 16)]


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(RestoreRefused, match="another key"):
        read(written(CONTENT), key=b"x" * 32)


def test_a_newer_format_is_told_apart_from_no_backup() -> None:
    data = written(CONTENT)
    with pytest.raises(RestoreRefused, match="newer"):
        read(data[:7] + b"\2" + data[8:])
    with pytest.raises(RestoreRefused, match="no backup"):
        read(b"SQLite format 3\0" + bytes(100))


def test_the_passphrase_gives_the_master_key() -> None:
    wrapped = wrap_master(b"m" * 40, "correct horse", random_bytes=os.urandom)
    assert unwrap_master(wrapped, "correct horse") == b"m" * 40
    for text, passphrase in ((wrapped, "another horse"), (wrapped[:20], "correct horse")):
        with pytest.raises(RestoreRefused):
            unwrap_master(text, passphrase)
