"""When the jobs run; what they do, and which there are, is in `flows/house/works.py`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from routstr.flows.context import Context
from routstr.flows.house.works import WORKS, Result
from routstr.flows.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A name, a period in seconds, and the flow. A `shared` job runs in one process at a time.

    One that dies with it is taken over after `lease_s`; a job that takes longer may run twice at
    once, which none of them minds. With `look_s` it is looked at that often, so that a process
    which never lives for the whole period still runs it. `changes` are names in its result: a run
    with any of them above 0 is kept in the history, as one that fails is.
    """

    name: str
    every_s: float
    run: Callable[[Context], Awaitable[tuple[bool, Result]]]
    is_shared: bool = True
    lease_s: float = 30
    look_s: float | None = None
    changes: tuple[str, ...] = ()

    @property
    def looks_every_s(self) -> float:
        """How often a process looks whether it is due."""
        return self.every_s if self.look_s is None else min(self.look_s, self.every_s)

    @property
    def due_again_s(self) -> float:
        """How long nobody runs it again; of two processes that look, the second finds it done."""
        return self.every_s / 2 if self.look_s is None else self.every_s


def jobs(limits: Limits) -> tuple[Job, ...]:
    """All jobs of the node, as often as the limits say; what runs every 0 seconds never does."""
    return tuple(
        Job(
            name=work.name,
            every_s=work.every_s(limits),
            run=work.run,
            is_shared=work.is_shared,
            lease_s=work.lease_s,
            look_s=work.look_s,
            changes=work.changes,
        )
        for work in WORKS
        if work.every_s(limits)
    )
