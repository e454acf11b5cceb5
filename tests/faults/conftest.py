"""The mint that the fault matrix runs at: with fees, so that a lost or doubled one would show."""

from collections.abc import Iterator

import pytest

from demo.mint import RealMint


@pytest.fixture(scope="session")
def fee_mint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMint]:
    """One for all tests here, each of which takes its own funds and counts from what it finds."""
    with RealMint(tmp_path_factory.mktemp("mint"), fee_ppk=100) as mint:
        yield mint
