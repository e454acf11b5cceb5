"""The tables around the money: invoices, what is sold, settings, repeats and the jobs.

Importing this module completes `tables.metadata`; migrations and tests do.
"""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Text, UniqueConstraint, text
from sqlmodel import Field

from routstr.ledger.columns import Json, Money, RowNumber, SealedText, UtcTime
from routstr.ledger.tables import Row


class LightningInvoice(Row, table=True):
    """An invoice of a mint quote (NUT-04/23) that pays into a key."""

    __tablename__ = "lightning_invoice"
    __table_args__ = (
        CheckConstraint("purpose IN ('create', 'topup')", name="purpose_known"),
        CheckConstraint(
            "status IN ('pending', 'settlement_pending', 'paid', 'expired', 'cancelled',"
            " 'reconciliation_required')",
            name="status_known",
        ),
        Index(
            "ix_lightning_invoice_next_poll_at",
            "next_poll_at",
            postgresql_where=text("status IN ('pending', 'settlement_pending')"),
            sqlite_where=text("status IN ('pending', 'settlement_pending')"),
        ),
    )
    id: str = Field(primary_key=True, sa_type=Text)
    api_key_id: str | None = Field(default=None, foreign_key="apikey.id", index=True, sa_type=Text)
    purpose: str = Field(sa_type=Text)
    status: str = Field(index=True, sa_type=Text)
    mint_url: str = Field(sa_type=Text)
    unit: str = Field(sa_type=Text)
    amount: int = Field(sa_type=Money)
    credit_msat: int = Field(sa_type=Money)
    bolt11: str = Field(unique=True, sa_type=Text)
    payment_hash: str = Field(sa_type=Text)
    quote_id: str | None = Field(default=None, sa_type=SealedText)
    next_poll_at: datetime | None = Field(default=None, sa_type=UtcTime)
    polls: int = Field(default=0, sa_type=Money, sa_column_kwargs={"server_default": "0"})
    sealed_key: str | None = Field(default=None, sa_type=SealedText)
    new_key: dict[str, object] | None = Field(default=None, sa_type=Json)
    created_at: datetime = Field(index=True, sa_type=UtcTime)
    expires_at: datetime = Field(sa_type=UtcTime)
    paid_at: datetime | None = Field(default=None, sa_type=UtcTime)


class Upstream(Row, table=True):
    """An API that is resold, with its key sealed and the operator's fee in parts per million.

    `sells_new`: what it lists for the first time is on sale at once. `listed_at`: when it was last
    asked for its list and gave one.
    """

    __tablename__ = "upstream"
    id: str = Field(primary_key=True, sa_type=Text)
    slug: str = Field(unique=True, sa_type=Text)
    provider_type: str = Field(sa_type=Text)
    base_url: str = Field(sa_type=Text)
    api_key: str | None = Field(default=None, sa_type=SealedText)
    api_version: str | None = Field(default=None, sa_type=Text)
    enabled: bool = True
    fee_ppm: int = Field(default=0, sa_type=Money)
    weight: int = Field(default=0, sa_type=Money, sa_column_kwargs={"server_default": "0"})
    sells_new: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    provider_settings: dict[str, object] | None = Field(default=None, sa_type=Json)
    listed_at: datetime | None = Field(default=None, sa_type=UtcTime)
    created_at: datetime = Field(sa_type=UtcTime)
    updated_at: datetime = Field(sa_type=UtcTime)


class ModelRow(Row, table=True):
    """A model of one upstream: what upstream and price list say of it, and what the operator does.

    `usd` holds prices as exact decimal text per token or unit; the columns named `own_…` are the
    operator's and win; `fee_ppm` None is the upstream's. `facts` holds what only describes it. A
    length of 0 is unknown. `is_gone`: the upstream lists it no more.
    """

    __tablename__ = "model"
    __table_args__ = (
        UniqueConstraint("upstream_id", "model_id"),
        Index(
            "uq_model_upstream_id_forwarded_model_id",
            "upstream_id",
            "forwarded_model_id",
            unique=True,
        ),
    )
    id: str = Field(primary_key=True, sa_type=Text)
    upstream_id: str = Field(foreign_key="upstream.id", index=True, sa_type=Text)
    model_id: str = Field(index=True, sa_type=Text)
    forwarded_model_id: str = Field(sa_type=Text)
    name: str | None = Field(default=None, sa_type=Text)
    context_length: int = Field(sa_type=Money)
    max_output_tokens: int = Field(sa_type=Money)
    usd: dict[str, str] | None = Field(default=None, sa_type=Json)
    usd_source: str | None = Field(default=None, sa_type=Text)
    own_usd: dict[str, str] | None = Field(default=None, sa_type=Json)
    own_context_length: int | None = Field(default=None, sa_type=Money)
    own_max_output_tokens: int | None = Field(default=None, sa_type=Money)
    fee_ppm: int | None = Field(default=None, sa_type=Money)
    is_free: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    is_gone: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    enabled: bool = True
    aliases: list[str] | None = Field(default=None, sa_type=Json)
    facts: dict[str, object] | None = Field(default=None, sa_type=Json)
    created_at: datetime = Field(sa_type=UtcTime)
    updated_at: datetime = Field(sa_type=UtcTime)


