"""All configuration: one frozen `Settings`, read once, from the environment and `.env`.

Every setting may be spelled with or without the prefix `ROUTSTR_`, in any case; the prefixed one
wins. What is missing or unsafe is refused at start, in one line that names the setting and why.
"""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal

import orjson
from pydantic import (
    AliasChoices,
    AliasGenerator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from routstr.core.pricing import Model, Price
from routstr.core.strict_json import parse_json_object
from routstr.core.url import BadUrl, canonical_mint_url, upstream_base
from routstr.errors import ConfigError, RoutstrError
from routstr.gateways.lnurl import is_address

PREFIX: Final = "ROUTSTR_"

SECONDS_MAX: Final = 1_000_000_000  # 31 years: what is added to a time stays a time
WORKERS_MAX: Final = 64
SATS_MAX: Final = 2_100_000_000_000_000

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, le=SECONDS_MAX, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(gt=0, le=SECONDS_MAX)]
Sats = Annotated[int, Field(ge=0, le=SATS_MAX)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s<>\"']{1,500}$")]


def _names(name: str) -> AliasChoices:
    return AliasChoices(f"{PREFIX}{name}".upper(), name.upper(), name)


class Settings(BaseSettings):
    """The node's settings. Times in seconds, sizes in bytes, money in msat unless named sat."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_file=".env",
        env_ignore_empty=True,
        env_file_encoding="utf-8",
        case_sensitive=False,
        alias_generator=AliasGenerator(validation_alias=_names),
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    # Who and where
    name: str = Field(default="Routstr node", min_length=1, max_length=100)
    description: str = Field(default="Pay per request, with ecash.", max_length=1000)
    npub: str | None = Field(default=None, pattern="^npub1[0-9a-z]{1,100}$")
    http_url: Url | None = None
    onion_url: Url | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=WORKERS_MAX)
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    data_dir: Path = Path("data")
    database_url: str = ""
    secret_key: SecretStr | None = None
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_json: bool = False
    otlp_endpoint: str = Field(default="", pattern=r"^(https?://\S+)?$")
    otlp_headers: SecretStr | None = None

    # Mints, upstream, prices
    cashu_mints: Annotated[tuple[str, ...], NoDecode] = ()
    upstream_base_url: str = ""
    upstream_api_key: SecretStr | None = None
    models_file: Path | None = None
    btc_usd_price: Decimal | None = Field(default=None, gt=0)
    rate_every_s: Seconds = 300
    rate_max_age_s: Seconds = 3600
    rate_step_ppm: int = Field(default=5_000, ge=0, le=100_000)
    models_every_s: Seconds = 3600
    refresh_every_s: Seconds = 60
    allow_loopback_http: bool = False

    # Time-outs towards the upstream and the client (guarantees, section 5)
    upstream_connect_timeout_s: Seconds = 5
    upstream_first_byte_timeout_s: Seconds = 600
    upstream_first_token_timeout_s: Seconds = 60
    upstream_idle_timeout_s: Seconds = 300
    upstream_total_timeout_s: Seconds = 3600
    upstream_attempts_max: Positive = 3
    failover_loss_ppm_max: int = Field(default=500_000, ge=0)
    client_stall_timeout_s: Seconds = 60
    drain_timeout_s: Seconds = 2
    keep_alive_after_s: Seconds = 15
    shutdown_drain_s: float = Field(default=0, ge=0, le=SECONDS_MAX, allow_inf_nan=False)
    shutdown_grace_s: Seconds = 30

    # Holds
    hold_lease_s: Seconds = 90
    hold_renew_s: Seconds = 20
    hold_owner_silent_s: Seconds = 60
    output_slice_tokens: Positive = 1024
    exposure_msat_max: Positive = 100_000_000_000
    early_leaves_max: Positive = 20
    early_leaves_window_s: Seconds = 600

    # Sizes, as SR-11 has them
    body_bytes_max: Positive = 16 * 1024 * 1024
    bodies_bytes_max: Positive = 512 * 1024 * 1024
    answer_bytes_max: Positive = 64 * 1024 * 1024
    header_bytes_max: Positive = 32 * 1024
    header_lines_max: Positive = 100
    json_depth_max: Positive = 64
    sse_event_bytes_max: Positive = 1024 * 1024
    idempotency_key_chars_max: Positive = 255
    token_header_bytes_max: Positive = 16 * 1024
    token_body_bytes_max: Positive = 128 * 1024
    head_timeout_s: Seconds = 10
    body_timeout_s: Seconds = 60
    stream_queue_chunks_max: Positive = 64
    stream_queue_bytes_max: Positive = 256 * 1024

    # Ledger and database
    ledger_queue_max: Positive = 4096
    ledger_batch_max: Positive = 256
    overload_delay_s: Seconds = 1
    db_pool_size: Positive = 8
    db_pool_overflow: int = Field(default=8, ge=0)
    db_pool_timeout_s: Seconds = 5
    db_pool_recycle_s: Positive = 1800
    db_pool_pre_ping: bool = True

    # Mints (ecash, section 7)
    mint_connect_timeout_s: Seconds = 5
    mint_total_timeout_s: Seconds = 30
    mint_answer_bytes_max: Positive = 1024 * 1024
    mint_calls_max: Positive = 4
    mint_calls_per_minute: Positive = 600
    mint_calls_burst: Positive = 100
    mint_lease_s: Seconds = 45
    mint_watch_s: Seconds = 86_400
    keyset_refresh_s: Seconds = 300
    melt_timeout_s: Seconds = 120

    # Locked ecash and change (ecash, section 5)
    p2pk_lock: Literal["off", "offer", "require"] = "offer"
    locked_sats_max: Positive = 10_000
    locked_mint_silent_s: Seconds = 3600
    redeem_every_s: Seconds = 15
    float_coins: Positive = 32
    float_coin_max: Positive = 1024
    refill_every_s: Seconds = 15
    change_wait_s: Seconds = 5

    # Lightning and the operator's share
    invoice_ttl_s: WholeSeconds = 3600
    invoices_every_s: Seconds = 2
    reconcile_every_s: Seconds = 3600
    payout_to: str | None = None
    payout_every_s: Seconds = 86_400
    payout_floor_sats: Positive = 10_000
    payout_keep_sats: int = Field(default=1_000, ge=0)

    # Teams, and how often a key may ask; 0 is no limit
    child_key_cost_msats: int = Field(default=0, ge=0, le=10**12)
    key_requests_per_minute: int = Field(default=0, ge=0)
    key_tokens_per_minute: int = Field(default=0, ge=0)
    key_concurrent_max: int = Field(default=0, ge=0)

    # What may happen at all (SR-16); a ceiling of 0 is none
    deposits: bool = True
    spending: bool = True
    withdrawals: bool = True
    withdrawn_sats_per_hour_max: Sats = 0
    wallet_sats_max: Sats = 0
    needs_invite: bool = False

    # Keys, refunds, jobs
    sealed_key_ttl_s: Seconds = 72 * 3600
    token_credential_ttl_s: Seconds = 600
    refund_ttl_seconds: WholeSeconds = 30 * 86_400
    operation_wait_s: Seconds = 25
    expire_every_s: Seconds = 10
    resume_every_s: Seconds = 5
    prune_every_s: Seconds = 3600
    audit_every_s: Seconds = 3600
    withdrawals_every_s: Seconds = 300
    expire_keys_every_s: Seconds = 3600
    expired_claim_ttl_s: Seconds = 30 * 86_400
    delete_keys_every_s: Seconds = 86_400
    dead_key_idle_s: Seconds = 180 * 86_400
    payload_ttl_s: Seconds = 30 * 86_400
    job_history_ttl_s: Seconds = 90 * 86_400
    reset_limits_every_s: Seconds = 3600
    vacuum_every_s: Seconds = 86_400

    # Backups
    backup_every_s: float = Field(default=86_400, ge=0, allow_inf_nan=False)
    backup_dir: Path | None = None
    backup_keep: Positive = 14
    backup_passphrase: SecretStr | None = Field(default=None, min_length=12)
    pg_bin_dir: Path | None = None

    @field_validator("cashu_mints", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _parts(value)

    @field_validator("trusted_proxies", mode="after")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            ip_network(each, strict=False)
        return value

    @field_validator("data_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()


def _parts(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def load_settings() -> Settings:
    """Read and check everything. Raises ConfigError: one line, the setting's name and why."""
    try:
        settings = Settings()
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0]).removeprefix(PREFIX)
        raise _refusal(name, error) from None
    if not settings.database_url:
        url = f"sqlite+aiosqlite:///{settings.data_dir / 'routstr.db'}"
        settings = settings.model_copy(update={"database_url": url})
    return settings


