"""The real mint as the tests start it."""

import httpx
import pytest

from demo.mint import RealMint
from tests.harness.mint import StartMint


def keysets(mint: RealMint) -> list[dict[str, object]]:
    found: list[dict[str, object]] = httpx.get(f"{mint.url}/v1/keysets").json()["keysets"]
    return found


def test_the_shared_mint_serves_sat_without_fees(real_mint: RealMint) -> None:
    (keyset,) = keysets(real_mint)
    assert (keyset["unit"], keyset["input_fee_ppk"], keyset["active"]) == ("sat", 0, True)


def test_fee_and_units_are_the_tests_choice(start_mint: StartMint) -> None:
    mint = start_mint(fee_ppk=100, units=("msat", "sat"))
    assert {each["unit"]: each["input_fee_ppk"] for each in keysets(mint)} == {
        "sat": 100,
        "msat": 100,
    }


def test_a_mint_can_be_paused_and_restarted(start_mint: StartMint) -> None:
    mint = start_mint()
    before = keysets(mint)
    mint.pause()
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{mint.url}/v1/keysets", timeout=0.3)
    mint.resume()
    assert keysets(mint) == before
    mint.kill()
    with pytest.raises(httpx.ConnectError):
        keysets(mint)
    mint.start()
    assert keysets(mint) == before
