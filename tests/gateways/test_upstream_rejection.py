import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.errors import (
    RoutstrError,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamRequestFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from routstr.gateways.upstream_failure import (
    UpstreamCut,
    UpstreamFailure,
    UpstreamGarbled,
    UpstreamLost,
    UpstreamNotSent,
    UpstreamSlow,
    UpstreamStalled,
    UpstreamTooLarge,
    answer_for,
)
from routstr.gateways.upstream_rejection import (
    CLIENTS_CODES,
    redacted,
    rejection,
    told_wait_s,
)
from routstr.log import Secret

HOST = "api.upstream.example"
ENVELOPE = json.dumps(
    {
        "error": {
            "message": "temperature is too high",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "too_high",
        }
    }
).encode()


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422])
def test_words_about_the_request_pass(status: int) -> None:
    error = rejection(status, ENVELOPE, host=HOST)
    assert isinstance(error, UpstreamRejected)
    assert error.upstream_status == status
    assert error.message == "temperature is too high"
    assert (error.upstream_type, error.upstream_code) == ("invalid_request_error", "too_high")
    assert error.param == "temperature"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, UpstreamRequestFailed),
        (204, UpstreamRequestFailed),
        (302, UpstreamUnavailable),
        (401, UpstreamUnavailable),
        (402, UpstreamUnavailable),
        (403, UpstreamUnavailable),
        (405, UpstreamUnavailable),
        (409, UpstreamUnavailable),
        (418, UpstreamUnavailable),
        (429, UpstreamRateLimit),
        (500, UpstreamUnavailable),
        (503, UpstreamUnavailable),
        (599, UpstreamUnavailable),
    ],
)
def test_words_about_the_operator_do_not(status: int, kind: type[RoutstrError]) -> None:
    error = rejection(status, ENVELOPE, host=HOST)
    assert type(error) is kind
    assert "temperature" not in error.message
    assert getattr(error, "upstream_status", None) == status
    assert error.should_retry


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [(None, 5), ("7", 7), ("0", 1), ("999999", 3600), ("-1", 5), ("1e3", 5), ("٣", 5), ("Fri", 5)],
)
def test_retry_after_is_bounded(retry_after: str | None, seconds: int) -> None:
    assert rejection(429, b"", retry_after=retry_after).retry_after_s == seconds


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "plain words"}', "plain words"),
        (b'{"message": "plain words"}', "plain words"),
        (b'{"type":"error","error":{"type":"x","message":"plain words"}}', "plain words"),
    ],
)
def test_other_envelopes_are_understood(body: bytes, message: str) -> None:
    assert rejection(400, body).message == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>secret</html>",
        b"[]",
        b"null",
        b'{"error":[1]}',
        b'{"error":{"message":{}}}',
        b"\xff",
        b"[" * 100_000,
        b'{"error":{"message":"\\ud800"}}',
        b'{"error":{"message":""}}',
    ],
)
def test_what_is_no_envelope_gives_our_own_words(body: bytes) -> None:
    error = rejection(400, body)
    assert isinstance(error, UpstreamRejected)
    assert error.message == "The upstream rejected the request. Nothing was charged."
    assert (error.upstream_type, error.upstream_code) == (
        "invalid_request_error",
        "invalid_parameter",
    )


def test_a_numeric_code_becomes_text() -> None:
    error = rejection(400, b'{"error":{"message":"m","code":1234}}')
    assert isinstance(error, UpstreamRejected)
    assert error.upstream_code == "1234"
    flag = rejection(400, b'{"error":{"message":"m","code":true}}')
    assert isinstance(flag, UpstreamRejected)
    assert flag.upstream_code == "invalid_parameter"


@pytest.mark.parametrize(
    ("secret", "word"),
    [
        ("see https://platform.upstream.example/account?key=birdsong for more", "birdsong"),
        ("Incorrect API key provided: sk-proj-birdsong_1. You can", "birdsong"),
        ("Incorrect API key provided: sk-birds****ngXY.", "birds"),
        ("got Authorization: Bearer birdsong.token", "birdsong"),
        ("organization org-birdsong has no", "birdsong"),
        ("mail birdsong@operator.example please", "birdsong"),
        ("host api.upstream.example refused", "upstream"),
        ("host EU.API.Upstream.Example refused", "pstream"),
        ("connect 10.0.0.7:8080 refused", "10.0.0.7"),
        ("token cashuBo2Fbirdsong", "birdsong"),
    ],
)
def test_what_is_the_operators_is_redacted(secret: str, word: str) -> None:
    assert word not in redacted(secret, host=HOST)
    body = json.dumps({"error": {"message": secret, "type": secret, "code": secret}}).encode()
    error = rejection(400, body, host=HOST)
    assert isinstance(error, UpstreamRejected)
    assert not [t for t in (error.message, error.upstream_type, error.upstream_code) if word in t]


