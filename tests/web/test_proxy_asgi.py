"""The road under a bare ASGI server whose every step the test decides (2.3 and 2.4)."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from tests.fakes.upstream_script import Gate, Script
from tests.harness.funding import FundedKey, told, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order, until

PIECE = 100 + 4 * 2 + 2 * 5  # "one t" is two tokens by our count


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url, drain_timeout_s=0.2) as shop:
        yield shop


class Client:
    """One request as the server's side of ASGI; `sent` holds what it was given to send."""

    def __init__(self, shop: Shop, key: FundedKey) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()
        self.first_piece = asyncio.Event()
        self.is_stuck = False
        self.raises_when_left = False
        self._inbox: list[Message] = [
            {
                "type": "http.request",
                "body": json.dumps(order(stream=True)).encode(),
                "more_body": False,
            }
        ]
        self._app = shop.app
        self._headers = [
            (b"content-type", b"application/json"),
            (b"authorization", f"Bearer {key.text}".encode()),
        ]

    async def ask(self) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "query_string": b"",
            "headers": self._headers,
            "asgi": {"version": "3.0"},
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._inbox:
            return self._inbox.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.left.is_set() and self.raises_when_left:
            raise OSError("the client is gone")
        self.sent.append(message)
        if message.get("body"):
            self.first_piece.set()
            if self.is_stuck:
                await asyncio.Event().wait()


async def test_what_waits_in_the_queue_was_not_delivered(shop: Shop) -> None:
    key, gate = await shop.key(), Gate()
    shop.upstream.default = Script(gate=gate)
    client = Client(shop, key)
    client.is_stuck = True
    asking = asyncio.create_task(client.ask())
    gate.open(1)
    await client.first_piece.wait()
    gate.open(2)
    queue = shop.exchange().queue
    await until(lambda: bool(queue._chunks) and queue._chunks[-1].text_bytes == 13)
    client.left.set()
    await shop.quiet()
    await assert_charged_one_piece(shop, key)
    asking.cancel()
    await asyncio.wait({asking})


async def test_an_estimate_waits_until_all_it_counts_was_delivered(shop: Shop) -> None:
    key, gate = await shop.key(), Gate()
    shop.upstream.default = Script(gate=gate, usage=None)
    client = Client(shop, key)
    client.is_stuck = True
    asking = asyncio.create_task(client.ask())
    gate.open(1)
    await client.first_piece.wait()
    gate.open_for_ever()
    await shop.marks.reached("stream.ended")
    client.left.set()
    await shop.quiet()
    await assert_charged_one_piece(shop, key)
    asking.cancel()
    await asyncio.wait({asking})


async def test_what_was_held_back_was_not_delivered(shop: Shop) -> None:
    key = await shop.key()
    said = b'data: {"choices":[{"index":0,"delta":{"content":"one t"}}]}\n\n'
    held = (
        b'data: {"choices":[{"index":0,"delta":{"content":"wo three"},"finish_reason":"stop"}]}\n\n'
    )
    shop.upstream.default = Script(events=[said + held, b": wait\n\n"], gate=(gate := Gate()))
    gate.open(1)
    client = Client(shop, key)
    asking = asyncio.create_task(client.ask())
    await client.first_piece.wait()
    client.left.set()
    await asking
    await shop.quiet()
    await assert_charged_one_piece(shop, key)


async def test_a_server_that_cancels_the_application_changes_nothing(shop: Shop) -> None:
    key, gate = await shop.key(), Gate()
    shop.upstream.default = Script(gate=gate)
    client = Client(shop, key)
    asking = asyncio.create_task(client.ask())
    gate.open(1)
    await client.first_piece.wait()
    asking.cancel()
    await asyncio.wait({asking})
    await shop.upstream.calls[0].closed_by_client()
    await shop.quiet()
    await assert_charged_one_piece(shop, key)


async def test_a_send_that_fails_says_that_the_client_left(shop: Shop) -> None:
    key, gate = await shop.key(), Gate()
    shop.upstream.default = Script(gate=gate)
    client = Client(shop, key)
    client.raises_when_left = True
    asking = asyncio.create_task(client.ask())
    gate.open(1)
    await client.first_piece.wait()
    client._inbox.append({"type": "http.request", "body": b"", "more_body": False})
    client.left.set()
    gate.open(1)
    await asking
    await shop.quiet()
    await assert_charged_one_piece(shop, key)


async def assert_charged_one_piece(shop: Shop, key: FundedKey) -> None:
    [row] = await usage_rows(shop.ctx, key)
    assert (told(row)["outcome"], told(row)["evidence"]) == ("client_left", "estimated")
    assert row.amount_msat == -PIECE
