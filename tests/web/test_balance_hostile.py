"""`/v1/balance/*` under requests that no client sends: one envelope, no 500, no endless body."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routstr.errors import TokenError
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate
from tests.harness.desk import Desk, open_desk
from tests.harness.shop import serving
from tests.harness.till import ys_of

BODY_MAX = 128 * 1024 + 16 * 1024
UNDOCUMENTED = {500, 501}


@pytest.fixture
async def desk(sqlite_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(sqlite_url, mint, tmp_path / "data", body_timeout_s=0.5) as desk:
        yield desk


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


def assert_envelope(answer: httpx.Response) -> None:
    """What every refusal looks like (contract, section 1)."""
    body = answer.json()
    assert set(body) >= {"error", "request_id"}, body
    error = body["error"]
    assert set(error) - {"details"} == {"message", "type", "code", "param"}
    assert all(isinstance(error[name], str) for name in ("message", "type", "code"))
    assert (
        answer.headers["x-request-id"]
        == body["request_id"]
        == answer.headers["x-routstr-request-id"]
    )
    assert answer.headers["x-should-retry"] in {"true", "false"}
    if answer.headers["x-should-retry"] == "true":
        assert int(answer.headers["retry-after"]) > 0


# ── methods, paths, types ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("PUT", "/v1/balance/info", 405, "not_found"),
        ("DELETE", "/v1/balance/create", 405, "not_found"),
        ("GET", "/v1/balance/topup", 405, "not_found"),
        ("PATCH", "/v1/wallet/refund", 405, "not_found"),
        ("GET", "/v1/balance/nothing", 404, "not_found"),
        ("GET", "/v1/balance/info/", 404, "not_found"),
        ("GET", "/v1/balance/child-key", 405, "not_found"),
        ("POST", "/v1/balance/nothing", 404, "route_not_priced"),
    ],
)
async def test_wrong_methods_and_paths(
    desk: Desk, method: str, path: str, status: int, code: str
) -> None:
    answer = await desk.http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert_envelope(answer)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"{", "application/json", "invalid_json"),
        (b'{"initial_balance_token":', "application/json", "invalid_json"),
        (b"\xff\xfe", "application/json", "invalid_json"),
        (b"[" * 100_000, "application/json", "invalid_parameter"),
        (b'{"initial_balance_token":1}', "application/json", "invalid_parameter"),
        (b'{"initial_balance_token":""}', "application/json", "invalid_parameter"),
        (b"null", "application/json", "invalid_parameter"),
        (b"", "application/json", "invalid_parameter"),
        (b'{"initial_balance_token":"\\ud800"}', "application/json", "invalid_parameter"),
        (b'{"initial_balance_token":"cashuB\\u0000"}', "application/json", "invalid_cashu_token"),
    ],
)
async def test_bodies_that_are_no_request(desk: Desk, content: bytes, kind: str, code: str) -> None:
    answer = await desk.http.post(
        "/v1/wallet/create", content=content, headers={"content-type": kind}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
    assert_envelope(answer)


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "text/plain"},
        {"content-type": ""},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_bodies_that_are_no_plain_json(desk: Desk, headers: dict[str, str]) -> None:
    answer = await desk.http.post("/v1/balance/create", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert_envelope(answer)


async def test_detail_is_the_error_for_tokens_and_keys_and_else_its_message(desk: Desk) -> None:
    by_token = await desk.http.post("/v1/balance/create", json={"initial_balance_token": "cashuBx"})
    assert by_token.json()["detail"] == {"error": by_token.json()["error"]}
    customer = await desk.create(1)
    at_topup = await customer.post("/topup", {"cashu_token": "cashuBx"})
    assert at_topup.json()["detail"] == at_topup.json()["error"]["message"]
    elsewhere = await desk.http.get("/v1/models/none")
    assert "detail" not in elsewhere.json()


async def test_every_answer_has_its_headers(desk: Desk) -> None:
    ids = set()
    for path, status in (("/v1/balance/info", 401), ("/v1/info", 200), ("/nothing", 404)):
        answer = await desk.http.get(path, headers={"origin": "https://app.example"})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        assert "idempotent-replayed" in answer.headers["access-control-expose-headers"]
        assert answer.headers["x-request-id"].startswith("req_")
        ids.add(answer.headers["x-request-id"])
    assert len(ids) == 3
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,idempotency-key",
    }
    preflight = await desk.http.options("/v1/balance/topup", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization,idempotency-key"


# ── bodies without an end ─────────────────────────────────────────────────────────────────────


async def chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 1024):
        yield b"x" * 1024


@pytest.mark.parametrize("path", ["/create", "/topup", "/refund"])
async def test_a_body_is_bounded_stated_or_not(desk: Desk, path: str) -> None:
    customer = await desk.create(1)
    for content in (b"x" * (BODY_MAX + 1), chunks(BODY_MAX * 4)):
        answer = await desk.http.post(
            f"/v1/balance{path}",
            content=content,
            headers={**customer.headers, "content-type": "application/json"},
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert_envelope(answer)
    fits = await desk.http.post(
        "/v1/balance/create", json={"initial_balance_token": "x" * (128 * 1024)}
    )
    assert fits.json()["error"]["code"] == "invalid_cashu_token"


async def test_a_body_that_never_comes_and_a_client_that_goes(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over real sockets: half a body is given up in time, and a closed line alarms nobody."""
    async with serving(desk.app) as port:
        head = (
            b"POST /v1/balance/create HTTP/1.1\r\nhost: node\r\n"
            b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        async with asyncio.timeout(5):
            answer = await reader.read(65_536)
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"request_timeout" in answer
        writer.close()
        _, leaving = await asyncio.open_connection("127.0.0.1", port)
        leaving.write(head)
        await leaving.drain()
        leaving.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/health")).status_code == 200
    assert "unexpected_error" not in capsys.readouterr().out


async def test_a_client_that_leaves_in_the_middle_is_credited(desk: Desk) -> None:
    """Over real sockets: the token is on its way to the mint when the line is closed."""
    token, gate = desk.mint.issue(21), Gate()
    desk.mint.trouble(Trouble(path="/v1/swap", answer_gate=gate))
    body = json.dumps({"initial_balance_token": token}).encode()
    async with serving(desk.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/balance/create HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n"
            b"idempotency-key: a\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        await desk.mint.called(1, "/v1/swap")
        writer.close()
        await writer.wait_closed()
        gate.open()
    again = await desk.http.post(
        "/v1/balance/create",
        json={"initial_balance_token": token},
        headers={"idempotency-key": "a"},
    )
    assert (again.status_code, again.json()["balance"]) == (200, 21_000)


# ── fuzz (T-15) ───────────────────────────────────────────────────────────────────────────────

TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["cashuA", "cashuB", "cashuBo2F0gA", "sk-" + "0" * 64, "\x00", "\ud800", "../..", "%00"]
    ),
    st.binary(max_size=60).map(lambda data: "cashuB" + data.hex()),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "initial_balance_token",
        "cashu_token",
        "amount_sats",
        "mint_url",
        "balance_limit",
        "balance_limit_reset",
        "validity_date",
        "limit",
        "offset",
        "before",
        "x",
    ]
)
REQUESTS = st.tuples(
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(
        ["/", "/info", "/create", "/topup", "/refund", "/refund/%00", "/history", "/transactions"]
    ),
    st.dictionaries(FIELDS, VALUES, max_size=4) | VALUES,
    st.dictionaries(FIELDS, TEXTS | st.integers().map(str), max_size=3),
    st.sampled_from(["key", "none", "text"]),
    TEXTS,
)


