"""Where a finished request is told to, if the operator wants traces: an interface, and its word.

Law: no content, no key, nothing of who asked; a trace says what `request_data` of the row says.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpan:
    """A request that has ended; `failure` is what went wrong, in one word, or None.

    `operation` is a name of OpenTelemetry's GenAI conventions: chat, text_completion, embeddings…
    """

    request_id: str
    operation: str
    model: str
    upstream: str
    outcome: str
    failure: str | None
    input_tokens: int
    output_tokens: int
    charged_msat: int
    total_ms: int
    first_ms: int | None
    ended_at: datetime


class Traces(Protocol):
    """Takes spans without waiting."""

    def note(self, span: RequestSpan) -> None:
        """Send it some time."""
        ...

    def close(self) -> None:
        """Send what is left, within a few seconds. Blocking."""
        ...