class ExchangeRate(Row, table=True):
    """USD for one bitcoin, as public sources agreed on it at a moment; decimals as text.

    Prices are made with `in_force`, which follows only when the rate has moved enough.
    """

    __tablename__ = "exchange_rate"
    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    btc_usd: str = Field(sa_type=Text)
    in_force: str = Field(sa_type=Text)
    sources: dict[str, str] = Field(sa_type=Json)
    taken_at: datetime = Field(index=True, sa_type=UtcTime)


class PricedRoute(Row, table=True):
    """A path that is sold by the request: whoever calls it pays, and `upstream_path` is called.

    Exactly one of the prices is set; `upstream_id` None is the upstream of the settings.
    """

    __tablename__ = "priced_route"
    __table_args__ = (
        UniqueConstraint("method", "path"),
        CheckConstraint("(price_msat IS NULL) <> (price_usd IS NULL)", name="one_price"),
        CheckConstraint("price_msat >= 0", name="price_not_negative"),
    )
    id: str = Field(primary_key=True, sa_type=Text)
    method: str = Field(sa_type=Text)
    path: str = Field(sa_type=Text)
    upstream_id: str | None = Field(
        default=None, foreign_key="upstream.id", index=True, sa_type=Text
    )
    upstream_path: str = Field(sa_type=Text)
    price_msat: int | None = Field(default=None, sa_type=Money)
    price_usd: str | None = Field(default=None, sa_type=Text)
    enabled: bool = True
    created_at: datetime = Field(sa_type=UtcTime)


class PriceVersion(Row, table=True):
    """Prices as they were from a moment on: msat per million tokens and msat per unit, integers."""

    __tablename__ = "price_version"
    id: str = Field(primary_key=True, sa_type=Text)
    model_id: str = Field(index=True, sa_type=Text)
    rates: dict[str, int] = Field(sa_type=Json)
    btc_usd: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=UtcTime)


class Setting(Row, table=True):
    """A value with its history: the highest `version` of a name is in force."""

    __tablename__ = "setting"
    __table_args__ = (UniqueConstraint("name", "version"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    name: str = Field(sa_type=Text)
    version: int = Field(sa_type=Money)
    value: dict[str, object] | None = Field(default=None, sa_type=Json)
    sealed_value: str | None = Field(default=None, sa_type=SealedText)
    changed_by: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=UtcTime)


class Idempotency(Row, table=True):
    """Who claimed an Idempotency-Key, and what was answered, sealed, while it is kept (I-15).

    `reservation_id` says how the request stands; `fingerprint` and `key` are digests.
    """

    __tablename__ = "idempotency"
    __table_args__ = (
        Index(
            "ix_idempotency_answer_expires_at",
            "answer_expires_at",
            postgresql_where=text("answer_expires_at IS NOT NULL"),
            sqlite_where=text("answer_expires_at IS NOT NULL"),
        ),
    )
    scope: str = Field(primary_key=True, sa_type=Text)
    key: str = Field(primary_key=True, sa_type=Text)
    reservation_id: str = Field(unique=True, sa_type=Text)
    fingerprint: str = Field(sa_type=Text)
    answer: str | None = Field(default=None, sa_type=SealedText)
    answer_expires_at: datetime | None = Field(default=None, sa_type=UtcTime)
    available_after: int | None = Field(default=None, sa_type=Money)
    created_at: datetime = Field(sa_type=UtcTime)
    expires_at: datetime = Field(index=True, sa_type=UtcTime)
