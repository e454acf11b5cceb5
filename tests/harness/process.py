"""Fixtures of whole programs: the demo's upstream, and nodes that a test may kill and restart."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

import pytest

from demo.process import ServerProcess
from demo.servers import DemoUpstream, Node
from tests.harness.nursery import NurseryProcess

LAUNCHER: Final = "tests.harness.launcher"
FAILPOINT: Final = "FAILPOINT"


class NodeProcess(Node):
    """A node that can be armed to die at a failpoint, as by `kill -9`, on its next start.

    `arm("deposit.after_mint_answered")` dies the first time that point is reached,
    `arm("…:3")` the third time. A node is disarmed again by `arm(None)`.
    """

    process_type: type[ServerProcess] = NurseryProcess

    def __init__(
        self, directory: Path, *, settings: Mapping[str, str], failpoint: str | None = None
    ) -> None:
        super().__init__(directory, settings=settings)
        self._failpoint = failpoint

    def arm(self, failpoint: str | None) -> None:
        """Choose where the next start dies, or nowhere."""
        self._failpoint = failpoint

    def argv(self) -> Sequence[str]:
        if self._failpoint is None:
            return super().argv()
        self_, *_ = super().argv()
        return [self_, "-m", LAUNCHER]

    def environment(self) -> Mapping[str, str]:
        armed = {} if self._failpoint is None else {FAILPOINT: self._failpoint}
        return dict(super().environment()) | armed

    def wait_until_killed(self, timeout_s: float = 20) -> None:
        """Return once it died at its failpoint. Raises AssertionError if it ended otherwise."""
        status = self.process.wait_exit(timeout_s)
        assert status == -signal.SIGKILL, f"exit status {status}\n{self.log}"


class StartNode(Protocol):
    """Starts a node of the test's own; it ends with the test."""

    def __call__(
        self, settings: Mapping[str, str], *, failpoint: str | None = None
    ) -> NodeProcess: ...


@pytest.fixture(scope="session")
def demo_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoUpstream]:
    """One deterministic upstream, shared by all tests."""
    with DemoUpstream(tmp_path_factory.mktemp("upstream")) as upstream:
        yield upstream


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[StartNode]:
    """Nodes that the test may kill and restart on their own data directory."""
    with ExitStack() as running:
        count = 0

        def start(settings: Mapping[str, str], *, failpoint: str | None = None) -> NodeProcess:
            nonlocal count
            count += 1
            home = tmp_path / f"node-{count}"
            return running.enter_context(NodeProcess(home, settings=settings, failpoint=failpoint))

        yield start
