"""Asking an upstream as the tests do: one hold, short deadlines, and reading to the end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from routstr.gateways.upstream import Deadlines, UpstreamClient, UpstreamReply
from routstr.gateways.upstream_failure import UpstreamCut, UpstreamStalled
from routstr.log import Secret

KEY = Secret("sk-operator-key")
CHAT = "/chat/completions"
BYTES_MAX = 2**20
FAST = Deadlines(connect_s=5, first_byte_s=10, idle_s=10, total_s=30)
HASTY = Deadlines(connect_s=5, first_byte_s=10, idle_s=0.05, total_s=30)


@dataclass(frozen=True)
class Hold:
    id: str


HOLD = Hold("hold_1")


async def ask(
    client: UpstreamClient,
    *,
    stream: bool = False,
    headers: Mapping[str, str] | None = None,
    deadlines: Deadlines = FAST,
    path: str = CHAT,
) -> UpstreamReply:
    body = {"model": "m", "stream": stream, "stream_options": {"include_usage": True}}
    return await client.request(
        path=path,
        body=json.dumps(body).encode(),
        headers=headers or {},
        hold=HOLD,
        deadlines=deadlines,
    )


async def drain(reply: UpstreamReply) -> bytes:
    return await reply.read_all(BYTES_MAX)


async def drain_until_failure(reply: UpstreamReply) -> tuple[bytes, Exception]:
    pieces = bytearray()
    try:
        while (chunk := await reply.read_chunk()) is not None:
            pieces += chunk
    except (UpstreamCut, UpstreamStalled) as error:
        return bytes(pieces), error
    raise AssertionError("the body ended cleanly")
