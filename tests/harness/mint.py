"""Fixtures of the real mint: one for the whole run, and as many more as a test wants to torment."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from demo.mint import RealMint


class StartMint(Protocol):
    """Starts a mint of the test's own; it ends with the test."""

    def __call__(
        self,
        *,
        fee_ppk: int = 0,
        units: tuple[str, ...] = ("sat",),
        extra: dict[str, str] | None = None,
    ) -> RealMint: ...


@pytest.fixture(scope="session")
def real_mint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMint]:
    """One sat mint without fees, shared by all tests: take from it, and leave it running."""
    with RealMint(tmp_path_factory.mktemp("mint")) as mint:
        yield mint


@pytest.fixture
def start_mint(tmp_path: Path) -> Iterator[StartMint]:
    """Mints that the test may pause, kill and restart."""
    with ExitStack() as running:
        count = 0

        def start(
            *,
            fee_ppk: int = 0,
            units: tuple[str, ...] = ("sat",),
            extra: dict[str, str] | None = None,
        ) -> RealMint:
            nonlocal count
            count += 1
            home = tmp_path / f"mint-{count}"
            return running.enter_context(
                RealMint(home, fee_ppk=fee_ppk, units=units, seed=f"test-only-{count}", extra=extra)
            )

        yield start
