"""Which settings can be changed while the node runs, and how they are told to a person.

Their rules are those of the settings; here is only what a page needs besides: a group, a sentence,
and whether a fresh code is asked for, because it decides where money goes (SR-4).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Group = Literal["switches", "node", "mints", "money", "prices", "keys", "upstreams", "change float"]
Kind = Literal["text", "whole", "seconds", "yes or no", "mints", "address", "rate", "choice"]

UNITS: Final[Mapping[str, str]] = {
    "s": "s",
    "seconds": "s",
    "sats": "sat",
    "msat": "msat",
    "msats": "msat",
    "bytes": "B",
    "ppm": "ppm",
    "usd": "USD",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Editable:
    """One of them."""

    name: str
    group: Group
    kind: Kind
    meaning: str
    needs_code: bool = False


def unit_of(name: str) -> str:
    """What a setting counts, as its name says; empty for what counts nothing."""
    return next((UNITS[word] for word in name.split("_") if word in UNITS), "")


def _each(group: Group, kind: Kind, **meanings: str) -> tuple[Editable, ...]:
    return tuple(
        Editable(name=name, group=group, kind=kind, meaning=meaning)
        for name, meaning in meanings.items()
    )


_ALL: Final = (
    *_each(
        "switches",
        "yes or no",
        deposits="Money may come in. What is on its way is credited all the same",
        spending="New requests are served. Those that run go on",
        withdrawals="Money may go out. Change and money of failed payments go back all the same",
        needs_invite="A new key needs an invite",
    ),
    *_each(
        "switches",
        "whole",
        withdrawn_sats_per_hour_max="The most that may go out in any hour, in sats; 0 is no limit",
        wallet_sats_max="The most the node may hold at its mints, in sats; 0 is no limit",
    ),
    *_each(
        "node",
        "text",
        name="What the node calls itself",
        description="A sentence about it",
        npub="Your Nostr key, for /v1/info",
    ),
    # Payment requests and the snippets of the wallet page send users' money and keys there.
    *(
        Editable(name=name, group="node", kind="text", meaning=meaning, needs_code=True)
        for name, meaning in (
            ("http_url", "Where the public reaches the node"),
            ("onion_url", "The same over Tor"),
        )
    ),
    Editable(
        name="cashu_mints",
        group="mints",
        kind="mints",
        meaning="The mints whose ecash is taken. What is held at one you take off can still go out",
        needs_code=True,
    ),
    Editable(
        name="p2pk_lock",
        group="mints",
        kind="choice",
        meaning="Ecash locked to the node, which it takes without asking the mint",
    ),
    *_each(
        "mints",
        "whole",
        locked_sats_max="How much of it may wait at one mint: what that mint could cost you",
    ),
    *_each(
        "mints",
        "seconds",
        locked_mint_silent_s="After so long without an answer of the mint it is redeemed first",
    ),
    *_each(
        "change float",
        "whole",
        float_coins="How many coins of each size are kept ready for change, at each mint",
        float_coin_max="The largest such coin, in the mint's unit",
    ),
    Editable(
        name="payout_to",
        group="money",
        kind="address",
        meaning="A Lightning address that earnings are paid to by themselves",
        needs_code=True,
    ),
    *_each(
        "money",
        "whole",
        payout_floor_sats="With less than that, earnings wait",
        payout_keep_sats="What stays with the node, for the fees of mints",
        child_key_cost_msats="What a parent pays for each child key, in msat",
        refund_ttl_seconds="How long an unclaimed token is kept before it goes back to its key",
        invoice_ttl_s="How long a Lightning invoice can be paid, in seconds",
    ),
    Editable(
        name="btc_usd_price",
        group="prices",
        kind="rate",
        meaning="A fixed rate in USD; without one public sources are asked",
    ),
    *_each(
        "prices",
        "seconds",
        rate_every_s="How often the public sources are asked",
        rate_max_age_s="A rate older than that sells nothing that is priced in USD",
        models_every_s="How often upstreams are asked for their models",
    ),
    *_each(
        "prices",
        "whole",
        rate_step_ppm="Prices follow once the rate has moved by so many parts per million",
    ),
    *_each(
        "keys",
        "whole",
        key_requests_per_minute="How many requests a key may make a minute; 0 is no limit",
        key_tokens_per_minute="How many tokens it may use a minute",
        key_concurrent_max="How many requests it may have running at once",
        early_leaves_max="How many requests a key may abandon for free before their first byte",
    ),
    *_each("keys", "seconds", early_leaves_window_s="… within so long"),
    *_each(
        "upstreams",
        "seconds",
        upstream_connect_timeout_s="How long connecting may take",
        upstream_first_byte_timeout_s="How long an answer may take to begin",
        upstream_first_token_timeout_s="How long a stream may take to its first output",  # noqa: S106 - of words
        upstream_idle_timeout_s="How long an answer may be silent in between",
        upstream_total_timeout_s="How long a request may take in all",
        client_stall_timeout_s="How long a client may read nothing before it counts as gone",
        drain_timeout_s="How long usage is awaited once the client is gone",
        keep_alive_after_s="After so much silence a stream gets a comment line",
    ),
    *_each(
        "upstreams",
        "whole",
        upstream_attempts_max="How many attempts a request may take before its first byte",
        failover_loss_ppm_max="How much dearer a stand-in may be, in millionths, at your expense",
        output_slice_tokens="How much output a stream reserves at a time",
    ),
)  # fmt: skip

EDITABLE: Final[Mapping[str, Editable]] = {each.name: each for each in _ALL}
