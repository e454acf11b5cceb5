"""A test that did not run is a failure: no skip, no expected failure, of a test or of a module."""

from collections.abc import Sequence
from typing import Final

import pytest

WORDS: Final = "a test that did not run proves nothing: no skips and no expected failures here"


class Strictness:
    """Remembers what was not run, and turns the run's end into a failure for it."""

    def __init__(self) -> None:
        self.not_run: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that was skipped or was expected to fail."""
        if report.skipped or hasattr(report, "wasxfail"):
            self.not_run.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that was skipped as a whole."""
        if report.skipped:
            self.not_run.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run; its own failures keep their status."""
        if self.not_run and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which, and why that is a failure."""
        if self.not_run:
            terminalreporter.section("not run", red=True)
            write(terminalreporter, [*self.not_run, WORDS])


def write(reporter: pytest.TerminalReporter, lines: Sequence[str]) -> None:
    """Print lines in the summary."""
    for line in lines:
        reporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Watch this run."""
    config.pluginmanager.register(Strictness(), "strictness")
