import io
import json
import logging
import pickle
from collections.abc import Callable, Iterator

import pytest
import structlog

from routstr.log import KEPT_LINES_MAX, MASK, Secret, configure, kept_lines, scrub

HEX = "deadbeef" * 8
CANARIES = {
    "cashuA": "cashuAeyJ0b2tlbiI6W3sibWludCI6Imh0dHBzOi8vODMzMy5zcGFjZTozMzM4In1d",
    "cashuB": "cashuBo2F0gqJhaUgA_9SLj17PgGFwgaNhYQFhc3hAYWNjMTI0MzVlN2I4NDg0YzNjZg==",
    "sk": "sk-" + HEX,
    "proj": "sk-proj-AbCdEf_0123456789",
    "claim": "clm_" + HEX,
    "invoice": "lnbc10u1pjqqqqqpp5birdsongbirdsongbirdsongbirdsongbirdsong",
    "upper": "LNBC10U1PJQQQQQPP5BIRDSONGBIRDSONGBIRDSONG",
    "regtest": "lnbcrt10u1pjqqqqqpp5birdsongbirdsongbirdsong",
    "bearer": "Bearer birdsong.token~value",
    "header": "x-api-key: birdsong-of-an-api-key",
    "secret": f'"secret": "{HEX}"',
    "python": f"secret='{HEX}'",
    "cut": f"secret='{HEX[:40]}",
    "query": "https://mint.example/v1/x?birdsong=1",
    "userinfo": "https://user:birdsong@mint.example/",
}
BARE = ["birdsong", "BIRDSONG", "deadbeef", "eyJ0b2tlbiI6", "o2F0gqJhaUgA", "AbCdEf_0123456789"]


@pytest.fixture
def lines() -> Iterator[Callable[[], str]]:
    """Configure logging into a buffer, and put the process's logging back afterwards."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    buffer = io.StringIO()
    configure("debug", json=True, stream=buffer)
    yield buffer.getvalue
    structlog.reset_defaults()
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)


def assert_silent(text: str) -> None:
    assert not [bare for bare in BARE if bare in text]


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES.keys())
def test_every_canary_is_scrubbed_from_text(canary: str) -> None:
    scrubbed = scrub(f"before {canary} after")
    assert_silent(scrubbed)
    assert MASK in scrubbed
    assert scrubbed.startswith("before ")


def test_plain_words_stay() -> None:
    plain = "sk- and clm_ and lnbc and a bearer; https://mint.example/v1/keys 12 msat task-force"
    assert scrub(plain) == plain
    assert scrub(f"keyset {HEX}") == f"keyset {HEX}"


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES.keys())
def test_no_canary_leaves_by_any_door(lines: Callable[[], str], canary: str) -> None:
    log = structlog.get_logger("node")
    log.info(f"event {canary}", reason=canary, not_listed=canary, code=[canary])
    log.info("secret_field", reason=Secret(canary), not_listed=Secret(canary))
    logging.getLogger("library").warning("failed on %s", canary, extra={"body": canary})
    try:
        raise ValueError(canary)
    except ValueError:
        log.exception("own", reason="x")
        logging.getLogger("library").exception("foreign")
    assert_silent(lines())
    assert len(lines().splitlines()) == 5


def test_a_line_is_an_event_and_its_allowed_fields(lines: Callable[[], str]) -> None:
    structlog.get_logger().info("mint_asked", status=200, operation_id="op_1", token="text")
    line = json.loads(lines())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "mint_asked",
        "level": "info",
        "status": 200,
        "operation_id": "op_1",
        "token": "[field not allowed]",
    }


def test_an_exception_shows_type_and_place_only(lines: Callable[[], str]) -> None:
    try:
        raise ConnectionError("the message holds a prompt")
    except ConnectionError:
        structlog.get_logger().exception("broken")
        logging.getLogger("library").exception("broken")
    for text in lines().splitlines():
        line = json.loads(text)
        assert line["error_type"] == "ConnectionError"
        assert "test_log.py:" in line["exception"]
        assert "prompt" not in text


def test_a_broken_foreign_line_prints_nothing(
    lines: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("library").warning("%d", CANARIES["sk"])
    captured = capsys.readouterr()
    assert_silent(lines() + captured.out + captured.err)


def test_http_libraries_do_not_log_their_urls(lines: Callable[[], str]) -> None:
    logging.getLogger("httpx").info("HTTP Request: GET https://mint.example/quote/abc")
    logging.getLogger("uvicorn.access").info("GET /v1/balance/change/abc")
    assert lines() == ""


def test_what_a_stranger_repeats_pushes_nothing_out(lines: Callable[[], str]) -> None:
    structlog.get_logger().info("worth_keeping", code="kept")
    server = logging.getLogger("uvicorn.error")
    for _ in range(KEPT_LINES_MAX):
        server.warning("Invalid HTTP request received.")
    server.error("loud")
    [newest, before] = kept_lines(limit=2)
    assert (newest.event, before.event) == ("loud", "worth_keeping")
    assert "Invalid HTTP request received." in lines()


def test_the_level_filters_and_text_renders(lines: Callable[[], str]) -> None:
    del lines
    buffer = io.StringIO()
    configure("warning", json=False, stream=buffer)
    log = structlog.get_logger()
    log.info("quiet")
    try:
        raise ValueError(CANARIES["sk"])
    except ValueError:
        log.exception("loud", code="x")
    assert "quiet" not in buffer.getvalue()
    assert "loud" in buffer.getvalue()
    assert_silent(buffer.getvalue())
    with pytest.raises(ValueError, match="unknown log level"):
        configure("loudest", json=True)


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret("birdsong")
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r:>9}", f"{[secret]}"]
    assert not [text for text in shown if "birdsong" in text]
    assert secret.reveal() == "birdsong"
    assert secret == Secret("birdsong")
    assert secret != Secret("other")
    assert secret != "birdsong"
    assert len({secret, Secret("birdsong")}) == 1
    assert not Secret("")
    with pytest.raises(TypeError):
        pickle.dumps(secret)
