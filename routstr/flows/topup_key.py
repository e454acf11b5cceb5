"""Which key a Lightning invoice tops up: the one that the caller shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from routstr.errors import (
    InvalidApiKey,
    KeyExpired,
    TopupApiKeyNotFound,
    TopupAuthorizationRequired,
    TopupInvalidApiKeyFormat,
)
from routstr.flows.authenticate import credential_text, read_credential
from routstr.flows.context import Context
from routstr.flows.deposit import redeem_bearer
from routstr.flows.keys import own_key
from routstr.ledger.book import KeyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class TopupKey:
    """The key by its id; `text` is None where a token stands for it, which is no key's text."""

    ref: KeyRef
    text: str | None = field(repr=False)


async def topup_key(ctx: Context, headers: Mapping[str, str], api_key: str | None) -> TopupKey:
    """The key of `api_key`, or else of the headers (lower-case names); for a child, its parent.

    Raises TopupAuthorizationRequired, TopupInvalidApiKeyFormat, TopupApiKeyNotFound, KeyRevoked,
    KeyExpired, and what `redeem_bearer` raises for a token.
    """
    text = (api_key or "").strip() or credential_text(headers)
    if not text:
        raise TopupAuthorizationRequired
    try:
        credential = read_credential(ctx, {"authorization": f"Bearer {text}"})
    except InvalidApiKey as error:
        raise TopupInvalidApiKeyFormat from error
    try:
        if credential.token_text is None:
            shown = KeyRef(hash=credential.key_hash)
        else:
            shown = await redeem_bearer(ctx, credential.token_text, opens=False)
        key = await own_key(ctx, shown)
    except InvalidApiKey as error:
        raise TopupApiKeyNotFound from error
    if key.expires_at is not None and key.expires_at <= ctx.clock.now():
        raise KeyExpired
    return TopupKey(
        ref=KeyRef(id=key.parent_id or key.id), text=text if credential.token_text is None else None
    )
