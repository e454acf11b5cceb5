"""The billing table of the guarantees, section 2, row by row, over real HTTP on both engines."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.fakes.upstream_script import EMPTY, INSANE_USAGES, Fault, Script, failure
from tests.harness.funding import (
    FundedKey,
    assert_books_are_clean,
    balance_msat,
    told,
    usage_rows,
)
from tests.harness.receipts import document_in, sound_receipt
from tests.harness.shop import PATH, Shop, open_shop, order

FUNDS_MSAT = 1_000_000
EXACT = 100 + 10 * 2 + 5 * 5  # the fake's usage: 10 tokens in, 5 out
ESTIMATE = 100 + 4 * 2 + 4 * 5  # 14 bytes in, 13 out, four to a token
TWO_PIECES = 100 + 4 * 2 + 3 * 5  # "one two th": the first two of three chunks

WHOLE_QUOTE = 100 + 96 * 2 + 100 * 5  # the body as serialised again has 96 bytes
STREAM_QUOTE = 100 + 110 * 2 + 100 * 5  # and 110 with `stream`


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(
        database_url,
        upstream_connect_timeout_s=0.2,
        upstream_first_byte_timeout_s=0.2,
        upstream_idle_timeout_s=0.2,
    ) as shop:
        yield shop


@dataclass(frozen=True, kw_only=True)
class Row:
    script: Script
    outcome: str
    evidence: str
    charged_msat: int
    status: int = 200
    code: str | None = None
    ends: str = "done"  # a stream's: done or error
    order: dict[str, Any] = field(default_factory=dict)
    absorbed_msat: int = 0
    at_risk: bool = False

    @property
    def label(self) -> str:
        fault = "" if self.script.fault is Fault.NONE else f"-{self.script.fault}"
        return f"{self.outcome}{fault}-{self.script.status}-{self.charged_msat}"


def free(
    outcome: str, script: Script, status: int = 200, code: str | None = None, **more: Any
) -> Row:
    return Row(
        script=script, outcome=outcome, evidence="none", charged_msat=0, status=status, code=code,
        at_risk=True, **more,
    )  # fmt: skip


def exact(outcome: str, script: Script, charged_msat: int = EXACT, **more: Any) -> Row:
    return Row(script=script, outcome=outcome, evidence="exact", charged_msat=charged_msat, **more)


def estimated(outcome: str, script: Script, charged_msat: int = ESTIMATE, **more: Any) -> Row:
    return Row(
        script=script, outcome=outcome, evidence="estimated", charged_msat=charged_msat, **more
    )


UNAVAILABLE = "UPSTREAM_UNAVAILABLE"
FAILED = "upstream_request_failed"

BEFORE_THE_HEAD = [
    free("upstream_failed", failure(500), 424, UNAVAILABLE),
    free("upstream_failed", failure(503), 424, UNAVAILABLE),
    free("upstream_failed", Script(status=302, body=b""), 424, UNAVAILABLE),
    free("upstream_failed", Script(fault=Fault.RESET_BEFORE_HEADERS), 424, UNAVAILABLE),
    free("upstream_failed", Script(fault=Fault.CLOSE_BEFORE_HEADERS), 424, UNAVAILABLE),
    free("upstream_failed", Script(fault=Fault.NOT_HTTP), 502, FAILED),
    free("upstream_failed", Script(gzip=True), 502, FAILED),
    free("upstream_rejected", failure(400, code="context_length"), 400, "context_length"),
    free("upstream_rejected", failure(422), 422, "invalid_parameter"),
    free("upstream_rejected", failure(401), 424, UNAVAILABLE),
    free("upstream_rejected", failure(429, retry_after=7), 429, "UPSTREAM_RATE_LIMIT"),
    free("stalled", Script(fault=Fault.SILENCE), 424, "UPSTREAM_TIMEOUT"),
    free("stalled", Script(fault=Fault.HALF_HEADERS), 424, "UPSTREAM_TIMEOUT"),
]
BODIES = [
    exact("completed", Script()),
    exact("completed", Script(usage={"prompt_tokens": 10, "completion_tokens": 0}), 120),
    exact("completed", Script(usage={"prompt_tokens": 10, "total_tokens": 15})),
    estimated("completed_no_usage", Script(usage=None)),
    free("empty", EMPTY),
    free("empty", Script(text="", usage=None)),
    free("upstream_failed", Script(body=b'{"error":{"message":"no"}}'), 502, FAILED),
    free("cut_before_output", Script(body=b"", content_length_extra=5), 502, FAILED),
    free("cut_after_output", Script(fault=Fault.CUT), 502, FAILED),
    free("malformed", Script(body=b"not JSON"), 502, FAILED),
    free("malformed", Script(body=b"[1]"), 502, FAILED),
    free("stalled", Script(fault=Fault.STALL), 424, "UPSTREAM_TIMEOUT"),
    exact(
        "over_reserve",
        Script(prompt_tokens=10, completion_tokens=3_000),
        WHOLE_QUOTE,
        absorbed_msat=100 + 20 + 15_000 - WHOLE_QUOTE,
    ),
    *(estimated("usage_insane", Script(usage=usage)) for usage in INSANE_USAGES if usage is not None
      and usage != {"prompt_tokens": None, "completion_tokens": None}),
]  # fmt: skip
STREAMS = [
    exact("completed", Script()),
    exact("completed", Script(), order={"stream_options": {"include_usage": True}}),
    exact("completed", Script(usage_in_every_chunk=True)),
    exact("completed", Script(fault=Fault.BAD_EVENT)),
    estimated("completed_no_usage", Script(usage=None)),
    estimated("malformed", Script(usage=None, fault=Fault.BAD_EVENT)),
    free("empty", EMPTY),
    free("empty", Script(chunks=0, usage=None)),
    free("upstream_failed", Script(fault=Fault.ERROR_EVENT, after=0), ends="error"),
    estimated(
        "cut_after_output", Script(fault=Fault.ERROR_EVENT, after=2), TWO_PIECES, ends="error"
    ),
    free("cut_before_output", Script(fault=Fault.CUT, after=0), ends="error"),
    estimated("cut_after_output", Script(fault=Fault.CUT, after=2), TWO_PIECES, ends="error"),
    exact(
        "cut_after_output",
        Script(fault=Fault.CUT, after=2, usage_in_every_chunk=True),
        ends="error",
    ),
    exact("no_done", Script(done=False)),
    estimated("no_done", Script(done=False, usage=None)),
    estimated(
        "cut_after_output", Script(done=False, usage=None, finish_reason=None), ends="error"
    ),
    free("stalled", Script(fault=Fault.STALL, after=0), ends="error"),
    estimated("stalled", Script(fault=Fault.STALL, after=2), TWO_PIECES, ends="error"),
    exact(
        "over_reserve",
        Script(prompt_tokens=10, completion_tokens=3_000),
        STREAM_QUOTE,
        absorbed_msat=100 + 20 + 15_000 - STREAM_QUOTE,
    ),
    estimated("usage_insane", Script(usage=INSANE_USAGES[0])),
    estimated("usage_insane", Script(usage="many", usage_in_every_chunk=True)),
]  # fmt: skip


async def test_whole_answers_are_charged_as_their_rows_say(
    shop: Shop, subtests: pytest.Subtests
) -> None:
    for row in [*BEFORE_THE_HEAD, *BODIES]:
        with subtests.test(row.label, script=row.script):
            await assert_whole(shop, row)


async def test_streams_are_charged_as_their_rows_say(shop: Shop, subtests: pytest.Subtests) -> None:
    for row in [*BEFORE_THE_HEAD, *STREAMS]:
        with subtests.test(row.label, script=row.script):
            await assert_stream(shop, row)


async def assert_whole(shop: Shop, row: Row) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = row.script
    shop.ctx.upstream.follow({})  # what it did before is forgotten
    answer = await shop.http.post(PATH, headers=key.headers, json=order(**row.order))
    assert answer.status_code == row.status, answer.text
    if row.code is not None:
        assert_error(answer.json(), row.code)
        assert answer.headers["x-routstr-error-scope"] == "upstream"
    else:
        assert answer.headers["x-routstr-cost-msats"] == str(row.charged_msat)
        assert answer.headers["content-length"] == str(len(answer.content))
    receipt = document_in(answer.headers["x-routstr-receipt"])
    await assert_charged(shop, key, row, receipt)


async def assert_stream(shop: Shop, row: Row) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = row.script
    shop.ctx.upstream.follow({})  # what it did before is forgotten
    body = order(stream=True, **row.order)
    answer = await shop.http.post(PATH, headers=key.headers, json=body)
    assert answer.status_code == row.status, answer.text
    if row.code is not None:
        assert_error(answer.json(), row.code)
        receipt = document_in(answer.headers["x-routstr-receipt"])
    else:
        *_, comment, last, rest = answer.text.split("\n\n")
        assert rest == ""
        assert comment.startswith(": routstr {")
        assert f'"total_msats":{row.charged_msat},' in comment
        assert last.startswith("data: [DONE]" if row.ends == "done" else 'data: {"error":')
        receipt = document_in(comment)
    await assert_charged(shop, key, row, receipt)


async def assert_charged(shop: Shop, key: FundedKey, row: Row, document: bytes) -> None:
    await shop.quiet()
    await assert_books_are_clean(shop.ctx)
    [written] = await usage_rows(shop.ctx, key)
    said = told(written)
    assert (said["outcome"], said["evidence"]) == (row.outcome, row.evidence)
    assert written.amount_msat == -row.charged_msat
    assert said["absorbed_msat"] == row.absorbed_msat
    assert (int(str(said["at_risk_msat"])) > 0) is row.at_risk
    assert said["price_version"] == "v7"
    assert written.description == "fake-model"
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - row.charged_msat
    await assert_receipted(shop, key, row, document)


async def assert_receipted(shop: Shop, key: FundedKey, row: Row, document: bytes) -> None:
    """The receipt that came with the answer is sound, says what the row says, and stays."""
    receipt = sound_receipt(document, shop.ctx.receipt_key.public)
    said = receipt.members
    assert (said["outcome"], said["evidence"]) == (row.outcome, row.evidence)
    assert (said["charged_msats"], said["absorbed_msats"]) == (row.charged_msat, row.absorbed_msat)
    assert said["balance_after_msats"] == FUNDS_MSAT - row.charged_msat
    again = await shop.http.get(f"/v1/receipts/{said['request_id']}", headers=key.headers)
    assert again.content == document


def assert_error(body: Any, code: str) -> None:
    assert body["error"]["code"] == code
    assert body["request_id"].startswith("req_")