def with_changes(settings: Settings, changes: Mapping[str, object]) -> Settings:
    """These settings with some of them said anew, as text or as JSON, under the same rules.

    Empty text and None are no value where a setting may have none. Raises ConfigError.
    """
    update = {name: _checked(name, value) for name, value in changes.items()}
    changed = settings.model_copy(update=update)
    if "cashu_mints" in changes:
        changed = check_mints(changed)
    return check_payout(changed) if "payout_to" in changes else changed


def _checked(name: str, value: object) -> object:
    field = Settings.model_fields[name]
    if value == "" and field.default is None:
        value = None
    if name == "cashu_mints":
        value = _parts(value)
    kind = field.rebuild_annotation()
    try:
        if isinstance(value, bool) and field.annotation is not bool:
            value = str(value).lower()  # true is a number to Python, and to nobody else
        return TypeAdapter(kind, config=ConfigDict(hide_input_in_errors=True)).validate_python(
            value
        )
    except ValidationError as error:
        raise _refusal(name, error) from None


def _refusal(name: str, error: ValidationError) -> ConfigError:
    why = error.errors()[0]["msg"]
    return ConfigError(f"{name.upper()}: {why[:1].lower()}{why[1:]}")


def check_for_serving(settings: Settings) -> Settings:
    """What `serve` needs beyond the database; canonical URLs put in place. Raises ConfigError."""
    settings = check_mints(settings)
    base = settings.upstream_base_url
    if base:
        try:
            base = upstream_base(base, allow_loopback_http=settings.allow_loopback_http)
        except BadUrl as error:
            raise ConfigError(f"UPSTREAM_BASE_URL: {error}") from None
        if settings.models_file is None:
            raise ConfigError("MODELS_FILE: without prices nothing can be sold")
    elif settings.models_file is not None:
        raise ConfigError("UPSTREAM_BASE_URL: name the API that serves the models of MODELS_FILE")
    return check_payout(settings).model_copy(update={"upstream_base_url": base})


