"""What the operator's API takes and gives: bodies without unknown fields, times in Unix seconds."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import Depends, Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

LIMIT_MAX: Final = 500
OFFSET_MAX: Final = 10_000
TEXT_CHARS_MAX: Final = 2_000
REDACTED: Final = "[REDACTED]"


def _unix_s(value: object) -> object:
    return int(value.timestamp()) if isinstance(value, datetime) else value


Unix = Annotated[int, BeforeValidator(_unix_s)]
Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]
Id = Annotated[str, Path(max_length=100, pattern="^[A-Za-z0-9_.:-]+$")]
Hours = Annotated[int, Query(ge=1, le=24 * 366)]


class Body(BaseModel):
    """What is sent: nothing but the fields there are, of their own types."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Shown(BaseModel):
    """What is answered, read off a value of a flow."""

    model_config = ConfigDict(from_attributes=True)


class Page(Body):
    """Which part of a list is wanted."""

    search: str = ""
    limit: int = 50
    offset: int = 0


def _page(
    search: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 50,
    offset: Annotated[int, Query(ge=0, le=OFFSET_MAX)] = 0,
) -> Page:
    return Page(search=search, limit=limit, offset=offset)


InPage = Annotated[Page, Depends(_page)]
