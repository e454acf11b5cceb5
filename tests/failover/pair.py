"""A node with two upstreams: the cheap one that is asked first, and a dearer one.

async with open_pair(database_url) as pair:
    pair.first.default = failure(503)
    got = await pair.buy(stream=False)
    assert (got.by, got.charged_msat) == ("second", EXACT_MSAT)
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx

from routstr.flows.catalog import Candidate, Picture, listed
from tests.fakes.upstream import FakeUpstream
from tests.fakes.upstream_script import Script
from tests.harness.funding import assert_books_are_clean, balance_msat, told, usage_rows
from tests.harness.shop import CHAT_MODEL, PATH, Shop, open_shop, order, upstream_at

FUNDS_MSAT: Final = 1_000_000
EXACT_MSAT: Final = 100 + 10 * 2 + 5 * 5  # the fake's usage at the first one's price
NAMES: Final = ("first", "second")
PATIENCE: Final = {
    "upstream_connect_timeout_s": 0.3,
    "upstream_first_byte_timeout_s": 0.3,
    "upstream_first_token_timeout_s": 0.3,
    "upstream_idle_timeout_s": 0.3,
}
REQUESTS_BEFORE: Final = 1_000  # so many that the budget of retries is in nobody's way


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """One request as its client and the books have it."""

    status: int
    code: str | None
    by: str | None
    text: str = field(repr=False)
    charged_msat: int
    quote_msat: int
    said: Mapping[str, Any]

    @property
    def tried(self) -> list[tuple[str, str]]:
        return [(each["upstream"], each["failure"]) for each in self.said.get("tried", ())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    shop: Shop
    first: FakeUpstream
    second: FakeUpstream

    async def buy(self, *, stream: bool, **more: Any) -> Got:
        """One request of a new key, ended once and booked in good order."""
        key = await self.shop.key(FUNDS_MSAT)
        body = order(stream=stream or None, **more)
        answer = await self.shop.http.post(PATH, headers=key.headers, json=body)
        await self.shop.quiet()
        await assert_books_are_clean(self.shop.ctx)
        [row] = await usage_rows(self.shop.ctx, key)
        assert await balance_msat(self.shop.ctx, key) == FUNDS_MSAT + row.amount_msat
        return Got(
            status=answer.status_code,
            code=code_in(answer),
            by=answer.headers.get("x-routstr-provider"),
            text=answer.text,
            charged_msat=-row.amount_msat,
            quote_msat=int(answer.headers.get("x-routstr-max-cost-msats", 0)),
            said=told(row),
        )

    def forget(self) -> None:
        """Both upstreams have a clean record again, and nothing to say but the usual."""
        self.shop.ctx.upstream.follow({})
        for each in (self.first, self.second):
            each.default = Script()
            each.calls.clear()


@asynccontextmanager
async def open_pair(
    database_url: str, *, dearer_percent: int = 20, is_busy: bool = True, **limits: Any
) -> AsyncIterator[Pair]:
    """`limits` as for `open_shop`; the second upstream is so much dearer."""
    async with (
        FakeUpstream() as second,
        open_shop(database_url, **{**PATIENCE, **limits}) as shop,
    ):
        pair = Pair(shop=shop, first=shop.upstream, second=second)
        urls = {"first": pair.first.base_url, "second": second.base_url}
        candidates = [candidate("first", 0), candidate("second", dearer_percent)]
        shop.ctx.catalog.replace(
            Picture(
                listings={CHAT_MODEL.id: listed(CHAT_MODEL, candidates)},
                upstreams={name: upstream_at(urls[name], id_=name, slug=name) for name in NAMES},
            )
        )
        for _ in range(REQUESTS_BEFORE if is_busy else 0):
            shop.ctx.upstream.budget.note_request(time.monotonic())
        yield pair


def candidate(name: str, dearer_percent: int = 0, **more: Any) -> Candidate:
    """One that sells the shop's model under a name of its own, so much dearer."""
    own = CHAT_MODEL.price
    rates = ("input_msat_per_mtok", "output_msat_per_mtok", "request_msat")
    price = replace(
        own, **{rate: getattr(own, rate) * (100 + dearer_percent) // 100 for rate in rates}
    )
    return Candidate(
        upstream_id=name,
        upstream_slug=name,
        forwarded_model_id=f"{name}-{CHAT_MODEL.id}",
        price=price,
        context_length=CHAT_MODEL.context_length,
        max_output_tokens=CHAT_MODEL.max_output_tokens,
        **more,
    )


def code_in(answer: httpx.Response) -> str | None:
    """The error's code, of an answer or of a stream's last event; None if there is no error."""
    if answer.headers["content-type"] == "application/json":
        said = answer.json()
    else:
        last = answer.text.rstrip().rpartition("\n\n")[2].removeprefix("data: ")
        said = json.loads(last) if last.startswith("{") else {}
    error = said.get("error")
    return None if error is None else str(error["code"])