def check_payout(settings: Settings) -> Settings:
    """Where earnings go must be somewhere. Raises ConfigError."""
    if settings.payout_to and not is_address(settings.payout_to):
        raise ConfigError("PAYOUT_TO: not a Lightning address, which looks like you@example.com")
    return settings


def check_mints(settings: Settings) -> Settings:
    """What any talk with mints needs: at least one, canonical URLs put in place.

    Raises ConfigError.
    """
    mints = tuple(dict.fromkeys(_mint(settings, url) for url in settings.cashu_mints))
    if not mints:
        raise ConfigError("CASHU_MINTS: name at least one mint, or nobody can pay")
    return settings.model_copy(update={"cashu_mints": mints})


def _mint(settings: Settings, url: str) -> str:
    try:
        return canonical_mint_url(url, allow_loopback_http=settings.allow_loopback_http)
    except BadUrl as error:
        raise ConfigError(f"CASHU_MINTS: {error}") from None


def load_models(settings: Settings) -> list[Model]:
    """The models of MODELS_FILE, each with a version naming its prices. Raises ConfigError."""
    path = settings.models_file
    assert path is not None, "checked before"
    try:
        entries = parse_json_object(path.read_bytes())["models"]
        models = [_model(entry) for entry in entries] if isinstance(entries, list) else []
    except OSError as error:
        raise ConfigError(f"MODELS_FILE: {path} cannot be read") from error
    except (RoutstrError, KeyError, TypeError) as error:
        raise ConfigError(f"MODELS_FILE: {path} is not as documented: {error}") from error
    if not models:
        raise ConfigError(f"MODELS_FILE: {path} lists no model")
    if len({model.id for model in models}) != len(models):
        raise ConfigError(f"MODELS_FILE: {path} names a model twice")
    return models


def _model(entry: dict[str, object]) -> Model:
    rates = {name: entry[name] for name in ("input_msat_per_mtok", "output_msat_per_mtok")}
    rates["request_msat"] = entry.get("request_msat", 0)
    numbers = {name: _whole(name, value) for name, value in rates.items()}
    digest = hashlib.sha256(orjson.dumps([entry["id"], sorted(numbers.items())])).hexdigest()
    return Model(
        id=_name(entry["id"]),
        name=_text("name", entry.get("name", entry["id"])),
        description=_text("description", entry.get("description", "")),
        context_length=_whole("context_length", entry["context_length"]),
        max_output_tokens=_whole("max_output_tokens", entry["max_output_tokens"]),
        price=Price(version=f"pv_{digest[:16]}", **numbers),
    )


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is not an integer")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a text")
    return value


def _name(value: object) -> str:
    text = _text("id", value)
    if not text or not text.isprintable():
        raise TypeError("id is empty or not printable")
    return text
