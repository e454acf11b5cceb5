"""Signatures with keys of one's own: locked proofs (NUT-11) and mint quotes (NUT-20).

All are BIP-340 over a SHA-256 digest, made without randomness: the same input gives the same
bytes, so that an operation's body can be rebuilt. Private keys are scalars, public keys compressed
points, signatures 128 characters, all lower-case hex.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from coincurve import PrivateKey, PublicKeyXOnly

from routstr.ecash import strictjson
from routstr.ecash.bdhke import is_point, public_key, scalar_bytes
from routstr.ecash.errors import InvalidPoint, InvalidSecret
from routstr.ecash.proof import BlindedMessage
from routstr.ecash.secret import Nut10Secret

P2PK_KIND: Final = "P2PK"
QUOTE_DOMAIN: Final = b"Cashu_MintQuoteSig_v1"
KNOWN_TAGS: Final = frozenset({"sigflag", "n_sigs", "locktime", "refund", "pubkeys"})
_NO_RANDOMNESS: Final = bytes(32)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")

__all__ = [
    "P2pkLock",
    "QuoteMessage",
    "lock_of",
    "lock_secret",
    "public_key",
    "same_key",
    "sign_quote",
    "sign_secret",
    "verify_quote",
    "verify_secret",
]


# ── locked proofs (NUT-11) ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class P2pkLock:
    """What a P2PK secret demands (NUT-11); `locktime` in seconds since the epoch.

    `unknown_tags` are names we cannot judge; a lock that has any must not be relied on.
    """

    key: str
    sigflag: str
    n_sigs: int
    locktime: int | None
    refund_keys: tuple[str, ...]
    more_keys: tuple[str, ...]
    unknown_tags: tuple[str, ...]

    def is_held_by(self, key: str, *, locktime_min: int) -> bool:
        """Whether only `key` can spend until at least `locktime_min`, with one plain signature.

        The rule of instant acceptance: the exact key (hex), SIG_INPUTS, one signature, no further
        keys. Past its locktime a proof is open to the refund keys, or without them to anybody.
        """
        return (
            self.key == key
            and self.sigflag == "SIG_INPUTS"
            and self.n_sigs == 1
            and not self.more_keys
            and not self.unknown_tags
            and (self.locktime is None or self.locktime >= locktime_min)
        )


def lock_of(secret: Nut10Secret) -> P2pkLock:
    """The conditions of a P2PK secret. Raises InvalidSecret if it is of another kind or unclear."""
    if secret.kind != P2PK_KIND:
        raise InvalidSecret("the secret is not locked to a public key")
    tags = {tag[0]: tag[1:] for tag in secret.tags}
    keys = (secret.data, *tags.get("pubkeys", ()), *tags.get("refund", ()))
    if not all(is_point(key) for key in keys):
        raise InvalidSecret("a lock's key is not a public key")
    locktime = _number(tags.get("locktime"))
    return P2pkLock(
        key=secret.data,
        sigflag=_single(tags.get("sigflag")) or "SIG_INPUTS",
        n_sigs=1 if (count := _number(tags.get("n_sigs"))) is None else count,
        locktime=locktime,
        refund_keys=tags.get("refund", ()),
        more_keys=tags.get("pubkeys", ()),
        unknown_tags=tuple(name for name in tags if name not in KNOWN_TAGS),
    )


def lock_secret(key: str, *, nonce: str, tags: Sequence[Sequence[str]] = ()) -> str:
    """The text of a secret locked to `key` (NUT-11); `nonce` must be fresh for every proof.

    Raises InvalidPoint.
    """
    if not is_point(key):
        raise InvalidPoint("a lock's key is a compressed point")
    fields = {"nonce": nonce, "data": key, "tags": [list(tag) for tag in tags]}
    return json.dumps([P2PK_KIND, fields], separators=(",", ":"), ensure_ascii=False)


def sign_secret(secret: str, private_key: str) -> str:
    """The witness that unlocks a proof: the JSON text `{"signatures":[hex]}` (NUT-11).

    Raises InvalidScalar, InvalidSecret.
    """
    signature = _sign(_digest(secret), private_key)
    return json.dumps({"signatures": [signature]}, separators=(",", ":"))


def verify_secret(secret: str, witness: str, key: str) -> bool:
    """Whether the witness holds a signature of `key` over the secret (NUT-11)."""
    try:
        fields, digest = strictjson.decode(witness), _digest(secret)
    except (strictjson.InvalidJson, InvalidSecret):
        return False
    signatures = fields.get("signatures") if isinstance(fields, dict) else None
    if not isinstance(signatures, list):
        return False
    return any(isinstance(each, str) and _verify(digest, each, key) for each in signatures)


def same_key(left: str, right: str) -> bool:
    """Whether two public keys have one x coordinate, and so one BIP-340 signer."""
    return is_point(left) and is_point(right) and left[2:] == right[2:]


# ── mint quotes (NUT-20) ──────────────────────────────────────────────────────────────────────


class QuoteMessage(StrEnum):
    """Which text a quote's signature covers."""

    JOINED = "joined"
    """quote id, then each B_ as hex: the form of the first NUT-20, known to every mint."""

    TAGGED = "tagged"
    """Cashu_MintQuoteSig_v1, lengths, amounts and raw B_: the form since 2026."""


