"""The proxies of others that charge nothing: Portkey's gateway and LiteLLM, pinned like the node.

`make` installs both under .bench/, at the versions of bench/peers and requirements-peers.lock. Each
runs as its makers say for production: one process, no database, no log line per request. Portkey
gets @hono/node-server 1.13, because with later ones each of its streams ends in an error 500.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.throughput.machine import NotReady
from bench.throughput.measures import MODEL, Contender
from bench.throughput.nginx import MockUpstream
from demo.process import ROOT, Server
from demo.servers import PATH

HOME: Final = ROOT / ".bench"
GATEWAY: Final = Path("node_modules/@portkey-ai/gateway")
LITELLM_KEY: Final = "sk-bench"
STREAM_MODEL: Final = "demo/stream"
LITELLM_SECONDS: Final = 8  # it serves dozens a second: four seconds of that say little


class Portkey(Server):
    """The gateway of the npm package @portkey-ai/gateway."""

    def __init__(self, directory: Path, *, core: int) -> None:
        super().__init__(directory)
        self._core = core

    @property
    def _package(self) -> Path:
        return HOME / "portkey" / GATEWAY

    @property
    def version(self) -> str:
        """Which one it is."""
        package = json.loads((self._package / "package.json").read_text(encoding="utf-8"))
        return str(package["version"])

    def argv(self) -> Sequence[str]:
        program = str(self._package / "build" / "start-server.js")
        pinned = ["taskset", "-c", str(self._core)]
        return [*pinned, _node_js(), program, f"--port={self.port}", "--headless"]

    def environment(self) -> Mapping[str, str]:
        return {"PATH": PATH, "HOME": str(self.directory), "NODE_ENV": "production"}


class LiteLlm(Server):
    """The proxy of the PyPI package litellm, with one key and without a database."""

    ready_path = "/health/liveliness"
    start_timeout_s = 120

    def __init__(self, directory: Path, upstream: MockUpstream, *, core: int) -> None:
        super().__init__(directory)
        self._core, self._upstream = core, upstream

    @property
    def version(self) -> str:
        """Which one it is."""
        (found,) = (HOME / "litellm").glob("lib/python*/site-packages/litellm-*.dist-info")
        return found.name.removeprefix("litellm-").removesuffix(".dist-info")

    def argv(self) -> Sequence[str]:
        config = self.directory / "config.yaml"
        config.write_text(json.dumps(self._config()), encoding="utf-8")  # JSON is YAML
        program = str(HOME / "litellm" / "bin" / "litellm")
        place = ["--host", "127.0.0.1", "--port", str(self.port)]
        return ["taskset", "-c", str(self._core), program, "--config", str(config), *place]

    def environment(self) -> Mapping[str, str]:
        return {
            "PATH": PATH,
            "HOME": str(self.directory),
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # asks nobody for prices
            "LC_ALL": "C.UTF-8",
        }

    def _config(self) -> dict[str, object]:
        bases = {MODEL: self._upstream.api_url, STREAM_MODEL: self._upstream.stream_url}
        models = [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{name}",
                    "api_base": base,
                    "api_key": "none",
                },
            }
            for name, base in bases.items()
        ]
        return {"model_list": models, "general_settings": {"master_key": LITELLM_KEY}}


@contextmanager
def peers(home: Path, upstream: MockUpstream, *, core: int) -> Iterator[list[Contender]]:
    """Both, running, as contenders. Raises NotReady when they are not installed."""
    if not (HOME / "portkey" / GATEWAY).exists() or not (HOME / "litellm" / "bin").exists():
        raise NotReady("The peers are not installed: make bench PEERS=1 does that first.")
    with (
        Portkey(home / "portkey", core=core) as portkey,
        LiteLlm(home / "litellm", upstream, core=core) as litellm,
    ):
        yield [_of_portkey(portkey, upstream), _of_litellm(litellm)]


def _of_portkey(portkey: Portkey, upstream: MockUpstream) -> Contender:
    """It is told with each request where to go."""
    return Contender(
        name="portkey",
        url=f"{portkey.url}/v1",
        pid=portkey.process.pid,
        headers=_portkey_headers(upstream.api_url),
        stream_headers=_portkey_headers(upstream.stream_url),
    )


def _portkey_headers(base_url: str) -> tuple[str, ...]:
    return (
        "Authorization: Bearer none",
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: {base_url}",
    )


def _of_litellm(litellm: LiteLlm) -> Contender:
    """Its configuration says which model is where."""
    return Contender(
        name="litellm",
        url=f"{litellm.url}/v1",
        pid=litellm.process.pid,
        headers=(f"Authorization: Bearer {LITELLM_KEY}",),
        stream_headers=(f"Authorization: Bearer {LITELLM_KEY}",),
        stream_model=STREAM_MODEL,
        seconds=LITELLM_SECONDS,
    )


def _node_js() -> str:
    """Raises NotReady without Node.js."""
    found = shutil.which("node")
    if found is None:
        raise NotReady("Portkey needs Node.js 20 or newer: install the system package nodejs.")
    return found
