"""The one envelope, for every kind of error, from an app of the test's own."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from routstr.core.envelope import error_object, status_of
from routstr.errors import (
    InsufficientBalance,
    InvalidApiKey,
    InvalidToken,
    MintUnreachable,
    NoBalance,
    RateLimited,
    RequestsInFlight,
    RoutstrError,
    SwapFeesExceedAmount,
    UpstreamRejected,
    UpstreamUnavailable,
)
from routstr.web.errors import error_body, error_headers, install_errors

REQUEST_ID = "req_1"


def body(error: RoutstrError, path: str = "/v1/chat/completions") -> dict[str, Any]:
    return error_body(error, REQUEST_ID, path)


def test_the_envelope_has_message_type_code_param_details_and_id() -> None:
    error = InsufficientBalance(details={"required_msat": 5_000}, param="x")
    assert body(error) == {
        "error": {
            "message": "The key cannot pay for the smallest answer.",
            "type": "insufficient_quota",
            "code": "insufficient_balance",
            "param": "x",
            "details": {"required_msat": 5_000},
        },
        "request_id": REQUEST_ID,
    }


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/messages"])
def test_messages_say_their_type_on_top(path: str) -> None:
    assert body(InvalidApiKey(), path)["type"] == "error"


@pytest.mark.parametrize(
    ("error", "path", "is_object"),
    [
        (InvalidApiKey(), "/v1/balance/refund", True),
        (InvalidApiKey(), "/lightning/invoice", True),
        (InvalidToken(), "/v1/balance/create", True),
        (InvalidToken(), "/v1/wallet/info", True),
        (InvalidToken(), "/v1/wallet/", True),
        (SwapFeesExceedAmount(), "/v1/balance/create", True),
        (InvalidToken(), "/v1/balance/topup", False),
        (NoBalance(), "/v1/balance/refund", False),
        (MintUnreachable(), "/v1/balance/lightning/invoice", False),
        (NoBalance(), "/v2/lightning/invoice", False),
    ],
)
def test_balance_and_lightning_say_detail(error: RoutstrError, path: str, is_object: bool) -> None:
    said = body(error, path)
    assert said["detail"] == ({"error": said["error"]} if is_object else error.message)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/balances", "/", "/admin"])
def test_others_have_no_detail_and_no_type(path: str) -> None:
    assert body(InvalidApiKey(), path).keys() == {"error", "request_id"}


def test_an_upstreams_rejection_keeps_its_words() -> None:
    error = UpstreamRejected("too long", status=413, type="t", code="c", param="messages")
    assert status_of(error) == 413
    assert error_object(error) == {
        "message": "too long",
        "type": "t",
        "code": "c",
        "param": "messages",
        "upstream_status": 413,
    }
    assert error_headers(error)["x-routstr-error-scope"] == "upstream"


@pytest.mark.parametrize(
    ("error", "retry", "after"),
    [
        (InvalidApiKey(), "false", None),
        (RoutstrError(), "false", None),
        (RateLimited(retry_after_s=7), "true", "7"),
        (RateLimited(), "true", "5"),
        (MintUnreachable(), "true", "5"),
        (UpstreamUnavailable(), "true", "5"),
        (RequestsInFlight(), "true", "5"),
        (InsufficientBalance(), "false", None),
        (InsufficientBalance(should_retry=True, retry_after_s=1), "true", "1"),
    ],
)
def test_whether_to_repeat_is_always_said(
    error: RoutstrError, retry: str, after: str | None
) -> None:
    headers = error_headers(error)
    assert headers["x-should-retry"] == retry
    assert headers.get("retry-after") == after


# ── what FastAPI and Starlette raise ──────────────────────────────────────────────────────────


class Wanted(BaseModel):
    amount: int


def raises(error: Exception) -> Callable[[], None]:
    def endpoint() -> None:
        raise error

    return endpoint


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_errors(app)
    app.get("/ours")(raises(InvalidApiKey()))
    app.get("/theirs")(raises(HTTPException(status_code=418, headers={"x-tea": "1"})))
    app.get("/bug")(raises(ValueError("cashuAsecret")))

    @app.post("/wanted")
    def wanted(given: Wanted) -> None:
        raise AssertionError(given)

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"request_id": REQUEST_ID}}, receive, send)

    transport = httpx.ASGITransport(named, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/ours", 401, "invalid_api_key"),
        ("GET", "/missing", 404, "not_found"),
        ("POST", "/ours", 405, "not_found"),
        ("GET", "/theirs", 418, "invalid_parameter"),
        ("GET", "/bug", 500, "internal_error"),
    ],
)
async def test_everything_raised_is_enveloped(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["request_id"] == REQUEST_ID
    assert answer.headers["x-should-retry"] == "false"
    assert "secret" not in answer.text


async def test_the_frameworks_headers_stay(http: httpx.AsyncClient) -> None:
    assert (await http.get("/theirs")).headers["x-tea"] == "1"
    assert (await http.post("/ours")).headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b'{"amount":"secret"}', "invalid_parameter", "amount"),
        (b"{}", "invalid_parameter", "amount"),
        (b"{", "invalid_json", None),
    ],
)
async def test_a_bad_body_is_named_but_not_repeated(
    http: httpx.AsyncClient, content: bytes, code: str, param: str | None
) -> None:
    headers = {"content-type": "application/json"}
    answer = await http.post("/wanted", content=content, headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert "secret" not in answer.text
