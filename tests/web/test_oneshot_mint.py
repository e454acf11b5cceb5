"""Paid by the token a request brings, where the mint has a part: change, fees, lost answers."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from routstr.flows.reconcile import reconcile
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate, Script
from tests.harness.desk import open_desk
from tests.harness.kiosk import COST_MSAT, Kiosk, open_kiosk
from tests.harness.shop import PATH, order
from tests.harness.till import ON_SQLITE, worth, ys_of


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def kiosk(database_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Kiosk]:
    async with open_kiosk(database_url, mint, tmp_path) as kiosk:
        yield kiosk


async def buy_while_others_take_the_coins(kiosk: Kiosk) -> tuple[str, httpx.Response]:
    """A request whose change, 1 sat, is not at hand when it ends: of the purse one 2 is left."""
    given = {"initial_balance_token": kiosk.mint.issue(3)}
    created = await kiosk.http.post("/v1/balance/create", json=given)
    bearer = {"authorization": f"Bearer {created.json()['api_key']}"}
    token, gate = kiosk.mint.issue(2), Gate()
    kiosk.upstream.script(Script(headers_gate=gate))
    buying = asyncio.create_task(kiosk.buy(token))
    await kiosk.upstream.called()
    for _ in range(3):
        taken = await kiosk.http.post("/v1/balance/refund", headers=bearer, json={"amount_sats": 1})
        assert taken.json()["status"] == "completed"
    gate.open_for_ever()
    return token, await buying


def swaps(kiosk: Kiosk) -> int:
    return len([call for call in kiosk.mint.calls if call.path == "/v1/swap"])


async def test_without_the_coins_the_mint_makes_the_change(kiosk: Kiosk) -> None:
    token, answer = await buy_while_others_take_the_coins(kiosk)
    assert worth(answer.headers["x-cashu"]) == 1
    assert swaps(kiosk) == 3
    await kiosk.assert_claimable(answer, token, 1)


async def test_a_crowd_gets_its_change_from_one_refill(kiosk: Kiosk) -> None:
    """Not from a swap each, which would use up what its mint allows in a minute."""
    given = {"initial_balance_token": kiosk.mint.issue(200)}
    created = await kiosk.http.post("/v1/balance/create", json=given)
    bearer = {"authorization": f"Bearer {created.json()['api_key']}"}
    while (await ones(kiosk)) > 0:
        taken = await kiosk.http.post("/v1/balance/refund", headers=bearer, json={"amount_sats": 1})
        assert taken.json()["status"] == "completed"
    lock = kiosk.ctx.acceptance.current
    tokens = [kiosk.mint.issue(2, lock_to=lock) for _ in range(5)]
    answers = await asyncio.gather(*(kiosk.buy(token) for token in tokens))
    assert [worth(answer.headers["x-cashu"]) for answer in answers] == [1] * 5
    assert await count(kiosk, "mint_operation WHERE withdrawal_id IS NOT NULL") == 0


async def ones(kiosk: Kiosk) -> int:
    return await count(kiosk, "proof WHERE state = 'unspent' AND amount = 1")


async def count(kiosk: Kiosk, what: str) -> int:
    async with kiosk.ctx.database.reading() as connection:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {what}")))


@ON_SQLITE
async def test_a_mint_that_is_silent_costs_the_wait_only(
    database_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    async with open_kiosk(database_url, mint, tmp_path, change_wait_s=0.2) as kiosk:
        gate = Gate()
        silence = Trouble(path="/v1/swap", gate=gate)
        kiosk.marks.at["oneshot.before_change"] = lambda: mint.trouble(silence)
        token, answer = await buy_while_others_take_the_coins(kiosk)
        assert answer.status_code == 200
        assert "x-cashu" not in answer.headers
        assert swaps(kiosk) == 3
        gate.open_for_ever()
        await kiosk.assert_claimable(answer, token, 1)


async def test_a_lost_answer_to_the_swap_is_found_by_the_token(
    sqlite_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    """Nobody knows whether the token was taken: it is echoed, and claims what it was worth."""
    async with open_kiosk(sqlite_url, mint, tmp_path, resume_every_s=0.1) as kiosk:
        token = mint.issue(4)
        mint.trouble(
            Trouble(path="/v1/swap", cut=True),
            Trouble(path="/v1/restore", processed=False, cut=True),
        )
        answer = await kiosk.buy(token)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "true")
        assert answer.headers["x-cashu"] == token
        url = answer.headers["x-routstr-change"]
        async with asyncio.timeout(10):
            while (claimed := await kiosk.change(url, token=token)).status_code == 425:
                pass
        assert worth(claimed.json()["token"]) == 4
        assert kiosk.upstream.calls == []


@ON_SQLITE
async def test_change_that_was_taken_back_is_given_anew(kiosk: Kiosk) -> None:
    token = kiosk.mint.issue(21)
    answer = await kiosk.buy(token)
    first = answer.headers["x-cashu"]
    now = kiosk.ctx.live.now
    kiosk.ctx.live.replace(replace(now, limits=replace(now.limits, refund_ttl_s=0)))
    _, found = await reconcile(kiosk.ctx)
    assert found["reclaimed"] == 1
    assert set(kiosk.mint.state_of(ys_of(first)).values()) == {"SPENT"}
    url = answer.headers["x-routstr-change"]
    anew = (await kiosk.change(url, token=token)).json()
    assert (anew["status"], worth(anew["token"])) == ("ready", 20)
    assert anew["token"] != first
    assert (await kiosk.change(url, token=token)).json() == anew


async def test_the_mints_fee_counts(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        FakeMint(fee_ppk=1000, units=("sat", "msat")) as mint,
        open_kiosk(sqlite_url, mint, tmp_path) as kiosk,
    ):
        await kiosk.buy(mint.issue(4))  # from now on its keysets are known
        short = await kiosk.buy(mint.issue(1))
        assert short.json()["error"]["code"] == "minimum_balance_required"
        answer = await kiosk.buy(mint.issue(2**20, "msat"))
        change = await kiosk.change(
            answer.headers["x-routstr-change"], secret=answer.headers["x-routstr-claim-secret"]
        )
        assert answer.status_code == 200
        assert int(change.json()["msats"]) <= 2**20 - 1 - COST_MSAT
        assert worth(change.json()["token"]) == int(change.json()["msats"])


async def test_locked_ecash_may_be_required(
    sqlite_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    async with open_desk(sqlite_url, mint, tmp_path, p2pk_lock="require") as desk:
        token = mint.issue(4)
        body = order(model="demo/small")
        answer = await desk.http.post(PATH, headers={"x-cashu": token}, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cashu_token")
        assert answer.headers["x-cashu"] == token
