"""Private keys of the node's own, each for one purpose, that follow from the wallet's seed.

Nothing of them is stored: whoever has the seed has them all, and nobody can tell one from another
or go from one back to the seed. HKDF with SHA-256, RFC 5869.
"""

import hmac

from routstr.ecash.bdhke import scalar_bytes


def node_key(seed: bytes, purpose: str) -> str:
    """The private key (64 hex) of this seed for this purpose.

    Raises InvalidScalar for one purpose in 2**128, of which nobody has ever seen one.
    """
    pseudorandom = hmac.digest(bytes(32), seed, "sha256")
    info = f"routstr {purpose}".encode()
    return scalar_bytes(hmac.digest(pseudorandom, info + b"\x01", "sha256").hex()).hex()


def quote_key(seed: bytes, invoice_id: str) -> str:
    """The key that the mint quote of this invoice is bound to (NUT-20)."""
    return node_key(seed, f"mint quote {invoice_id}")
