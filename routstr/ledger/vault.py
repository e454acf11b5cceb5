"""Secrets at rest: AES-256-GCM under keys derived per purpose, and the pepper of API keys.

A database dump must not spend, so proof secrets, issued tokens, sealed keys and the wallet's
mnemonic are stored only as `v1|key id|nonce|ciphertext|tag`, each part but the first two in
base64url. The associated data names table, column, row, version and key id: a sealed value moved
to another row or column no longer opens.

HKDF is RFC 5869 with SHA-256; AES-GCM is NIST SP 800-38D with 96-bit random nonces.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from routstr.ledger.columns import Sealed

VERSION: Final = "v1"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
MASTER_BYTES_MIN: Final = 32


class CannotOpen(Exception):
    """A sealed value does not open: wrong master key, moved, or damaged."""


class Vault:
    """Seals and opens secrets under one master key.

    `master` is at least 32 bytes of secret; `random_bytes(n)` yields n random bytes.
    """

    def __init__(self, master: bytes, *, random_bytes: Callable[[int], bytes]) -> None:
        """Derive the sub-keys; raises ValueError when the master key is too short."""
        if len(master) < MASTER_BYTES_MIN:
            raise ValueError(f"the master key is shorter than {MASTER_BYTES_MIN} bytes")
        self._master = master
        self._random_bytes = random_bytes
        self.key_id: Final = hashlib.sha256(b"routstr key id" + master).hexdigest()[:8]
        self._pepper = self.derive("api key pepper v1")
        self._digest_key = self.derive("digest v1")
        self._ciphers: dict[str, AESGCM] = {}

    def fresh_bytes(self, count: int) -> bytes:
        """Random bytes, for a secret that nobody has yet."""
        return self._random_bytes(count)

    def derive(self, purpose: str) -> bytes:
        """32 bytes of key for one purpose (RFC 5869)."""
        hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=f"routstr {purpose}".encode())
        return hkdf.derive(self._master)

    def key_hash(self, api_key: str) -> str:
        """The only form of an API key that is stored: hex HMAC-SHA-256 under the pepper."""
        return hmac.digest(self._pepper, api_key.encode(), "sha256").hex()

    def digest(self, data: bytes) -> str:
        """Hex HMAC-SHA-256 of what must be told from others, and not be guessed from a dump."""
        return hmac.digest(self._digest_key, data, "sha256").hex()

    def seal(self, plain: str, *, table: str, column: str, row_id: str) -> Sealed:
        """Encrypt `plain` for exactly that place."""
        nonce = self._random_bytes(NONCE_BYTES)
        place = self._place(table, column, row_id)
        boxed = self._cipher(f"{table}.{column}").encrypt(nonce, plain.encode(), place)
        parts = (nonce, boxed[:-TAG_BYTES], boxed[-TAG_BYTES:])
        encoded = "|".join(urlsafe_b64encode(part).decode() for part in parts)
        return Sealed(f"{VERSION}|{self.key_id}|{encoded}")

    def open(self, sealed: str, *, table: str, column: str, row_id: str) -> str:
        """Decrypt what `seal` made for that place. Raises CannotOpen."""
        try:
            version, key_id, *encoded = sealed.split("|")
            nonce, ciphertext, tag = (urlsafe_b64decode(part) for part in encoded)
        except ValueError as error:
            raise CannotOpen("not a sealed value") from error
        if (version, key_id) != (VERSION, self.key_id):
            raise CannotOpen(f"sealed under key {key_id!r}, this is {self.key_id!r}")
        place = self._place(table, column, row_id)
        try:
            plain = self._cipher(f"{table}.{column}").decrypt(nonce, ciphertext + tag, place)
        except InvalidTag as error:
            raise CannotOpen(f"{table}.{column} does not open") from error
        return plain.decode()

    def _cipher(self, purpose: str) -> AESGCM:
        if purpose not in self._ciphers:
            self._ciphers[purpose] = AESGCM(self.derive(f"seal {purpose}"))
        return self._ciphers[purpose]

    def _place(self, table: str, column: str, row_id: str) -> bytes:
        return "|".join((table, column, row_id, VERSION, self.key_id)).encode()
