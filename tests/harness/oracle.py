"""The real `cashu` package as a judge of our protocol, in a process of its own."""

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).parents[2]
PYTHON: Final = ROOT / ".venv-mint" / "bin" / "python"
SERVER: Final = Path(__file__).with_name("oracle_server.py")
ANSWER_S: Final = 120.0

Case = dict[str, object]


class OracleMissing(AssertionError):
    """The mint's virtual environment is not there; a test must fail, never skip."""


class Oracle:
    """Asks the judge; one line of JSON there, one back."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[bytes] = process.stdin
        self._out: IO[bytes] = process.stdout

    def ask(self, operation: str, cases: Sequence[Mapping[str, object]]) -> list[Case]:
        """The answers to `cases`, in order."""
        line = json.dumps({"operation": operation, "cases": [dict(case) for case in cases]})
        self._in.write(line.encode() + b"\n")
        self._in.flush()
        ready, _, _ = select.select([self._out], [], [], ANSWER_S)
        assert ready, f"the oracle did not answer {operation} within {ANSWER_S} s"
        answer = self._out.readline()
        assert answer, f"the oracle died at {operation}; its standard error says why"
        answers = json.loads(answer)
        assert isinstance(answers, list)
        assert len(answers) == len(cases), answers
        return answers


@contextmanager
def running_oracle(python: Path = PYTHON) -> Iterator[Oracle]:
    """The judge, started in an empty directory: `cashu` reads a `.env` from cwd and home."""
    if not python.exists():
        raise OracleMissing(
            f"{python} is missing: create the mint's environment from requirements-mint.lock "
            "(python3 -m venv .venv-mint && .venv-mint/bin/pip install --no-deps "
            "--only-binary :all: -r requirements-mint.lock)"
        )
    with tempfile.TemporaryDirectory() as empty:
        process = subprocess.Popen(
            [python, SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=empty,
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": empty,
                "CASHU_DIR": empty,
                "MINT_PRIVATE_KEY": "test-only-seed",
                "LC_ALL": "C.UTF-8",
            },
        )
        try:
            yield Oracle(process)
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(timeout=ANSWER_S)
            process.stdout.close()
