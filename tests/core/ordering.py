"""Chat orders for tests that do not care how they arrived."""

from routstr.core.dialects import CHAT
from routstr.core.order import Order
from routstr.core.strict_json import JSON_DEPTH_MAX


def parse_chat_order(body: bytes, *, depth_max: int = JSON_DEPTH_MAX) -> Order:
    return CHAT.parse(body, content_type="application/json", depth_max=depth_max)


def forward_body(
    order: Order, *, forwarded_model_id: str, output_limit: int | None = None
) -> bytes:
    return CHAT.forward_body(
        order, forwarded_model_id=forwarded_model_id, output_limit=output_limit
    )
