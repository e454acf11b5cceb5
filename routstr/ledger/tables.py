"""The tables that hold money and ecash. The others are in `tables_house.py`
and `tables_admin.py`.

Amounts in `apikey`, `transaction`, `reservation` and `withdrawal` are msat (columns keep the names
of the database guide); amounts of proofs and outputs are in the keyset's unit. Ids are text with a
telling prefix. The schema that runs is in `migrations/`; a test compares the two.
"""

from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import CheckConstraint, Index, MetaData, Table, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from routstr.ledger.columns import Json, Money, RowNumber, SealedText, UtcTime

ONE_SHOT: Final = "x-cashu"
"""The source of a deposit that pays for one request: its account belongs to no key's owner."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Row(SQLModel):
    """The base of every table: one metadata, with names for every constraint."""

    metadata: ClassVar[MetaData] = metadata


def _count() -> Any:
    return Field(default=0, sa_type=Money, sa_column_kwargs={"server_default": "0"})


class ApiKey(Row, table=True):
    """A balance and who may spend it. `version` is the head of the key's audit chain.

    A key with a `parent_id` is a child: it has no balance, its parent pays. Of `total_spent`, what
    is above `limit_base` counts towards `balance_limit`, with `limit_held`, which only a child has:
    what others hold is `reserved`. `running` counts holds, `rate_*` the requests and tokens of one
    minute; a parent's count its children's, too. `opening_fee` is what the parent paid for a child.
    """

    __tablename__ = "apikey"
    __table_args__ = (
        CheckConstraint("balance >= 0", name="balance_not_negative"),
        CheckConstraint("reserved >= 0", name="reserved_not_negative"),
        CheckConstraint("reserved <= balance", name="reserved_within_balance"),
        Index(
            "ix_apikey_expires_at",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL"),
            sqlite_where=text("expires_at IS NOT NULL"),
        ),
        Index("ix_apikey_created_at", "created_at", "id"),
    )
    id: str = Field(primary_key=True, sa_type=Text)
    key_hash: str = Field(unique=True, sa_type=Text)
    balance: int = Field(default=0, sa_type=Money)
    reserved: int = Field(default=0, sa_type=Money)
    total_deposited: int = Field(default=0, sa_type=Money)
    total_spent: int = Field(default=0, sa_type=Money)
    total_requests: int = Field(default=0, sa_type=Money)
    created_at: datetime = Field(sa_type=UtcTime)
    first_used_at: datetime | None = Field(default=None, sa_type=UtcTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcTime)
    key_metadata: dict[str, object] | None = Field(
        default=None, sa_type=Json, sa_column_kwargs={"name": "metadata"}
    )
    version: int = Field(default=0, sa_type=Money)
    parent_id: str | None = Field(default=None, foreign_key="apikey.id", index=True, sa_type=Text)
    balance_limit: int | None = Field(default=None, sa_type=Money)
    limit_reset: str | None = Field(default=None, sa_type=Text)
    allowed_models: list[str] | None = Field(default=None, sa_type=Json)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcTime)
    preview: str | None = Field(default=None, sa_type=Text)
    opening_fee: int = _count()
    limit_base: int = _count()
    limit_since: datetime | None = Field(default=None, sa_type=UtcTime)
    limit_held: int = _count()
    requests_per_minute: int | None = Field(default=None, sa_type=Money)
    tokens_per_minute: int | None = Field(default=None, sa_type=Money)
    concurrent_max: int | None = Field(default=None, sa_type=Money)
    running: int = _count()
    rate_minute: int = _count()
    rate_requests: int = _count()
    rate_tokens: int = _count()


class Transaction(Row, table=True):
    """One change of one balance, for ever: triggers refuse UPDATE and DELETE."""

    __tablename__ = "transaction"
    __table_args__ = (
        UniqueConstraint("api_key_id", "sequence"),
        Index("ix_transaction_api_key_id_timestamp", "api_key_id", "timestamp"),
        Index(
            "ix_transaction_moved",
            "id",
            postgresql_where=text("type <> 'usage'"),
            sqlite_where=text("type <> 'usage'"),
        ),
        CheckConstraint("balance_after >= 0", name="balance_after_not_negative"),
        CheckConstraint(
            "type IN ('deposit', 'usage', 'withdrawal', 'refund', 'transfer_in', 'transfer_out',"
            " 'fee', 'expiry')",
            name="type_known",
        ),
    )
    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    api_key_id: str = Field(foreign_key="apikey.id", sa_type=Text)
    sequence: int = Field(sa_type=Money)
    amount: int = Field(sa_type=Money)
    balance_after: int = Field(sa_type=Money)
    type: str = Field(sa_type=Text)
    description: str | None = Field(default=None, sa_type=Text)
    timestamp: datetime = Field(index=True, sa_type=UtcTime)
    request_data: dict[str, object] | None = Field(default=None, sa_type=Json)
    operation_id: str = Field(unique=True, sa_type=Text)


class Reservation(Row, table=True):
    """A hold on a balance for one request; at most `quote_amount` is ever charged.

    `spender_id` is the child key whose request it is, if the balance is its parent's.
    """

    __tablename__ = "reservation"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount_not_negative"),
        CheckConstraint("settled_amount <= amount", name="settled_within_hold"),
        CheckConstraint("state IN ('held', 'settled', 'released', 'expired')", name="state_known"),
        Index(
            "ix_reservation_deadline",
            "deadline",
            postgresql_where=text("state = 'held'"),
            sqlite_where=text("state = 'held'"),
        ),
        Index(
            "ix_reservation_spender_id",
            "spender_id",
            postgresql_where=text("spender_id IS NOT NULL"),
            sqlite_where=text("spender_id IS NOT NULL"),
        ),
    )
    id: str = Field(primary_key=True, sa_type=Text)
    api_key_id: str = Field(foreign_key="apikey.id", index=True, sa_type=Text)
    amount: int = Field(sa_type=Money)
    quote_amount: int = Field(sa_type=Money)
    settled_amount: int | None = Field(default=None, sa_type=Money)
    state: str = Field(sa_type=Text)
    price_snapshot: dict[str, object] = Field(sa_type=Json)
    owner: str = Field(sa_type=Text)
    deadline: datetime = Field(sa_type=UtcTime)
    created_at: datetime = Field(sa_type=UtcTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcTime)
    spender_id: str | None = Field(default=None, foreign_key="apikey.id", sa_type=Text)


class Deposit(Row, table=True):
    """A token on its way to a balance; a new key's text and terms wait here for the credit."""

    __tablename__ = "deposit"
    __table_args__ = (
        UniqueConstraint("api_key_id", "idempotency_key"),
        CheckConstraint("state IN ('pending', 'credited', 'failed')", name="state_known"),
    )
    id: str = Field(primary_key=True, sa_type=Text)
    api_key_id: str | None = Field(default=None, foreign_key="apikey.id", index=True, sa_type=Text)
    state: str = Field(sa_type=Text)
    source: str = Field(sa_type=Text)
    mint_url: str = Field(sa_type=Text)
    unit: str = Field(sa_type=Text)
    face_amount: int = Field(sa_type=Money)
    credit_msat: int = Field(sa_type=Money)
    sealed_key: str | None = Field(default=None, sa_type=SealedText)
    new_key: dict[str, object] | None = Field(default=None, sa_type=Json)
    idempotency_key: str | None = Field(default=None, sa_type=Text)
    fingerprint: str | None = Field(default=None, sa_type=Text)
    error_code: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(index=True, sa_type=UtcTime)
    credited_at: datetime | None = Field(default=None, sa_type=UtcTime)
    is_locked: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})


