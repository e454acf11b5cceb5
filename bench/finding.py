"""What a proof found, beside what it must find."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

from demo.process import ServerDied
from demo.wallet import MintRefused, NotEnough

COMPLAINT_CHARS_MAX: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row of the table; `figures` go into the last line as name=value."""

    what: str
    found: str
    must: str
    ok: bool
    figures: Mapping[str, object] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()


class FellShort(Exception):
    """Something is not as it must be; the message says what."""


# What a proof may stumble over without being broken itself.
STUMBLES: Final = (
    FellShort, ServerDied, MintRefused, NotEnough, AssertionError, KeyError, httpx.HTTPError,
)  # fmt: skip


def require(what: str, found: object, wanted: object) -> None:
    """Raises FellShort unless both are equal."""
    if found != wanted:
        raise FellShort(f"{what} is {found}, and must be {wanted}")


def complaint(error: Exception) -> str:
    """An error for the table's margin."""
    return f"{type(error).__name__}: {error}"[:COMPLAINT_CHARS_MAX]


@contextmanager
def stumbled(what: str) -> Iterator[list[Finding]]:
    """A list that afterwards holds the finding of a proof that could not be finished, if any."""
    failed: list[Finding] = []
    try:
        yield failed
    except STUMBLES as error:
        failed.append(
            Finding(
                what=what,
                found="not finished",
                must="finished",
                ok=False,
                complaints=(complaint(error),),
            )
        )
