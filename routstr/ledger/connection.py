"""The connection a command writes through, and its one-thread form for SQLite.

SQLite serves one writer. A statement over an asynchronous driver costs several hand-overs between
the event loop and the driver's thread, more than the statement itself; so on SQLite the executor
hands the whole batch to one thread, once. The commands are the same code on both engines: there a
`BlockingConnection` answers at once, and a coroutine that awaits only it never suspends.
"""

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, CursorResult, Executable

ResultT = TypeVar("ResultT")


class Savepoint(Protocol):
    """A point to go back to within the transaction."""

    async def rollback(self) -> None:
        """Undo what came after it."""

    async def commit(self) -> None:
        """Keep what came after it."""


class LedgerConnection(Protocol):
    """What commands use of SQLAlchemy's AsyncConnection; rows are SQLAlchemy's own."""

    async def execute(self, statement: Executable, parameters: Any = None, /) -> CursorResult[Any]:
        """Run a statement; its rows are all fetched."""

    async def scalar(self, statement: Executable, parameters: Any = None, /) -> Any:
        """The first column of the first row, or None."""


class BlockingConnection:
    """A synchronous connection behind the asynchronous interface."""

    def __init__(self, connection: Connection) -> None:
        """`connection` is in a transaction, and used in this thread only."""
        self._connection = connection

    async def execute(self, statement: Executable, parameters: Any = None, /) -> CursorResult[Any]:
        """Run a statement at once."""
        return self._connection.execute(statement, parameters)

    async def scalar(self, statement: Executable, parameters: Any = None, /) -> Any:
        """The first column of the first row, or None."""
        return self._connection.scalar(statement, parameters)

    async def begin_nested(self) -> "BlockingSavepoint":
        """Set a savepoint."""
        return BlockingSavepoint(self._connection)


class BlockingSavepoint:
    """A synchronous savepoint behind the asynchronous interface."""

    def __init__(self, connection: Connection) -> None:
        """Set it. SQLAlchemy would compile each of these anew; one is ended before the next."""
        self._connection = connection
        connection.exec_driver_sql("SAVEPOINT command")

    async def rollback(self) -> None:
        """Undo what came after it."""
        self._connection.exec_driver_sql("ROLLBACK TO command")
        self._connection.exec_driver_sql("RELEASE command")

    async def commit(self) -> None:
        """Keep what came after it."""
        self._connection.exec_driver_sql("RELEASE command")


def finish(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine that awaits nothing but blocking connections; its result.

    Raises what it raises, and RuntimeError if it waits for anything else.
    """
    try:
        work.send(None)
    except StopIteration as end:
        result: ResultT = end.value
        return result
    work.close()
    raise RuntimeError("a ledger command waited for something outside the database")
