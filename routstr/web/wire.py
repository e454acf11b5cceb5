"""What our own server tells of a request besides ASGI, so that nobody has to wait to hear it.

ASGI tells that a client left only to whoever waits for that: a task more for every request. A
server without a wire is asked that way. `head.py` has the wire itself.
"""

from collections.abc import Callable
from typing import Final, Protocol

from starlette.types import Scope

EXTENSION: Final = "routstr"


class Wire(Protocol):
    """One request's connection."""

    @property
    def is_whole(self) -> bool:
        """Whether the body has come to its end: then to receive it does not wait."""
        ...

    @property
    def is_free(self) -> bool:
        """Whether to send does not wait now."""
        ...

    def when_left(self, call: Callable[[], None] | None) -> None:
        """What is called once the client has left, now if it has; None for nothing."""
        ...


def wire_of(scope: Scope) -> Wire | None:
    """The request's, if the server has one."""
    wire: Wire | None = scope.get("extensions", {}).get(EXTENSION, {}).get("wire")
    return wire
