"""The type-length-value records that NUT-26 is made of, and its two small encodings inside them."""

from collections.abc import Iterator, Sequence
from typing import Final

from routstr.ecash import bech32

RECORD_HEAD_BYTES: Final = 3
RECORD_BYTES_MAX: Final = 2**16 - 1
WORD_BYTES_MAX: Final = 2**8 - 1
NOSTR_KEY_BYTES: Final = 32


class InvalidTlv(ValueError):
    """The records end too early, or a value does not fit its field."""


def record(kind: int, value: bytes) -> bytes:
    """type (1) ‖ length (2, big-endian) ‖ value (NUT-26). Raises InvalidTlv."""
    if len(value) > RECORD_BYTES_MAX:
        raise InvalidTlv("a record is too long")
    return bytes([kind]) + len(value).to_bytes(2) + value


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of `data` in order. Raises InvalidTlv."""
    at = 0
    while at < len(data):
        start = at + RECORD_HEAD_BYTES
        end = start + int.from_bytes(data[at + 1 : start])
        if end > len(data) or start > len(data):
            raise InvalidTlv("a record ends too early")
        yield data[at], data[start:end]
        at = end


def text(value: bytes) -> str:
    """UTF-8. Raises InvalidTlv."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidTlv("a text is not UTF-8") from None


def number(value: bytes, size: int) -> int:
    """A big-endian number of exactly `size` bytes. Raises InvalidTlv."""
    if len(value) != size:
        raise InvalidTlv("a number has the wrong size")
    return int.from_bytes(value)


def tag_value(tag: Sequence[str]) -> bytes:
    """A tag tuple: each word after its length in one byte. Raises InvalidTlv."""
    words = [word.encode() for word in tag]
    if not words or any(len(word) > WORD_BYTES_MAX for word in words):
        raise InvalidTlv("a tag is empty or has a word that is too long")
    return b"".join(bytes([len(word)]) + word for word in words)


def tag_of(value: bytes) -> tuple[str, ...]:
    """The words of a tag tuple. Raises InvalidTlv."""
    words: list[str] = []
    at = 0
    while at < len(value):
        end = at + 1 + value[at]
        if end > len(value):
            raise InvalidTlv("a tag ends too early")
        words.append(text(value[at + 1 : end]))
        at = end
    if not words:
        raise InvalidTlv("a tag is empty")
    return tuple(words)


# ── nostr addresses (NIP-19): one byte of type, one of length ─────────────────────────────────


def nostr_target(address: str) -> tuple[bytes, tuple[str, ...]]:
    """Public key (32 bytes) and relays of an `npub` or `nprofile` (NIP-19). Raises InvalidTlv."""
    try:
        prefix, data = bech32.decode(address, bech32.Checksum.BECH32)
    except bech32.InvalidBech32:
        raise InvalidTlv("a nostr address is bech32") from None
    if prefix == "npub":
        return _nostr_key(data), ()
    if prefix != "nprofile":
        raise InvalidTlv("a nostr address is an npub or nprofile")
    key, relays, at = b"", [], 0
    while at < len(data):
        start = at + 2
        if start > len(data) or start + data[at + 1] > len(data):
            raise InvalidTlv("a nostr address ends too early")
        kind, value = data[at], data[start : start + data[at + 1]]
        if kind == 0:
            key = value
        elif kind == 1:
            relays.append(text(value))
        at = start + len(value)
    return _nostr_key(key), tuple(relays)


def nostr_address(key: bytes, relays: Sequence[str]) -> str:
    """The `npub` of a key, or with relays its `nprofile` (NIP-19). Raises InvalidTlv."""
    if not relays:
        return bech32.encode("npub", _nostr_key(key), bech32.Checksum.BECH32)
    data = bytes([0, NOSTR_KEY_BYTES]) + _nostr_key(key)
    data += b"".join(b"\x01" + tag_value([relay]) for relay in relays)
    return bech32.encode("nprofile", data, bech32.Checksum.BECH32)


def _nostr_key(key: bytes) -> bytes:
    if len(key) != NOSTR_KEY_BYTES:
        raise InvalidTlv("a nostr key is 32 bytes")
    return key
