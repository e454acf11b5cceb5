"""The three servers of the demo, in a directory that goes with them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from demo.mint import RealMint
from demo.process import Server, ServerDied
from demo.servers import DemoUpstream, Node

ServerT = TypeVar("ServerT", bound=Server)

# What each server is, for whoever sees the demo for the first time.
MINT: Final = "mint"
UPSTREAM: Final = "upstream"
NODE: Final = "node"


class ServerFailed(Exception):
    """A server did not start; `log` is the end of what it printed."""

    def __init__(self, name: str, log: str) -> None:
        super().__init__(f"The {name} did not start.")
        self.name = name
        self.log = log


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The servers, running."""

    mint: RealMint
    upstream: DemoUpstream
    node: Node


@contextmanager
def open_stage(starting: Callable[[str], AbstractContextManager[None]]) -> Iterator[Stage]:
    """Start one after the other and stop them all in the end, whatever happens in between.

    `starting(name)` surrounds each start. Raises ServerFailed.
    """
    with ExitStack() as running:
        home = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="routstr-demo-")))

        def start(name: str, server: ServerT) -> ServerT:
            running.callback(server.stop)  # before it starts: the start itself may be interrupted
            try:
                with starting(name):
                    server.start()
            except ServerDied as error:
                raise ServerFailed(name, str(error)) from error
            return server

        mint = start(MINT, RealMint(home / MINT))
        upstream = start(UPSTREAM, DemoUpstream(home / UPSTREAM))
        settings = {
            "CASHU_MINTS": mint.url,
            "UPSTREAM_BASE_URL": upstream.api_url,
            "NAME": "The demo's node",
        }
        node = start(NODE, Node(home / NODE, settings=settings))
        yield Stage(mint=mint, upstream=upstream, node=node)
