"""The one runner: each job in a task of its own, once across all processes where it is shared."""

import asyncio
from collections.abc import Mapping

import structlog

from routstr.flows.context import Context
from routstr.flows.operate import finish_job, take_job
from routstr.jobs.schedule import Job

log = structlog.get_logger()


class JobRunner:
    """Runs jobs until stopped. A job that fails is logged and runs again next time."""

    def __init__(self, ctx: Context, jobs: tuple[Job, ...]) -> None:
        """Nothing starts yet."""
        self._ctx = ctx
        self._jobs = jobs
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`; what is running then is awaited."""
        async with asyncio.TaskGroup() as group:
            for job in self._jobs:
                group.create_task(self._repeat(job), name=f"job {job.name}")

    def stop(self) -> None:
        """Start nothing new."""
        self._stopping.set()

    async def _repeat(self, job: Job) -> None:
        while not await self._stopped_within(job.looks_every_s):
            try:
                await self.run_once(job)
            except Exception:  # broad: one job's bug or bad day must not end the others
                log.exception("job_failed", job=job.name)

    async def begin(self) -> None:
        """What a start needs: drive what was left open, end orphans, look at the books."""
        for name in ("resume", "expire", "audit"):
            for job in self._jobs:
                if job.name == name:
                    await self.run_once(job, at_start=True)

    async def run_once(self, job: Job, *, at_start: bool = False) -> bool:
        """Run it now, unless it is shared and another process has it; whether it ran."""
        ctx = self._ctx
        if not job.is_shared:
            await job.run(ctx)
            return True
        if not await take_job(ctx, job.name, lease_s=job.lease_s, at_start=at_start):
            return False
        ok: bool = False
        result: Mapping[str, object] | None = None
        started_at = ctx.clock.now()
        try:
            ok, result = await job.run(ctx)
        finally:
            is_kept = not ok or any((result or {}).get(name) for name in job.changes)
            await finish_job(
                ctx,
                job.name,
                ok=ok,
                result=result,
                next_in_s=job.due_again_s,
                kept_since=started_at if is_kept else None,
            )
        if not ok:
            log.error("job_not_ok", job=job.name)
        return True

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True
