"""One HTTP exchange with a mint: bounded in time and size, never redirected, never repeated.

It knows nothing of Cashu but which status is an answer. Bodies and paths (a path may hold a quote
id) are never logged nor kept in an error. Source: ecash.md section 7.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from routstr.gateways.mint_failure import MintUnknown
from routstr.gateways.mint_wire import check_status
from routstr.gateways.tls import trusted

ANSWER_BYTES_MAX: Final = 1024 * 1024
CONNECT_S: Final = 5.0
TOTAL_S: Final = 30.0
_OK: Final = frozenset({200})
_HEADERS: Final = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "routstr",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request: `accepted` are the statuses whose body is an answer, `total_s` its deadline."""

    method: str
    path: str = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    accepted: frozenset[int] = _OK
    total_s: float | None = None  # None: the client's own


class MintHttp:
    """The connections to all mints; `open` it in the running event loop."""

    def __init__(self, *, connect_s: float, total_s: float, answer_bytes_max: int) -> None:
        self._connect_s = connect_s
        self._total_s = total_s
        self._answer_bytes_max = answer_bytes_max
        self._pool: httpx.AsyncClient | None = None

    def open(self) -> None:
        """Make the connection pool."""
        assert self._pool is None, "opened twice"
        self._pool = httpx.AsyncClient(
            verify=trusted(),
            headers=_HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the pool."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.aclose()

    async def exchange(self, mint_url: str, call: Call) -> bytes:
        """The body of an accepted answer. Raises MintRefused, MintLimited, MintUnknown."""
        assert self._pool is not None, "open() comes first"
        total_s = self._total_s if call.total_s is None else call.total_s
        try:
            async with (
                asyncio.timeout(total_s),
                self._pool.stream(
                    call.method,
                    mint_url + call.path,
                    content=call.body,
                    headers=call.headers,
                    timeout=httpx.Timeout(total_s, connect=self._connect_s),
                ) as response,
            ):
                answer = await _body(response, self._answer_bytes_max)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise MintUnknown("cannot connect to the mint", was_sent=False) from error
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
            raise MintUnknown("the mint did not answer") from error
        if response.status_code not in call.accepted:
            check_status(response.status_code, answer, response.headers.get("retry-after"))
        return answer


async def _body(response: httpx.Response, bytes_max: int) -> bytes:
    """At most `bytes_max` bytes, sent as they are. Raises MintUnknown."""
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise MintUnknown("an encoding not asked for", status=response.status_code)
    answer = bytearray()
    async for piece in response.aiter_raw():
        answer += piece
        if len(answer) > bytes_max:
            raise MintUnknown("the mint's answer is too large", status=response.status_code)
    return bytes(answer)
