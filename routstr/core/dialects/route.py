"""A route that is sold by the request: whatever it says passes unread, in both directions.

Laws: what is asked of the upstream is its own path, which the operator wrote down; the client adds
a query and a body to it and nothing else. An answer costs the request once it came whole.
"""

import re
from collections.abc import Mapping
from typing import Final

from routstr.core.dialects.base import Media, StreamMeter
from routstr.core.order import Order
from routstr.core.outcome import Tally
from routstr.core.pricing import NOTHING_USED
from routstr.core.receipt import Receipt
from routstr.errors import InvalidParameter

WHOLE: Final = Tally(usage=NOTHING_USED, done_seen=True, output_seen=True)
"""What there is to see of an answer that came whole: that it did."""

QUERY_CHARACTERS_MAX: Final = 8_192
_QUERY: Final = re.compile(r"[!$-;=?-~]*")  # visible ASCII but for what no URL has: " # < >
_BODY: Final = "body"


class RouteDialect:
    """One call of `upstream_path`; `name` stands for a model's id."""

    media: Media = "any"

    def __init__(self, *, name: str, method: str, upstream_path: str, query: str) -> None:
        """`query` is as the client sent it, without its `?`."""
        self.path: Final = upstream_path
        self._name = name
        self._method = method
        self._query = query

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order. Raises InvalidParameter for a query that no URL can carry."""
        if len(self._query) > QUERY_CHARACTERS_MAX or not _QUERY.fullmatch(self._query):
            raise InvalidParameter("The query has a character that no URL can carry.")
        return Order(
            model_id=self._name,
            prompt_bytes=0,
            prompt_text_bytes=0,
            writes=False,
            is_opaque=True,
            method=self._method,
            query=self._query,
            body={_BODY: body},
        )

    def forward_body(
        self, order: Order, *, forwarded_model_id: str, output_limit: int | None = None
    ) -> bytes:
        """The client's bytes."""
        body = order.body[_BODY]
        assert isinstance(body, bytes)
        return body

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """It came whole."""
        return WHOLE

    def with_cost(self, body: bytes, receipt: Receipt) -> bytes:
        """The upstream's bytes."""
        return body

    def stream_meter(
        self, *, usage_asked: bool, usage_cap: int, event_bytes_max: int
    ) -> StreamMeter:
        """None: there is nothing to read in it."""
        raise AssertionError("this is not metered")

    def error_event(self, error: Mapping[str, object]) -> bytes:
        """None: nothing is added to an answer that nobody reads here."""
        return b""
