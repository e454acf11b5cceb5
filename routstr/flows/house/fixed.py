"""What the settings are that only a start reads: the words of the README, for the dashboard.

Those that can be changed while the node runs are told in `editable`. A test compares both.
"""

from collections.abc import Mapping
from typing import Final

FIXED: Final[Mapping[str, str]] = {
    "host": "The address to listen on",
    "port": "The port to listen on; 0 takes a free one",
    "trusted_proxies": (
        "Addresses or networks of your reverse proxies, comma-separated: their "
        "X-Forwarded-For is believed where log-ins are counted"
    ),
    "data_dir": "Where SQLite, its lock and secret.key are",
    "database_url": "The database; empty is SQLite in the data directory",
    "secret_key": "The master key, 32 characters or more; without it secret.key is made",
    "log_level": "DEBUG, INFO, WARNING or ERROR",
    "log_json": "One JSON object per log line",
    "otlp_endpoint": (
        "Where traces of requests go, https://…/v1/traces; needs pip install "
        "routstr[otel]; without it none leaves the node"
    ),
    "otlp_headers": "Headers for it, name=value, comma-separated",
    "upstream_base_url": (
        "An API to sell at the fixed prices of MODELS_FILE, up to and including /v1; "
        "others are added with routstr upstreams"
    ),
    "upstream_api_key": "The node's own key there",
    "models_file": "What it sells, at which price",
    "refresh_every_s": "How often the catalog is made anew from what is stored and what is due",
    "allow_loopback_http": "Allow mints and an upstream on 127.0.0.1 without TLS",
    "shutdown_grace_s": "How long running answers may go on after SIGTERM",
    "hold_lease_s": "How long a hold lives without being renewed",
    "hold_renew_s": "How often running requests renew their holds",
    "hold_owner_silent_s": "After so long without renewing, a node ends its requests",
    "exposure_msat_max": "The most that all holds together may reserve, in msat",
    "body_bytes_max": "Request body, 16 MiB",
    "bodies_bytes_max": "All request bodies in flight, 512 MiB",
    "answer_bytes_max": "Answer that is not a stream, 64 MiB",
    "header_bytes_max": "All request headers, 32 KiB",
    "header_lines_max": "How many headers",
    "json_depth_max": "How deep JSON may be nested",
    "sse_event_bytes_max": "One event of a stream, 1 MiB",
    "idempotency_key_chars_max": "Length of an Idempotency-Key",
    "token_header_bytes_max": "A token in a header, 16 KiB",
    "token_body_bytes_max": "A token in a body, 128 KiB",
    "head_timeout_s": "How long a client may take to send a request's head",
    "body_timeout_s": "How long a client may take to send its body",
    "stream_queue_chunks_max": "Chunks waiting for a slow client before reading pauses",
    "stream_queue_bytes_max": "… or bytes, 256 KiB",
    "ledger_queue_max": "Commands waiting for the ledger before requests get 503",
    "ledger_batch_max": "Commands in one commit",
    "overload_delay_s": (
        "Requests that would wait for the node itself for longer than about this get 503 at once"
    ),
    "db_pool_size": "Reading connections kept",
    "db_pool_overflow": "… and more when busy",
    "db_pool_timeout_s": "How long to wait for one",
    "db_pool_recycle_s": "How old one may get",
    "db_pool_pre_ping": "Test one before use",
    "mint_connect_timeout_s": "How long connecting to a mint may take",
    "mint_total_timeout_s": "How long a call to a mint may take in all",
    "mint_answer_bytes_max": "A mint's answer, 1 MiB",
    "mint_calls_max": "Calls to one mint at a time",
    "mint_calls_per_minute": "Calls to one mint a minute; a stock public mint allows 20 to 60",
    "mint_calls_burst": "Calls to one mint at once after a quiet time",
    "mint_lease_s": "How long one driver keeps an operation with a mint to itself",
    "mint_watch_s": "How long to keep looking for an answer a mint denies, a day",
    "keyset_refresh_s": "How long a mint's keysets are taken for known",
    "melt_timeout_s": (
        "How long a mint may take to pay a Lightning invoice before its answer is fetched later"
    ),
    "redeem_every_s": "How often locked ecash is redeemed",
    "refill_every_s": "How often the change float is refilled",
    "change_wait_s": (
        "How long an answer waits for change the mint must make; after that it is claimed later"
    ),
    "invoices_every_s": "How often invoices that are due are looked at",
    "reconcile_every_s": "How often the mints are asked about the node's coins",
    "payout_every_s": "How often they are, at most",
    "sealed_key_ttl_s": "How long a new key can be read again with its token, 3 days",
    "token_credential_ttl_s": (
        "How long a token is an API key after its account's key was first used"
    ),
    "operation_wait_s": "How long a request waits for another one's call to the mint",
    "expire_every_s": "How often holds past their deadline are ended",
    "resume_every_s": "How often open operations with mints are driven on",
    "prune_every_s": "How often what is out of date is erased",
    "audit_every_s": "How often the node audits itself",
    "withdrawals_every_s": (
        "How often withdrawals that have no end yet, and tokens nobody claimed, are looked at"
    ),
    "expire_keys_every_s": (
        "How often the money of expired keys is made claimable, and what nobody claimed "
        "becomes yours"
    ),
    "expired_claim_ttl_s": "How long it can be claimed, 30 days",
    "delete_keys_every_s": (
        "How often dead keys are erased: nothing on them, nothing owed to them, idle"
    ),
    "dead_key_idle_s": "How long a key must be idle for that, 180 days",
    "payload_ttl_s": "How long the encrypted body of a finished call to a mint is kept, 30 days",
    "job_history_ttl_s": "How long it is kept how jobs ran, 90 days",
    "reset_limits_every_s": (
        "How often the limits of keys whose day, week or month is over are written anew"
    ),
    "vacuum_every_s": "How often the database is kept quick",
    "backup_every_s": "How often a backup is made; 0 makes none",
    "backup_dir": "Where backups are; without it backups in the data directory",
    "backup_keep": "How many backups are kept; the newest one that was found whole always is",
    "backup_passphrase": (
        "12 characters or more, with which a backup can be restored without the master key"
    ),
    "pg_bin_dir": "Where pg_dump and pg_restore are; without it they are on PATH",
}
