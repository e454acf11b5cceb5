"""HTTP/1.1 as the fault proxy speaks it: requests and answers with a length, one call a connection
towards the mint."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LIMIT_BYTES: Final = 16 * 1024 * 1024
PASSED: Final = ("content-type", "retry-after")
OWN: Final = (b"connection:", b"host:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`line` is the method and the path; `headers` are as they came."""

    line: str
    headers: bytes = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`status` is the code and the reason."""

    status: bytes
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def head(self) -> bytes:
        """Up to the body, whose length it tells."""
        lines = [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"content-length: {len(self.body)}", "", ""]
        return b"HTTP/1.1 " + self.status + b"\r\n" + "\r\n".join(lines).encode()


async def read_head(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """A request's line, without the protocol, and its headers. Raises IncompleteReadError."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, _, headers = head.partition(b"\r\n")
    return first.decode().rsplit(" ", 1)[0], headers


async def ask(request: Request, host: str, port: int, *, outgoing_host: str) -> Answer:
    """The server's answer to one request, on a connection of its own. Raises OSError."""
    reader, writer = await asyncio.open_connection(
        host, port, limit=LIMIT_BYTES, local_addr=(outgoing_host, 0)
    )
    try:
        lines = [
            f"{request.line} HTTP/1.1".encode(),
            f"host: {host}:{port}".encode(),
            b"connection: close",
        ]
        lines += [
            line
            for line in request.headers.split(b"\r\n")
            if line and not line.lower().startswith(OWN)
        ]
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + request.body)
        await writer.drain()
        raw = await reader.read()
    finally:
        writer.close()
    top, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        raise ConnectionResetError("no answer")
    first, _, headers = top.partition(b"\r\n")
    assert header(headers, "transfer-encoding") is None, "the mint's answers have a length"
    passed = {name: header(headers, name) for name in PASSED}
    return Answer(
        status=first.split(b" ", 1)[1],
        headers={name: value for name, value in passed.items() if value is not None},
        body=body,
    )


def header(headers: bytes, name: str) -> str | None:
    """The value of a header, by its name in lower case."""
    for line in headers.split(b"\r\n"):
        key, _, value = line.decode("latin-1").partition(":")
        if key.strip().lower() == name:
            return value.strip()
    return None
