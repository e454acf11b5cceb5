"""The fault proxy: a small HTTP server between a node and a real mint, which breaks their calls.

    async with FaultProxy(mint.url, seed=7) as proxy:
        rule = proxy.inject("POST /v1/swap", Fault.PROCESSED_THEN_LOST, times=1)
        … the node's mint is proxy.url …
        proxy.heal()                       # every rule ends, what was held back is let through
        await proxy.quiet()
        assert rule.injected == 1
        assert proxy.counts["POST /v1/swap"] == 2
        assert proxy.resent_otherwise() == set()     # one operation, one body

An endpoint is `METHOD path`, in which `*` stands for anything. The first rule that fits and is not
used up takes the call. All choices come from the seed. Of bodies only digests are kept. It needs
nothing but the standard library, so a test, a proof and a program can all have one.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import socket
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from tests.faults.wire import LIMIT_BYTES, Answer, Request, ask, header, read_head

ENDPOINTS: Final = (
    "GET /v1/info",
    "GET /v1/keysets",
    "GET /v1/keys/*",
    "POST /v1/swap",
    "POST /v1/restore",
    "POST /v1/checkstate",
    "POST /v1/mint/quote/bolt11",
    "GET /v1/mint/quote/bolt11/*",
    "POST /v1/mint/bolt11",
    "POST /v1/melt/quote/bolt11",
    "GET /v1/melt/quote/bolt11/*",
    "POST /v1/melt/bolt11",
)
OTHER: Final = "other"
# The generator of the curve: a point like any signature, and none for what was asked.
POINT: Final = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


class Fault(StrEnum):
    """What befalls a call."""

    DELAY = "delay"  # wait, then all is well
    REFUSE = "refuse"  # close without reading the body
    DROP = "drop"  # read it, never forward it, close
    PROCESSED_THEN_LOST = "processed_then_lost"  # forward, discard the answer, close
    DUPLICATE = "duplicate"  # forward twice, answer with the first or the second
    ERROR_BEFORE = "error_before"  # 500 without forwarding
    ERROR_AFTER = "error_after"  # forward, then 500
    TRUNCATE = "truncate"  # half the body under the whole length
    CORRUPT = "corrupt"  # a signature or any byte is another one
    SLICES = "slices"  # the answer byte by byte
    STALL = "stall"  # forward, answer with the head, then silence
    RESET = "reset"  # forward, then RST
    LIMITED = "limited"  # 429 with Retry-After
    STATUS_HTML = "status_html"  # 502 with a page for people
    LATE = "late"  # silence; forwarded when healed, long after the client gave up


class Lie(StrEnum):
    """What a mint may say for a while; no fault of the line, so no part of the matrix."""

    UNCHANGED = "unchanged"  # a melt without its change, a restore of nothing


# After these there is no connection any more.
CUT: Final = frozenset(
    {
        Fault.DROP,
        Fault.PROCESSED_THEN_LOST,
        Fault.RESET,
        Fault.TRUNCATE,
        Fault.STALL,
        Fault.LATE,
    }
)


@dataclass(slots=True, kw_only=True, eq=False)
class Rule:
    """One fault at one endpoint, `left` times more; None is until healed."""

    endpoint: str
    fault: Fault | Lie
    left: int | None
    injected: int = 0

    def takes(self, call: str) -> bool:
        return self.left != 0 and fnmatchcase(call, self.endpoint)

    def use(self) -> Fault | Lie:
        self.injected += 1
        if self.left is not None:
            self.left -= 1
        return self.fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One call: its endpoint, digests of its body and of every secret it spends, its fault."""

    endpoint: str
    body: str = field(repr=False)
    inputs: frozenset[str] = field(repr=False)
    fault: Fault | Lie | None


