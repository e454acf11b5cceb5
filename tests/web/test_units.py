"""What is sold by unit, over real HTTP: charged to the msat, and forwarded as the node's own."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from routstr.core.form import FormFile, parse_form
from tests.core.forms import FORM_TYPE, form, mp3, wav
from tests.core.test_units import BY_CHARACTER, BY_HEARD, BY_IMAGE, BY_SECOND, BY_TOKEN
from tests.fakes.upstream_script import Fault, Script, failure
from tests.harness.funding import assert_books_are_clean, balance_msat, told, usage_rows
from tests.harness.shop import Shop, open_shop
from tests.harness.till import ON_SQLITE

FUNDS_MSAT = 1_000_000
MODELS = {
    "draws": BY_IMAGE,
    "draws-tokens": BY_TOKEN,
    "speaks": BY_CHARACTER,
    "hears": BY_SECOND,
    "hears-tokens": BY_HEARD,
}

pytestmark = ON_SQLITE


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        shop.sell(MODELS)
        yield shop


@dataclass(frozen=True, kw_only=True)
class Row:
    path: str
    body: dict[str, Any] | bytes
    answer: bytes = b""
    cost_msat: int = 0
    outcome: str = "completed"
    type: str = "application/json"


def draw(**more: object) -> dict[str, Any]:
    return {"model": "draws", "prompt": "a cat", **more}


def hear(*more: tuple[str, str], model: str = "hears", sound: bytes = wav(2_500)) -> bytes:
    return form(("file", sound), ("model", model), *more)


IMAGE = b'{"b64_json":"aGk="}'
TOKENS = (
    b'"usage":{"input_tokens":20,"output_tokens":300,"total_tokens":320,'
    b'"input_tokens_details":{"text_tokens":20,"image_tokens":0}}'
)
REDRAW = form(("model", "draws"), ("prompt", "a hat"), ("image[]", b"\x89PNG\r\n"), ("n", "2"))

ROWS = [
    Row(path="images/generations", body=draw(n=2), cost_msat=80_000,
        answer=b'{"data":[' + IMAGE + b"," + IMAGE + b"]}"),
    Row(path="images/generations", body=draw(n=2), cost_msat=40_000,
        answer=b'{"data":[' + IMAGE + b"]}"),
    Row(path="images/generations", body=draw(), cost_msat=0, outcome="empty",
        answer=b'{"data":[]}'),
    Row(path="images/generations", body=draw(model="draws-tokens"), cost_msat=20 * 5 + 300 * 40,
        answer=b'{"data":[' + IMAGE + b"]," + TOKENS + b"}"),
    Row(path="images/edits", body=REDRAW, cost_msat=40_000, answer=b'{"data":[' + IMAGE + b"]}"),
    Row(path="images/variations", body=form(("model", "draws"), ("image", b"\x89PNG")),
        cost_msat=40_000, answer=b'{"data":[{"url":"https://images.example/1"}]}'),
    Row(path="audio/speech", body={"model": "speaks", "input": "Guten Tag, Welt", "voice": "a"},
        cost_msat=15 * 15, answer=b"\xff\xfb\x90\0\xfe\xff sound", type="audio/mpeg"),
    Row(path="audio/speech", body={"model": "speaks", "input": "Guten Tag"}, cost_msat=0,
        outcome="empty", answer=b"", type="audio/mpeg"),
    Row(path="audio/transcriptions", body=hear(), cost_msat=300,
        answer=b'{"text":"one"}'),
    Row(path="audio/transcriptions", body=hear(sound=mp3(100)), cost_msat=200,
        answer=b'{"text":"one","usage":{"type":"duration","seconds":2}}'),
    Row(path="audio/transcriptions", body=hear(), cost_msat=300, outcome="over_reserve",
        answer=b'{"text":"one","usage":{"type":"duration","seconds":8}}'),
    Row(path="audio/transcriptions", body=hear(("response_format", "srt")), cost_msat=300,
        answer=b"1\n00:00:00,000 --> 00:00:01,000\none\n\n", type="text/plain"),
    Row(path="audio/transcriptions", body=hear(), cost_msat=0, outcome="empty",
        answer=b'{"text":""}'),
    Row(path="audio/transcriptions", body=hear(model="hears-tokens"), cost_msat=30 * 6 + 5 * 10,
        answer=b'{"text":"one","usage":{"type":"tokens","input_tokens":30,"output_tokens":5,'
        b'"total_tokens":35,"input_token_details":{"text_tokens":0,"audio_tokens":30}}}'),
    Row(path="audio/translations", body=hear(("response_format", "text")), cost_msat=300,
        answer=b"one two\n", type="text/plain; charset=utf-8"),
]  # fmt: skip


async def ask(shop: Shop, headers: dict[str, str], row: Row) -> Any:
    if isinstance(row.body, bytes):
        sent = {**headers, "content-type": FORM_TYPE}
        return await shop.http.post(f"/v1/{row.path}", headers=sent, content=row.body)
    return await shop.http.post(f"/v1/{row.path}", headers=headers, json=row.body)


async def test_each_answer_is_charged_to_the_msat(shop: Shop, subtests: pytest.Subtests) -> None:
    for row in ROWS:
        with subtests.test(f"{row.path} {row.answer!r}"):
            key = await shop.key(FUNDS_MSAT)
            shop.upstream.script(Script(body=row.answer, headers={"Content-Type": row.type}))
            got = await ask(shop, key.headers, row)
            assert got.status_code == 200, got.text
            assert got.headers["x-routstr-cost-msats"] == str(row.cost_msat)
            assert got.headers["content-type"] == row.type
            if b'"usage"' in row.answer:
                assert got.json()["usage"]["cost"]["total_msats"] == row.cost_msat
            else:
                assert got.content == row.answer
            [written] = await usage_rows(shop.ctx, key)
            assert told(written)["outcome"] == row.outcome
            assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - row.cost_msat
            await assert_books_are_clean(shop.ctx)


async def test_what_fails_is_free(shop: Shop, subtests: pytest.Subtests) -> None:
    failures = [
        failure(400),
        failure(500),
        Script(body=b'{"error":{"message":"no"}}'),
        Script(body=b"{", content_length_extra=9),
        Script(fault=Fault.RESET_BEFORE_HEADERS),
    ]
    rows = {row.path: row for row in ROWS}
    for row in rows.values():
        for script in failures:
            with subtests.test(row.path, script=script):
                key = await shop.key(FUNDS_MSAT)
                shop.upstream.default = script
                assert (await ask(shop, key.headers, row)).status_code >= 400
                assert await balance_msat(shop.ctx, key) == FUNDS_MSAT


async def test_a_form_goes_up_as_our_own(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.script(Script(body=b'{"text":"one"}'))
    sound = wav(2_500)
    await ask(shop, key.headers, Row(path="audio/transcriptions", body=hear()))
    [call] = shop.upstream.calls
    content_type = call.headers["content-type"]
    assert content_type.startswith("multipart/form-data; boundary=routstr-")
    assert parse_form(call.body, content_type=content_type, texts=["model"], files=["file"]) == {
        "model": "hears",
        "file": FormFile(name="file.bin", type="application/x-any", data=sound),
    }


async def test_refusals(shop: Shop, subtests: pytest.Subtests) -> None:
    for path, body, status, code in (
        ("images/generations", draw(model="hears"), 400, "invalid_model"),
        ("audio/speech", {"model": "draws", "input": "a"}, 400, "invalid_model"),
        ("audio/transcriptions", hear(model="speaks"), 400, "invalid_model"),
        ("images/generations", draw(stream=True), 400, "unsupported_parameter"),
        ("images/generations", hear(), 415, "unsupported_media_type"),
        ("audio/transcriptions", draw(), 415, "unsupported_media_type"),
        ("audio/voices", {}, 404, "route_not_priced"),
        ("images/generations", draw(n=50), 402, "insufficient_balance"),
        ("images/generations", draw(model="draws-tokens", n=50), 402, "insufficient_balance"),
    ):
        with subtests.test(path, code=code):
            key = await shop.key(FUNDS_MSAT)
            got = await ask(shop, key.headers, Row(path=path, body=body))
            assert (got.status_code, got.json()["error"]["code"]) == (status, code)
    assert shop.upstream.calls == []


async def test_a_form_without_money_is_told_its_price(shop: Shop) -> None:
    got = await ask(shop, {}, Row(path="audio/translations", body=hear()))
    assert got.status_code == 402
    assert got.json()["error"]["details"]["amount_required_msat"] == 300
    assert got.headers["x-cashu"].startswith("creqA")
