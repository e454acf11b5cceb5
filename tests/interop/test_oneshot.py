"""A wallet that is not ours pays for one request, as its 402 asks, and redeems the change."""

import json
from collections.abc import Mapping
from typing import Any, Final

import httpx
import pytest

from demo.prices import PriceList
from tests.interop.cashu_ts import CashuTs
from tests.interop.conftest import MODEL, PROMPT, Buyer, OpenCashuTs

pytestmark = pytest.mark.usefixtures("audited")

PATH: Final = "/chat/completions"
ORDER: Final = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
COMMENT: Final = ": routstr "


def cost_msat(text: str) -> int:
    """What that answer must cost, by our own price list."""
    words = {"words_in": len(PROMPT.split()), "words_out": len(text.split())}
    return PriceList.load()[MODEL].cost_msat(**words)


async def read_request(wallet: CashuTs, text: str) -> dict[str, Any]:
    """What is asked for, in whichever form; no tags and an empty list of them mean the same."""
    read = await wallet.read_request(text)
    read["lock"].setdefault("tags", [])
    return {name: read[name] for name in read.keys() - {"creqA", "creqB"}}


async def claim(buyer: Buyer, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    answer = await buyer.http.get(buyer.market.node.url + url, headers=headers)
    assert answer.status_code == httpx.codes.OK, answer.text
    claimed: dict[str, Any] = answer.json()
    return claimed


async def redeem(wallet: CashuTs, change: str, *, credit_msat: int, paid_msat: int) -> None:
    """Take the change, which with the cost makes the credit, but for less than a sat."""
    held_sat, back = await wallet.balance(), await wallet.decode(change)
    assert back.dleqs == back.proofs
    assert 0 <= credit_msat - paid_msat - back.amount * 1000 < 1000
    assert await wallet.receive(change, is_dleq_needed=True) == back.amount - back.fee
    assert await wallet.balance() == held_sat + back.amount - back.fee


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "open"])
async def test_a_402_is_paid_with_what_it_asks_for(
    buyer: Buyer, open_cashu_ts: OpenCashuTs, *, is_locked: bool
) -> None:
    wallet = await open_cashu_ts(buyer.market.mint)
    await wallet.mint(1000)
    await buyer.stock(wallet)
    refused = await buyer.http.post(PATH, json=ORDER)
    assert refused.status_code == httpx.codes.PAYMENT_REQUIRED
    details = refused.json()["error"]["details"]
    asked = await read_request(wallet, refused.headers["x-cashu"])
    assert asked == await read_request(wallet, details["payment_request_bech32"])
    pubkey = (await buyer.http.get("/info")).json()["p2pk_pubkey"]
    assert (asked["unit"], asked["mints"], asked["transports"]) == ("sat", details["mints"], [])
    assert asked["lock"] == {"kind": "P2PK", "data": pubkey, "tags": []}

    had_sat = await wallet.balance()
    if is_locked:
        token = await wallet.pay(refused.headers["x-cashu"])
    else:
        token = await wallet.send(asked["amount"])
    paid = await wallet.decode(token)
    assert paid.amount == asked["amount"]
    assert had_sat - await wallet.balance() - paid.amount <= buyer.market.fee_sat(10)
    credit_msat = (paid.amount - paid.fee) * 1000
    assert credit_msat >= details["amount_required_msat"]

    answer = await buyer.http.post(PATH, json=ORDER, headers={"X-Cashu": token})
    assert answer.status_code == httpx.codes.OK, answer.text
    assert "x-routstr-output-limit" not in answer.headers
    told_msat = answer.json()["usage"]["cost"]["total_msats"]
    assert told_msat == cost_msat(answer.json()["choices"][0]["message"]["content"])
    change = answer.headers["x-cashu"]
    claimed = await claim(buyer, answer.headers["x-routstr-change"], {"X-Cashu": token})
    assert (claimed["token"], claimed["cost"]) == (change, told_msat)
    await redeem(wallet, change, credit_msat=credit_msat, paid_msat=told_msat)


@pytest.mark.parametrize("market", [100], indirect=True, ids="{}ppk".format)
async def test_the_change_of_a_stream_is_in_its_last_comment(
    buyer: Buyer, open_cashu_ts: OpenCashuTs
) -> None:
    wallet = await open_cashu_ts(buyer.market.mint)
    await wallet.mint(1000)
    await buyer.stock(wallet)
    token = await wallet.send(250)
    paid = await wallet.decode(token)
    async with buyer.http.stream(
        "POST", PATH, json={**ORDER, "stream": True}, headers={"X-Cashu": token}
    ) as stream:
        url = stream.headers["x-routstr-change"]  # the head is here, and no byte was read yet
        secret = stream.headers["x-routstr-claim-secret"]
        assert "x-cashu" not in stream.headers
        lines = [line async for line in stream.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    told = json.loads(lines[-2].removeprefix(COMMENT))
    deltas = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in deltas)
    assert told["cost"]["total_msats"] == cost_msat(text)

    shown = [{"X-Cashu": token}, {"Authorization": f"Bearer {secret}"}]
    for headers in shown:
        claimed = await claim(buyer, url, headers)
        assert (claimed["status"], claimed["token"]) == ("ready", told["change"])
    await redeem(
        wallet,
        told["change"],
        credit_msat=(250 - paid.fee) * 1000,
        paid_msat=told["cost"]["total_msats"],
    )
    for headers in shown:
        claimed = await claim(buyer, url, headers)
        assert (claimed["status"], "token" in claimed) == ("claimed", False)