class FaultProxy:
    """The server on a free port of 127.0.0.1; `url` is the mint's, as the node knows it.

    A call that meets silence is cut after `silence_s`, if that is not left to the client.
    `outgoing_host` is the address its own calls come from: nutshell never limits 127.0.0.1, so a
    proof of rate limits takes 127.0.0.2.
    """

    def __init__(
        self,
        mint_url: str,
        *,
        seed: int = 0,
        outgoing_host: str = "127.0.0.1",
        delay_s: float = 0.05,
        silence_s: float | None = None,
        retry_after_s: int = 30,
    ) -> None:
        self.rules: list[Rule] = []
        self.calls: list[Seen] = []
        mint = urlsplit(mint_url)
        assert mint.scheme == "http"
        assert mint.hostname is not None
        assert mint.port is not None
        self._host, self._port = mint.hostname, mint.port
        self._random = random.Random(seed)
        self._outgoing_host = outgoing_host
        self._delay_s = delay_s
        self._silence_s = silence_s
        self._retry_after_s = retry_after_s
        self._healed = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._busy = 0
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=LIMIT_BYTES)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        if self._handlers:
            await asyncio.wait(self._handlers)

    @property
    def url(self) -> str:
        """Where the node finds the mint."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    # ── what a test says and asks ─────────────────────────────────────────────────────────────

    def inject(self, endpoint: str, fault: Fault | Lie, *, times: int | None = None) -> Rule:
        """From now on, that many times or until healed."""
        rule = Rule(endpoint=endpoint, fault=fault, left=times)
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """End all rules; what is held back goes its way, what is stalled is cut."""
        self.rules.clear()
        healed, self._healed = self._healed, asyncio.Event()
        healed.set()

    async def quiet(self) -> None:
        """Return once no call is under way, late ones included."""
        await self._quiet.wait()

    @property
    def counts(self) -> Counter[str]:
        """How many calls each endpoint had."""
        return Counter(seen.endpoint for seen in self.calls)

    def resent_otherwise(self, *, since: int = 0) -> set[str]:
        """The endpoints where a proof was sent in two different bodies, from call `since` on."""
        bodies: dict[tuple[str, str], set[str]] = defaultdict(set)
        for seen in self.calls[since:]:
            for proof in seen.inputs:
                bodies[seen.endpoint, proof].add(seen.body)
        return {endpoint for (endpoint, _), sent in bodies.items() if len(sent) > 1}

    # ── the server ────────────────────────────────────────────────────────────────────────────

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        # What the client or the mint breaks off is a fault like any other.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one_call(await read_head(reader), reader, writer):
                pass
        writer.close()
        self._handlers.discard(task)

    async def _one_call(
        self, head: tuple[str, bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection lives on."""
        line, headers = head
        rule = next((rule for rule in self.rules if rule.takes(line)), None)
        fault = None if rule is None else rule.use()
        if fault is Fault.REFUSE:
            self._note(line, b"", fault)
            return False
        body = await reader.readexactly(int(header(headers, "content-length") or 0))
        self._note(line, body, fault)
        self._busy += 1
        self._quiet.clear()
        try:
            request = Request(line=line, headers=headers, body=body)
            await self._answer(request, fault, reader, writer)
        finally:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()
        return fault not in CUT

    async def _answer(
        self,
        request: Request,
        fault: Fault | Lie | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        healed = self._healed
        if fault is Fault.LATE:
            await self._silence(healed, reader)
            writer.close()
            await healed.wait()
        answer = await self._outcome(request, fault)
        if answer is None:
            return
        match fault:
            case Fault.RESET:
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            case Fault.TRUNCATE:
                writer.write(answer.head + answer.body[: len(answer.body) // 2])
            case Fault.STALL:
                writer.write(answer.head)
                await self._silence(healed, reader)
            case Fault.SLICES:
                whole = answer.head + answer.body
                for index in range(len(whole)):
                    writer.write(whole[index : index + 1])
                    await asyncio.sleep(0)  # so that whoever reads takes it as it comes
            case _:
                writer.write(answer.head + answer.body)
        await writer.drain()

    async def _outcome(self, request: Request, fault: Fault | Lie | None) -> Answer | None:
        """Let the mint hear of it or not; what the client is to get, if anything."""
        if fault is Fault.DROP:
            return None
        if fault is Fault.DELAY:
            await asyncio.sleep(self._random.uniform(0, self._delay_s))
        instead = self._instead(fault)
        if instead is not None:
            return instead
        answer = await ask(request, self._host, self._port, outgoing_host=self._outgoing_host)
        match fault:
            case Fault.PROCESSED_THEN_LOST | Fault.LATE:
                return None
            case Fault.ERROR_AFTER:
                return _ERROR
            case Fault.CORRUPT:
                return replace(answer, body=self._corrupted(answer.body))
            case Lie.UNCHANGED:
                value = json.loads(answer.body) | {"change": None, "outputs": [], "signatures": []}
                return replace(answer, body=json.dumps(value).encode())
            case Fault.DUPLICATE:
                again = await ask(
                    request, self._host, self._port, outgoing_host=self._outgoing_host
                )
                return self._random.choice([answer, again])
        return answer

    def _instead(self, fault: Fault | Lie | None) -> Answer | None:
        """What is answered without asking the mint, if anything."""
        match fault:
            case Fault.ERROR_BEFORE:
                return _ERROR
            case Fault.LIMITED:
                return Answer(
                    status=b"429 Too Many Requests",
                    headers=_JSON | {"retry-after": str(self._retry_after_s)},
                    body=b'{"detail":"Rate limit exceeded."}',
                )
            case Fault.STATUS_HTML:
                return Answer(
                    status=b"502 Bad Gateway",
                    headers={"content-type": "text/html"},
                    body=b"<html><body><h1>502 Bad Gateway</h1></body></html>",
                )
        return None

    def _corrupted(self, body: bytes) -> bytes:
        """Another signature in half of the answers that have any, else another byte."""
        if b'"signatures":[{' in body and self._random.random() < 0.5:
            value = json.loads(body)
            self._random.choice(value["signatures"])["C_"] = POINT
            return json.dumps(value).encode()
        if not body:
            return body
        index = self._random.randrange(len(body))
        changed = body[index] ^ 1 << self._random.randrange(7)
        return body[:index] + bytes([changed]) + body[index + 1 :]

    async def _silence(self, healed: asyncio.Event, reader: asyncio.StreamReader) -> None:
        """Until all is healed, the client leaves, or it has been long enough."""
        waits = [asyncio.ensure_future(healed.wait()), asyncio.ensure_future(reader.read(1))]
        try:
            await asyncio.wait(waits, timeout=self._silence_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _note(self, line: str, body: bytes, fault: Fault | Lie | None) -> None:
        endpoint = next((each for each in ENDPOINTS if fnmatchcase(line, each)), OTHER)
        self.calls.append(
            Seen(endpoint=endpoint, body=_digest(body), inputs=_inputs(body), fault=fault)
        )


_JSON: Final = {"content-type": "application/json"}
_ERROR: Final = Answer(
    status=b"500 Internal Server Error", headers=_JSON, body=b'{"detail":"Internal Server Error"}'
)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _inputs(body: bytes) -> frozenset[str]:
    """Digests of the secrets of the proofs that a body spends."""
    try:
        proofs = json.loads(body)["inputs"] if body else []
        return frozenset(_digest(proof["secret"].encode()) for proof in proofs)
    except (ValueError, KeyError, TypeError):
        return frozenset()
