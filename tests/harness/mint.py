"""Fixtures of the real mint: one for the whole run, and as many more as a test wants to torment."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from demo.mint import RealMint
from demo.wallet import Wallet


class StartMint(Protocol):
    """Starts a mint of the test's own; it ends with the test."""

    def __call__(
        self,
        *,
        fee_ppk: int = 0,
        units: tuple[str, ...] = ("sat",),
        extra: dict[str, str] | None = None,
    ) -> RealMint: ...


class OpenWallet(Protocol):
    """Opens a customer's empty wallet at a mint; it ends with the test."""

    async def __call__(self, mint: RealMint, *, unit: str = "sat") -> Wallet: ...


@pytest.fixture(scope="session")
def real_mint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMint]:
    """One sat mint without fees, shared by all tests: take from it, and leave it running."""
    with RealMint(tmp_path_factory.mktemp("mint")) as mint:
        yield mint


@pytest.fixture(scope="session")
def fee_mint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMint]:
    """One with fees, so that a lost or doubled one would show; each test counts from what it finds.

    Its tests take their own funds.
    """
    with RealMint(tmp_path_factory.mktemp("mint"), fee_ppk=100) as mint:
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


@pytest.fixture
async def open_wallet() -> AsyncIterator[OpenWallet]:
    """Wallets with seeds of their own: two with one seed would ask a mint for the same outputs."""
    async with AsyncExitStack() as opened:

        async def start(mint: RealMint, *, unit: str = "sat") -> Wallet:
            wallet = Wallet(mint.url, seed=secrets.token_bytes(64), unit=unit)
            return await opened.enter_async_context(wallet)

        yield start
