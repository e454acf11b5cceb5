"""The run fails when a test did not run, whatever the reason was."""

import subprocess
import sys
from pathlib import Path

import pytest

from demo.process import ROOT

PASSES = "def test_runs():\n    assert True\n"
SKIPPED = "import pytest\n\n@pytest.mark.skip\ndef test_later():\n    pass\n"
SKIPS_ITSELF = "import pytest\n\ndef test_later():\n    pytest.skip('not today')\n"
SKIPPED_MODULE = "import pytest\n\npytest.skip('not here', allow_module_level=True)\n"
EXPECTED_TO_FAIL = "import pytest\n\n@pytest.mark.xfail\ndef test_broken():\n    assert False\n"
PASSES_AGAINST_HOPE = "import pytest\n\n@pytest.mark.xfail\ndef test_fine():\n    assert True\n"
FAILS = "def test_broken():\n    assert False\n"


def run(directory: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    for number, text in enumerate(tests):
        (directory / f"test_{number}.py").write_text(text)
    return subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "tests.harness.strict",
                "-p",
                "no:cacheprovider",
            ),
            *("-c", "/dev/null", "--rootdir", str(directory), str(directory)),
        ],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
    )


def test_a_run_in_which_everything_ran_passes(tmp_path: Path) -> None:
    assert run(tmp_path, PASSES).returncode == pytest.ExitCode.OK


@pytest.mark.parametrize(
    "test", [SKIPPED, SKIPS_ITSELF, SKIPPED_MODULE, EXPECTED_TO_FAIL, PASSES_AGAINST_HOPE]
)
def test_what_did_not_run_fails_the_run_and_is_named(tmp_path: Path, test: str) -> None:
    done = run(tmp_path, PASSES, test)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_1.py" in done.stdout.partition("not run")[2]


def test_a_module_left_out_alone_fails_the_run_too(tmp_path: Path) -> None:
    assert run(tmp_path, SKIPPED_MODULE).returncode == pytest.ExitCode.TESTS_FAILED


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path, FAILS).returncode == pytest.ExitCode.TESTS_FAILED
