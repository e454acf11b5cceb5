"""The audit as a flow: the books, and on demand the mints' word on our proofs."""

from routstr.flows.context import Context
from routstr.ledger.audit import AuditReport
from routstr.ledger.audit import audit as audit_books


async def audit(ctx: Context, *, full: bool, deep: bool) -> AuditReport:
    """TEMPORARY until the real one lands."""
    return await audit_books(
        ctx.database, ctx.wallet.vault, full=full, now=ctx.clock.now(), held_msat_max=10**17
    )
