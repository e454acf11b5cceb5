"""The command line as a process: what keeps a node from starting is one line and exit status 2."""

import json
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.servers import MODELS_FILE
from tests.harness.command import run, run_anew
from tests.harness.process import StartNode

GOOD = {
    "CASHU_MINTS": "https://mint.example",
    "UPSTREAM_BASE_URL": "https://api.example/v1",
    "MODELS_FILE": str(MODELS_FILE),
    "BTC_USD_PRICE": "100000",
    "PORT": "0",
}
SECRET = "s" * 32


def refusal(directory: Path, settings: Mapping[str, str], *arguments: str) -> str:
    """The one line, without its beginning."""
    result = run(directory, settings, *(arguments or ("serve",)))
    assert result.returncode == 2, (result.returncode, result.stderr)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("routstr: ")
    return line.removeprefix("routstr: ")


def test_what_keeps_a_node_from_starting_is_one_line(tmp_path: Path) -> None:
    models = tmp_path / "float.json"
    text = json.loads(MODELS_FILE.read_text())
    text["models"][0]["input_msat_per_mtok"] = 0.5
    models.write_text(json.dumps(text))
    half = tmp_path / "half"
    (half / "data").mkdir(parents=True)
    (half / "data" / "secret.key").touch(mode=0o600)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = [
            ("a", {"MODELS_FILE": str(models)}, "MODELS_FILE: "),
            ("b", {"PORT": port}, "PORT: 127.0.0.1:"),
            ("half", {}, "SECRET_KEY: "),
            ("c", {"DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x"}, "DATABASE_URL: "),
        ]
        with ThreadPoolExecutor(2) as pool:
            lines = list(
                pool.map(lambda case: refusal(tmp_path / case[0], {**GOOD, **case[1]}), cases)
            )
    for (name, _, begins), line in zip(cases, lines, strict=True):
        assert line.startswith(begins), (name, line)
        assert "hush" not in line
    assert "input_msat_per_mtok" in lines[0]


def test_a_database_opens_with_its_own_key_alone(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node({**GOOD, "SECRET_KEY": SECRET})
    second = refusal(tmp_path / "a", {**GOOD, "DATA_DIR": str(node.data_dir)})
    assert second.startswith("DATA_DIR: ")
    assert "in use by another node" in second
    # Nor by another directory of its own: two writers would end each other's holds.
    database = f"sqlite:///{node.data_dir / 'routstr.db'}"
    elsewhere = refusal(tmp_path / "b", {**GOOD, "SECRET_KEY": SECRET, "DATABASE_URL": database})
    assert "in use by another node" in elsewhere
    node.stop()
    other = {**GOOD, "SECRET_KEY": "t" * 32, "DATA_DIR": str(node.data_dir)}
    assert refusal(tmp_path / "c", other).startswith("SECRET_KEY: it does not open this database")
    right = {**GOOD, "SECRET_KEY": SECRET, "DATA_DIR": str(node.data_dir)}
    assert run(tmp_path / "d", right, "audit").returncode == 0


def test_help_needs_no_settings(tmp_path: Path) -> None:
    shown = run_anew(tmp_path, {}, "--help")
    assert shown.returncode == 0
    assert "serve" in shown.stdout
    assert "audit" in shown.stdout


def test_told_to_stop_it_stops(start_node: StartNode) -> None:
    node = start_node(GOOD)
    node.process.send(signal.SIGINT)
    assert node.process.wait_exit(10) == 0
    node.start()
    node.process.send(signal.SIGTERM)
    assert node.process.wait_exit(10) == 0
    assert node.log.count("node_stopped") == node.log.count("node_started") == 2
    assert "Traceback" not in node.log
