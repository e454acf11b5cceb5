"""Paid by the token a request brings (contract, section 7): whole answers, streams, failures."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from routstr.flows.expire import expire
from tests.fakes.mint import FakeMint
from tests.fakes.upstream_script import Fault, Gate, Script, failure
from tests.harness.kiosk import COST_MSAT, Kiosk, open_kiosk
from tests.harness.shop import PATH, order, until
from tests.harness.till import ON_SQLITE, worth, ys_of
from tests.ledger.lossy import lossy_line


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def kiosk(database_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Kiosk]:
    async with open_kiosk(database_url, mint, tmp_path) as kiosk:
        yield kiosk


def comment_in(stream: str) -> dict[str, Any]:
    [line] = [line for line in stream.splitlines() if line.startswith(": routstr ")]
    told: dict[str, Any] = json.loads(line.removeprefix(": routstr "))
    return told


# ── it goes well ──────────────────────────────────────────────────────────────────────────────


async def test_an_answer_brings_its_change(kiosk: Kiosk) -> None:
    token = kiosk.mint.issue(21)
    answer = await kiosk.buy(token)
    assert answer.status_code == 200, answer.text
    change = answer.headers["x-cashu"]
    assert worth(change) == 20  # 21 000 - 145 msat, rounded down to sat
    assert answer.headers["x-routstr-cost-msats"] == str(COST_MSAT)
    usage = answer.json()["usage"]
    assert usage["cost"]["total_msats"] == COST_MSAT
    assert "remaining_balance_msats" not in usage
    assert set(kiosk.mint.state_of(ys_of(change)).values()) == {"UNSPENT"}
    await kiosk.assert_claimable(answer, token, 20)
    assert "x-cashu" not in kiosk.upstream.calls[0].headers

    kiosk.mint.set_spent(ys_of(change))
    secret = answer.headers["x-routstr-claim-secret"]
    claimed = await kiosk.change(answer.headers["x-routstr-change"], secret=secret)
    assert claimed.json()["status"] == "claimed"
    assert "token" not in claimed.json()
    none = await kiosk.http.post("/v1/balance/refund", headers={"x-cashu": token})
    error = none.json()["error"]
    assert (none.status_code, error["type"]) == (400, "token_already_spent")
    assert error["message"] == "No balance to refund"
    kiosk.mint.ledger.spent.difference_update(ys_of(change))


async def test_a_stream_brings_it_in_its_last_comment(kiosk: Kiosk) -> None:
    token = kiosk.mint.issue(21)
    gate = Gate()
    kiosk.upstream.script(Script(gate=gate))
    request = kiosk.http.build_request(
        "POST", PATH, headers={"x-cashu": token}, json=order(stream=True)
    )
    answer = await kiosk.http.send(request, stream=True)
    assert answer.status_code == 200
    url, secret = answer.headers["x-routstr-change"], answer.headers["x-routstr-claim-secret"]
    assert "x-cashu" not in answer.headers
    assert not kiosk.ctx.one_shots  # its hold says that it runs, in every process
    running = await kiosk.change(url, secret=secret)
    assert (running.status_code, running.headers["x-should-retry"]) == (425, "true")
    assert (await kiosk.buy(token)).json()["error"]["code"] == "operation_in_progress"
    gate.open_for_ever()
    text = (await answer.aread()).decode()
    told = comment_in(text)
    assert text.endswith("data: [DONE]\n\n")
    assert told["cost"]["total_msats"] == COST_MSAT
    assert worth(told["change"]) == 20
    await kiosk.assert_claimable(answer, token, 20)


async def test_the_output_limit_is_lowered_to_what_the_token_pays(kiosk: Kiosk) -> None:
    answer = await kiosk.buy(kiosk.mint.issue(1), max_tokens=None)
    assert answer.status_code == 200, answer.text
    limit = int(answer.headers["x-routstr-output-limit"])
    assert kiosk.upstream.calls[0].json["max_completion_tokens"] == limit
    assert "x-cashu" not in answer.headers  # 1 000 - 145 msat is less than a sat
    url, secret = answer.headers["x-routstr-change"], answer.headers["x-routstr-claim-secret"]
    none = await kiosk.change(url, secret=secret)
    assert none.json() == {
        "id": url.rpartition("/")[2],
        "status": "none",
        "sats": "0",
        "cost": COST_MSAT,
        "request_id": answer.headers["x-request-id"],
    }


@ON_SQLITE
async def test_the_openai_sdk_pays_with_a_header(kiosk: Kiosk) -> None:
    token = kiosk.mint.issue(5)
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{kiosk.port}/v1",
        api_key="none",
        default_headers={"X-Cashu": token},
        max_retries=2,
    ) as client:
        asked: Any = order()
        raw = await client.chat.completions.with_raw_response.create(**asked)
        assert raw.parse().choices[0].message.content == "one two three"
        assert worth(raw.headers["x-cashu"]) == 4
        with pytest.raises(openai.BadRequestError) as refusal:
            await client.chat.completions.create(**asked)
    assert refusal.value.response.headers["x-should-retry"] == "false"


# ── one token, one request ────────────────────────────────────────────────────────────────────


async def test_of_twenty_at_once_one_is_served(kiosk: Kiosk) -> None:
    token = kiosk.mint.issue(21)
    answers = await asyncio.gather(*(kiosk.buy(token) for _ in range(20)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) == 1
    assert set(codes) <= {200, 400, 425}
    assert len(kiosk.upstream.calls) == 1
    for answer in answers:
        if answer.status_code != 200:
            assert "x-cashu" not in answer.headers
    again = await kiosk.buy(token)
    served = answers[codes.index(200)]
    error = again.json()["error"]
    assert (again.status_code, error["type"]) == (400, "token_already_spent")
    assert error["details"] == {"change_url": served.headers["x-routstr-change"]}


async def test_a_token_is_good_for_one_purpose(kiosk: Kiosk) -> None:
    """What paid for a request is no key; what opened a key pays for no request of its own."""
    paid, opening = kiosk.mint.issue(3), kiosk.mint.issue(3)
    answer = await kiosk.buy(paid)
    secret = answer.headers["x-routstr-claim-secret"]
    for credential, status in ((paid, 400), (secret, 401)):
        bearer = {"authorization": f"Bearer {credential}"}
        refused = await kiosk.http.post(PATH, headers=bearer, json=order())
        assert refused.status_code == status, refused.text
        assert (await kiosk.http.get("/v1/balance/info", headers=bearer)).status_code == status
    given = {"initial_balance_token": paid}
    assert (await kiosk.http.post("/v1/balance/create", json=given)).status_code == 400
    bearer = {"authorization": f"Bearer {opening}"}
    assert (await kiosk.http.get("/v1/balance/info", headers=bearer)).json()["balance"] == 3000
    spent = await kiosk.buy(opening)
    assert spent.json()["error"]["code"] == "cashu_token_already_spent"
    url = answer.headers["x-routstr-change"]
    other = await kiosk.change(url, token=opening)
    wrong = await kiosk.change(url, secret=f"clm_{'0' * 64}")
    strange = await kiosk.change(f"/v1/balance/change/chg_{'0' * 32}", secret=secret)
    assert [each.status_code for each in (other, wrong, strange)] == [404, 404, 404]
    assert (await kiosk.http.get(url)).status_code == 401


# ── it fails ──────────────────────────────────────────────────────────────────────────────────


@ON_SQLITE
async def test_until_it_is_taken_every_error_gives_the_token_back(
    kiosk: Kiosk, mint: FakeMint
) -> None:
    token = mint.issue(21)
    bare = {"x-cashu": token, "authorization": "Bearer sk-nobody"}
    cases: list[tuple[int, str, httpx.Response]] = [
        (404, "route_not_priced", await kiosk.http.post("/v1/unknown", headers=bare, json={})),
        (415, "unsupported_media_type", await kiosk.http.post(PATH, headers=bare, content=b"x")),
        (400, "invalid_model", await kiosk.buy(token, model="unknown")),
        (
            402,
            "minimum_balance_required",
            await kiosk.buy(token, messages=[{"role": "user", "content": "x" * 9_900}], n=100),
        ),
    ]
    for status, code, answer in cases:
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        assert answer.headers["x-cashu"] == token
        assert answer.headers["x-should-retry"] == "false"
    detail = cases[-1][2].json()["detail"]
    assert detail.keys() == {"reason", "amount_required_msat", "model", "type"}
    assert detail["amount_required_msat"] > 21_000
    assert [call for call in mint.calls if call.path != "/v1/info"] == []
    async with FakeMint() as foreign:
        alien = foreign.issue(21)
        refused = await kiosk.buy(alien)
    assert refused.json()["error"]["code"] == "cashu_untrusted_source_mint"
    assert refused.headers["x-cashu"] == alien
    assert set(mint.state_of(ys_of(token)).values()) == {"UNSPENT"}


@pytest.mark.parametrize(
    ("script", "status", "stream"),
    [
        (failure(400), 400, False),
        (failure(503), 424, True),
        (Script(fault=Fault.CUT), 502, False),
    ],
)
@ON_SQLITE
async def test_a_failure_gives_all_of_it_back(
    kiosk: Kiosk, script: Script, status: int, stream: bool
) -> None:
    token = kiosk.mint.issue(21)
    kiosk.upstream.script(script)
    answer = await kiosk.buy(token, stream=stream)
    assert answer.status_code == status, answer.text
    change = answer.headers["x-cashu"]
    assert worth(change) == 21
    assert answer.json()["error"]["refund_token"] == change
    assert answer.headers["x-should-retry"] == "false"
    await kiosk.assert_claimable(answer, token, 21)


@ON_SQLITE
async def test_what_a_full_node_took_it_gives_back(
    database_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    async with open_kiosk(database_url, mint, tmp_path, exposure_msat_max=1) as kiosk:
        token = mint.issue(21)
        answer = await kiosk.buy(token)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert answer.headers["x-should-retry"] == "false"
        assert worth(answer.headers["x-cashu"]) == 21
        assert answer.headers["x-cashu"] != token
        spent = await kiosk.buy(token)
        assert spent.json()["error"]["details"]["change_url"] == answer.headers["x-routstr-change"]
        assert "x-cashu" not in spent.headers


@ON_SQLITE
async def test_a_bug_after_the_payment_leaves_it_claimable(kiosk: Kiosk) -> None:
    def bug() -> None:
        raise RuntimeError("planted")

    kiosk.marks.at["forward.answered"] = bug
    token = kiosk.mint.issue(21)
    answer = await kiosk.buy(token)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert "x-cashu" not in answer.headers  # it is spent: an echo would be a lie
    url = answer.headers["x-routstr-change"]
    assert (await kiosk.change(url, token=token)).status_code == 425
    await expire(kiosk.ctx, orphaned=True)
    claimed = await kiosk.change(url, secret=answer.headers["x-routstr-claim-secret"])
    assert worth(claimed.json()["token"]) == 21


@ON_SQLITE
async def test_a_node_that_stops_gives_it_back_first(kiosk: Kiosk) -> None:
    kiosk.upstream.script(Script(headers_gate=Gate()))
    buying = asyncio.create_task(kiosk.buy(kiosk.mint.issue(21)))
    await kiosk.upstream.called()
    kiosk.ctx.holds.stop()
    answer = await buying
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
    assert worth(answer.headers["x-cashu"]) == 21


@ON_SQLITE
async def test_a_stream_that_breaks_off_gives_the_rest_back(kiosk: Kiosk) -> None:
    kiosk.upstream.script(Script(fault=Fault.CUT, after=2))
    answer = await kiosk.buy(kiosk.mint.issue(21), stream=True)
    change = comment_in(answer.text)["change"]
    assert worth(change) == 20
    [error] = [line for line in answer.text.splitlines() if '"error"' in line]
    assert json.loads(error.removeprefix("data: "))["error"]["refund_token"] == change


@pytest.mark.parametrize("by_token", [True, False])
async def test_a_client_that_leaves_claims_the_rest(kiosk: Kiosk, by_token: bool) -> None:
    token, gate = kiosk.mint.issue(21), Gate()
    kiosk.upstream.script(Script(gate=gate, chunks=50))
    body = order(stream=True)
    async with kiosk.http.stream("POST", PATH, headers={"x-cashu": token}, json=body) as answer:
        gate.open(2)
        async for _ in answer.aiter_lines():
            break
    await kiosk.upstream.calls[0].closed_by_client()
    await until(lambda: not len(kiosk.ctx.holds))
    await kiosk.quiet()
    url, secret = answer.headers["x-routstr-change"], answer.headers["x-routstr-claim-secret"]
    shown = {"token": token} if by_token else {"secret": secret}
    claimed = (await kiosk.change(url, **shown)).json()
    assert claimed["cost"] > 0
    assert worth(claimed["token"]) == (21_000 - claimed["cost"]) // 1000


async def test_what_was_paid_for_is_answered_though_the_database_went_away(
    postgres_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    async with (
        lossy_line(postgres_url) as line,
        open_kiosk(line.url, mint, tmp_path) as kiosk,
    ):

        def lose_it() -> None:
            line.is_down = True
            line.cut()

        kiosk.marks.at["oneshot.before_change"] = lose_it
        token = mint.issue(21)
        answer = await kiosk.buy(token)
        line.is_down = False
        assert answer.status_code == 200, answer.text
        assert "x-cashu" not in answer.headers
        await kiosk.assert_claimable(answer, token, 20)
