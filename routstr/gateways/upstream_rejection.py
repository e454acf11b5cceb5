"""An upstream's refusal in the words of our own error tree, without what is the operator's.

Contract section 2: 400, 404, 413, 415 and 422 are about the request, so the upstream's words pass,
redacted. Everything else is about the operator's account or the upstream's health, so they do not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from routstr.errors import (
    RETRY_AFTER_S,
    RoutstrError,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamRequestFailed,
    UpstreamUnavailable,
)

PASSED_STATUSES: Final = frozenset({400, 404, 413, 415, 422})
MESSAGE_CHARS_MAX: Final = 500
WORD_CHARS_MAX: Final = 100
RETRY_AFTER_MAX_S: Final = 3_600
REDACTED: Final = "[redacted]"

_SECRETS: Final[Sequence[re.Pattern[str]]] = (
    re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE),
    re.compile(r"\bwww\.[^\s\"'<>]+", re.IGNORECASE),
    re.compile(r"\bbearer[ \t:=]+[^\s,;\"']+", re.IGNORECASE),
    re.compile(r"\b(?:sk|pk|rk|key|org|proj|asst|user|acct|gsk)[-_][A-Za-z0-9*._-]{4,}"),
    re.compile(r"cashu[AB][A-Za-z0-9_+/=-]+"),
    re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"),
    re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b"),
)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def rejection(
    status: int, body: bytes, *, host: str = "", retry_after: str | None = None
) -> RoutstrError:
    """The error for an upstream's answer `status` with `body`; a 2xx means its body was unusable.

    `host` is the upstream's own name, which no message may show; `retry_after` its header.
    """
    if 200 <= status < 300:
        return UpstreamRequestFailed(upstream_status=status, retry_after_s=RETRY_AFTER_S)
    retry_after_s = _seconds(retry_after)
    if status == 429:
        return UpstreamRateLimit(upstream_status=status, retry_after_s=retry_after_s)
    if status not in PASSED_STATUSES:
        return UpstreamUnavailable(upstream_status=status, retry_after_s=retry_after_s)
    error = _error_object(body)
    kind, code, param = (_word(error.get(name), host) for name in ("type", "code", "param"))
    return UpstreamRejected(
        redacted(_text(error.get("message")), host=host) or None,
        status=status,
        type=kind or UpstreamRejected.type,
        code=code or UpstreamRejected.code,
        param=param or None,
    )


def redacted(text: str, *, host: str) -> str:
    """`text` without URLs, keys, bearer strings, account names or `host`; ≤ 500 characters."""
    text = _UNPRINTABLE.sub(" ", text[: 4 * MESSAGE_CHARS_MAX])
    for pattern in _SECRETS:
        text = pattern.sub(REDACTED, text)
    if host:
        text = re.sub(rf"(?:[a-z0-9-]+\.)*{re.escape(host)}", REDACTED, text, flags=re.IGNORECASE)
    return text[:MESSAGE_CHARS_MAX].strip()


def _error_object(body: bytes) -> Mapping[str, object]:
    """The `error` object of OpenAI's and Anthropic's envelopes, a bare one, or nothing."""
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(value, dict):
        return {}
    inner = value.get("error", value)
    if isinstance(inner, str):
        return {"message": inner}
    return inner if isinstance(inner, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _word(value: object, host: str) -> str:
    """A short machine word of the envelope; some upstreams give `code` as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return redacted(_text(value), host=host)[:WORD_CHARS_MAX]


def _seconds(retry_after: str | None) -> int:
    """Retry-After in whole seconds (RFC 9110 §10.2.3); a date or nonsense gives our default."""
    if retry_after is None or not re.fullmatch(r"[0-9]{1,6}", retry_after):
        return RETRY_AFTER_S
    return min(max(int(retry_after), 1), RETRY_AFTER_MAX_S)
