"""The sixteen public faults, whole and streamed: ended once, charged as the contract says."""

import pytest

from tests.failover.faults import FAULTS, meet
from tests.failover.pair import open_pair
from tests.harness.till import ON_SQLITE


@ON_SQLITE
async def test_all_sixteen_faults(database_url: str, subtests: pytest.Subtests) -> None:
    assert len(FAULTS) == 16
    async with open_pair(database_url) as pair:
        for row in FAULTS:
            for stream in (False, True):
                with subtests.test(fault=row.name, stream=stream):
                    assert (await meet(pair, row, stream=stream)).complaints == []