async def test_no_request_makes_a_500(desk: Desk) -> None:
    customer = await desk.create(21)
    loop = asyncio.get_running_loop()

    async def send(request: tuple[str, str, object, dict[str, str], str, str]) -> None:
        method, path, body, query, who, text = request
        headers = {"content-type": "application/json"}
        shown = text.encode("utf-8", "replace").decode("latin-1")
        if who == "key":
            headers |= customer.headers
        elif who == "text" and not set(shown) & set("\r\n\x00"):
            headers["authorization"] = f"Bearer {shown}"
            headers["idempotency-key"] = shown
        content = json.dumps(body).encode() if method == "POST" else b""
        safe = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
        answer = await desk.http.request(
            method,
            f"/v1/balance{path}",
            params=safe,
            headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            content=content,
        )
        assert answer.status_code not in UNDOCUMENTED, (request, answer.text)
        if answer.status_code >= 400:
            assert_envelope(answer)

    @settings(max_examples=300, deadline=None, database=None)
    @given(REQUESTS)
    def fuzz(request: tuple[str, str, object, dict[str, str], str, str]) -> None:
        asyncio.run_coroutine_threadsafe(send(request), loop).result(10)

    await asyncio.to_thread(fuzz)


async def test_no_mutation_of_a_token_makes_a_500_or_money(desk: Desk) -> None:
    good = desk.mint.issue(21)
    ys, loop = set(ys_of(good)), asyncio.get_running_loop()

    def is_good(token: str) -> bool:
        """Another spelling of the same: the last character of base64 has bits that say nothing."""
        try:
            return set(ys_of(token)) == ys
        except TokenError:
            return False

    async def send(token: str) -> None:
        answer = await desk.http.post("/v1/balance/create", json={"initial_balance_token": token})
        assert answer.status_code in {400, 422, 503}, token
        if answer.status_code >= 400:
            assert_envelope(answer)

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.integers(6, len(good) - 1), st.sampled_from("ABab01_-=+/ \x00"), st.booleans())
    def fuzz(place: int, char: str, cut: bool) -> None:
        token = good[:place] + char + ("" if cut else good[place + 1 :])
        if not is_good(token):
            asyncio.run_coroutine_threadsafe(send(token), loop).result(10)

    await asyncio.to_thread(fuzz)
    assert (await desk.create(1)).key
    assert set(desk.mint.state_of(ys_of(good)).values()) == {"UNSPENT"}


# ── Lightning ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/refund", b'{"invoice":"\\ud800"}', 400),
        ("/refund", b'{"lightning_address":"\\ud800@pay.example"}', 400),
        ("/refund", b'{"mint_url":"\\ud800"}', 400),
        ("/refund", b'{"invoice":"\\u0000"}', 400),
        ("/refund/quote", b'{"lightning_address":"alice@127.0.0.1"}', 400),
        ("/refund", b'{"amount_sats":0}', 400),
        ("/refund", b'{"amount_sats":-1}', 400),
        ("/refund", b'{"amount_sats":true}', 400),
        ("/refund", b'{"amount_sats":9223372036854775808}', 400),
        ("/lightning/invoice", b'{"amount_sats":1e3}', 400),
        ("/lightning/invoice", b'{"amount_sats":5,"purpose":"topup","api_key":"\\ud800"}', 400),
        ("/lightning/recover", b'{"bolt11":"\\u0000"}', 404),
        ("/lightning/recover", b'{"bolt11":"\\ud800"}', 400),
    ],
)
async def test_bodies_that_pay_nobody(desk: Desk, path: str, content: bytes, status: int) -> None:
    customer = await desk.create()
    headers = {**customer.headers, "content-type": "application/json"}
    answer = await desk.http.post(f"/v1/balance{path}", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert_envelope(answer)
