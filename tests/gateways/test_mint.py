"""Which mints are asked, and what they offer, against the model mint."""

from collections.abc import Callable

import pytest

from routstr.core.url import BadUrl
from routstr.ecash.bdhke import public_key
from routstr.ecash.errors import UnsupportedKeyset
from routstr.errors import UntrustedMint
from routstr.gateways.mint import MintClient, Priority
from routstr.gateways.mint_failure import (
    MintLimited,
    MintMisbehaved,
)
from tests.fakes.clock import FakeClock
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.mint_ledger import JsonObject
from tests.gateways.swapping import client_of

# ── who is asked ──────────────────────────────────────────────────────────────────────────────


async def test_a_mint_off_the_list_is_never_called(mint: FakeMint, mint_client: MintClient) -> None:
    async with FakeMint() as other:
        for url in (other.url, mint.url + "/", mint.url.upper(), "https://mint.example"):
            with pytest.raises(UntrustedMint):
                await mint_client.get_info(url)
            with pytest.raises(UntrustedMint):
                await mint_client.swap(url, b"{}", priority=Priority.RECEIVE)
        assert other.calls == []
    assert mint.calls == []


async def test_the_allow_list_can_change(mint: FakeMint, mint_client: MintClient) -> None:
    mint_client.allow([])
    with pytest.raises(UntrustedMint):
        await mint_client.get_info(mint.url)
    mint_client.allow([mint.url])
    assert (await mint_client.get_info(mint.url)).name == "Model mint"
    with pytest.raises(BadUrl):
        mint_client.allow([mint.url + "/"])


def test_the_list_is_canonical_from_the_start() -> None:
    for url in ("https://Mint.example", "http://127.0.0.1:3338", "https://mint.example/?x"):
        with pytest.raises(BadUrl):
            MintClient(mint_urls=[url], clock=FakeClock())


async def test_what_a_mint_sees_of_us(mint: FakeMint, mint_client: MintClient) -> None:
    mint.trouble(Trouble(path="/v1/info", headers={"Set-Cookie": "track=1; Path=/"}))
    await mint_client.get_info(mint.url)
    await mint_client.check_state(mint.url, ["02" + "11" * 32])
    names = {name: value for name, value in mint.calls[1].headers.items() if name != "host"}
    assert names == {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "routstr",
        "connection": "keep-alive",
        "content-length": str(len(mint.calls[1].body)),
    }


async def test_a_mint_that_stays_on_the_list_keeps_its_limits(
    mint: FakeMint, mint_client: MintClient
) -> None:
    mint.trouble(Trouble(path="/v1/info", status=429, retry_after="45"))
    with pytest.raises(MintLimited):
        await mint_client.get_info(mint.url)
    mint_client.allow([mint.url, "https://mint.example"])
    with pytest.raises(MintLimited) as caught:
        await mint_client.get_info(mint.url)
    assert (caught.value.was_sent, caught.value.retry_after_s) == (False, 45)


async def test_a_proxy_of_the_environment_is_not_used(
    mint: FakeMint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with client_of(mint) as mint_client:
        assert (await mint_client.get_info(mint.url)).name == "Model mint"


# ── what a mint offers ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", ["00", "01"])
async def test_keysets_are_loaded_with_their_keys(version: str) -> None:
    async with FakeMint(fee_ppk=100, units=("sat", "msat"), version=version) as mint:
        old = mint.ledger.active("sat").keyset.id
        new = mint.rotate("sat", fee_ppk=200)
        async with client_of(mint) as mint_client:
            keysets = {each.id: each for each in await mint_client.load_keysets(mint.url)}
            assert (keysets[old].active, keysets[old].input_fee_ppk) == (False, 100)
            assert (keysets[new].active, keysets[new].input_fee_ppk) == (True, 200)
            assert sorted(each.unit for each in keysets.values()) == ["msat", "sat", "sat"]
            assert keysets[new].keys == mint.ledger.keysets[new].keyset.keys
            before = len(mint.calls)
            again = await mint_client.load_keysets(mint.url, known=keysets)
            assert {each.id: each for each in again} == keysets
            assert len(mint.calls) == before + 2  # info and the list, no keys


@pytest.mark.parametrize("missing", [7, 9, 12])
async def test_a_mint_without_the_nuts_we_need_is_refused(missing: int) -> None:
    async with (
        FakeMint(nuts={7, 9, 10, 11, 12} - {missing}) as mint,
        client_of(mint) as mint_client,
    ):
        with pytest.raises(MintMisbehaved, match="lacks"):
            await mint_client.load_keysets(mint.url)


async def test_other_units_and_versions_are_left_out(
    mint: FakeMint, mint_client: MintClient
) -> None:
    def add(answer: JsonObject) -> JsonObject:
        entries = answer["keysets"]
        assert isinstance(entries, list)
        for keyset_id, unit in (("I2yN+iRYfkzT", "sat"), ("02" + "ab" * 32, "sat")):
            entries.append({**entries[0], "id": keyset_id, "unit": unit})
        entries.append({**entries[0], "id": "00" + "ab" * 7, "unit": "usd"})
        return answer

    mint.trouble(Trouble(path="/v1/keysets", tamper=add))
    assert len(await mint_client.load_keysets(mint.url)) == 2


def other_key(answer: JsonObject) -> JsonObject:
    entries = answer["keysets"]
    assert isinstance(entries, list)
    entries[0]["keys"]["1"] = public_key("11" * 32)
    return answer


def more_fee(answer: JsonObject) -> JsonObject:
    entries = answer["keysets"]
    assert isinstance(entries, list)
    entries[0]["input_fee_ppk"] = 1
    return answer


def great_fee(answer: JsonObject) -> JsonObject:
    entries = answer["keysets"]
    assert isinstance(entries, list)
    entries[0]["input_fee_ppk"] = 1_001
    return answer


def twice(answer: JsonObject) -> JsonObject:
    entries = answer["keysets"]
    assert isinstance(entries, list)
    return {"keysets": [*entries, entries[0]]}


@pytest.mark.parametrize(
    ("path", "lie", "why"),
    [
        ("/v1/keys/", other_key, "id"),
        ("/v1/keysets", more_fee, "id"),
        ("/v1/keysets", great_fee, "bound"),
        ("/v1/keysets", twice, "twice"),
    ],
)
async def test_a_keyset_that_lies_condemns_its_mint(
    mint: FakeMint,
    mint_client: MintClient,
    path: str,
    lie: Callable[[JsonObject], object],
    why: str,
) -> None:
    mint.trouble(Trouble(path=path, tamper=lie))
    with pytest.raises(MintMisbehaved, match=why):
        await mint_client.load_keysets(mint.url)


async def test_an_odd_keyset_id_never_reaches_the_network(
    mint: FakeMint, mint_client: MintClient
) -> None:
    for keyset_id in ("", "../info", "00" + "A" * 14, "01" + "a" * 14, "00/../../x"):
        with pytest.raises(UnsupportedKeyset):
            await mint_client.get_keys(mint.url, keyset_id)
    assert mint.calls == []