class DepositInput(Row, table=True):
    """A proof's Y, here once for ever: what makes a token creditable at most once (I-6)."""

    __tablename__ = "deposit_input"
    __table_args__ = (CheckConstraint("length(y) = 66", name="y_is_a_point"),)
    y: str = Field(primary_key=True, sa_type=Text)
    deposit_id: str = Field(foreign_key="deposit.id", index=True, sa_type=Text)


class Withdrawal(Row, table=True):
    """Money given out for a balance: a token, readable until spent or reclaimed, or a payment.

    `fee_returned` is what of `fee_amount`, a payment's reserve, was not needed and came back.
    `is_change`: what was left of a request that a token paid for.
    """

    __tablename__ = "withdrawal"
    __table_args__ = (
        UniqueConstraint("api_key_id", "idempotency_key"),
        CheckConstraint("amount > 0", name="amount_positive"),
        CheckConstraint(
            "status IN ('pending', 'completed', 'failed', 'claimed', 'reclaimed')",
            name="status_known",
        ),
        CheckConstraint("way IN ('token', 'lightning')", name="way_known"),
        Index(
            "ix_withdrawal_created_at_left",
            "created_at",
            postgresql_where=text("NOT is_change"),
            sqlite_where=text("NOT is_change"),
        ),
    )
    id: str = Field(primary_key=True, sa_type=Text)
    api_key_id: str = Field(foreign_key="apikey.id", index=True, sa_type=Text)
    way: str = Field(default="token", sa_type=Text, sa_column_kwargs={"server_default": "token"})
    amount: int = Field(sa_type=Money)
    fee_amount: int = Field(default=0, sa_type=Money)
    fee_returned: int = Field(default=0, sa_type=Money, sa_column_kwargs={"server_default": "0"})
    is_change: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    recipient: str | None = Field(default=None, sa_type=SealedText)
    payment_hash: str | None = Field(default=None, index=True, sa_type=Text)
    preimage: str | None = Field(default=None, sa_type=SealedText)
    token: str | None = Field(default=None, sa_type=SealedText)
    mint_url: str = Field(sa_type=Text)
    unit: str = Field(sa_type=Text)
    status: str = Field(index=True, sa_type=Text)
    created_at: datetime = Field(index=True, sa_type=UtcTime)
    completed_at: datetime | None = Field(default=None, sa_type=UtcTime)
    error_message: str | None = Field(default=None, sa_type=Text)
    retry_count: int = Field(default=0, sa_type=Money)
    idempotency_key: str | None = Field(default=None, sa_type=Text)
    fingerprint: str | None = Field(default=None, sa_type=Text)


