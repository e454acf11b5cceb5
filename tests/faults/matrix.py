"""The fault matrix: every fault at every endpoint in every flow, at a real mint (T-8).

    async with open_stand(database_url, mint) as stand:
        rows = await run_matrix(stand, cases())     # the whole of it
        rows = await run_matrix(stand, cases(flows=[Create], endpoints=["POST /v1/swap"]))

After each case all is healed, the node ends alone what is open, and the money is counted: by the
mint's own books, the customer's wallet and the node's ledger. A row that is not `ok` says why.
Flows are described in `tests.faults.flows`, and added here. A case moves the stand's clock by a
minute or more, but not the mint's: after an hour its invoices have expired, so a stand serves some
thirty cases of a flow that has any, and of `Reclaim`, which waits a month, nothing else.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from routstr.errors import RoutstrError
from tests.faults.ecash_flows import MarkClaimed, Mint, Reclaim, Redeem
from tests.faults.flows import (
    Create,
    Flow,
    Outcome,
    PayInvoice,
    RecoverSigned,
    RecoverUnsent,
    TopUp,
    WithdrawAll,
    WithdrawBySwap,
)
from tests.faults.oneshot_flows import XCashu, XCashuLocked
from tests.faults.proxy import Fault
from tests.faults.stand import DRAIN_MAX_S, Count, Stand, StillOpen

FLOWS: Final[Sequence[type[Flow]]] = (
    Create,
    TopUp,
    RecoverUnsent,
    RecoverSigned,
    Redeem,
    Mint,
    WithdrawBySwap,
    WithdrawAll,
    PayInvoice,
    Reclaim,
    MarkClaimed,
    XCashu,
    XCashuLocked,
)


# A quote whose name came through wrong is one the mint does not know: it refuses the melt for good,
# so its coins are free to be sent again.
REFUSED_FIRST: Final = (Fault.CORRUPT, "POST /v1/melt/quote/bolt11")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault at an endpoint in a flow, once or until healed."""

    flow: type[Flow]
    endpoint: str
    fault: Fault
    is_lasting: bool

    def __str__(self) -> str:
        how = "until healed" if self.is_lasting else "once"
        return f"{self.flow().name}: {self.fault} at {self.endpoint}, {how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of a case. `double_credits` counts credits, or tokens paid out, beyond the one.

    `injected` is how often the fault happened; `drained_s` how long after healing, on the moved
    clock, until nothing was open and the customer served.
    """

    case: Case
    lost_msat: int
    double_credits: int
    drained_s: float
    injected: int
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = f"{self.lost_msat} msat lost, {self.double_credits} credits too many"
        rest = f"at rest in {self.drained_s:.0f} s, {self.injected} faults"
        return f"{self.case}: {found}, {rest} {list(self.problems)}"

    @property
    def fault(self) -> str:
        return str(self.case.fault)

    @property
    def endpoint(self) -> str:
        return self.case.endpoint

    @property
    def flow(self) -> str:
        return self.case.flow().name

    @property
    def ok(self) -> bool:
        """Nothing lost, credited once, at rest in time, and the fault did happen."""
        clean = not (self.lost_msat or self.double_credits or self.problems)
        return clean and self.drained_s < DRAIN_MAX_S and self.injected > 0


def cases(
    *,
    flows: Iterable[type[Flow]] = FLOWS,
    endpoints: Iterable[str] | None = None,
    faults: Sequence[Fault] = tuple(Fault),
) -> Iterator[Case]:
    """Each fault both ways, at those of the flows' endpoints that are wanted."""
    wanted = None if endpoints is None else set(endpoints)
    for flow in flows:
        for endpoint in flow().endpoints:
            if wanted is not None and endpoint not in wanted:
                continue
            for fault in faults:
                for is_lasting in (False, True):
                    yield Case(flow=flow, endpoint=endpoint, fault=fault, is_lasting=is_lasting)


async def run_matrix(stand: Stand, wanted: Iterable[Case]) -> list[Row]:
    """One row per case, in order. What no flow may raise is raised, with the case noted on it."""
    return [row async for row in rows_of(stand, wanted)]


async def rows_of(stand: Stand, wanted: Iterable[Case]) -> AsyncIterator[Row]:
    """The rows as they come."""
    for case in wanted:
        try:
            yield await run_case(stand, case)
        except Exception as error:
            error.add_note(f"in the case {case}")
            raise


async def run_case(stand: Stand, case: Case) -> Row:
    """Prepare, break, act, heal, rest, count."""
    flow, proxy = case.flow(), stand.proxy
    stand.problems.clear()
    await stand.later(60)  # what the last case left of pauses and of known keysets is over
    before, since = stand.counted or await stand.count(), len(proxy.calls)
    await flow.prepare(stand)
    primer = flow.primers.get(case.endpoint)
    if primer is not None:
        proxy.inject(*primer, times=1)
    rule = proxy.inject(case.endpoint, case.fault, times=None if case.is_lasting else 1)
    with suppress(RoutstrError):  # any answer will do; the money must be right
        await flow.act(stand)
    proxy.heal()
    healed_s = stand.clock.monotonic()
    outcome = None
    try:
        await stand.drain()
        outcome = await flow.outcome(stand)
        await stand.drain()
    except StillOpen as error:
        stand.problems.append(str(error))
    drained_s = stand.clock.monotonic() - healed_s
    resent = proxy.resent_otherwise(since=since)
    if (case.fault, case.endpoint) == REFUSED_FIRST:
        resent -= {"POST /v1/melt/bolt11"}
    if resent:
        stand.problems.append(f"a proof was sent in another body to {resent}")
    after = await stand.count()
    return Row(
        case=case,
        lost_msat=_lost_msat(before, after, outcome),
        double_credits=0 if outcome is None else outcome.credits - 1,
        drained_s=drained_s,
        injected=rule.injected,
        problems=tuple(stand.problems),
    )


def _lost_msat(before: Count, after: Count, outcome: Outcome | None) -> int:
    """What the customer misses, or else what somebody does; it must be nothing, and no gain."""
    missed_msat = 0 if outcome is None else outcome.lost_msat
    vanished_msat = after.lost_msat - before.lost_msat
    earned_msat = 0 if outcome is None else outcome.earned_msat
    kept_msat = after.surplus_msat - before.surplus_msat - earned_msat
    return missed_msat or vanished_msat or kept_msat
