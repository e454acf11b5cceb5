"""One-time codes of an authenticator app: HOTP (RFC 4226) over 30-second steps (RFC 6238).

Laws: a code belongs to one step; codes are compared in constant time, all of the window's; the
newest matching step that was not taken yet is the answer, so that a code is good once.
"""

import hashlib
import hmac
from base64 import b32encode
from typing import Final
from urllib.parse import quote, urlencode

STEP_S: Final = 30
DIGITS: Final = 6
WINDOW_STEPS: Final = 1  # a clock may be half a minute off, either way (RFC 6238 §5.2)
SECRET_BYTES: Final = 20  # as long as the hash (RFC 4226 §4)


def code_at(secret: bytes, step: int, *, digits: int = DIGITS) -> str:
    """The code of a step, with leading zeros (RFC 4226 §5.3)."""
    digest = hmac.new(secret, step.to_bytes(8, "big"), hashlib.sha1).digest()
    start = digest[-1] & 0x0F
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**digits).zfill(digits)


def step_at(unix_s: int) -> int:
    """The step that a Unix time in whole seconds is in."""
    return unix_s // STEP_S


def matching_step(secret: bytes, code: str, *, unix_s: int, after: int | None) -> int | None:
    """The step near `unix_s`, later than step `after`, whose code this is; None if none has it."""
    now = step_at(unix_s)
    found = None
    for step in range(now - WINDOW_STEPS, now + WINDOW_STEPS + 1):
        is_same = hmac.compare_digest(code_at(secret, step).encode(), code.encode())
        if is_same and (after is None or step > after):
            found = step
    return found


def secret_text(secret: bytes) -> str:
    """A secret as people type it and apps read it: base32 without padding."""
    return b32encode(secret).decode().rstrip("=")


def enrolment_uri(secret: bytes, *, issuer: str, account: str) -> str:
    """What the QR code of an enrolment says (the Key Uri Format of authenticator apps)."""
    label = f"{quote(issuer, safe='')}:{quote(account, safe='')}"
    query = urlencode(
        {
            "secret": secret_text(secret),
            "issuer": issuer,
            "algorithm": "SHA1",
            "digits": DIGITS,
            "period": STEP_S,
        },
        quote_via=quote,
    )
    return f"otpauth://totp/{label}?{query}"
