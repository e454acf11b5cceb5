"""The audit as a flow: the books by themselves, and with `deep` the mints' word on our proofs.

Nothing is written. A mint that does not answer proves nothing, so it is named and breaks nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from routstr.errors import UntrustedMint
from routstr.flows.context import Context
from routstr.flows.operate import AUDIT_JOB
from routstr.gateways.mint_failure import MintFailure
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.audit import AuditReport, MintFindings
from routstr.ledger.audit import audit as audit_books
from routstr.ledger.audit_proofs import (
    OurProof,
    mints_with_proofs,
    proofs_at,
    still_unspent,
    stranded_at,
)
from routstr.ledger.reads import last_job

BATCH: Final = 200
STRANDED_AFTER_S: Final = 60
# A job's row says when it ended; what it saw is older by as long as it took, at most this.
AUDIT_TAKES_MAX_S: Final = 3600


async def audit(ctx: Context, *, full: bool, deep: bool, is_running: bool = True) -> AuditReport:
    """Evaluate the invariants; with `deep` also ask each mint about our proofs (NUT-07).

    Unless `full`, rows from before the last clean run of the audit job are not read again.
    """
    report = await audit_books(
        ctx.database,
        ctx.wallet.vault,
        full=full,
        now=ctx.clock.now(),
        held_msat_max=ctx.ledger.held_msat_max,
        since=None if full else await _last_clean(ctx),
        is_running=is_running,
    )
    if not deep:
        return report
    async with ctx.database.reading() as connection:
        urls = await mints_with_proofs(connection)
    mints = tuple([await _ask(ctx, url, is_running=is_running) for url in urls])
    return replace(report, mints=mints, ok=report.ok and all(each.ok for each in mints))


def told(report: AuditReport) -> dict[str, object]:
    """What is kept of a report: the breaches, and ids of examples, by invariant."""
    broken = [each for each in report.invariants if each.breaches]
    return {
        "breaches": {each.name: each.breaches for each in broken},
        "examples": {each.name: list(each.examples) for each in broken if each.examples},
        "full": report.full,
    }


async def _last_clean(ctx: Context) -> datetime | None:
    async with ctx.database.reading() as connection:
        job = await last_job(connection, AUDIT_JOB)
    if job is None or not job.ok or job.finished_at is None:
        return None
    return job.finished_at - timedelta(seconds=AUDIT_TAKES_MAX_S)


async def _ask(ctx: Context, mint_url: str, *, is_running: bool) -> MintFindings:
    asked, claimed, after_y = 0, 0, ""
    lost: list[str] = []
    try:
        while proofs := await _page(ctx, mint_url, after_y):
            states = await ctx.mints.check_state(mint_url, [proof.y for proof in proofs])
            spent = [proof for proof in proofs if states[proof.y] is ProofState.SPENT]
            claimed += sum(proof.state == "issued" for proof in spent)
            lost += await _lost(ctx, spent)
            asked += len(proofs)
            after_y = proofs[-1].y
    except (MintFailure, UntrustedMint) as error:
        return MintFindings(
            mint_url=mint_url,
            asked=asked,
            claimed=claimed,
            spent_elsewhere=tuple(lost),
            silent=type(error).__name__,
        )
    return MintFindings(
        mint_url=mint_url,
        asked=asked,
        claimed=claimed,
        spent_elsewhere=tuple(lost),
        stranded=await _stranded(ctx, mint_url) if is_running else (),
    )


async def _stranded(ctx: Context, mint_url: str) -> tuple[str, ...]:
    before = ctx.clock.now() - timedelta(seconds=STRANDED_AFTER_S)
    async with ctx.database.reading() as connection:
        return tuple(await stranded_at(connection, mint_url, before))


async def _page(ctx: Context, mint_url: str, after_y: str) -> list[OurProof]:
    async with ctx.database.reading() as connection:
        return await proofs_at(connection, mint_url, after_y=after_y, limit=BATCH)


async def _lost(ctx: Context, spent: Sequence[OurProof]) -> list[str]:
    """Those that the mint calls spent and we, asked again after it, still take for ours."""
    ys = [proof.y for proof in spent if proof.state in {"unspent", "locked"}]
    if not ys:
        return []
    async with ctx.database.reading() as connection:
        return await still_unspent(connection, ys)
