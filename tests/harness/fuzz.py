"""Every documented endpoint, asked for whatever its description allows and for what it does not.

Cases come from schemathesis; what is kept of an answer is whether the document said that it may
come, and whether the node failed. Blocking: run it in a thread beside the server.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode, openapi
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Err
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

TIMEOUT_S: Final = 20.0
CHECKS: Final = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
ALIASES: Final = ("/v1/wallet", "/v1/balance/lightning", "/v2/", "/models")  # other names
MODES: Final = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
NODE_FAILED: Final = frozenset({500, 501, 504, 505})  # the node's own failure; 502 and 503 are told


@dataclass(slots=True, kw_only=True)
class Fuzzed:
    """What came of it; each complaint names the endpoint and says what is wrong."""

    requests: int = 0
    failed: set[str] = field(default_factory=set)
    undocumented: set[str] = field(default_factory=set)


def parts_of(document: Mapping[str, Any], *, aliases: bool) -> dict[str, dict[str, Any]]:
    """The document of what is for everybody, and that of the operator's API."""
    shown = {
        path: each
        for path, each in document["paths"].items()
        if aliases or not path.startswith(ALIASES)
    }
    found: dict[str, dict[str, Any]] = {}
    for name in ("public", "admin"):
        is_admin = name == "admin"
        paths = {path: shown[path] for path in shown if path.startswith("/admin") == is_admin}
        found[name] = {**document, "paths": paths}
    return found


def fuzz(
    document: Mapping[str, Any],
    base_url: str,
    headers: Mapping[str, str],
    *,
    examples: int,
    by_turns: bool = False,
) -> Fuzzed:
    """Ask each endpoint of the OpenAPI `document` `examples` times in each way, good and bad.

    `headers` say who asks; `by_turns` one endpoint is asked in the one way, the next in the other.
    """
    found = Fuzzed()
    schema = openapi.from_dict(dict(document))
    with requests.Session() as session:
        session.trust_env = False
        for number, result in enumerate(schema.get_all_operations()):
            assert not isinstance(result, Err)  # the document itself is sound
            operation = result.ok()
            modes = MODES[number % 2 : number % 2 + 1] if by_turns else MODES
            if not _is_asked_anything(operation):
                modes = MODES[:1]
            for mode in modes:

                @settings(
                    max_examples=examples,
                    database=None,
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def ask(case: Case[Any]) -> None:
                    _ask(found, case, base_url, headers, session)

                with suppress(Unsatisfiable):  # any text at all may be what is asked for
                    ask()
    return found


def _is_asked_anything(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether a request has a part that could be wrong."""
    return any(True for _ in operation.iter_parameters()) or bool(
        operation.definition.raw.get("requestBody")
    )


def _ask(
    found: Fuzzed,
    case: Case[Any],
    base_url: str,
    headers: Mapping[str, str],
    session: requests.Session,
) -> None:
    answer = case.call(base_url=base_url, session=session, headers=dict(headers), timeout=TIMEOUT_S)
    found.requests += 1
    label = case.operation.label
    if answer.status_code in NODE_FAILED:
        found.failed.add(f"{label}: {answer.status_code} to {case.as_curl_command()}")
    try:
        case.validate_response(answer, checks=CHECKS)
    except (Failure, FailureGroup) as complaint:
        reasons = complaint.exceptions if isinstance(complaint, FailureGroup) else [complaint]
        for reason in reasons:
            found.undocumented.add(f"{label}: {answer.status_code} {type(reason).__name__}")
