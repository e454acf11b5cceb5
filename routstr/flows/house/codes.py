"""The second factor: codes of an authenticator app, and recovery codes for who lost it."""

from base64 import b32decode, b32encode
from typing import Final

from routstr.core.totp import SECRET_BYTES, matching_step, secret_text
from routstr.flows.context import Context
from routstr.ledger.admins import TOTP_PLACE, Proof
from routstr.ledger.reads_admins import AdminView

RECOVERY_CODES: Final = 10
RECOVERY_BYTES: Final = 10
GROUP: Final = 4
CODE_CHARS_MAX: Final = 64


def new_secret(ctx: Context) -> str:
    """A TOTP secret in base32."""
    return secret_text(ctx.wallet.vault.fresh_bytes(SECRET_BYTES))


def secret_of(ctx: Context, admin: AdminView) -> bytes:
    """His TOTP secret. Raises CannotOpen for one that another master key sealed."""
    text = ctx.wallet.vault.open(admin.sealed_secret, row_id=admin.id, **TOTP_PLACE)
    return b32decode(text)


def new_recovery_codes(ctx: Context) -> list[str]:
    """Ten texts of 80 random bits, in groups that people can copy."""
    texts = (
        b32encode(ctx.wallet.vault.fresh_bytes(RECOVERY_BYTES)).decode().lower()
        for _ in range(RECOVERY_CODES)
    )
    return ["-".join(text[at : at + GROUP] for at in range(0, len(text), GROUP)) for text in texts]


def recovery_hash(ctx: Context, code: str) -> str:
    """The only form of a recovery code that is stored."""
    return ctx.wallet.vault.digest(f"recovery code|{_plain(code)}".encode())


def proof_of(ctx: Context, admin: AdminView, code: str, *, attempt: str) -> Proof | None:
    """What a code proves as far as memory knows; using it up is the ledger's. None: it is wrong."""
    plain = _plain(code)
    if len(plain) > CODE_CHARS_MAX or not plain.isascii():
        return None
    step = matching_step(
        secret_of(ctx, admin),
        plain,
        unix_s=int(ctx.clock.now().timestamp()),
        after=admin.last_step,
    )
    if step is not None:
        return Proof(
            user_id=admin.id, attempt=attempt, sealed_secret=admin.sealed_secret, step=step
        )
    code_hash = recovery_hash(ctx, plain)
    if code_hash not in admin.codes:
        return None
    return Proof(
        user_id=admin.id, attempt=attempt, sealed_secret=admin.sealed_secret, code_hash=code_hash
    )


def _plain(code: str) -> str:
    """A code without what people put between its parts."""
    return "".join(code.lower().replace("-", "").split())
