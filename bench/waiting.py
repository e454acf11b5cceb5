"""An upstream that says nothing and a mint that hangs: who does not use them never notices.

Thousands of requests are held by the silent upstream, dozens by the mint. Before and meanwhile
another customer buys, a little at a time, from an upstream that answers.
"""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Final

import uvloop

from bench.finding import FellShort, Finding, require, stumbled
from bench.load import Came, load
from bench.residence import LoneNode
from bench.scene import Customer, Scene, open_scene, rows
from bench.still import StillUpstream

SILENT: Final = 3_000
TOGETHER: Final = 50
TOKENS: Final = 20
ASKED_S: Final = 5
ASKED_PER_S: Final = 20
FUNDS_SAT: Final = 1_000_000
SLOWER_MAX: Final = 1.5
SLACK_MS: Final = 3.0  # below that a difference is the machine's
CLI_TIMEOUT_S: Final = 60
SETTLE_S: Final = 3.0
HELD_LOOKS: Final = 30
HELD: Final = "SELECT count(*) FROM reservation WHERE state = 'held'"
ROUTE: Final = "/v1/weather"
WHAT: Final = "upstreams and mints that hang"


def prove() -> Iterator[Finding]:
    """One finding for each of the two."""
    with (
        stumbled(WHAT) as failed,
        open_scene() as scene,
        StillUpstream(scene.home / "still") as upstream,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        yield from runner.run(_wait(scene, upstream))
    yield from failed


async def _wait(scene: Scene, upstream: StillUpstream) -> list[Finding]:
    settings = {"CASHU_MINTS": scene.mint.url, "UPSTREAM_BASE_URL": upstream.api_url("whole")}
    settings |= {"LOG_LEVEL": "WARNING"}
    node = LoneNode(scene.home / "waiting", settings=settings)
    await routstr(node, "upstreams", "add", "silent", "--url", upstream.api_url("silent"))
    await routstr(node, "routes", "add", ROUTE, "--upstream", "silent", "--msat", "1000")
    with node:
        async with AsyncExitStack() as stack:
            customer = await stack.enter_async_context(
                scene.customer(node, funds_sat=FUNDS_SAT + 50 + TOKENS)
            )
            await customer.open_key(FUNDS_SAT)
            tokens = [await customer.wallet.send(1) for _ in range(TOKENS)]
            waiter = await stack.enter_async_context(scene.customer(node, funds_sat=FUNDS_SAT + 50))
            await waiter.open_key(FUNDS_SAT)
            await _others(node, customer)  # everything is warm then

            async def held() -> list["_Asker"]:
                askers = await _ask_many(node.port, _purchase(waiter.key), SILENT)
                for _ in range(HELD_LOOKS):
                    if rows(node, HELD) == [(SILENT,)]:
                        break
                    await asyncio.sleep(SETTLE_S)
                require("requests held at the silent upstream", rows(node, HELD), [(SILENT,)])
                return askers

            async def hung() -> list["_Asker"]:
                scene.mint.process.send(signal.SIGSTOP)
                stack.callback(scene.mint.process.send, signal.SIGCONT)
                return [
                    asker
                    for token in tokens
                    for asker in await _ask_many(node.port, _deposit(token), 1)
                ]

            return [
                await _finding(
                    f"{SILENT:,} requests at a silent upstream", "silent", node, customer, held
                ),
                await _finding(
                    f"{TOKENS} tokens at a mint that hangs", "mint", node, customer, hung
                ),
            ]


async def _finding(
    what: str,
    name: str,
    node: LoneNode,
    customer: Customer,
    burden: Callable[[], Awaitable[list["_Asker"]]],
) -> Finding:
    before = await _others(node, customer)
    askers = await burden()
    await asyncio.sleep(SETTLE_S)
    answered = [each for each in askers if each.read]
    meanwhile = await _others(node, customer)
    for each in askers:
        each.close()
    await asyncio.sleep(SETTLE_S)
    after = await _others(node, customer)
    if not (before.p50_ms and meanwhile.p50_ms and after.p50_ms):
        raise FellShort(f"nothing was served: {before}, {meanwhile}, {after}")
    p50s_ms = [each.p50_ms or 0.0 for each in (before, meanwhile, after)]
    alone_ms = max(p50s_ms[0], p50s_ms[2])  # other work on the machine counts on both sides
    ratio = p50s_ms[1] / alone_ms
    failed = sum(each.other + each.refused + each.unanswered for each in (before, meanwhile, after))
    is_equal = ratio <= SLOWER_MAX or p50s_ms[1] - alone_ms <= SLACK_MS
    return Finding(
        what=what,
        found=f"others in {p50s_ms[1]:.1f} ms (p50) meanwhile, {p50s_ms[0]:.1f} before, "
        f"{p50s_ms[2]:.1f} after: {ratio:.2f} times; {failed} of them failed, "
        f"{len(answered)} of those that wait were answered",
        must=f"at most {SLOWER_MAX} times, none failed, none answered",
        ok=is_equal and not failed and not answered,
        figures={f"{name}_ratio": round(ratio, 2)},
        complaints=tuple(each.read[:200].decode(errors="replace") for each in answered[:1]),
    )


async def _others(node: LoneNode, customer: Customer) -> Came:
    """What another customer's requests come to, at a pace that is no load."""
    return await asyncio.to_thread(
        load, node.port, customer.key, seconds=ASKED_S, connections=4, rate=ASKED_PER_S
    )


async def routstr(node: LoneNode, *arguments: str) -> None:
    """Run the node's command line beside it. Raises FellShort with what it complained of."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "routstr", *arguments],
        env=dict(node.environment()), cwd=node.directory, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=CLI_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise FellShort(f"routstr {' '.join(arguments)}: {done.stderr}")


# ── those that wait ───────────────────────────────────────────────────────────────────────────


def _purchase(key: str) -> bytes:
    return _post(ROUTE, b"{}", key)


def _deposit(token: str) -> bytes:
    body = b'{"initial_balance_token":"%b"}' % token.encode()
    return _post("/v1/balance/create", body, "")


def _post(path: str, body: bytes, key: str) -> bytes:
    shown = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: node\r\n{shown}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _ask_many(port: int, request: bytes, count: int) -> list["_Asker"]:
    loop = asyncio.get_running_loop()
    askers = [_Asker(request) for _ in range(count)]
    for start in range(0, count, TOGETHER):
        await asyncio.gather(
            *(
                loop.create_connection(lambda each=each: each, "127.0.0.1", port)  # type: ignore[misc]  # bound now
                for each in askers[start : start + TOGETHER]
            )
        )
        await asyncio.sleep(TOGETHER / 500)
    return askers


class _Asker(asyncio.Protocol):
    """Asks, and waits."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.BaseTransport | None = None
        self.read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(self._request)  # type: ignore[attr-defined]  # uvloop's is a transport, too

    def data_received(self, data: bytes) -> None:
        self.read += data

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
