"""The balancer of `compose.yml`, before a node that breaks off on connections that are kept."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.harness.cluster import Balancer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(slots=True)
class Fickle:
    """Answers the first request of a connection, and takes the second without a word."""

    port: int = 0
    seen: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = 0
        try:
            while answered < 2:
                method, path, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
                if path != "/health":
                    self.seen.append(method)
                    answered += 1
                if answered < 2:
                    writer.write(ANSWER)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("GET", {}),
        ("GET", {"idempotency-key": "once"}),
        ("DELETE", {"x-idempotency-key": "once"}),
        ("POST", {"x-idempotency-key": "once"}),
        ("POST", {}),
    ],
)
async def test_what_a_node_has_seen_is_never_sent_again(
    tmp_path: Path, http: httpx.AsyncClient, method: str, head: dict[str, str]
) -> None:
    node = Fickle()
    async with await asyncio.start_server(node.serve, "127.0.0.1", 0) as server:
        node.port = server.sockets[0].getsockname()[1]
        balancer = Balancer(tmp_path / "caddy", nodes=[node])
        try:
            await asyncio.to_thread(balancer.start)
            for sent in range(1, 5):
                answer = await http.request(method, f"{balancer.url}/v1/weather", headers=head)
                assert answer.status_code in (httpx.codes.OK, httpx.codes.BAD_GATEWAY)
                assert node.seen == [method] * sent
        finally:
            await asyncio.to_thread(balancer.kill)
