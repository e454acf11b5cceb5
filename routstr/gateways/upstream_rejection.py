"""An upstream's refusal in the words of our own error tree, without what is the operator's.

Contract section 2: 400, 404, 413, 415 and 422 are about the request, so the upstream's words pass,
redacted. So do those of an error whose code is about the request, whatever status it came with:
nobody else would serve it either. Everything else is about the operator's account or the
upstream's health, so they do not.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
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
from routstr.log import Secret

PASSED_STATUSES: Final = frozenset({400, 404, 413, 415, 422})
MESSAGE_CHARS_MAX: Final = 500
WORD_CHARS_MAX: Final = 100
RETRY_AFTER_MAX_S: Final = 3_600
REDACTED: Final = "[redacted]"
NO_KEY: Final = Secret("")
KEY_CHARS_MIN: Final = 4  # of what a local server takes for a key, less would be in any sentence

# What vendors call an error of the request itself, as its code or its type, also inside a 429, a
# 5xx or a 200: too long, filtered, or asked in a way that the model does not take.
CLIENTS_CODES: Final = frozenset(
    {
        "context_length", "context_length_exceeded", "context_window_exceeded", "input_too_long",
        "max_tokens_exceeded", "model_context_window_exceeded", "prompt_too_long",
        "request_too_large", "string_above_max_length", "tokens_limit_reached",
        "content_filter", "content_filtered", "content_policy", "content_policy_violation",
        "cyber_policy_violation", "data_inspection_failed", "invalid_prompt", "moderation",
        "moderation_blocked", "prompt_blocked", "responsibleaipolicyviolation", "safety",
        "sensitive_content_detected",
        "assistant_prefill_not_supported", "prefill_not_supported", "prefill_unsupported",
        "unsupported_prefill",
        "invalid_image", "invalid_image_format", "invalid_parameter", "invalid_type",
        "invalid_value", "missing_required_parameter", "unknown_parameter",
        "unsupported_parameter", "unsupported_value",
    }
)  # fmt: skip

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
    status: int,
    body: bytes,
    *,
    host: str = "",
    api_key: Secret = NO_KEY,
    retry_after: str | None = None,
) -> RoutstrError:
    """The error for an upstream's answer `status` with `body`; a 2xx means its body was unusable.

    `host` is the upstream's own name and `api_key` the node's key there, which no message may show;
    `retry_after` is its header.
    """
    error = _error_object(body)
    if status not in PASSED_STATUSES and not is_clients(error):
        if 200 <= status < 300:
            return UpstreamRequestFailed(upstream_status=status, retry_after_s=RETRY_AFTER_S)
        retry_after_s = _seconds(retry_after)
        if status == 429:
            return UpstreamRateLimit(upstream_status=status, retry_after_s=retry_after_s)
        return UpstreamUnavailable(upstream_status=status, retry_after_s=retry_after_s)
    kind, code, param = (
        _word(error.get(name), host, api_key) for name in ("type", "code", "param")
    )
    return UpstreamRejected(
        redacted(_text(error.get("message")), host=host, api_key=api_key) or None,
        status=status if status in PASSED_STATUSES else 400,
        type=kind or UpstreamRejected.type,
        code=code or UpstreamRejected.code,
        param=param or None,
    )


def is_clients(error: Mapping[str, object]) -> bool:
    """Whether an `error` object is about the request, so that nobody else need be asked."""
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        return True
    inner = error.get("innererror")
    told = [error.get("code"), error.get("type")]
    told += [inner.get("code")] if isinstance(inner, dict) else []
    return any(isinstance(word, str) and word.lower() in CLIENTS_CODES for word in told)


def told_wait_s(retry_after: str | None, date: str | None) -> int | None:
    """How long the upstream asks to be left alone (RFC 9110 §10.2.3), None if it does not say.

    A date counts from the answer's own `Date`, so that no clock of ours has a part in it.
    """
    if retry_after is None:
        return None
    if re.fullmatch(r"[0-9]{1,6}", retry_after):
        return min(max(int(retry_after), 1), RETRY_AFTER_MAX_S)
    until, now = _moment(retry_after), _moment(date)
    if until is None or now is None:
        return None
    return min(max(int((until - now).total_seconds()), 1), RETRY_AFTER_MAX_S)


def _moment(text: str | None) -> datetime | None:
    try:
        found = None if text is None else parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return None if found is None or found.tzinfo is None else found


def redacted(text: str, *, host: str, api_key: Secret = NO_KEY) -> str:
    """`text` without URLs, keys, bearer strings, account names or `host`; ≤ 500 characters.

    `api_key` goes whatever it looks like, unless it is too short to be one.
    """
    if len(api_key.reveal()) >= KEY_CHARS_MIN:
        text = re.sub(re.escape(api_key.reveal()), REDACTED, text, flags=re.IGNORECASE)
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


def _word(value: object, host: str, api_key: Secret) -> str:
    """A short machine word of the envelope; some upstreams give `code` as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return redacted(_text(value), host=host, api_key=api_key)[:WORD_CHARS_MAX]


def _seconds(retry_after: str | None) -> int:
    """Retry-After in whole seconds; a date without its `Date`, or nonsense, gives our default."""
    return told_wait_s(retry_after, None) or RETRY_AFTER_S
