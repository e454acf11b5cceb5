"""Bech32 (BIP-173) and bech32m (BIP-350), without BIP-173's length limit."""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final

ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
CHECKSUM_CHARS: Final = 6
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


class Checksum(IntEnum):
    """The constant that tells the two encodings apart."""

    BECH32 = 1
    BECH32M = 0x2BC830A3


class InvalidBech32(ValueError):
    """Not bech32 text with a right checksum."""


def encode(prefix: str, data: bytes, checksum: Checksum) -> str:
    """`data` in lower case under the human-readable `prefix`."""
    words = regroup(data, 8, 5)
    if rest := len(data) * 8 % 5:
        words.append((data[-1] << (5 - rest)) & 31)
    return encode_words(prefix, words, checksum)


def encode_words(prefix: str, words: Sequence[int], checksum: Checksum) -> str:
    """Words of 5 bits in lower case under the human-readable `prefix`."""
    residue = _polymod([*_expanded(prefix), *words, *[0] * CHECKSUM_CHARS]) ^ checksum
    signed = [*words, *(residue >> shift & 31 for shift in range(25, -1, -5))]
    return prefix + "1" + "".join(ALPHABET[word] for word in signed)


def decode(text: str, checksum: Checksum) -> tuple[str, bytes]:
    """Prefix and data of lower- or upper-case text, never of mixed. Raises InvalidBech32."""
    prefix, words = decode_words(text, checksum)
    padding_bits = len(words) * 5 % 8
    if padding_bits > 4 or (words and words[-1] & ((1 << padding_bits) - 1)):
        raise InvalidBech32("the bech32 padding is wrong")
    return prefix, bytes(regroup(words, 5, 8))


def decode_words(text: str, checksum: Checksum) -> tuple[str, list[int]]:
    """Prefix and words of 5 bits, of any number (BOLT-11). Raises InvalidBech32."""
    if not text.isascii() or text not in (text.lower(), text.upper()):
        raise InvalidBech32("bech32 is all lower or all upper case")
    prefix, separator, tail = text.lower().rpartition("1")
    if not separator or not prefix or len(tail) < CHECKSUM_CHARS:
        raise InvalidBech32("bech32 is a prefix, 1 and data")
    words = [ALPHABET.find(character) for character in tail]
    if -1 in words or _polymod([*_expanded(prefix), *words]) != checksum:
        raise InvalidBech32("the bech32 checksum is wrong")
    return prefix, words[:-CHECKSUM_CHARS]


def regroup(words: Iterable[int], bits_in: int, bits_out: int) -> list[int]:
    """Words of `bits_in` bits as full words of `bits_out`; bits left over are dropped."""
    held, bits, regrouped = 0, 0, []
    for word in words:
        held, bits = (held << bits_in | word) & 0xFFFF, bits + bits_in
        while bits >= bits_out:
            bits -= bits_out
            regrouped.append(held >> bits & ((1 << bits_out) - 1))
    return regrouped


def _expanded(prefix: str) -> list[int]:
    return [ord(each) >> 5 for each in prefix] + [0] + [ord(each) & 31 for each in prefix]


def _polymod(words: Iterable[int]) -> int:
    residue = 1
    for word in words:
        top = residue >> 25
        residue = (residue & 0x1FFFFFF) << 5 ^ word
        for bit, constant in enumerate(_GENERATOR):
            if top >> bit & 1:
                residue ^= constant
    return residue
