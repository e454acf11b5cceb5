"""The key that the node signs receipts with: one for the life of the wallet's seed.

Signatures have no randomness (BIP-340, auxiliary data of zeros), so a receipt that is made again is
the same to the last byte, and none has to be stored.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from coincurve import PrivateKey, PublicKeyXOnly
from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found]  # compiled

from routstr.ecash.node_keys import node_key

PURPOSE: Final = "receipts"
DIGEST_BYTES: Final = 32
_NO_RANDOMNESS: Final = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptKey:
    """The key; `public` is its x coordinate, 64 hex, as `/v1/info` publishes it.

    Every paid answer is signed, and `PrivateKey.sign_schnorr` makes the pair anew and verifies what
    it signed: four times the work of the signature. So the pair is made once, here.
    """

    public: str
    private: PrivateKey = field(repr=False)
    _pair: Any = field(init=False, repr=False, compare=False)  # libsecp256k1's own

    def __post_init__(self) -> None:
        pair = ffi.new("secp256k1_keypair *")
        made = lib.secp256k1_keypair_create(self.private.context.ctx, pair, self.private.secret)
        assert made == 1, "a PrivateKey has a valid secret"
        object.__setattr__(self, "_pair", pair)

    def sign(self, digest: bytes) -> str:
        """The signature (128 hex) of 32 bytes. Raises ValueError for any other number of them."""
        if len(digest) != DIGEST_BYTES:  # libsecp256k1 reads that many, whatever there is
            raise ValueError("A digest has 32 bytes.")
        signature = ffi.new("unsigned char[64]")
        context = self.private.context.ctx
        signed = lib.secp256k1_schnorrsig_sign32(
            context, signature, digest, self._pair, _NO_RANDOMNESS
        )
        assert signed == 1, "a valid pair signs everything"
        return bytes(ffi.buffer(signature)).hex()


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
