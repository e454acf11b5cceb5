"""Secrets: mnemonic and seed (BIP-39), our own (NUT-13), and what anybody's says (NUT-10)."""

from dataclasses import dataclass, field
from typing import Final, TypeGuard

from mnemonic import Mnemonic

from routstr.ecash import derivation, keyset, strictjson
from routstr.ecash.errors import InvalidMnemonic, InvalidSecret

ENTROPY_BYTES: Final = (16, 20, 24, 28, 32)
SECRET_CHARS_MAX: Final = 512


# ── ours ──────────────────────────────────────────────────────────────────────────────────────


def new_mnemonic(entropy: bytes) -> str:
    """The English BIP-39 words of `entropy`; 16 bytes make 12 words. Raises InvalidMnemonic."""
    if len(entropy) not in ENTROPY_BYTES:
        raise InvalidMnemonic("entropy is 16, 20, 24, 28 or 32 bytes")
    return Mnemonic("english").to_mnemonic(entropy)


def check_mnemonic(mnemonic: str) -> bool:
    """Whether these are English BIP-39 words with a right checksum."""
    return Mnemonic("english").check(mnemonic)


def seed_from_mnemonic(mnemonic: str, passphrase: str = "") -> bytes:
    """The 64-byte seed: PBKDF2-HMAC-SHA512, 2048 rounds (BIP-39). Raises InvalidMnemonic."""
    if not check_mnemonic(mnemonic):
        raise InvalidMnemonic("not a BIP-39 mnemonic")
    return Mnemonic.to_seed(mnemonic, passphrase)


def deriver(seed: bytes, keyset_id: str) -> derivation.Deriver:
    """The function counter → (secret, r) of one keyset; make it once for many counters (NUT-13).

    Raises UnsupportedKeyset.
    """
    return keyset.version_of(keyset_id).deriver(seed, keyset_id)


def derive(seed: bytes, keyset_id: str, counter: int) -> tuple[str, str]:
    """The secret's text and r, in hex, of one counter (NUT-13).

    Raises UnsupportedKeyset, and InvalidCounter outside 31 bits (`00`) or 64 bits (`01`).
    """
    return deriver(seed, keyset_id)(counter)


# ── anybody's ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSecret:
    """A secret that is just a text: whoever knows it can spend."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nut10Secret:
    """A secret that states a spending condition (NUT-10); each tag is its name and its values."""

    text: str = field(repr=False)
    kind: str
    nonce: str = field(repr=False)
    data: str
    tags: tuple[tuple[str, ...], ...]


def parse_secret(text: str) -> PlainSecret | Nut10Secret:
    """What a secret says. Raises InvalidSecret if it only nearly is a NUT-10 secret.

    A mint that cannot read a condition takes the text for a plain secret, and then anybody may
    spend it. So a text starting with `[` is exactly `[kind, {nonce, data, tags?}]`, non-empty
    strings, no name twice, or it is refused: what we call locked is locked at any mint.
    """
    if not text.startswith("["):
        return PlainSecret(text=text)
    try:
        value = strictjson.decode(text)
    except strictjson.InvalidJson:
        raise InvalidSecret("the secret is not a NUT-10 secret") from None
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidSecret("a NUT-10 secret is a kind and an object")
    kind, fields = value
    if not _is_filled(kind) or not isinstance(fields, dict):
        raise InvalidSecret("a NUT-10 secret is a kind and an object")
    nonce, data = fields.get("nonce"), fields.get("data")
    if not fields.keys() <= {"nonce", "data", "tags"} or not _is_filled(nonce):
        raise InvalidSecret("a NUT-10 secret has a nonce, data and tags only")
    if not _is_filled(data):
        raise InvalidSecret("a NUT-10 secret has data")
    tags = _tags(fields.get("tags", []))
    return Nut10Secret(text=text, kind=kind, nonce=nonce, data=data, tags=tags)


def _tags(value: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list):
        raise InvalidSecret("the tags are a list")
    tags: list[tuple[str, ...]] = []
    for each in value:
        if not isinstance(each, list) or len(each) < 2:
            raise InvalidSecret("a tag is a name and at least one value")
        words = tuple(word for word in each if _is_filled(word))
        if len(words) != len(each):
            raise InvalidSecret("a tag's name and values are non-empty strings")
        tags.append(words)
    if len({tag[0] for tag in tags}) != len(tags):
        raise InvalidSecret("a tag appears twice")
    return tuple(tags)


def _is_filled(value: object) -> TypeGuard[str]:
    return strictjson.is_text(value) and value != ""
