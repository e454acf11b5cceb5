"""What the README says of the settings, the commands and the folders is so."""

import re
from pathlib import Path
from typing import Final

import pytest

from demo.process import ROOT
from routstr.config import Settings

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
# Needed by a node that serves, checked where the node starts.
NEEDED: Final = {"CASHU_MINTS"}

Row = tuple[str, str]


def table(text: str) -> list[tuple[str, str, str]]:
    """Name, default and meaning of each setting in the table."""
    return re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.+) \|$", text, re.MULTILINE)


def shown(default: object) -> str:
    """A default as the table has it."""
    if default is None or default in ("", ()):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def settings() -> list[Row]:
    return [(name.upper(), shown(field.default)) for name, field in Settings.model_fields.items()]


def test_the_table_is_the_settings() -> None:
    assert [(name, default.strip()) for name, default, _ in table(README)] == settings()


def test_the_table_says_which_settings_are_needed() -> None:
    assert {name for name, _, meaning in table(README) if "*needed*" in meaning} == NEEDED


@pytest.mark.parametrize(
    "text",
    [
        "| `PORT` | `8001` | The port |",
        "| `PROT` | `8000` | The port |",
        "| `PORT` |  | The port |",
        "| `PORT` | `8000` | |",
    ],
)
def test_a_wrong_row_is_found(text: str) -> None:
    assert ("PORT", "`8000`") not in [(name, default) for name, default, _ in table(text)]


def test_env_example_names_settings_only() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    known, for_compose = text.split("# ── Only for compose.yml")
    names = set(re.findall(r"^#?([A-Z_]+)=", known, re.MULTILINE))
    assert names
    assert names <= {name for name, _ in settings()}
    assert re.findall(r"^#([A-Z_]+)=", for_compose, re.MULTILINE) == [
        "POSTGRES_PASSWORD",
        "SITE_ADDRESS",
    ]


def test_every_command_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", README))
    assert named
    assert named <= targets


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/money.md",
        "docs/receipts.md",
        "docs/backup.md",
        "docs/performance.md",
        "docs/nodes.md",
    ],
)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    missing = [link for link in links if not (Path(ROOT / page).parent / link).exists()]
    assert missing == []


def test_every_folder_it_names_exists() -> None:
    _, _, where = README.partition("## Where things are")
    rows = re.findall(r"^\| (`.+?) \|", where.partition("\n## ")[0], re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    assert len(paths) > 10
    missing = [
        path
        for path in paths
        if not (ROOT / path).exists() and not (ROOT / "routstr" / path).exists()
    ]
    assert missing == []


def test_every_decision_has_a_number_of_its_own_and_is_listed() -> None:
    paths = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    listed = re.findall(r"^(\d+)\. \[.+\]\(docs/decisions/(.+)\)$", README, re.MULTILINE)
    numbers = [str(number) for number in range(1, len(paths) + 1)]
    assert listed == list(zip(numbers, [path.name for path in paths], strict=True))
    for number, path in zip(numbers, paths, strict=True):
        assert path.name.startswith(number.zfill(4) + "-")
        assert path.read_text(encoding="utf-8").startswith(f"# {number}. ")
