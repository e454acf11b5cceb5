"""What the last audit said of the books, invariant by invariant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from routstr.flows.context import Context
from routstr.flows.operate import AUDIT_JOB
from routstr.ledger.audit import TITLES
from routstr.ledger.reads import last_job


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An invariant as it was last seen: 0 breaches is whole, None is not known. Ids, no secrets."""

    name: str
    title: str
    breaches: int | None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The last audit; `ok` is None before the first one, and False as well when it did not end."""

    ok: bool | None
    checked_at: datetime | None
    invariants: tuple[Checked, ...]

    @property
    def broken(self) -> tuple[Checked, ...]:
        """The invariants that are."""
        return tuple(each for each in self.invariants if each.breaches)


async def books_shown(ctx: Context) -> Books:
    """The last audit of whichever process ran it."""
    async with ctx.database.reading() as connection:
        job = await last_job(connection, AUDIT_JOB)
    if job is None or job.finished_at is None:
        return Books(ok=None, checked_at=None, invariants=_checked(None, {}))
    result = job.result or {}
    breaches, examples = result.get("breaches"), result.get("examples")
    return Books(
        ok=job.ok,
        checked_at=job.finished_at,
        invariants=_checked(
            breaches if isinstance(breaches, Mapping) else None,
            examples if isinstance(examples, Mapping) else {},
        ),
    )


def _checked(
    breaches: Mapping[str, int] | None, examples: Mapping[str, Sequence[str]]
) -> tuple[Checked, ...]:
    return tuple(
        Checked(
            name=name,
            title=title,
            breaches=None if breaches is None else breaches.get(name, 0),
            examples=tuple(examples.get(name, ())),
        )
        for name, title in TITLES.items()
    )
