"""The node under load: pinned, funded, with everything on that an operator has on.

Its settings are the defaults, but for what the load itself would trip over: whoever ends a load
leaves as many requests unanswered as it had connections, and a hold's sum is of thousands of keys.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.finding import FellShort
from demo.process import ROOT
from demo.servers import Node

MINT_URL: Final = "http://127.0.0.1:9"  # nobody is there, and nothing here asks
SETTINGS: Final = {
    "CASHU_MINTS": MINT_URL,
    "EARLY_LEAVES_MAX": "1000000",
    "EXPOSURE_MSAT_MAX": "1000000000000000",
}
FUNDING_TIMEOUT_S: Final = 300
AUDIT_TIMEOUT_S: Final = 300
METRICS_TIMEOUT_S: Final = 60
SAMPLE: Final = re.compile(r"^routstr_ledger_batch_size_(sum|count) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    """How many commands the ledger wrote so far, and in how many commits: an fsync each."""

    commands: int
    commits: int

    def since(self, before: "Commits") -> float:
        """Commands in one commit, on the average."""
        commits = self.commits - before.commits
        return (self.commands - before.commands) / commits if commits else 0.0


class BenchNode(Node):
    """A node of our tree on one core, on a database of its own; `fund` it, then start it."""

    def __init__(self, directory: Path, *, core: int, settings: Mapping[str, str]) -> None:
        super().__init__(directory, settings={**SETTINGS, **settings})
        self._core = core
        self.keys_file = directory / "keys"
        self.one_key_file = directory / "one-key"

    def argv(self) -> Sequence[str]:
        return ["taskset", "-c", str(self._core), *super().argv()]

    def fund(self, keys: int) -> None:
        """So many keys with money, their texts in `keys_file`, the first in `one_key_file`."""
        _told(
            self, "-m", "bench.throughput.funding", str(keys), str(self.keys_file),
            timeout_s=FUNDING_TIMEOUT_S,
        )  # fmt: skip
        first, *_ = self.keys_file.read_text(encoding="utf-8").splitlines()
        self.one_key_file.touch(mode=0o600)
        self.one_key_file.write_text(f"{first}\n", encoding="utf-8")

    def commits(self) -> Commits:
        """What its /metrics say of the ledger. Raises FellShort when it does not say."""
        try:
            answer = httpx.get(f"{self.url}/metrics", timeout=METRICS_TIMEOUT_S, trust_env=False)
        except httpx.HTTPError as error:
            raise FellShort(f"/metrics: {type(error).__name__}") from error
        found = dict(SAMPLE.findall(answer.text))
        if not {"sum", "count"} <= set(found):
            raise FellShort(f"/metrics: {answer.status_code}, no word of the ledger's batches")
        return Commits(commands=int(float(found["sum"])), commits=int(float(found["count"])))

    def audit(self) -> int:
        """What is still reserved, in msat, after a full audit. Raises FellShort if that is not
        clean."""
        arguments = ("-m", "routstr", "audit", "--full", "--json")
        report = json.loads(_told(self, *arguments, timeout_s=AUDIT_TIMEOUT_S))
        broken = {each["name"]: each["breaches"] for each in report["invariants"]}
        if any(broken.values()):
            raise FellShort(f"routstr audit --full: {broken}")
        return int(report["totals"]["holds_msat"])


def _told(node: BenchNode, *arguments: str, timeout_s: float) -> str:
    """What a program says that has the node's settings. Raises FellShort unless it ends well."""
    environment = dict(node.environment())
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise FellShort(f"{' '.join(arguments)}: {done.stderr or done.stdout}")
    return done.stdout