def sign_quote(
    quote_id: str,
    outputs: Sequence[BlindedMessage],
    private_key: str,
    *,
    message: QuoteMessage = QuoteMessage.JOINED,
) -> str:
    """The signature that lets us mint a quote made with our key (NUT-20).

    Raises InvalidScalar, InvalidPoint, and InvalidSecret for a quote id that is not Unicode.
    """
    return _sign(_quote_digest(quote_id, outputs, message), private_key)


def verify_quote(
    quote_id: str,
    outputs: Sequence[BlindedMessage],
    signature: str,
    key: str,
    *,
    message: QuoteMessage = QuoteMessage.JOINED,
) -> bool:
    """Whether `signature` is the key's over this quote and these outputs in this order (NUT-20)."""
    try:
        digest = _quote_digest(quote_id, outputs, message)
    except (InvalidPoint, InvalidSecret):
        return False
    return _verify(digest, signature, key)


def _quote_digest(quote_id: str, outputs: Sequence[BlindedMessage], message: QuoteMessage) -> bytes:
    if not all(is_point(each.b_) for each in outputs):
        raise InvalidPoint("B_ is a compressed point")
    if message is QuoteMessage.JOINED:
        return _digest(quote_id + "".join(each.b_ for each in outputs))
    parts = [_utf8(quote_id)]
    for each in outputs:
        parts.append(each.amount.to_bytes((each.amount.bit_length() + 7) // 8))
        parts.append(bytes.fromhex(each.b_))
    joined = b"".join(len(part).to_bytes(4) + part for part in parts)
    return hashlib.sha256(QUOTE_DOMAIN + joined).digest()


# ── BIP-340 ───────────────────────────────────────────────────────────────────────────────────


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidSecret("what is to be signed is not valid Unicode") from None


def _digest(text: str) -> bytes:
    return hashlib.sha256(_utf8(text)).digest()


def _sign(digest: bytes, private_key: str) -> str:
    key = PrivateKey(scalar_bytes(private_key))
    return key.sign_schnorr(digest, _NO_RANDOMNESS).hex()


def _verify(digest: bytes, signature: str, key: str) -> bool:
    if _SIGNATURE.fullmatch(signature) is None or not is_point(key):
        return False
    return PublicKeyXOnly(bytes.fromhex(key[2:])).verify(bytes.fromhex(signature), digest)


def _single(values: tuple[str, ...] | None) -> str | None:
    if values is None:
        return None
    if len(values) != 1:
        raise InvalidSecret("a lock's tag has more values than it may")
    return values[0]


def _number(values: tuple[str, ...] | None) -> int | None:
    text = _single(values)
    if text is None:
        return None
    if _NUMBER.fullmatch(text) is None:
        raise InvalidSecret("a lock's tag is not a number")
    return int(text)
