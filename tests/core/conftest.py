"""Small makers of orders and models; the values that matter stand in the tests."""

import json
from collections.abc import Callable

import pytest

from routstr.core.order import Order
from routstr.core.pricing import Model, Price
from tests.core.ordering import parse_chat_order

OrderOf = Callable[..., Order]
ModelOf = Callable[..., Model]


@pytest.fixture(scope="session")
def order_of() -> OrderOf:
    """An order from body members beside a short default."""

    def make(**members: object) -> Order:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}
        return parse_chat_order(json.dumps(body).encode())

    return make


@pytest.fixture(scope="session")
def model_of() -> ModelOf:
    """A model of 1,000 tokens context and 100 output, input 1 and output 4 msat a token."""

    def make(
        context_length: int = 1_000,
        max_output_tokens: int = 100,
        input_price: int = 1_000_000,
        output_price: int = 4_000_000,
        request_msat: int = 0,
        cache_creation: int | None = None,
        cache_read: int | None = None,
        is_free: bool = True,
    ) -> Model:
        return Model(
            id="m",
            name="M",
            context_length=context_length,
            max_output_tokens=max_output_tokens,
            is_free=is_free,
            price=Price(
                version="v1",
                input_msat_per_mtok=input_price,
                output_msat_per_mtok=output_price,
                request_msat=request_msat,
                cache_creation_msat_per_mtok=cache_creation,
                cache_read_msat_per_mtok=cache_read,
            ),
        )

    return make
