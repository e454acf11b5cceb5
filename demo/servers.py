"""The other two servers of the demo beside the mint: the upstream and the node itself."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from demo.process import ROOT, Server

MODELS_FILE: Final = ROOT / "demo" / "models.json"
PATH: Final = "/usr/local/bin:/usr/bin:/bin"
SETUP_LINK: Final = re.compile(r"Set up the dashboard, once: (\S+)")


class DemoUpstream(Server):
    """`demo.upstream` as a process; its own address for the node is `api_url`."""

    ready_path = "/stats"

    def __init__(self, directory: Path, *, options: Sequence[str] = ()) -> None:
        super().__init__(directory)
        self._options = tuple(options)

    @property
    def api_url(self) -> str:
        """What the node is given as UPSTREAM_BASE_URL."""
        return f"{self.url}/v1"

    def argv(self) -> Sequence[str]:
        return [sys.executable, "-m", "demo.upstream", "--port", str(self.port), *self._options]

    def environment(self) -> Mapping[str, str]:
        return {"PATH": PATH, "HOME": str(self.directory), "PYTHONPATH": str(ROOT)}


class Node(Server):
    """A node as a process, on `directory`/data unless `settings` say otherwise.

    `settings` are the node's own, without prefix: CASHU_MINTS, UPSTREAM_BASE_URL, DATABASE_URL …
    """

    ready_path = "/health"
    module = "routstr"
    arguments: tuple[str, ...] = ("serve",)

    def __init__(self, directory: Path, *, settings: Mapping[str, str]) -> None:
        super().__init__(directory)
        self.data_dir = directory / "data"
        self.settings = dict(settings)

    @property
    def api_url(self) -> str:
        """What an OpenAI client is given as its base URL."""
        return f"{self.url}/v1"

    @property
    def setup_link(self) -> str:
        """The link to the dashboard that it printed at its very first start."""
        found = SETUP_LINK.search(self.log)
        assert found is not None, self.log
        return found[1]

    def argv(self) -> Sequence[str]:
        return [sys.executable, "-m", self.module, *self.arguments]

    def environment(self) -> Mapping[str, str]:
        defaults = {
            "DATA_DIR": str(self.data_dir),
            "HOST": "127.0.0.1",
            "MODELS_FILE": str(MODELS_FILE),
            "BTC_USD_PRICE": "100000",
            "ALLOW_LOOPBACK_HTTP": "true",
        }
        settings = defaults | self.settings | {"PORT": str(self.port)}
        return {
            "PATH": PATH,
            "HOME": str(self.directory),
            "PYTHONPATH": str(ROOT),
            **{f"ROUTSTR_{name}": value for name, value in settings.items()},
        }
