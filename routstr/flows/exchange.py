"""One paid request, as its two sides share it: the task that owns the money, and the connection.

Laws: the connection only awaits the answer's head, empties the queue and says that the client left.
Saying so sets a flag and wakes the task; the task alone ends things. Nothing the connection does,
its own cancellation included, can cancel the task. Source: guarantees, section 5.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from routstr.core.dialects import CHAT, Dialect
from routstr.core.outcome import Ending
from routstr.errors import RoutstrError
from routstr.flows.catalog import Candidate
from routstr.flows.queue import ChunkQueue
from routstr.flows.watch import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the client gets: `body` whole, or None for a stream that the queue brings.

    To one that `is_raw` nothing is added, so its failure is that it never comes to its end.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None = field(repr=False)
    is_raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShot:
    """The account that pays for one request, and what its owner needs to claim the change."""

    account_id: str
    mint_url: str
    unit: str
    change_url: str
    claim_secret: str = field(repr=False)

    def headers(self, change: str | None = None) -> dict[str, str]:
        """What every answer says from now on; `change` is the token of what is left, if any."""
        headers = {
            "X-Routstr-Change": self.change_url,
            "X-Routstr-Claim-Secret": self.claim_secret,
        }
        return headers if change is None else headers | {"X-Cashu": change}


class Exchange:
    """A request in progress. Make it inside the running event loop."""

    def __init__(
        self, *, request_id: str, request_sha256: str, queue: ChunkQueue, dialect: Dialect = CHAT
    ) -> None:
        """Nothing has happened yet. `error` is what it came to, if that was an error.

        `request_sha256` (64 hex) is of the body as received.
        `one_shot` is there once a token was taken that pays for this request alone. `attempts`
        counts what was sent, `provider` names who is asked, `tried` who failed and why.
        `candidate` is who is asked, as it is sold.
        """
        self.request_id: Final = request_id
        self.request_sha256: Final = request_sha256
        self.queue: Final = queue
        self.dialect: Final = dialect
        self.stopped: Ending | None = None
        self.error: RoutstrError | None = None
        self.one_shot: OneShot | None = None
        self.ration = ""
        self.api_key_id = ""
        self.lease_until_s = 0.0
        self.attempts = 0
        self.provider = ""
        self.candidate: Candidate | None = None
        self.tried: list[Mapping[str, str]] = []
        self.watch: Final = Watch(asyncio.get_running_loop().time)
        self._is_over = False
        self._wake: Callable[[], None] | None = None
        self._answer: asyncio.Future[Answer | RoutstrError] = (
            asyncio.get_running_loop().create_future()
        )

    # ── the connection's side ─────────────────────────────────────────────────────────────────

    async def answer(self) -> Answer:
        """The answer's head, or the whole answer. Raises the RoutstrError it came to."""
        answer = await self._answer  # which is nobody's but the connection's: cancelled, it is lost
        if isinstance(answer, RoutstrError):
            raise answer
        return answer

    def client_left(self) -> None:
        """The client is gone, or reads nothing."""
        self.queue.abandon()
        self._stop(Ending.CLIENT_LEFT)

    def claim_headers(self, change: str | None = None) -> dict[str, str]:
        """What an answer paid without an account says of its change; of any other, nothing."""
        return {} if self.one_shot is None else self.one_shot.headers(change)

    # ── the task's side ───────────────────────────────────────────────────────────────────────

    def answer_with(self, answer: Answer) -> None:
        """Let the connection send this; a whole answer is the end."""
        self._is_over = answer.body is not None
        if not self._answer.done():
            self._answer.set_result(answer)

    def refuse(self, error: RoutstrError) -> None:
        """Let the connection end with the error: as the answer, or as a begun stream's last event.

        It is the end.
        """
        self._is_over = True
        self.error = error
        self.queue.finish(b"")
        if not self._answer.done():
            self._answer.set_result(error)

    def finish(self, data: bytes) -> None:
        """The last bytes of a stream."""
        self._is_over = True
        self.queue.finish(data)

    def close(self) -> None:
        """The task has ended: if nothing was said until now, something broke."""
        self.when_stopped(None)
        if not self._is_over:
            self.refuse(RoutstrError(headers=self.claim_headers()))

    def when_stopped(self, wake: Callable[[], None] | None) -> None:
        """What ends the task's present wait, at once if it was stopped before; None for nothing."""
        self._wake = wake
        if wake is not None and self.stopped is not None:
            wake()

    # ── the renewal's and the shutdown's side (RunningHold) ───────────────────────────────────

    def stop(self) -> None:
        """End it soon, as `node_stopped`."""
        self._stop(Ending.NODE_STOPPED)

    def renewed(self, lease_until_s: float) -> None:
        """Its hold lives until then, on the monotonic clock, unless it ends before."""
        self.lease_until_s = lease_until_s

    def _stop(self, ending: Ending) -> None:
        if self._is_over or self.stopped is not None:
            return
        self.stopped = ending
        if self._wake is not None:
            self._wake()
