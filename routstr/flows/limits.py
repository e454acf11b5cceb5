"""The bounds flows keep, and what the node says of itself: both come from the settings."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from routstr.core.quota import Rates
from routstr.ecash.amounts import FloatGoal


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds flows keep; the settings of the same names explain them."""

    upstream_connect_timeout_s: float
    upstream_first_byte_timeout_s: float
    upstream_first_token_timeout_s: float
    upstream_idle_timeout_s: float
    upstream_total_timeout_s: float
    upstream_attempts_max: int
    failover_loss_ppm_max: int
    client_stall_timeout_s: float
    drain_timeout_s: float
    keep_alive_after_s: float
    shutdown_grace_s: float
    hold_lease_s: float
    hold_renew_s: float
    hold_owner_silent_s: float
    output_slice_tokens: int
    early_leaves_max: int
    early_leaves_window_s: float
    json_depth_max: int
    answer_bytes_max: int
    sse_event_bytes_max: int
    stream_queue_chunks_max: int
    stream_queue_bytes_max: int
    token_header_bytes_max: int
    token_body_bytes_max: int
    idempotency_key_chars_max: int
    mint_lease_s: float
    mint_watch_s: float
    keyset_refresh_s: float
    sealed_key_ttl_s: float
    token_credential_ttl_s: float
    refund_ttl_s: int
    operation_wait_s: float
    melt_timeout_s: float
    p2pk_lock: str
    locked_sats_max: int
    locked_mint_silent_s: float
    float_coins: int
    float_coin_max: int
    change_wait_s: float
    invoice_ttl_s: int
    payout_to: str | None
    payout_floor_sats: int
    payout_keep_sats: int
    btc_usd_price: Decimal | None
    rate_every_s: float
    rate_max_age_s: float
    rate_step_ppm: int
    models_every_s: float
    child_key_cost_msats: int
    key_requests_per_minute: int
    key_tokens_per_minute: int
    key_concurrent_max: int
    expire_every_s: float
    resume_every_s: float
    invoices_every_s: float
    redeem_every_s: float
    refill_every_s: float
    refresh_every_s: float
    payout_every_s: float
    prune_every_s: float
    audit_every_s: float
    reconcile_every_s: float
    withdrawals_every_s: float
    expire_keys_every_s: float
    expired_claim_ttl_s: float
    delete_keys_every_s: float
    dead_key_idle_s: float
    payload_ttl_s: float
    job_history_ttl_s: float
    reset_limits_every_s: float
    vacuum_every_s: float
    backup_every_s: float
    bodies_bytes_max: int = 512 * 1024 * 1024
    body_timeout_s: float = 60
    trusted_proxies: tuple[str, ...] = ()

    @property
    def rates(self) -> Rates:
        """The limits of keys that have none of their own."""
        return Rates(
            requests_per_minute=self.key_requests_per_minute,
            tokens_per_minute=self.key_tokens_per_minute,
            concurrent_max=self.key_concurrent_max,
        )

    def float_goal(self, denominations: Iterable[int]) -> FloatGoal:
        """The change float to keep on a keyset of those denominations."""
        return FloatGoal(
            denominations=tuple(sorted(denominations)),
            coins=self.float_coins,
            coin_max=self.float_coin_max,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the node says of itself (`/`, `/v1/info`)."""

    name: str
    description: str
    version: str
    npub: str | None
    http_url: str | None
    onion_url: str | None
    mints: tuple[str, ...]
    allow_loopback_http: bool
    body_bytes_max: int
