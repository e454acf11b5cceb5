"""The column types every table shares: time, JSON, money and sealed text.

Laws
- A time is aware and UTC. PostgreSQL keeps `timestamptz`; SQLite keeps fixed-width ISO text, so
  that comparing the text compares the time.
- A sealed column takes only `Sealed` values, so a plain secret cannot be written by mistake.
"""

from datetime import UTC, datetime
from typing import Any, NewType

import orjson
from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

Sealed = NewType("Sealed", str)

SEALED_PREFIX = "v1|"

Json = JSON().with_variant(JSONB(), "postgresql")
Money = BigInteger
RowNumber = BigInteger().with_variant(Integer(), "sqlite")


def time_text(value: datetime) -> str:
    """An aware time as fixed-width UTC ISO 8601 text with microseconds, as SQLite stores it."""
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return value.isoformat(timespec="microseconds")


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time; a naive one is refused with ValueError."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`timestamptz` on PostgreSQL, text on SQLite."""
        here: TypeEngine[Any] = Text() if dialect.name == "sqlite" else DateTime(timezone=True)
        return dialect.type_descriptor(here)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> object:
        """To the engine's own form."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return time_text(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: object, dialect: Dialect) -> datetime | None:
        """Back to an aware time."""
        return None if value is None else as_time(value)


class SealedText(TypeDecorator[str]):
    """Text that `Vault.seal` made; anything else is refused with ValueError."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse what was not sealed."""
        if value is not None and not value.startswith(SEALED_PREFIX):
            raise ValueError("a secret that was not sealed")
        return value


def as_time(value: object) -> datetime:
    """An aware UTC time from what either engine returned. Raises TypeError for anything else."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value if value.tzinfo is UTC else value.astimezone(UTC)
    raise TypeError(f"not a time: {type(value).__name__}")


def as_json(value: object) -> Any:
    """A JSON column's value from what either driver returned to a statement that names no types.

    It must be an object, a list or null: of a bare string nobody could say whether it is parsed.
    """
    return orjson.loads(value) if isinstance(value, str | bytes) else value
