"""Who is calling, read from the request's headers.

What can be refused for nothing is refused first: `read_credential` asks nobody. An `sk-` key is
only hashed here; the reserve looks it up in the trip it makes anyway. A token is redeemed, or
attached to the account it opened, by `identify`, once everything else about the request is known
to be in order.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from routstr.errors import InvalidApiKey, InvalidParameter, MissingApiKey
from routstr.flows.context import Context
from routstr.flows.deposit import redeem_bearer
from routstr.flows.invited import HEADER
from routstr.ledger.book import KeyRef

_KEY: Final = re.compile(r"sk-[0-9a-f]{64}")
_TOKEN: Final = re.compile(r"(?:cashu:)?cashu[AB]")
_BEARER: Final = re.compile(r"bearer[ \t]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What the client showed: a key, by its hash, or the text of a token, with an invite or not."""

    key_hash: str | None = None
    token_text: str | None = field(default=None, repr=False)
    invite: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who pays."""

    ref: KeyRef

    @property
    def ration(self) -> str:
        """Whose early leaves are counted together."""
        return self.ref.hash or self.ref.id or ""


def read_credential(ctx: Context, headers: Mapping[str, str]) -> Credential:
    """The credential in headers with lower-case names (contract, section 1).

    Raises MissingApiKey, InvalidApiKey for what is neither key nor token, and InvalidParameter for
    `X-Cashu`, the payment without an account, where there is nothing to pay for.
    """
    if headers.get("x-cashu") is not None:
        raise InvalidParameter(
            "X-Cashu is not accepted here; send the token as `Authorization: Bearer`.",
            param="X-Cashu",
        )
    credential = shown_credential(ctx, headers)
    if credential is None:
        raise MissingApiKey
    return credential


def shown_credential(ctx: Context, headers: Mapping[str, str]) -> Credential | None:
    """The key or the token that was shown, if anything was. Raises InvalidApiKey."""
    text = credential_text(headers)
    if not text:
        return None
    if _KEY.fullmatch(text):
        return Credential(key_hash=ctx.wallet.vault.key_hash(text))
    if _TOKEN.match(text):
        return Credential(token_text=text, invite=headers.get(HEADER))
    raise InvalidApiKey


def credential_text(headers: Mapping[str, str]) -> str:
    """What the client showed, as it stands; empty if nothing."""
    return _bearer(headers.get("authorization", "")) or headers.get("x-api-key", "").strip()


async def identify(ctx: Context, credential: Credential) -> Caller:
    """The caller behind a credential; a token never seen is redeemed and opens an account.

    Raises RateLimited when too many of the caller's requests were abandoned before their first
    byte, and what `redeem_bearer` raises.
    """
    if credential.token_text is None:
        caller = Caller(ref=KeyRef(hash=credential.key_hash))
    else:
        caller = Caller(
            ref=await redeem_bearer(ctx, credential.token_text, invite=credential.invite)
        )
    ctx.early_leaves.check(caller.ration)
    return caller


async def authenticate(ctx: Context, headers: Mapping[str, str], *, opens: bool = True) -> Caller:
    """Both steps at once, for requests that hold nothing; without `opens` no account is opened."""
    credential = read_credential(ctx, headers)
    if credential.token_text is None:
        return Caller(ref=KeyRef(hash=credential.key_hash))
    ref = await redeem_bearer(ctx, credential.token_text, opens=opens, invite=credential.invite)
    return Caller(ref=ref)


def _bearer(authorization: str) -> str:
    found = _BEARER.match(authorization)
    return authorization[found.end() :].strip() if found else ""
