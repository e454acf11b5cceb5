"""What every test finds: fixtures of real programs, and a run in which nothing is left out."""

from typing import Final

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.harness.memory",
    "tests.harness.strict",
    "tests.harness.databases",
    "tests.harness.mint",
    "tests.harness.process",
]

# For the proofs: `--hypothesis-profile=thorough`.
settings.register_profile("thorough", max_examples=5_000, deadline=None)

# Whoever asks for one of these fixtures carries the mark; nobody has to remember it.
MARKS: Final = {
    "real_mint": {"real_mint", "start_mint", "fee_mint"},
    "postgres": {"postgres_server", "postgres_template", "postgres_url"},
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the real servers it uses, so that `make test-fast` can leave them out."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        for mark, fixtures in MARKS.items():
            if names & fixtures:
                item.add_marker(mark)
