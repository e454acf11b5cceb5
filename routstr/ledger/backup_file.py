"""A backup as one file: a header in clear, then the payload, compressed and encrypted in chunks.

    magic (8) | header bytes (u32) | header (JSON) | chunk | … | last chunk

Laws
- STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015): each chunk is ChaCha20-Poly1305 (RFC 8439)
  under a key of this file alone. Nonce and associated data say which chunk it is and whether it is
  the last; the associated data also name every byte before the first chunk. So a file that was
  cut, spliced, reordered or changed anywhere does not open, whoever made the change.
- The file's key is HKDF-SHA-256 (RFC 5869) of the node's backup key under a salt of the file's own.
- Nothing of a file is believed before its chunk has opened, and nobody may use the payload before
  the last one has, and the hash of the whole was right.
"""

import hashlib
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import BinaryIO, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from routstr.errors import RestoreRefused

MAGIC: Final = b"RTSTRBK\x01"
HEADER_BYTES_MAX: Final = 64 * 1024
CHUNK_BYTES: Final = 256 * 1024
TAG_BYTES: Final = 16
SALT_BYTES: Final = 32
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
INFO: Final = b"routstr backup file v1"

# scrypt (RFC 7914): 64 MiB and a tenth of a second for each guess at a passphrase.
SCRYPT_N: Final = 1 << 16
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
WRAP_PURPOSE: Final = b"routstr backup master key v1"