class Mint(Row, table=True):
    """A mint of the allow-list, by its canonical URL."""

    __tablename__ = "mint"
    id: str = Field(primary_key=True, sa_type=Text)
    url: str = Field(unique=True, sa_type=Text)
    name: str | None = Field(default=None, sa_type=Text)
    nuts: list[int] | None = Field(default=None, sa_type=Json)
    answered_at: datetime | None = Field(default=None, sa_type=UtcTime)
    created_at: datetime = Field(sa_type=UtcTime)
    updated_at: datetime = Field(sa_type=UtcTime)


class KeysetRow(Row, table=True):
    """A keyset and how far its NUT-13 counters went; `residue31` differs for each (SR-6)."""

    __tablename__ = "keyset"
    id: str = Field(primary_key=True, sa_type=Text)
    mint_id: str = Field(foreign_key="mint.id", index=True, sa_type=Text)
    unit: str = Field(sa_type=Text)
    active: bool
    input_fee_ppk: int = Field(sa_type=Money)
    final_expiry: int | None = Field(default=None, sa_type=Money)
    keys: dict[str, str] = Field(sa_type=Json)
    next_counter: int = Field(default=0, sa_type=Money)
    residue31: int = Field(unique=True, sa_type=Money)
    updated_at: datetime = Field(sa_type=UtcTime)