def test_the_nodes_own_key_is_redacted_whatever_it_looks_like() -> None:
    for key in ("0123456789abcdef0123456789abcdef", "a.b+c", "Zürich".encode().hex()):
        said = f"The key {key} is not for model {key.upper()}; {'x' * 1_970}{key}"
        body = json.dumps({"error": {"message": said, "type": key, "code": f"bad {key}"}}).encode()
        error = rejection(400, body, host=HOST, api_key=Secret(key))
        assert isinstance(error, UpstreamRejected)
        told = f"{error.message} {error.upstream_type} {error.upstream_code}".lower()
        assert "not for model [redacted]" in error.message
        assert key[:8] not in told.replace("api", "")
    assert redacted("it is a word", host="", api_key=Secret("a")) == "it is a word"


def test_lengths_and_controls_are_bounded() -> None:
    body = json.dumps({"error": {"message": "a\r\n\x00b" * 5000, "code": "c" * 500}}).encode()
    error = rejection(400, body)
    assert isinstance(error, UpstreamRejected)
    assert len(error.message) <= 500
    assert error.message.isprintable()
    assert len(error.upstream_code) == 100


@given(st.binary(max_size=200), st.integers(200, 599))
def test_no_answer_is_an_exception(body: bytes, status: int) -> None:
    assert isinstance(rejection(status, body, host=HOST), RoutstrError)


@pytest.mark.parametrize(
    ("failure", "answer"),
    [
        (UpstreamNotSent, UpstreamUnavailable),
        (UpstreamLost, UpstreamUnavailable),
        (UpstreamGarbled, UpstreamRequestFailed),
        (UpstreamSlow, UpstreamTimeout),
        (UpstreamStalled, UpstreamTimeout),
        (UpstreamCut, UpstreamRequestFailed),
        (UpstreamTooLarge, UpstreamRequestFailed),
    ],
)
def test_each_failure_has_its_answer(
    failure: type[UpstreamFailure], answer: type[RoutstrError]
) -> None:
    error = answer_for(failure("reason", hold_id="hold_1"))
    assert type(error) is answer
    assert error.retry_after_s == 5


# ── errors of the request in other clothes, and how long to wait ──────────────────────────────


@pytest.mark.parametrize("status", [200, 403, 429, 500, 503])
@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded"},
        {"code": "Content_Filter"},
        {"code": None, "type": "prefill_not_supported"},
        {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        {"code": 403, "metadata": {"flagged_input": "…"}},
    ],
)
def test_an_error_of_the_request_is_one_in_any_status(
    status: int, error: dict[str, object]
) -> None:
    body = json.dumps({"error": {"message": "No.", **error}}).encode()
    found = rejection(status, body, host=HOST, retry_after="7")
    assert isinstance(found, UpstreamRejected)
    assert (found.upstream_status, found.message) == (400, "No.")


@pytest.mark.parametrize(
    "code", ["rate_limit_exceeded", "insufficient_quota", "server_error", "invalid_api_key", None]
)
def test_an_error_of_the_upstream_is_none_of_the_request(code: str | None) -> None:
    assert all(word == word.lower() for word in CLIENTS_CODES)
    body = json.dumps({"error": {"message": "No.", "code": code}}).encode()
    assert isinstance(rejection(429, body), UpstreamRateLimit)


NOON = "Sun, 06 Nov 2044 12:00:00 GMT"


@pytest.mark.parametrize(
    ("retry_after", "date", "wait_s"),
    [
        (None, NOON, None),
        ("7", None, 7),
        ("Sun, 06 Nov 2044 12:00:30 GMT", NOON, 30),
        ("Sun, 06 Nov 2044 11:00:30 GMT", NOON, 1),
        ("Mon, 07 Nov 2044 12:00:30 GMT", NOON, 3_600),
        (NOON, None, None),
        (NOON, "yesterday", None),
        ("Sun, 99 Nov 2044 12:00:30 GMT", NOON, None),
        ("Sun, 06 Nov 2044 12:00:30 -0000", NOON, None),
    ],
)
def test_a_date_to_wait_for_counts_from_the_answers_own(
    retry_after: str | None, date: str | None, wait_s: int | None
) -> None:
    assert told_wait_s(retry_after, date) == wait_s
