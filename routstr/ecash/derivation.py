"""How a keyset's secrets follow from the seed (NUT-13), one way for each keyset version.

A deriver is made once for a seed and a keyset, and then answers for each counter: the hardened
BIP-32 parent is the same for all of a keyset's counters.
"""

import hmac
from collections.abc import Callable
from typing import Final

from coincurve import PublicKey

from routstr.ecash.bdhke import ORDER, scalar_bytes
from routstr.ecash.errors import InvalidCounter

Deriver = Callable[[int], tuple[str, str]]
"""Counter in; the secret's text and r, both 64 characters of hex, out. Raises InvalidCounter."""

HARDENED: Final = 2**31
RESIDUE_MODULUS: Final = 2**31 - 1
PURPOSE: Final = 129372  # the code point of the peanut
KDF_DOMAIN: Final = b"Cashu_KDF_HMAC_SHA256"


def hmac_deriver(seed: bytes, keyset_id: str) -> Deriver:
    """Secrets of a `01` keyset: HMAC-SHA256 under the seed (NUT-13)."""
    domain = KDF_DOMAIN + bytes.fromhex(keyset_id)

    def derive(counter: int) -> tuple[str, str]:
        base = domain + _checked(counter, 2**64).to_bytes(8)
        secret = hmac.digest(seed, base + b"\x00", "sha256").hex()
        r = int.from_bytes(hmac.digest(seed, base + b"\x01", "sha256")) % ORDER
        return secret, scalar_bytes(f"{r:064x}").hex()

    return derive


def bip32_deriver(seed: bytes, keyset_id: str) -> Deriver:
    """Secrets of a `00` keyset: m/129372'/0'/residue'/counter'/{0 secret, 1 r} (NUT-13, BIP-32)."""
    digest = hmac.digest(b"Bitcoin seed", seed, "sha512")
    node = digest[:32], digest[32:]
    for index in (PURPOSE, 0, residue31(keyset_id)):
        node = _hardened_child(node, index)
    keyset_node = node

    def derive(counter: int) -> tuple[str, str]:
        key, chain = _hardened_child(keyset_node, _checked(counter, HARDENED))
        # Both children are plain ones, so they share the parent's public key.
        parent = PublicKey.from_secret(key).format()
        secret, _ = _child(key, chain, parent + (0).to_bytes(4))
        r, _ = _child(key, chain, parent + (1).to_bytes(4))
        return secret.hex(), r.hex()

    return derive


def residue31(keyset_id: str) -> int:
    """The keyset id's first 8 bytes modulo 2**31 - 1 (NUT-13); equal ones share their secrets."""
    return int(keyset_id[:16], 16) % RESIDUE_MODULUS


def _hardened_child(node: tuple[bytes, bytes], index: int) -> tuple[bytes, bytes]:
    key, chain = node
    return _child(key, chain, b"\x00" + key + (HARDENED + index).to_bytes(4))


def _child(key: bytes, chain: bytes, data: bytes) -> tuple[bytes, bytes]:
    """BIP-32 CKDpriv. Raises InvalidScalar where BIP-32 says to skip (one chance in 2**127)."""
    digest = hmac.digest(chain, data, "sha512")
    left = scalar_bytes(digest[:32].hex())
    child = (int.from_bytes(left) + int.from_bytes(key)) % ORDER
    return scalar_bytes(f"{child:064x}"), digest[32:]


def _checked(counter: int, end: int) -> int:
    if not 0 <= counter < end:
        raise InvalidCounter(f"the counter must lie between 0 and {end - 1}")
    return counter
