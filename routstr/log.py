"""Structured logs that cannot tell a secret: an allow-list of fields first, patterns second.

Laws: a line is an event name plus fields. A field that is not in `FIELDS` is named but its value
is not shown; a value that is no scalar shows its type only; an exception shows its type and where
it happened, never its message or its locals. What is left passes the patterns, so a token inside a
foreign library's text is caught as well. Source: guarantees.md SR-14.
"""

import hmac
import logging
import re
import sys
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Final, NoReturn, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MASK: Final = "***"
HIDDEN: Final = "[field not allowed]"
TEXT_CHARS_MAX: Final = 2_000
FRAMES_MAX: Final = 12
KEPT_LINES_MAX: Final = 5_000
LEVELS: Final = ("debug", "info", "warning", "error", "critical")

# What a line may say. Names only; a new field is a decision made here.
FIELDS: Final = frozenset(
    {
        "event", "level", "timestamp", "logger", "exception",
        "amount_msat", "amount_sat", "attempts", "body_bytes", "code", "count", "deposit_id",
        "duration_ms", "elapsed_s", "engine", "error_type", "host", "hold_id", "invariant",
        "invoice_id_prefix", "job", "key_id", "keyset_id", "kind", "method", "mint_url", "model",
        "operation_id", "outcome", "owner", "path", "pid", "port", "price_version", "priority",
        "reason", "request_id", "reservation_id", "retry_after_s", "run_id", "setting", "signal",
        "state", "status", "step", "timeout_s", "unit", "upstream", "upstream_status", "version",
        "wait_s", "withdrawal_id", "worker",
    }
)  # fmt: skip

# Libraries that write a URL or a header per call: their lines are not ours to publish.
QUIET_LOGGERS: Final = (
    "httpx", "httpcore", "aiohttp", "aiosqlite", "asyncio", "hpack", "uvicorn.access", "sqlalchemy",
    "alembic",
)  # fmt: skip

# What it says of a form is said in our answer; anybody could fill the log with it.
MUTE_LOGGERS: Final = ("python_multipart",)

# It warns of each request it cannot read. That is written, and not kept: whoever sends a few
# thousand of them would push all else out of what the operator can look at.
UNKEPT_LOGGER: Final = "uvicorn.error"

_PATTERNS: Final[Sequence[tuple[re.Pattern[str], str]]] = (
    (re.compile(r"cashu[AB][A-Za-z0-9_+/=-]+"), f"cashu{MASK}"),
    (re.compile(r"\b(?:sk|clm|rst|invite)([-_])[A-Za-z0-9_-]{6,}"), MASK),
    (re.compile(r"\bchg_[0-9a-f]{6,}"), f"chg_{MASK}"),
    (re.compile(r"\bln(?:bc|tb|bcrt|tbs)[0-9][0-9a-z]{10,}", re.IGNORECASE), f"lnbc{MASK}"),
    (re.compile(r"(/invoice/)[^/\s]+"), rf"\1{MASK}"),
    (re.compile(r"\b(bearer|basic)[ \t:=]+[^\s,;\"']+", re.IGNORECASE), rf"\1 {MASK}"),
    (
        re.compile(r"((?:authorization|x-api-key|x-cashu|cookie)[\"']?\s*[:=]\s*)[^\s,;]+", re.I),
        rf"\1{MASK}",
    ),
    (re.compile(r"(secret[\w]*[\"']?[\s:=\\\"',(\[]*b?[\"']?)[0-9a-f]{16,}", re.I), rf"\1{MASK}"),
    (re.compile(r"(\bhttps?://[^\s?#\"'<>@/]*)@"), f"https://{MASK}@"),
    (re.compile(r"(\bhttps?://[^\s?#\"'<>]+)[?#][^\s\"'<>]*", re.IGNORECASE), rf"\1?{MASK}"),
)


