"""A callable that kills its own process when a named point is reached for the n-th time."""

import os
import signal
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Failpoint:
    """Ends the process, as `kill -9` would, when `name` is reached the `hits_left`-th time."""

    name: str
    hits_left: int

    def __call__(self, name: str) -> None:
        """The node has reached the point `name`."""
        if name == self.name:
            self.hits_left -= 1
            if self.hits_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def armed(text: str) -> Failpoint:
    """The failpoint that `name` or `name:hit` describes; hits count from 1."""
    name, _, hit = text.partition(":")
    return Failpoint(name=name, hits_left=int(hit or 1))
