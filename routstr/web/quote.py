"""`/v1/quote`: what a request can cost at most, and how to pay for it, without running it.

Nobody has to say who he is, nothing is held, and no mint is asked.
"""

from typing import Annotated, Final
from urllib.parse import parse_qs

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from routstr.core.dialects import CHAT
from routstr.core.order import CHOICES_MAX, MODEL_CHARACTERS_MAX, Order
from routstr.core.pricing import CONTEXT_TOKENS_MAX, Model
from routstr.core.quote import Quote, quote_of
from routstr.errors import RoutstrError
from routstr.flows.context import Context
from routstr.flows.offer import UNIT, offer
from routstr.web.bodies import Bodies, ClientGone, headers_of
from routstr.web.deps import Ctx
from routstr.web.errors import error_response
from routstr.web.proxy import check_media, read_order, sale_at
from routstr.web.scope import context_of, request_id_of

PATH: Final = "/v1/quote"

router = APIRouter(tags=["quote"])


@router.get(PATH)
async def quote_by_numbers(
    ctx: Ctx,
    model: Annotated[str, Query(min_length=1, max_length=MODEL_CHARACTERS_MAX)],
    max_tokens: Annotated[int | None, Query(ge=1, le=CONTEXT_TOKENS_MAX)] = None,
    input_tokens: Annotated[int | None, Query(ge=0, le=CONTEXT_TOKENS_MAX)] = None,
    n: Annotated[int, Query(ge=1, le=CHOICES_MAX)] = 1,
    stream: bool = False,
) -> dict[str, object]:
    """A chat completion by its size; without `input_tokens` it may fill the whole context."""
    order = Order(
        model_id=model,
        stream=stream,
        n=n,
        output_limit=max_tokens,
        output_limit_field="max_tokens",
        input_unbounded=input_tokens is None,
        prompt_bytes=input_tokens or 0,
        prompt_text_bytes=0,
    )
    return await _priced(ctx, order, ctx.catalog.find(order.model_id, CHAT.path))


class QuoteEndpoint:
    """The price of a body as `?path=` (`/v1/chat/completions` unless said) would take it.

    `?method=` is for priced routes; POST unless said.
    """

    def __init__(self) -> None:
        """No body yet."""
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        ctx, headers = context_of(scope), headers_of(scope)
        try:
            sale = sale_at(ctx, _asked(scope, "method", "POST").upper(), _path_asked(scope))
            check_media(headers, sale.dialect)
            with self._bodies.reading(ctx) as reading:
                body = await reading.body(headers, receive)
                order = await read_order(ctx, sale.dialect, headers, body)
                listing = sale.route or ctx.catalog.listing(order.model_id, sale.dialect.path)
                said = orjson.dumps(await _priced(ctx, order, listing.model))
            response = Response(said, media_type="application/json")
        except ClientGone:
            return
        except RoutstrError as error:
            response = error_response(error, request_id=request_id_of(scope), path=scope["path"])
        await response(scope, receive, send)


def routes() -> list[BaseRoute]:
    """The route that takes a body."""
    return [Route(PATH, QuoteEndpoint(), methods=["POST"], name="quote_by_body")]


def _path_asked(scope: Scope) -> str:
    """The endpoint whose price is asked for."""
    return f"/{_asked(scope, 'path', CHAT.path).lstrip('/')}"


def _asked(scope: Scope, name: str, otherwise: str) -> str:
    """A parameter of the query."""
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get(name, [otherwise])[0]


async def _priced(ctx: Context, order: Order, model: Model) -> dict[str, object]:
    quote: Quote = quote_of(order, model)
    offered = await offer(ctx, quote)
    return {
        "model": quote.model_id,
        "amount_msat": quote.total_msat,
        "minimum_msat": quote.minimum_msat,
        "amount": offered.amount,
        "unit": UNIT,
        "price_version": quote.price.version,
        "input_tokens_max": quote.input_tokens_max,
        "output_limit": quote.output_limit,
        "stream": order.stream,
        "mints": list(offered.mints),
        "payment_request": offered.request_a,
        "payment_request_bech32": offered.request_b,
    }