NO_BACKUP: Final = "this is no backup of a node"
DAMAGED: Final = "the backup is damaged, or was made under another key"
NEWER: Final = "the backup was made by a newer version of the node: use that version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a backup says of itself in clear; all of it is authenticated by every chunk.

    `content_sha256` and `content_bytes` are of the payload before it was compressed. `key_id` names
    the master key, `wrapped` is that key under a passphrase, if one was given.
    """

    created_at: str
    engine: str
    engine_version: str
    revision: str
    key_id: str
    content_sha256: str
    content_bytes: int
    salt: str
    wrapped: str | None = None

    @property
    def made_at(self) -> datetime:
        """When the backup was begun, aware."""
        return datetime.fromisoformat(self.created_at)


def _check_going_on() -> None:
    """Nobody asks it to stop."""


# ── writing ───────────────────────────────────────────────────────────────────────────────────


def write_backup(
    payload: Iterable[bytes],
    target: BinaryIO,
    header: Header,
    key: bytes,
    *,
    check: Callable[[], None] = _check_going_on,
    chunk_bytes: int = CHUNK_BYTES,
) -> str:
    """Write the file; the hex SHA-256 of it all. `check` is called now and then, and may raise.

    `key` is the node's backup key, `payload` what the header's content hash is of.
    """
    digest = hashlib.sha256()
    preamble = _preamble(header)

    def put(data: bytes) -> None:
        digest.update(data)
        target.write(data)

    put(preamble)
    seal = _Chunks(preamble, header, key)
    waiting = bytearray()
    for part in _compressed(payload):
        check()
        waiting += part
        while len(waiting) > chunk_bytes:
            put(seal.seal(bytes(waiting[:chunk_bytes]), is_last=False))
            del waiting[:chunk_bytes]
    put(seal.seal(bytes(waiting), is_last=True))
    return digest.hexdigest()


def _compressed(payload: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(6)
    for part in payload:
        yield packer.compress(part)
    yield packer.flush()


def _preamble(header: Header) -> bytes:
    told = orjson.dumps(asdict(header), option=orjson.OPT_SORT_KEYS)
    return MAGIC + len(told).to_bytes(4, "big") + told


class _Chunks:
    """The chunks of one file, in their order."""

    def __init__(self, preamble: bytes, header: Header, key: bytes) -> None:
        salt = bytes.fromhex(header.salt)
        hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=INFO)
        self._cipher = ChaCha20Poly1305(hkdf.derive(key))
        self._bound = hashlib.sha256(preamble).digest()
        self._number = 0

    def seal(self, plain: bytes, *, is_last: bool) -> bytes:
        """The next chunk."""
        nonce, bound = self._next(is_last=is_last)
        return self._cipher.encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, *, is_last: bool) -> bytes:
        """What the next chunk held. Raises RestoreRefused."""
        nonce, bound = self._next(is_last=is_last)
        try:
            return self._cipher.decrypt(nonce, sealed, bound)
        except InvalidTag as error:
            raise RestoreRefused(DAMAGED) from error

    def _next(self, *, is_last: bool) -> tuple[bytes, bytes]:
        place = self._number.to_bytes(NONCE_BYTES - 1, "big") + bytes([is_last])
        self._number += 1
        return place, self._bound + place


# ── reading ───────────────────────────────────────────────────────────────────────────────────


def read_header(source: BinaryIO) -> Header:
    """What a backup says of itself, believed by nobody yet; `source` is at its start.

    Raises RestoreRefused for what is no backup, or one of a newer format.
    """
    return _read_preamble(source)[1]


def _read_preamble(source: BinaryIO) -> tuple[bytes, Header]:
    magic = source.read(len(MAGIC))
    if magic[:-1] != MAGIC[:-1]:
        raise RestoreRefused(NO_BACKUP)
    if magic != MAGIC:
        raise RestoreRefused(NEWER if magic[-1:] > MAGIC[-1:] else NO_BACKUP)
    length = source.read(4)
    size = int.from_bytes(length, "big")
    told = source.read(min(size, HEADER_BYTES_MAX))
    if len(told) != size:
        raise RestoreRefused(DAMAGED)
    return magic + length + told, _header(told)


def _header(told: bytes) -> Header:
    try:
        values: dict[str, object] = orjson.loads(told)
        size = values.pop("content_bytes")
        texts = {name: each for name, each in values.items() if isinstance(each, str)}
        if not isinstance(size, int) or len(texts) + (values["wrapped"] is None) != len(values):
            raise RestoreRefused(DAMAGED)
        header = Header(content_bytes=size, **texts)
        if len(bytes.fromhex(header.salt)) != SALT_BYTES or header.made_at.tzinfo is None:
            raise RestoreRefused(DAMAGED)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RestoreRefused(DAMAGED) from error
    return header


def read_backup(
    source: BinaryIO,
    key: bytes,
    *,
    check: Callable[[], None] = _check_going_on,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[bytes]:
    """The payload, piece by piece; it is whole if this ends without raising RestoreRefused.

    `source` is at its start, `key` the node's backup key.
    """
    preamble, header = _read_preamble(source)
    opening = _Chunks(preamble, header, key)
    unpacker = zlib.decompressobj()
    digest, size = hashlib.sha256(), 0
    chunk = source.read(chunk_bytes + TAG_BYTES)
    while True:
        check()
        following = source.read(chunk_bytes + TAG_BYTES)
        packed = opening.open(chunk, is_last=not following)
        for part in _unpacked(unpacker, packed):
            digest.update(part)
            size += len(part)
            yield part
        if not following:
            break
        chunk = following
    if not unpacker.eof or unpacker.unused_data:
        raise RestoreRefused(DAMAGED)
    if (digest.hexdigest(), size) != (header.content_sha256, header.content_bytes):
        raise RestoreRefused(DAMAGED)


def _unpacked(unpacker: "zlib._Decompress", packed: bytes) -> Iterator[bytes]:
    """A little at a time: what is small here may be large there."""
    while packed:
        try:
            part = unpacker.decompress(packed, CHUNK_BYTES)
        except zlib.error as error:
            raise RestoreRefused(DAMAGED) from error
        if part:
            yield part
        if unpacker.eof:
            return
        packed = unpacker.unconsumed_tail


# ── the master key under a passphrase ─────────────────────────────────────────────────────────


def wrap_master(master: bytes, passphrase: str, *, random_bytes: Callable[[int], bytes]) -> str:
    """The master key for whoever knows the passphrase: salt, nonce and box as base64url."""
    salt, nonce = random_bytes(SALT_BYTES), random_bytes(NONCE_BYTES)
    box = ChaCha20Poly1305(_stretched(passphrase, salt)).encrypt(nonce, master, WRAP_PURPOSE)
    return urlsafe_b64encode(salt + nonce + box).decode()


def unwrap_master(wrapped: str, passphrase: str) -> bytes:
    """The master key. Raises RestoreRefused for another passphrase."""
    try:
        packed = urlsafe_b64decode(wrapped)
        salt, packed = packed[:SALT_BYTES], packed[SALT_BYTES:]
        nonce, box = packed[:NONCE_BYTES], packed[NONCE_BYTES:]
        return ChaCha20Poly1305(_stretched(passphrase, salt)).decrypt(nonce, box, WRAP_PURPOSE)
    except (InvalidTag, ValueError) as error:
        raise RestoreRefused("the passphrase is not the backup's") from error


def _stretched(passphrase: str, salt: bytes) -> bytes:
    kdf = Scrypt(salt=salt, length=KEY_BYTES, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
    return kdf.derive(passphrase.encode())
