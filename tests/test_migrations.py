"""The commands operators migrate with, on both engines; the schema is the ledger's affair."""

from demo.process import ROOT
from routstr.ledger.migrate import newest_revision
from tests.harness.command import run_module


def alembic(url: str, *arguments: str) -> str:
    """Run what a `make db-…` target runs, and return what it prints."""
    done = run_module(
        "alembic",
        arguments,
        env={
            "PATH": "/usr/bin:/bin",
            "ROUTSTR_DATABASE_URL": url,
            "ROUTSTR_CASHU_MINTS": "https://mint.example.com",
        },
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_down_one_and_up_again(database_url: str) -> None:
    newest = alembic(database_url, "current").split()[0]
    alembic(database_url, "downgrade", "-1")
    older = alembic(database_url, "current").split()[0]
    assert older < newest
    alembic(database_url, "upgrade", "head")
    assert alembic(database_url, "current").split()[0] == newest


def test_history_is_one_line_of_revisions(sqlite_url: str) -> None:
    lines = alembic(sqlite_url, "history").splitlines()
    numbers = [line.split(" -> ")[1].split()[0].rstrip(",") for line in lines]
    assert numbers == [f"{number:04}" for number in range(len(numbers), 0, -1)]
    assert numbers[0] == newest_revision()


def test_the_tables_need_no_further_migration(database_url: str) -> None:
    alembic(database_url, "check")