class Secret:
    """A text that shows itself only when asked: `str`, `repr` and formatting all give `***`.

    Compared in constant time; refuses to be pickled, so no dump or queue carries it by accident.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Call it where it is used, and keep the result in no attribute."""
        return self._text

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not written down")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLine:
    """A line as it was written; `number` counts all lines of this process."""

    number: int
    level: str
    event: str
    fields: Mapping[str, object]

    @property
    def at(self) -> str:
        """When, in ISO 8601, UTC."""
        return str(self.fields.get("timestamp", ""))


class _Kept:
    """The last lines of this process, after redaction; a log is the process's own, as this is."""

    def __init__(self) -> None:
        self.lines: deque[KeptLine] = deque(maxlen=KEPT_LINES_MAX)
        self.numbers = count(1)


_kept: Final = _Kept()


def keep_line(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Remember the line for the operator, as it is shown."""
    if line.get("logger") == UNKEPT_LOGGER and line.get("level") == "warning":
        return line
    fields = {
        name: value
        for name, value in line.items()
        if not name.startswith("_") and name not in {"event", "level"}
    }
    kept = KeptLine(
        number=next(_kept.numbers),
        level=str(line.get("level", "info")),
        event=str(line.get("event", "")),
        fields=fields,
    )
    _kept.lines.append(kept)
    return line


def kept_lines(
    *,
    level: str = LEVELS[0],
    search: str = "",
    request_id: str | None = None,
    limit: int,
    before: int | None = None,
) -> tuple[KeptLine, ...]:
    """The newest first: of that level or worse, with the text, of that request, below a number."""
    shown = LEVELS[LEVELS.index(level) :]
    text = search.lower()
    found: list[KeptLine] = []
    for line in reversed(tuple(_kept.lines)):
        if before is not None and line.number >= before:
            continue
        if line.level not in shown or request_id not in {None, line.fields.get("request_id")}:
            continue
        if text and text not in f"{line.event} {' '.join(map(str, line.fields.values()))}".lower():
            continue
        found.append(line)
        if len(found) == limit:
            break
    return tuple(found)


def configure(level: str, json: bool, *, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging, once, from the composition root.

    `level` is a name such as `INFO`; `json` gives one JSON object per line, else text for people.
    Lines go to `stream` (standard error without one). Raises ValueError for an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError("unknown log level")
    render: Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=_no_exception)
    )
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        show_exception,
        keep_allowed_fields,
        scrub_values,
        keep_line,
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *before],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.raiseExceptions = False  # its report of a broken line prints the line's arguments
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    for name in MUTE_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def scrub(text: str) -> str:
    """`text` with tokens, keys, invoices, claim secrets, credentials and query strings masked."""
    text = text[:TEXT_CHARS_MAX]
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def show_exception(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Replace `exc_info` by the exception's type and its frames: no message, no locals."""
    info = line.pop("exc_info", None)
    line.pop("stack_info", None)
    error = _exception_of(info)
    if error is not None:
        line["error_type"] = type(error).__qualname__
        line["exception"] = _frames(error.__traceback__)
    return line


def keep_allowed_fields(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Hide the value of every field that `FIELDS` does not name; show no container's content."""
    for name, value in line.items():
        if name.startswith("_"):  # the formatter's own bookkeeping, removed before rendering
            continue
        if name not in FIELDS:
            line[name] = HIDDEN
        elif not isinstance(value, str | int | float | bool | None):
            line[name] = MASK if isinstance(value, Secret) else f"<{type(value).__name__}>"
    return line


def scrub_values(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Pass every text of the line through `scrub`, the second net."""
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = scrub(value)
    return line


def _exception_of(info: object) -> BaseException | None:
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple) and len(info) == 3 and isinstance(info[1], BaseException):
        return info[1]
    return sys.exception() if info else None


def _frames(trace: TracebackType | None) -> str:
    """`file:line function`, innermost last, without the source text (it may hold a literal)."""
    frames = traceback.extract_tb(trace)[-FRAMES_MAX:]
    return " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)


def _no_exception(_stream: TextIO, _info: object) -> None:
    """Rich tracebacks show locals; `show_exception` has already said what may be said."""
