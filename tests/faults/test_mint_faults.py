"""Whatever befalls the calls to a mint: nothing lost, one credit, at rest within a minute (T-8).

A part of the matrix: every fault at the call that credits, the direst at the others that decide
about money, the flows and the engines by turns. The whole is `make prove-ecash`.
"""

from typing import Final

import pytest

from demo.mint import RealMint
from tests.faults.ecash_flows import MINT, MarkClaimed, Mint, Reclaim, Redeem
from tests.faults.flows import (
    INFO,
    KEYS,
    KEYSETS,
    MELT,
    RESTORE,
    STATES,
    SWAP,
    Create,
    Flow,
    PayInvoice,
    RecoverSigned,
    RecoverUnsent,
    TopUp,
    WithdrawAll,
    WithdrawBySwap,
)
from tests.faults.matrix import Case, cases, run_matrix
from tests.faults.oneshot_flows import XCashu, XCashuLocked
from tests.faults.proxy import Fault
from tests.faults.stand import open_stand

# By what they break: where, and which flows take turns.
PARTS: Final[dict[str, tuple[str, tuple[type[Flow], ...]]]] = {
    "deposits": (SWAP, (Create, TopUp, RecoverUnsent)),
    "withdrawals": (SWAP, (WithdrawBySwap,)),
    "restore": (RESTORE, (WithdrawBySwap, Create, RecoverSigned, TopUp)),
    "payments": (MELT, (PayInvoice,)),
    "redemptions": (SWAP, (Redeem, XCashuLocked, XCashu)),
    "invoices": (MINT, (Mint,)),
    "reclaims": (SWAP, (Reclaim,)),
    "states": (STATES, (Create, RecoverSigned, WithdrawBySwap, WithdrawAll, RecoverUnsent)),
}
# The faults that could cost somebody something if they were taken for an answer.
DIRE: Final = (
    Fault.PROCESSED_THEN_LOST,
    Fault.DROP,
    Fault.DUPLICATE,
    Fault.CORRUPT,
    Fault.LIMITED,
    Fault.LATE,
)
ENGINES: Final = ("sqlite", "postgres")


def part(name: str, engine: str) -> list[Case]:
    """Each fault of deposits once, of the rest the dire ones; on one engine, lasting by turns."""
    endpoint, flows = PARTS[name]
    return [
        Case(
            flow=flows[number // 2 % len(flows)],
            endpoint=endpoint,
            fault=fault,
            is_lasting=number // 2 % 2 == 1,
        )
        for number, fault in enumerate(Fault if name == "deposits" else DIRE)
        if number % 2 == ENGINES.index(engine)
    ]


@pytest.mark.parametrize("name", PARTS)
async def test_no_fault_costs_anybody_anything(
    database_url: str, fee_mint: RealMint, name: str
) -> None:
    engine = "sqlite" if database_url.startswith("sqlite") else "postgres"
    async with open_stand(database_url, fee_mint) as stand:
        rows = await run_matrix(stand, part(name, engine))
    assert [str(row) for row in rows if not row.ok] == []


async def test_a_claimed_token_is_known_to_be(sqlite_url: str, fee_mint: RealMint) -> None:
    wanted = cases(flows=[MarkClaimed], faults=(Fault.DROP, Fault.CORRUPT))
    async with open_stand(sqlite_url, fee_mint) as stand:
        rows = await run_matrix(stand, [case for case in wanted if case.is_lasting])
    assert [str(row) for row in rows if not row.ok] == []


async def test_what_a_mint_says_of_itself_is_broken_too(
    sqlite_url: str, fee_mint: RealMint
) -> None:
    faults = (Fault.PROCESSED_THEN_LOST, Fault.CORRUPT)
    wanted = cases(flows=[Create], endpoints=[INFO, KEYSETS, KEYS], faults=faults)
    async with open_stand(sqlite_url, fee_mint) as stand:
        rows = await run_matrix(stand, [case for case in wanted if case.is_lasting])
    assert [str(row) for row in rows if not row.ok] == []
