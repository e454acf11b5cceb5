"""Which mint's error is heard when none of them can pay."""

from collections.abc import Sequence
from typing import Any

import pytest

from routstr.errors import MintShort, MintUnreachable, RoutstrError
from routstr.flows.sources import Source, first_that_can


async def test_of_mints_that_lack_coins_the_nearest_is_heard() -> None:
    """What is sent is made to fit the mint with the most, whichever is asked last."""
    lacks: Sequence[RoutstrError] = (
        MintUnreachable(),
        MintShort(details={"shortfall_msat": 5_000}),
        MintShort(details={"shortfall_msat": 900_000}),
        MintShort(),
    )
    for order in (lacks, lacks[::-1]):
        errors = iter(order)

        async def pay(_: Source, errors: Any = errors) -> None:
            raise next(errors)

        sources = [Source(mint_url=f"https://{at}.example", unit="sat") for at in range(len(order))]
        with pytest.raises(MintShort) as caught:
            await first_that_can(sources, pay)
        assert caught.value.details == {"shortfall_msat": 5_000}
