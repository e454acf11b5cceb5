"""The fakes and the clients for them."""

from collections.abc import AsyncIterator

import pytest

from routstr.gateways.mint import MintClient
from routstr.gateways.upstream import UpstreamClient
from tests.fakes.mint import FakeMint
from tests.fakes.upstream import FakeUpstream
from tests.gateways.asking import KEY
from tests.gateways.swapping import Swap, client_of


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as server:
        yield server


@pytest.fixture
async def client(upstream: FakeUpstream) -> AsyncIterator[UpstreamClient]:
    async with UpstreamClient(
        base_url=upstream.base_url, api_key=KEY, allow_loopback_http=True
    ) as opened:
        yield opened


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint(units=("sat", "msat")) as model:
        yield model


@pytest.fixture
async def mint_client(mint: FakeMint) -> AsyncIterator[MintClient]:
    async with client_of(mint) as opened:
        yield opened


@pytest.fixture
async def swap(mint: FakeMint, mint_client: MintClient) -> Swap:
    keysets = await mint_client.load_keysets(mint.url)
    return Swap(mint, next(each for each in keysets if each.unit == "sat"))
