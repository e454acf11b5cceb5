"""`routstr verify`, and the script that does the same with nothing but a bare Python."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demo.process import ROOT
from routstr.cli.commands import command_line
from routstr.core.signed_receipt import Settlement, signed_receipt
from routstr.ecash.receipt_key import receipt_key
from tests.core.test_signed_receipt import SETTLEMENT

KEY = receipt_key(bytes(64))
SCRIPT = ROOT / "docs" / "verify_receipt.py"


def document(settlement: Settlement = SETTLEMENT) -> str:
    return signed_receipt(settlement, pubkey=KEY.public, sign=KEY.sign).document.decode()


LIE = document(replace(SETTLEMENT, charged_msat=147))
FORGED = document().replace('"charged_msats":146', '"charged_msats":145')
NEGATIVE = document(replace(SETTLEMENT, charged_msat=246, absorbed_msat=-100))
COMPACT = signed_receipt(SETTLEMENT, pubkey=KEY.public, sign=KEY.sign).compact


def exit_of_command(text: str, *arguments: str) -> int:
    return CliRunner().invoke(command_line(), ["verify", "-", *arguments], input=text).exit_code


def exit_of_script(text: str, *arguments: str) -> int:
    """In an interpreter that finds no package and reads no environment."""
    command = [sys.executable, "-S", "-I", str(SCRIPT), "-", *arguments]
    return subprocess.run(command, input=text.encode(), capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("text", "key", "status"),
    [
        (document(), None, 0),
        (json.dumps(json.loads(document()), indent=2), KEY.public, 0),
        (COMPACT, KEY.public, 0),
        (document(), "f" * 64, 1),
        (FORGED, None, 1),
        (LIE, None, 1),
        (NEGATIVE, None, 2),
        ("{}", None, 2),
    ],
)
def test_exit_codes(text: str, key: str | None, status: int) -> None:
    assert exit_of_command(text, *(["--pubkey", key] if key else [])) == status
    assert exit_of_script(text, *([key] if key else [])) == min(status, 1)


def test_a_file_and_the_body_it_is_of(tmp_path: Path) -> None:
    receipt, body = tmp_path / "receipt.json", tmp_path / "body"
    receipt.write_text(document())
    body.write_bytes(b"another")
    said = CliRunner().invoke(command_line(), ["verify", str(receipt)])
    assert said.exit_code == 0
    assert "146 msat charged for req_1" in said.output
    assert "receipt_pubkey" in said.output
    assert (
        CliRunner().invoke(command_line(), ["verify", str(receipt), "--body", str(body)]).exit_code
        == 1
    )
    assert CliRunner().invoke(command_line(), ["verify", str(tmp_path / "none")]).exit_code == 2


def test_the_script_is_short_enough_to_be_read() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 60
