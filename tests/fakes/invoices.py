"""A payee on Lightning: BOLT-11 invoices, signed with a key of its own, that nobody need pay."""

import hashlib
from typing import Final

from coincurve import PrivateKey

from routstr.ecash.bech32 import ALPHABET, Checksum, encode_words, regroup

KEY: Final = PrivateKey(bytes.fromhex("e1" * 32))
CREATED_AT: Final = 1_800_000_000


def words_of(data: bytes) -> list[int]:
    """Bytes as words of 5 bits, the last one padded with zeros."""
    return regroup(data + b"\0" * (-len(data) % 5), 8, 5)[: -(-len(data) * 8 // 5)]


def number_words(number: int, count: int = 0) -> list[int]:
    """A number, big-endian, in as few words as will do or in `count`."""
    count = count or max(1, -(-number.bit_length() // 5))
    return [number >> 5 * place & 31 for place in reversed(range(count))]


def field(tag: str, words: list[int]) -> list[int]:
    """One tagged field."""
    return [ALPHABET.index(tag), *number_words(len(words), 2), *words]


def invoice(
    amount_msat: int | None,
    *,
    description: str | bytes = "",
    payment_hash: bytes | None = None,
    prefix: str = "lnbc",
    created_at: int = CREATED_AT,
    expiry_s: int | None = None,
    more: list[int] | None = None,
) -> str:
    """An invoice; 32 bytes of `description` are its hash, `more` are further fields as words."""
    amount = "" if amount_msat is None else f"{amount_msat * 10}p"
    if payment_hash is None:
        payment_hash = hashlib.sha256(f"{amount_msat} {created_at}".encode()).digest()
    words = number_words(created_at, 7) + field("p", words_of(payment_hash))
    words += field("s", words_of(b"\x11" * 32)) + field("9", number_words(1 << 14))
    if isinstance(description, bytes):
        words += field("h", words_of(description))
    else:
        words += field("d", words_of(description.encode()))
    if expiry_s is not None:
        words += field("x", number_words(expiry_s))
    return signed(prefix + amount, words + (more or []))


def signed(hrp: str, words: list[int]) -> str:
    """The words under a signature that holds."""
    padded = [*words, *[0] * (-len(words) * 5 % 8)]  # whole bytes, and at most one word too many
    covered = bytes(regroup(padded, 5, 8))[: -(-len(words) * 5 // 8)]
    digest = hashlib.sha256(hrp.encode() + covered).digest()
    signature = KEY.sign_recoverable(digest, hasher=None)
    return encode_words(hrp, [*words, *words_of(signature)], Checksum.BECH32)
