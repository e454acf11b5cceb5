"""Housekeeping at several mints side by side: one that hangs delays no other, and no next time."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from routstr.flows.context import Context

ResultT = TypeVar("ResultT")

PATIENCE_S: Final = 10.0


async def side_by_side(
    ctx: Context,
    job: str,
    names: Iterable[str],
    work: Callable[[str], Coroutine[Any, Any, ResultT]],
    *,
    patience_s: float = PATIENCE_S,
) -> dict[str, ResultT]:
    """The results of `work(name)` for each mint, as far as they are there within `patience_s`.

    What takes longer goes on in a task of the node's own, and that mint is left out until it ends.
    Raises what the work raises.
    """
    tasks: dict[str, asyncio.Task[ResultT]] = {}
    for name in names:
        doing = f"{job} {name}"
        if doing not in ctx.shelf.busy:
            ctx.shelf.busy.add(doing)
            tasks[name] = ctx.tasks.start(work(name), name=doing)
            tasks[name].add_done_callback(lambda task: ctx.shelf.busy.discard(task.get_name()))
    if tasks:
        await asyncio.wait(tasks.values(), timeout=patience_s)
    return {name: task.result() for name, task in tasks.items() if task.done()}


async def joined(
    ctx: Context, errand: str, work: Callable[[], Coroutine[Any, Any, ResultT]]
) -> ResultT:
    """The result of the errand of that name: of the one under way, or of `work`, begun now.

    A crowd that wants the same costs one. Raises what the work raises.
    """
    return await asyncio.shield(begun(ctx, errand, work))


def begun(
    ctx: Context, errand: str, work: Callable[[], Coroutine[Any, Any, ResultT]]
) -> "asyncio.Task[ResultT]":
    """The task of that errand, one at a time in this process."""
    task: asyncio.Task[ResultT] | None = ctx.shelf.errands.get(errand)
    if task is None:
        task = ctx.tasks.start(work(), name=errand)
        ctx.shelf.errands[errand] = task
        task.add_done_callback(lambda _: ctx.shelf.errands.pop(errand, None))
    return task
