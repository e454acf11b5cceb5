"""What a node on SQLite has in memory: nothing that only others need."""

import subprocess
import sys

HEAVY = ("alembic", "asyncpg", "attr", "genai_prices", "httpx2", "pygments", "rich")

LISTED = """
import sys

from routstr.__main__ import cli
from routstr.app import create_app
from routstr.ledger.drivers import failures

failures("sqlite")
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
print(*sorted(name for name in sys.modules if name == "routstr.cli.wallet"))
"""


def test_a_node_on_sqlite_imports_nothing_that_only_others_need() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LISTED, *HEAVY], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == []
