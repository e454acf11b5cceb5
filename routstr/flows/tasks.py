"""The tasks that outlive a request, and the holds this process is alive for."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import structlog

from routstr.errors import RoutstrError, ServiceUnavailable

log = structlog.get_logger()

ResultT = TypeVar("ResultT")


class TaskOwner:
    """Starts the tasks that must outlive a request, and awaits them all at the end."""

    def __init__(self) -> None:
        """No task yet."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._resumable: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How many are running."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> "asyncio.Task[Any]":
        """Run `work` until it ends by itself; an unforeseen error in it is logged, never lost."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def carry_through(self, work: Coroutine[Any, Any, ResultT], *, name: str) -> ResultT:
        """The result of work that every step of leaves in the database: a later start resumes it.

        Its caller may be cancelled and changes nothing. Raises ServiceUnavailable when the node
        stops before it is done, and what the work raises.
        """
        task: asyncio.Task[ResultT] = self.start(work, name=name)
        self._resumable.add(task)
        task.add_done_callback(self._resumable.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled() and not _is_being_cancelled():
                raise ServiceUnavailable("The node is stopping; repeat this later.") from None
            raise

    @property
    def resumable(self) -> int:
        """How many of them a later start would resume."""
        return len(self._resumable)

    def leave_resumable(self) -> None:
        """End what a later start resumes; it may be waiting for a mint that is silent."""
        for task in self._resumable:
            task.cancel()

    async def finish(self, timeout_s: float) -> None:
        """Wait for all; cancel those that take longer, and wait for them too."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RoutstrError):
            log.error("task_failed", job=task.get_name(), exc_info=error)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class RunningHold(Protocol):
    """A request in progress, as the renewal and the shutdown see it."""

    @property
    def api_key_id(self) -> str:
        """Whose money it holds."""
        ...

    def stop(self) -> None:
        """End it soon, as `node_stopped`."""
        ...

    def renewed(self, lease_until_s: float) -> None:
        """Its hold lives until then, on the monotonic clock, unless it ends before."""
        ...


class RunningHolds:
    """The holds this process is alive for; their leases are renewed together."""

    def __init__(self) -> None:
        """None yet; `renewed_at_s` is when renewing last worked, or was first tried; None before.

        `is_stopping` once all were told to end: nothing that has waited until then may begin.
        """
        self._holds: dict[str, RunningHold] = {}
        self.is_stopping = False
        self.renewed_at_s: float | None = None

    def __len__(self) -> int:
        """How many are running."""
        return len(self._holds)

    def add(self, hold_id: str, running: RunningHold) -> None:
        """From now on renew this one."""
        self._holds[hold_id] = running

    def remove(self, hold_id: str) -> None:
        """It has ended."""
        self._holds.pop(hold_id, None)

    def keys(self) -> Mapping[str, str]:
        """Key id by hold id."""
        return {hold_id: running.api_key_id for hold_id, running in self._holds.items()}

    def note_renewed(self, hold_ids: Iterable[str], *, at_s: float, lease_s: float) -> None:
        """Renewing worked at that moment, for those."""
        self.renewed_at_s = at_s
        for hold_id in hold_ids:
            running = self._holds.get(hold_id)
            if running is not None:
                running.renewed(at_s + lease_s)

    def stop(self, hold_ids: Iterable[str] | None = None) -> None:
        """Tell those, or all, to end."""
        self.is_stopping = self.is_stopping or hold_ids is None
        for hold_id in list(self._holds) if hold_ids is None else list(hold_ids):
            running = self._holds.get(hold_id)
            if running is not None:
                running.stop()
