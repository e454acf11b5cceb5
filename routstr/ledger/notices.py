"""What other processes of this node should look at again: told by NOTIFY, heard by LISTEN.

Laws
- A notice names what changed, and the number of the change where it has one; never a value. Whoever
  hears it reads the database, as anybody does.
- It is sent after the commit, over a connection that is nobody else's: a NOTIFY takes a lock of
  the whole server when its transaction commits, and money must not wait for that.
- Nothing depends on a notice. Whoever hears none looks by himself; `is_heard` says which it is.
- That notices arrive is tried, not believed: every connection first sends itself one, and again
  each `PROBE_S`. A pooler that gives a session to many in turn swallows them, and is found so.
- After a gap everything is taken for changed.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

log = structlog.get_logger()

CHANNEL: Final = "routstr"
SETTINGS: Final = "settings"
CATALOG: Final = "catalog"
SESSIONS: Final = "sessions"
JOBS: Final = "jobs"
TOPICS: Final = (SETTINGS, CATALOG, SESSIONS, JOBS)

PROBE: Final = "probe"
PROBE_S: Final = 10.0
ANSWER_S: Final = 3.0
RETRY_S: Final = 0.5
RETRY_S_MAX: Final = 30
NAME: Final = "routstr notices"
SEND: Final = "SELECT pg_notify($1, $2)"
_VERSION: Final = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What changed; `version` is 0 where changes are not counted, or some were missed."""

    topic: str
    version: int = 0

    @property
    def payload(self) -> str:
        """As it is sent."""
        return f"{self.topic} {self.version}"


class NotHeard(Exception):
    """A notice was sent and did not come back."""


class Notices:
    """One for the process. `run` must be running for anything to be heard, or told soon."""

    def __init__(self, url: URL, *, answer_s: float = ANSWER_S) -> None:
        """No connection yet; `url` is of the node's PostgreSQL database.

        What takes longer than `answer_s` does not work.
        """
        self._answer_s = answer_s
        self._engine = create_async_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": answer_s, "server_settings": {"application_name": NAME}},
        )
        self._untold: dict[str, Notice] = {}
        self._heard: dict[str, Notice] = {}
        self._has_untold = asyncio.Event()
        self._has_heard = asyncio.Event()
        self._probe = ""
        self._probe_came = asyncio.Event()
        self._is_cut = asyncio.Event()
        self.is_heard = False
        self.looked_at_s: float | None = None

    # ── telling ───────────────────────────────────────────────────────────────────────────────

    def tell(self, topic: str, version: int = 0) -> None:
        """Something is committed that others should look at; waits for nothing."""
        known = self._untold.get(topic)
        version = version if known is None else max(version, known.version)
        self._untold[topic] = Notice(topic=topic, version=version)
        self._has_untold.set()

    async def flush(self) -> None:
        """Send what is untold over a connection made for it; a program that ends needs it."""
        try:
            async with asyncio.timeout(self._answer_s), self._connected() as connection:
                await self._send(connection)
        except _passing() as error:
            log.warning("notices_not_told", error_type=type(error).__name__)

    async def _send(self, connection: Any) -> None:
        self._has_untold.clear()
        for notice in list(self._untold.values()):
            await connection.execute(SEND, CHANNEL, notice.payload)
            if self._untold.get(notice.topic) is notice:  # nothing newer since
                del self._untold[notice.topic]

    # ── hearing ───────────────────────────────────────────────────────────────────────────────

    async def heard(self) -> frozenset[Notice]:
        """What was heard since the last call, as soon as there is something; own notices too."""
        await self._has_heard.wait()
        self._has_heard.clear()
        found, self._heard = frozenset(self._heard.values()), {}
        return found

    async def run(self) -> None:
        """Listen, and send what is told, until cancelled; connects again and again."""
        wait_s = RETRY_S
        while True:
            try:
                async with self._connected() as connection:
                    await self._listen(connection)
            except _passing() as error:
                if self.is_heard:
                    wait_s = RETRY_S
                log.warning("notices_not_heard", error_type=type(error).__name__, wait_s=wait_s)
            finally:
                self.is_heard = False
            await asyncio.sleep(wait_s)  # noqa: TID251 - a real server's, whatever the clock says
            wait_s = min(wait_s * 2, RETRY_S_MAX)

    async def _listen(self, connection: Any) -> None:
        """Serve one connection until it is cut. Raises what ended it."""
        self._is_cut.clear()
        connection.add_termination_listener(self._cut)
        await connection.add_listener(CHANNEL, self._note)
        await self._try(connection)
        self.is_heard = True
        log.info("notices_heard")
        self._take(Notice(topic=topic) for topic in TOPICS)  # whatever was missed
        while True:
            async with asyncio.timeout(self._answer_s):
                await self._send(connection)
            if not await self._stirred_within(PROBE_S):
                await self._try(connection)

    async def _stirred_within(self, seconds: float) -> bool:
        """Whether there is something to tell. Raises ConnectionResetError when cut."""
        stirs = [asyncio.ensure_future(each.wait()) for each in (self._has_untold, self._is_cut)]
        try:
            await asyncio.wait(stirs, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in stirs:
                each.cancel()
        if self._is_cut.is_set():
            raise ConnectionResetError
        return self._has_untold.is_set()

    async def _try(self, connection: Any) -> None:
        """Send ourselves a notice. Raises NotHeard when it does not come."""
        self._probe = f"{PROBE} {secrets.token_hex(8)}"
        self._probe_came.clear()
        try:
            async with asyncio.timeout(self._answer_s):
                await connection.execute(SEND, CHANNEL, self._probe)
                await self._probe_came.wait()
        except TimeoutError:
            raise NotHeard from None

    def _cut(self, _: object) -> None:
        self._is_cut.set()

    def _note(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == self._probe:
            self._probe_came.set()
            return
        topic, _, version = str(payload).partition(" ")
        if topic in TOPICS and _VERSION.fullmatch(version):  # of a later version of the node, maybe
            self._take([Notice(topic=topic, version=int(version))])

    def _take(self, notices: Iterable[Notice]) -> None:
        """Keep them for who hears; of several changes no single number says what to look for."""
        for notice in notices:
            known = self._heard.get(notice.topic, notice)
            self._heard[notice.topic] = notice if notice == known else Notice(topic=notice.topic)
        self._has_heard.set()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        async with self._engine.connect() as connection:
            raw = await connection.get_raw_connection()
            yield raw.driver_connection


def _passing() -> tuple[type[Exception], ...]:
    import asyncpg  # noqa: PLC0415 - nodes on SQLite know the names of notices only

    asked = (asyncpg.PostgresError, asyncpg.InterfaceError)
    return (SQLAlchemyError, *asked, OSError, TimeoutError, NotHeard)
