"""What the JSON dialects without streams have in common."""

from collections.abc import Mapping

import orjson

from routstr.core.dialects.base import Media, StreamMeter
from routstr.core.order import Order
from routstr.core.receipt import Receipt, cost_members, splice_cost
from routstr.errors import UnsupportedParameter


class WholeDialect:
    """JSON in, JSON out, never a stream; a dialect adds `path`, `parse` and `meter_body`."""

    media: Media = "json"

    def forward_body(
        self, order: Order, *, forwarded_model_id: str, output_limit: int | None = None
    ) -> bytes:
        """The body as parsed, with the upstream's model id; there is no output to limit."""
        return orjson.dumps({**order.body, "model": forwarded_model_id})

    def with_cost(self, body: bytes, receipt: Receipt) -> bytes:
        """With the cost in `usage`, if there is one."""
        return splice_cost(body, cost_members(receipt))

    def stream_meter(
        self, *, usage_asked: bool, usage_cap: int, event_bytes_max: int
    ) -> StreamMeter:
        """None: `refuse_stream` let no order for a stream pass."""
        raise AssertionError("this dialect has no streams")

    def error_event(self, error: Mapping[str, object]) -> bytes:
        """As chat has it; nothing here begins a stream."""
        return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def refuse_stream(value: Mapping[str, object]) -> None:
    """Raises UnsupportedParameter for an order of a stream where there is none."""
    if value.get("stream") not in (None, False):
        raise UnsupportedParameter("This endpoint gives no streams.", param="stream")
