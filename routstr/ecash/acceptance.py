"""The keys that ecash is locked to so that this node can take it without asking a mint (NUT-11).

The current key is published. One that was current before, in the life of another database, still
unlocks: what is locked to it may have been credited there, so only the mint can say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from routstr.ecash.bdhke import public_key
from routstr.ecash.errors import InvalidSecret
from routstr.ecash.node_keys import node_key
from routstr.ecash.p2pk import P2pkLock, lock_of, sign_secret
from routstr.ecash.proof import Proof
from routstr.ecash.secret import Nut10Secret, parse_secret

KEYS_MAX: Final = 100
"""How many earlier keys are looked at: each is a restored backup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceKeys:
    """The node's keys by public key (hex); `current` is the one that is published."""

    index: int
    current: str
    private_keys: dict[str, str] = field(repr=False)

    def lock_of(self, secret_text: str) -> P2pkLock | None:
        """The lock of a secret, None for a plain one.

        Raises InvalidSecret for a lock that none of these keys opens alone with one signature.
        """
        secret = parse_secret(secret_text)
        if not isinstance(secret, Nut10Secret):
            return None
        lock = lock_of(secret)
        if lock.key not in self.private_keys:
            raise InvalidSecret("the ecash is locked to somebody else's key")
        if not lock.is_held_by(lock.key, locktime_min=0):
            raise InvalidSecret("the ecash is locked in a way that needs more than one signature")
        return lock

    def unlock(self, proof: Proof) -> Proof:
        """The proof with the witness that spends it; a plain one as it is. Raises InvalidSecret."""
        lock = self.lock_of(proof.secret)
        if lock is None:
            return proof
        return replace(proof, witness=sign_secret(proof.secret, self.private_keys[lock.key]))

    def held(self, proofs: Sequence[Proof], *, locktime_min: int) -> tuple[P2pkLock, ...] | None:
        """The lock of each, if all are to the current key, and to it alone until `locktime_min`.

        Raises InvalidSecret.
        """
        locks: list[P2pkLock] = []
        for proof in proofs:
            lock = self.lock_of(proof.secret)
            if lock is None or not lock.is_held_by(self.current, locktime_min=locktime_min):
                return None
            locks.append(lock)
        return tuple(locks)


def acceptance_keys(seed: bytes, index: int) -> AcceptanceKeys:
    """The keys of this seed up to `index`, which is the current one; the last KEYS_MAX of them."""
    first = max(0, index - KEYS_MAX + 1)
    private_keys = [node_key(seed, f"acceptance {number}") for number in range(first, index + 1)]
    by_public = {public_key(private): private for private in private_keys}
    return AcceptanceKeys(index=index, current=public_key(private_keys[-1]), private_keys=by_public)
