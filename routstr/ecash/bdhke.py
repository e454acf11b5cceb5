"""Blind Diffie-Hellman key exchange and its DLEQ proof (NUT-00, NUT-12).

Points are 66, scalars 64 characters of lower-case hex. Functions that make a value raise
InvalidPoint or InvalidScalar; functions that answer a question about somebody else's value say
False instead, so that a hostile value is never an exception.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

from coincurve import PublicKey

from routstr.ecash.errors import InvalidPoint, InvalidScalar
from routstr.ecash.proof import Dleq, Proof

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
CURVE_DOMAIN: Final = b"Secp256k1_HashToCurve_Cashu_"
NONCE_DOMAIN: Final = b"Cashu_DLEQ_R_v1"
CURVE_TRIES_MAX: Final = 2**16
NONCE_TRIES_MAX: Final = 2**8

_POINT: Final = re.compile(r"0[23][0-9a-f]{64}")
_SCALAR: Final = re.compile(r"[0-9a-f]{64}")


# ── points of messages ────────────────────────────────────────────────────────────────────────


def hash_to_curve(message: bytes) -> str:
    """The point that stands for `message` (NUT-00)."""
    return _hex(_hash_to_curve(message))


def y_of(secret: str) -> str:
    """Y, a proof's only name: hash_to_curve of the UTF-8 of the secret's text (NUT-00).

    Raises InvalidPoint if the text holds lone surrogates, which no other wallet could hash.
    """
    return _hex(_y(secret))


# ── what a wallet does ────────────────────────────────────────────────────────────────────────


def blind(secret: str, r: str) -> str:
    """B_ = Y + rG, what the mint gets to see of `secret` (NUT-00)."""
    return _hex(_sum(_y(secret), _times_g(scalar_bytes(r))))


def unblind(c_: str, r: str, mint_key: str) -> str:
    """C = C_ - rK, the signature on the secret itself (NUT-00)."""
    minus_r = _negated(scalar_bytes(r))
    return _hex(_sum(_point(c_), _point(mint_key).multiply(minus_r)))


def dleq_ok_for_signature(dleq: Dleq, *, b_: str, c_: str, mint_key: str) -> bool:
    """Whether the key `mint_key`, and no other, signed B_ as C_ (NUT-12)."""
    try:
        return _dleq_holds(dleq, b_=_point(b_), c_=_point(c_), mint_key=_point(mint_key))
    except (InvalidPoint, InvalidScalar):
        return False


def dleq_ok_for_proof(proof: Proof, mint_key: str) -> bool:
    """Whether the proof carries a DLEQ, with r, that holds under `mint_key` (NUT-12).

    An absent one, or one without r, proves nothing and is False.
    """
    if proof.dleq is None or proof.dleq.r is None:
        return False
    try:
        r, key = scalar_bytes(proof.dleq.r), _point(mint_key)
        b_ = _sum(_y(proof.secret), _times_g(r))
        c_ = _sum(_point(proof.c), key.multiply(r))
        return _dleq_holds(proof.dleq, b_=b_, c_=c_, mint_key=key)
    except (InvalidPoint, InvalidScalar):
        return False


# ── what a mint does (the test mint signs with these) ─────────────────────────────────────────


def public_key(private_key: str) -> str:
    """K = kG."""
    return _hex(_times_g(scalar_bytes(private_key)))


def sign_blinded(b_: str, private_key: str) -> str:
    """C_ = kB_ (NUT-00)."""
    return _hex(_point(b_).multiply(scalar_bytes(private_key)))


def verify(secret: str, c: str, private_key: str) -> bool:
    """Whether C = kY, so that the holder of k signed `secret` (NUT-00)."""
    key = scalar_bytes(private_key)
    try:
        return _hex(_y(secret).multiply(key)) == c
    except InvalidPoint:
        return False


def dleq_prove(b_: str, private_key: str, nonce: str) -> Dleq:
    """The proof that kG and kB_ share their k (NUT-12).

    A nonce used for two different B_ gives the private key away; take it from `dleq_nonce`.
    """
    key, p, point = scalar_bytes(private_key), scalar_bytes(nonce), _point(b_)
    e = _challenge((_times_g(p), point.multiply(p), _times_g(key), point.multiply(key)))
    s = (int.from_bytes(p) + int.from_bytes(e) * int.from_bytes(key)) % ORDER
    return Dleq(e=scalar_bytes(e.hex()).hex(), s=scalar_bytes(f"{s:064x}").hex())


def dleq_nonce(b_: str, private_key: str) -> str:
    """The deterministic nonce for `dleq_prove`: HMAC of the statement under the key (NUT-12)."""
    key, point = scalar_bytes(private_key), _point(b_)
    statement = (_times_g(key), point, point.multiply(key))
    base = NONCE_DOMAIN + b"".join(each.format(compressed=False) for each in statement)
    for attempt in range(NONCE_TRIES_MAX):
        digest = hmac.digest(key, base + bytes([attempt]), "sha256")
        if 0 < int.from_bytes(digest) < ORDER:
            return digest.hex()
    raise InvalidScalar("no DLEQ nonce found")  # one chance in 2 ** 32768


def hash_e(points: Sequence[str]) -> str:
    """The DLEQ challenge: SHA256 over the joined hex *texts* of uncompressed points (NUT-12)."""
    return _challenge([_point(each) for each in points]).hex()


# ── values ────────────────────────────────────────────────────────────────────────────────────


def is_point(text: str) -> bool:
    """Whether `text` is a compressed point on the curve, in lower-case hex."""
    try:
        _point(text)
    except InvalidPoint:
        return False
    return True


def scalar_bytes(text: str) -> bytes:
    """The 32 bytes of a scalar in lower-case hex. Raises InvalidScalar for 0 and from n up."""
    if _SCALAR.fullmatch(text) is None:
        raise InvalidScalar("a scalar is 64 characters of lower-case hex")
    value = bytes.fromhex(text)
    if not 0 < int.from_bytes(value) < ORDER:
        raise InvalidScalar("a scalar lies between 1 and the group order")
    return value


def _point(text: str) -> PublicKey:
    # The pattern comes first: coincurve also takes uncompressed and hybrid forms.
    if _POINT.fullmatch(text) is None:
        raise InvalidPoint("a point is 66 characters of lower-case hex, 02 or 03 first")
    try:
        return PublicKey(bytes.fromhex(text))
    except ValueError:
        raise InvalidPoint("the point is not on the curve") from None


def _hex(point: PublicKey) -> str:
    return point.format().hex()


def _hash_to_curve(message: bytes) -> PublicKey:
    digest = hashlib.sha256(CURVE_DOMAIN + message).digest()
    for counter in range(CURVE_TRIES_MAX):
        x = hashlib.sha256(digest + counter.to_bytes(4, "little")).digest()
        try:
            return PublicKey(b"\x02" + x)
        except ValueError:  # about every second x has no point
            continue
    raise InvalidPoint("no point found for the message")  # one chance in 2 ** 65536


def _y(secret: str) -> PublicKey:
    try:
        message = secret.encode()
    except UnicodeEncodeError:
        raise InvalidPoint("the secret is not valid Unicode") from None
    return _hash_to_curve(message)


def _times_g(scalar: bytes) -> PublicKey:
    return PublicKey.from_secret(scalar)


def _sum(left: PublicKey, right: PublicKey) -> PublicKey:
    try:
        return PublicKey.combine_keys([left, right])
    except ValueError:
        raise InvalidPoint("the sum is the point at infinity") from None


def _negated(scalar: bytes) -> bytes:
    return (ORDER - int.from_bytes(scalar)).to_bytes(32)


def _challenge(points: Sequence[PublicKey]) -> bytes:
    text = "".join(each.format(compressed=False).hex() for each in points)
    return hashlib.sha256(text.encode()).digest()


def _dleq_holds(dleq: Dleq, *, b_: PublicKey, c_: PublicKey, mint_key: PublicKey) -> bool:
    """e = hash(R1, R2, K, C_) with R1 = sG - eK and R2 = sB_ - eC_; 0.2 ms."""
    e, s = scalar_bytes(dleq.e), scalar_bytes(dleq.s)
    minus_e = _negated(e)
    r1 = _sum(_times_g(s), mint_key.multiply(minus_e))
    r2 = _sum(b_.multiply(s), c_.multiply(minus_e))
    return _challenge((r1, r2, mint_key, c_)) == e
