"""`make demo`: a paid request end to end, on a real mint, with the official OpenAI client.

Exits 0 only if every amount adds up to the msat, and leaves no process behind however it ends.
`KEEP=1` in the environment keeps everything running until Ctrl-C.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Final

from rich.console import Console

from demo.books import DoesNotAddUp
from demo.customer import Customer
from demo.page import Page, StepFailed, curl
from demo.prices import PriceList
from demo.process import Server
from demo.stage import MINT, NODE, UPSTREAM, ServerFailed, Stage, open_stage
from demo.story import ACCOUNT, KEY, SMALL, WALLET, Story
from demo.wallet import Wallet

LOG_LINES: Final = 12
KEPT_KEY_SAT: Final = 500
KEPT_TOKEN_SAT: Final = 100
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell has it

WHAT: Final = {
    MINT: "nutshell, a real mint; its Lightning is make-believe",
    UPSTREAM: "an OpenAI-compatible API with one answer to everything",
    NODE: "Routstr, on SQLite in a temporary directory",
}


def main() -> int:
    """Run the demo; its exit status."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # end as by Ctrl-C, which cleans up
    page = Page(Console(highlight=False))
    started_s = time.monotonic()
    try:
        page.title("Pay an API per request, with ecash")
        with open_stage(_starting(page)) as stage:
            for name, server in _servers(stage):
                page.fact(name, server.url, WHAT[name])
            return _play(stage, page, started_s)
    except ServerFailed as error:
        page.failure(str(error), "It ended, or did not answer in time.", [(error.name, error.log)])
        return 1
    except KeyboardInterrupt:
        page.verbatim("\nInterrupted; everything was stopped.")
        return INTERRUPTED


def _starting(page: Page) -> Callable[[str], AbstractContextManager[None]]:
    return lambda name: page.busy(f"Starting the {name}")


def _servers(stage: Stage) -> Sequence[tuple[str, Server]]:
    return ((MINT, stage.mint), (UPSTREAM, stage.upstream), (NODE, stage.node))


def _play(stage: Stage, page: Page, started_s: float) -> int:
    try:
        asyncio.run(_tell(stage, page, started_s))
    except StepFailed as error:
        logs = [(name, _tail(server)) for name, server in _servers(stage) if name in error.suspects]
        page.failure(str(error), error.why, logs)
        return 1
    except DoesNotAddUp as error:
        page.failure("It does not add up.", str(error), [])
        return 1
    return 0


def _tail(server: Server) -> str:
    return "\n".join(f"  {line}" for line in server.log.splitlines()[-LOG_LINES:])


async def _tell(stage: Stage, page: Page, started_s: float) -> None:
    async with (
        Wallet(stage.mint.url, seed=secrets.token_bytes(64)) as wallet,
        Customer(stage.node.api_url) as customer,
    ):
        prices = PriceList.load()
        story = Story(stage=stage, page=page, wallet=wallet, customer=customer, prices=prices)
        await story.tell()
        _sum_up(story, page)
        story.check_total()
        seconds = time.monotonic() - started_s
        page.verdict(f"Every amount adds up to the msat. {seconds:.1f} s.")
        if os.environ.get("KEEP", "") not in {"", "0"}:
            await _keep(story, page)


def _sum_up(story: Story, page: Page) -> None:
    books = story.books
    page.title("Where the ecash is now")
    page.sum_up(
        [
            ("in the wallet", books[WALLET], ""),
            ("left on the key", books[KEY], "less than a sat; it stays and can be spent"),
            ("left of the token", books[ACCOUNT], "the same"),
            ("paid for requests", sum(books.costs_msat), f"{len(books.costs_msat)} of them"),
            ("fees", 0, "this mint charges none"),
        ],
        books.total_msat(),
    )


async def _keep(story: Story, page: Page) -> None:
    """Make a key with money on it, say how to use it, and wait to be interrupted."""
    created = await story.customer.create_key(await story.wallet.send(KEPT_KEY_SAT))
    key, url = created["api_key"], story.stage.node.api_url
    token = await story.wallet.send(KEPT_TOKEN_SAT)
    body = {"model": SMALL, "messages": [{"role": "user", "content": "Hello there"}]}
    node = story.stage.node
    page.title("Yours until Ctrl-C")
    page.fact("wallet", f"{node.url}/", "for whoever buys; open it in a browser")
    page.fact("dashboard", node.setup_link, "for whoever runs the node; works once")
    page.fact("base URL", url)
    page.fact("key", key, f"{KEPT_KEY_SAT} sat")
    page.fact("log", str(node.directory / "log"))
    page.verbatim("\n" + curl(f"{url}/chat/completions", key, json.dumps(body)))
    page.verbatim(f"\nA token of {KEPT_TOKEN_SAT} sat, to top the key up or to be one itself:\n")
    page.verbatim(token)
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
