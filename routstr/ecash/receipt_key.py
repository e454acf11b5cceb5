"""The key that the node signs receipts with: one for the life of the wallet's seed.

Signatures have no randomness (BIP-340, auxiliary data of zeros), so a receipt that is made again is
the same to the last byte, and none has to be stored.
"""

from dataclasses import dataclass, field
from typing import Final

from coincurve import PrivateKey, PublicKeyXOnly

from routstr.ecash.node_keys import node_key

PURPOSE: Final = "receipts"
_NO_RANDOMNESS: Final = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptKey:
    """The key; `public` is its x coordinate, 64 hex, as `/v1/info` publishes it."""

    public: str
    private: PrivateKey = field(repr=False)

    def sign(self, digest: bytes) -> str:
        """The signature (128 hex) of 32 bytes."""
        return self.private.sign_schnorr(digest, _NO_RANDOMNESS).hex()


def receipt_key(seed: bytes) -> ReceiptKey:
    """The key of this seed."""
    private = PrivateKey(bytes.fromhex(node_key(seed, PURPOSE)))
    return ReceiptKey(public=private.public_key_xonly.format().hex(), private=private)


def is_signed(digest: bytes, signature: str, public: str) -> bool:
    """Whether the signature (128 hex) of those 32 bytes is that key's (64 hex)."""
    try:
        return PublicKeyXOnly(bytes.fromhex(public)).verify(bytes.fromhex(signature), digest)
    except ValueError:  # no such point
        return False