class MintOperation(Row, table=True):
    """One call to a mint, committed before it is made: what to send, who sends, what is known.

    `is_from_copy`: it was open when a backup was restored, so a life that nobody here remembers may
    have ended it, and spent what it brought.
    """

    __tablename__ = "mint_operation"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('receive', 'redeem', 'swap', 'mint', 'melt', 'restore')", name="kind_known"
        ),
        CheckConstraint(
            "state IN ('prepared', 'sent', 'waiting', 'watch', 'done', 'failed')",
            name="state_known",
        ),
        Index(
            "ix_mint_operation_next_attempt_at",
            "next_attempt_at",
            postgresql_where=text("state NOT IN ('done', 'failed')"),
            sqlite_where=text("state NOT IN ('done', 'failed')"),
        ),
    )
    id: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(sa_type=Text)
    state: str = Field(sa_type=Text)
    mint_id: str = Field(foreign_key="mint.id", sa_type=Text)
    unit: str | None = Field(default=None, sa_type=Text)
    request: str = Field(sa_type=SealedText)
    input_amount: int = Field(sa_type=Money)
    fee_amount: int = Field(sa_type=Money)
    quote_id: str | None = Field(default=None, sa_type=SealedText)
    deposit_id: str | None = Field(default=None, foreign_key="deposit.id", index=True, sa_type=Text)
    withdrawal_id: str | None = Field(
        default=None, foreign_key="withdrawal.id", index=True, sa_type=Text
    )
    lightning_invoice_id: str | None = Field(
        default=None, foreign_key="lightning_invoice.id", index=True, sa_type=Text
    )
    predecessor_id: str | None = Field(default=None, foreign_key="mint_operation.id", sa_type=Text)
    lease_owner: str | None = Field(default=None, sa_type=Text)
    lease_until: datetime | None = Field(default=None, sa_type=UtcTime)
    attempts: int = Field(default=0, sa_type=Money)
    next_attempt_at: datetime = Field(sa_type=UtcTime)
    watch_until: datetime | None = Field(default=None, sa_type=UtcTime)
    last_code: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=UtcTime)
    ended_at: datetime | None = Field(default=None, index=True, sa_type=UtcTime)
    is_from_copy: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})


class MintOutput(Row, table=True):
    """A blinded message of an operation; a counter or a B_ is used once, ever (I-12)."""

    __tablename__ = "mint_output"
    __table_args__ = (
        UniqueConstraint("keyset_id", "counter"),
        CheckConstraint("purpose IN ('keep', 'send', 'change')", name="purpose_known"),
    )
    operation_id: str = Field(primary_key=True, foreign_key="mint_operation.id", sa_type=Text)
    position: int = Field(primary_key=True, sa_type=Money)
    keyset_id: str = Field(foreign_key="keyset.id", sa_type=Text)
    counter: int = Field(sa_type=Money)
    amount: int | None = Field(default=None, sa_type=Money)
    b_: str = Field(unique=True, sa_type=Text)
    purpose: str = Field(sa_type=Text)


class ProofRow(Row, table=True):
    """Ecash the node holds or gave out, by its Y."""

    __tablename__ = "proof"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount_positive"),
        CheckConstraint(
            "state IN ('unspent', 'reserved', 'issued', 'locked', 'spent', 'lost')",
            name="state_known",
        ),
        Index("ix_proof_keyset_id_state_amount", "keyset_id", "state", "amount"),
        Index(
            "ix_proof_locked",
            "keyset_id",
            "locktime",
            postgresql_where=text("lock_key IS NOT NULL AND state IN ('locked', 'reserved')"),
            sqlite_where=text("lock_key IS NOT NULL AND state IN ('locked', 'reserved')"),
        ),
    )
    y: str = Field(primary_key=True, sa_type=Text)
    keyset_id: str = Field(foreign_key="keyset.id", sa_type=Text)
    counter: int | None = Field(default=None, sa_type=Money)
    amount: int = Field(sa_type=Money)
    secret: str = Field(sa_type=SealedText)
    c: str = Field(sa_type=Text)
    e: str | None = Field(default=None, sa_type=Text)
    s: str | None = Field(default=None, sa_type=Text)
    lock_key: str | None = Field(default=None, sa_type=Text)
    locktime: int | None = Field(default=None, sa_type=Money)
    state: str = Field(sa_type=Text)
    operation_id: str | None = Field(
        default=None, foreign_key="mint_operation.id", index=True, sa_type=Text
    )
    withdrawal_id: str | None = Field(
        default=None, foreign_key="withdrawal.id", index=True, sa_type=Text
    )


def table_of(row: type[Row]) -> Table:
    """The Core table behind a declared row."""
    return metadata.tables[str(row.__tablename__)]
