"""Which credential counts, read without asking anybody."""

from collections.abc import AsyncIterator

import pytest

from routstr.errors import InvalidApiKey, InvalidParameter, MissingApiKey, RateLimited
from routstr.flows.authenticate import authenticate, identify, read_credential
from tests.harness.shop import Shop, open_shop

KEY = f"sk-{'a' * 64}"
OTHER = f"sk-{'b' * 64}"


@pytest.fixture
async def shop(sqlite_url: str) -> AsyncIterator[Shop]:
    async with open_shop(sqlite_url, early_leaves_max=1) as shop:
        yield shop


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer   {KEY} "},
        {"x-api-key": f" {KEY}"},
        {"authorization": f"Bearer {KEY}", "x-api-key": OTHER},
        {"authorization": "Basic YTpi", "x-api-key": KEY},
    ],
)
async def test_a_key_is_only_hashed(shop: Shop, headers: dict[str, str]) -> None:
    credential = read_credential(shop.ctx, headers)
    assert credential.key_hash == shop.ctx.wallet.vault.key_hash(KEY)
    assert credential.token_text is None
    caller = await authenticate(shop.ctx, headers)
    assert caller.ref.hash == credential.key_hash


@pytest.mark.parametrize("text", ["cashuAeyJ", "cashuBo2F", "cashu:cashuBo2F"])
async def test_a_token_is_kept_for_later_and_never_shown(shop: Shop, text: str) -> None:
    credential = read_credential(shop.ctx, {"authorization": f"Bearer {text}"})
    assert credential.token_text == text
    assert text not in repr(credential)


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({}, MissingApiKey),
        ({"authorization": "Bearer"}, MissingApiKey),
        ({"x-api-key": "  "}, MissingApiKey),
        ({"authorization": f"Bearer {KEY}, Bearer {OTHER}"}, InvalidApiKey),
        ({"authorization": f"Bearer {KEY.upper()}"}, InvalidApiKey),
        ({"authorization": f"Bearer x{KEY}"}, InvalidApiKey),
        ({"authorization": "Bearer Cashu"}, InvalidApiKey),
        ({"x-cashu": "cashuBo2F", "authorization": f"Bearer {KEY}"}, InvalidParameter),
    ],
)
async def test_what_is_no_credential_is_refused(
    shop: Shop, headers: dict[str, str], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        read_credential(shop.ctx, headers)


async def test_early_leaves_ration_the_road_alone(shop: Shop) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    credential = read_credential(shop.ctx, headers)
    caller = await identify(shop.ctx, credential)
    shop.ctx.early_leaves.note(caller.ration)
    with pytest.raises(RateLimited):
        await identify(shop.ctx, credential)
    assert await authenticate(shop.ctx, headers) == caller
