"""What tests say, as findings: the clients of others, the bounds at many examples, recordings."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from bench.finding import Finding
from demo.process import ROOT

TIMEOUT_S: Final = 900
TOLD_CHARS_MAX: Final = 600
PASSED: Final = re.compile(r"(\d+) passed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Some of the tests; all of them must pass, and there must be some."""

    what: str
    arguments: tuple[str, ...]
    figures: Mapping[str, object] = field(default_factory=dict)


CLIENTS: Final = (
    Suite(what="OpenAI's SDK", arguments=("tests/sdks/test_openai.py",)),
    Suite(what="Anthropic's SDK", arguments=("tests/sdks/test_anthropic.py",)),
    Suite(what="LangChain's ChatOpenAI", arguments=("tests/clients", "-k", "langchain")),
    Suite(what="LiteLLM's client", arguments=("tests/clients", "-k", "litellm")),
)
EXAMPLES: Final = 5_000
BOUNDS: Final = Suite(
    what=f"random orders, uses and prices, {EXAMPLES:,} of them: cost <= hold <= quote",
    arguments=("tests/core/test_bounds.py", "--hypothesis-profile=thorough"),
    figures={"above_quote": 0},
)
PAGES: Final = Suite(what="the pages in Chromium", arguments=("tests/browser",))
RECORDINGS: Final = Suite(
    what="every recorded stream, cut at every byte: same bytes, same tally",
    arguments=(
        "tests/core/test_meter.py",
        "tests/core/test_completions.py",
        "tests/core/test_messages_meter.py",
        "tests/core/test_responses_meter.py",
    ),
)


def prove_clients() -> Iterator[Finding]:
    """A finding for each client, then their number."""
    good = 0
    for suite in CLIENTS:
        finding = _finding(suite)
        good += finding.ok
        yield finding
    yield Finding(
        what="clients that parse without a warning and pay the listed price",
        found=f"{good} of {len(CLIENTS)}",
        must=f"{len(CLIENTS)} of {len(CLIENTS)}",
        ok=good == len(CLIENTS),
        figures={"sdks": good},
    )


def prove_bounds() -> Iterator[Finding]:
    """Two findings: what a request can cost, and what a stream's chunks can change."""
    yield _finding(BOUNDS)
    yield _finding(RECORDINGS)


def prove_pages() -> Iterator[Finding]:
    """One finding: people with a browser."""
    yield _finding(PAGES)


def _finding(suite: Suite) -> Finding:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *suite.arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        status, told = done.returncode, done.stdout + done.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        status, told = -1, str(error)
    passed = PASSED.search(told)
    ok = status == 0 and passed is not None
    return Finding(
        what=suite.what,
        found=f"{passed.group(1) if passed else 'no'} passed, exit {status}",
        must="exit 0",
        ok=ok,
        figures=suite.figures if ok else {},
        complaints=() if ok else (told[-TOLD_CHARS_MAX:],),
    )
