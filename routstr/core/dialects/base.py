"""What the paid road needs of a dialect: to price a body, to forward it, to meter what comes back.

A dialect is one endpoint's way of speaking. Everything in it is pure; everything an upstream sends
is hostile, and nothing that reads it raises.
"""

from collections.abc import Mapping
from typing import Literal, Protocol

from routstr.core.order import Order
from routstr.core.outcome import Tally
from routstr.core.pricing import Usage
from routstr.core.receipt import Receipt

Media = Literal["json", "multipart", "any"]


class StreamMeter(Protocol):
    """The meter of one stream: `feed` each chunk, `close` at its end, then one of the ends."""

    error: object
    """The upstream's own error object, if it sent one: redact before showing."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more counts: the terminal event, an error or an oversized event came."""
        ...

    @property
    def finish_seen(self) -> bool:
        """Whether the answer is complete, so that a drain for usage is worth its wait."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether all output that was begun has ended, so that only usage is still to come."""
        ...

    @property
    def output_tokens_estimate(self) -> int:
        """Output tokens so far: our count, or the upstream's running one if that is higher."""
        ...

    @property
    def output_seen(self) -> bool:
        """Whether there was output so far."""
        ...

    @property
    def output_text_bytes(self) -> int:
        """UTF-8 bytes of the output's text so far."""
        ...

    @property
    def tally(self) -> Tally:
        """What was seen so far, all of it."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk of the upstream's bytes and give those to hand on now.

        Raises EventTooLarge, whose `ready` is what may still be handed on: the stream is cut.
        """
        ...

    def close(self) -> bytes:
        """Say that the upstream's bytes have ended; gives the last to hand on."""
        ...

    def finish(self, cost: bytes | None, comment: bytes, *, usage: Usage | None = None) -> bytes:
        """The end of a stream in good order: what was held with the cost, the comment, the last.

        `cost` comes from `cost_members`; `usage` stands in if the upstream reported none.
        """
        ...

    def clean_end(self, usage: Usage, cost: bytes, comment: bytes) -> bytes:
        """The end that the node makes when the key's money ends, as if the limit was reached."""
        ...

    def error_end(
        self,
        error: Mapping[str, object],
        comment: bytes,
        *,
        cost: bytes | None = None,
        usage: Usage | None = None,
    ) -> bytes:
        """The end after a failure: what was held, the comment, the error object as an event.

        `usage` and `cost` are what it came to, where the dialect's last event tells them.
        """
        ...


class Dialect(Protocol):
    """One endpoint's way of speaking; `path` is the upstream's, below its base URL."""

    @property
    def path(self) -> str:
        """As `/chat/completions`."""
        ...

    @property
    def media(self) -> Media:
        """What a request's body is."""
        ...

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order in a body.

        Raises InvalidJson, InvalidParameter (param set), and UnsupportedParameter for what could
        raise the cost or redirect the request (guarantees, SR-10).
        """
        ...

    def forward_body(
        self, order: Order, *, forwarded_model_id: str, output_limit: int | None = None
    ) -> bytes:
        """The body sent upstream: ours, with the upstream's model id.

        `output_limit` (tokens per choice) lowers every limit the client gave, or is added.
        """
        ...

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """The tally of a whole answer that is no stream."""
        ...

    def with_cost(self, body: bytes, receipt: Receipt) -> bytes:
        """The answer with its cost spliced in, where the dialect has a place for it."""
        ...

    def stream_meter(
        self, *, usage_asked: bool, usage_cap: int, event_bytes_max: int
    ) -> StreamMeter:
        """The meter of one stream; `usage_cap` is the most tokens a sane usage reports."""
        ...

    def error_event(self, error: Mapping[str, object]) -> bytes:
        """An error object as a stream's last event."""
        ...
