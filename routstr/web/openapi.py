"""`/openapi.json`: every endpoint with all it may answer, the paid ones and the errors included.

FastAPI describes what it routes itself. Added here: the paid paths, which are plain ASGI; the one
error envelope with every status that an endpoint may have, in place of FastAPI's own 422; how a
caller says who he is; and a title that is the first sentence of the endpoint's docstring.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI

from routstr.core.dialects import DIALECTS, Dialect
from routstr.core.providers import COUNT_TOKENS

Json = dict[str, Any]

ENVELOPE: Final = "Error"
_ENVELOPE_SCHEMA: Final[Json] = {
    "type": "object",
    "description": "The one shape of every error; `details` depends on the code.",
    "required": ["error", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "details": {"type": "object"},
                "upstream_status": {"type": "integer"},
                "refund_token": {"type": "string"},
            },
        },
        "detail": {"description": "For older clients of balance and Lightning."},
        "request_id": {"type": "string"},
    },
}
SECURITY: Final[Mapping[str, Json]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An `sk-` key, a Cashu token, or below /admin an admin token.",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "x-cashu": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Cashu",
        "description": "A token that pays for this request alone.",
    },
    "admin-session": {"type": "apiKey", "in": "cookie", "name": "__Host-routstr_admin"},
}
_ALWAYS: Final = (400, 413, 503)  # bad input, too long a head, the database away
_MONEY: Final = (401, 402, 403, 404, 408, 410, 415, 422, 425, 429)
ERRORS: Final[Mapping[str, tuple[int, ...]]] = {
    "node": (403, 404),
    "quote": (401, 402, 403, 404, 408, 415, 429),
    "receipts": (401, 403, 404, 425),
    "balance": _MONEY,
    "teams": _MONEY,
    "lightning": _MONEY,
    "admin": (401, 403, 404, 408, 409, 415, 422, 425, 429),
    "paid": (*_MONEY, 424, 502),
}
ASKED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "balance": ("bearer", "x-api-key"),
    "teams": ("bearer", "x-api-key"),
    "receipts": ("bearer", "x-api-key", "x-cashu"),
    "admin": ("bearer", "admin-session"),
    "paid": ("bearer", "x-api-key", "x-cashu"),
}
TAGS: Final[Mapping[str, str]] = {
    "paid": "What is sold: requests and answers are the vendors' own.",
    "balance": "Money onto a key, what became of it, and the rest back; `/v1/wallet` is the same.",
    "lightning": "Money onto a key by an invoice.",
    "teams": "Keys that spend another key's money, and money from key to key.",
    "quote": "What a request would cost.",
    "receipts": "What was charged for a request, and why, signed by the node.",
    "node": "What the node is, how it is, and what it sells.",
    "admin": "For whoever runs the node: what the dashboard does, with a token of `cli-tokens`.",
}
INFO: Final = (
    "An API that is paid per request, with Cashu ecash, without accounts. Amounts are msat where a"
    " name does not say otherwise; an error is always the same envelope, and costs nothing."
)
_MODEL: Final[Json] = {"type": "string", "description": "An id of /v1/models."}


def describe(app: FastAPI) -> None:
    """Let `app` describe itself so."""
    plain: Callable[[], Json] = app.openapi

    @cache
    def described() -> Json:
        return _completed(plain())

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to do so


def _completed(schema: Json) -> Json:
    parts = schema.setdefault("components", {})
    parts.setdefault("schemas", {})[ENVELOPE] = _ENVELOPE_SCHEMA
    parts["securitySchemes"] = dict(SECURITY)
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    schema["paths"] |= _paid_paths()
    schema["info"]["description"] = INFO
    schema["tags"] = [{"name": name, "description": says} for name, says in TAGS.items()]
    for operation in _operations(schema["paths"].values()):
        _complete(operation)
    return schema


def _operations(paths: Iterable[Json]) -> Iterator[Json]:
    for path in paths:
        yield from (each for each in path.values() if isinstance(each, dict))


def _complete(operation: Json) -> None:
    """Its title, its errors, and who may ask."""
    tag = next(iter(operation.get("tags", ())), "node")
    told = str(operation.get("description", "")).strip()
    if told:
        operation["summary"] = told.partition(". ")[0].partition("\n")[0].rstrip(".")
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own; ours is a 400 in the envelope
    for status in sorted({*_ALWAYS, *ERRORS.get(tag, ())}):
        responses.setdefault(str(status), _error(status))
    if tag in ASKED_BY:
        operation.setdefault("security", [{name: []} for name in ASKED_BY[tag]])


def _error(status: int) -> Json:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{ENVELOPE}"}}},
    }


# ── the paid road ─────────────────────────────────────────────────────────────────────────────


def _paid_paths() -> Json:
    return {f"/v1{path}": {"post": _paid(dialect)} for path, dialect in DIALECTS.items()}


def _paid(dialect: Dialect) -> Json:
    is_form = dialect.media == "multipart"
    properties: Json = {"model": _MODEL}
    if is_form:
        properties["file"] = {"type": "string", "format": "binary"}
    media = "multipart/form-data" if is_form else "application/json"
    name = dialect.path.strip("/")
    is_free = dialect.path == COUNT_TOKENS
    told = "Count the tokens of a message, for free." if is_free else f"Buy an answer of `{name}`."
    return {
        "tags": ["paid"],
        "operationId": f"buy_{name.replace('/', '_')}",
        "description": f"{told} The vendor's own request and answer, with the"
        " cost in `usage` or in headers.",
        "requestBody": {
            "required": True,
            "content": {media: {"schema": {"type": "object", "properties": properties}}},
        },
        "responses": {
            "200": {
                "description": "The answer, as the upstream gave it",
                "content": {
                    "application/json": {"schema": {}},
                    "text/event-stream": {"schema": {}},
                    "*/*": {"schema": {}},
                },
            }
        },
    }
