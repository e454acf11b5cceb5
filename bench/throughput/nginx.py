"""nginx in two parts: the upstream that answers at once, and the plain proxy that is the yardstick.

The upstream answers whole, or streams 53 events of which one comes every 10 ms; the pause is its
echo module's. Each is one process (`master_process off`), so that its time is all of its time.
"""

import json
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.throughput.machine import ECHO_MODULE
from demo.process import Server, free_port
from demo.servers import PATH

EVENTS: Final = 53  # with the one that has the usage, and [DONE]
EVENT_EVERY_S: Final = 0.01
NGINX: Final = shutil.which("nginx") or "/usr/sbin/nginx"
TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

USAGE: Final = {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}
ANSWER: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "demo/small",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there, how can I help you today?"},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


class Nginx(Server):
    """One nginx process, configured by its subclass."""

    ready_path = "/ready"

    def argv(self) -> Sequence[str]:
        config = self.directory / "nginx.conf"
        config.write_text(self._config(), encoding="utf-8")
        error_log = str(self.directory / "error.log")
        return [NGINX, "-e", error_log, "-c", str(config), "-p", str(self.directory)]

    def environment(self) -> Mapping[str, str]:
        return {"PATH": PATH}

    @abstractmethod
    def servers(self) -> str:
        """The blocks inside `http`."""

    def modules(self) -> str:
        """Directives before everything."""
        return ""

    def _config(self) -> str:
        folders = "\n".join(f"  {name}_temp_path {name};" for name in TEMPORARY)
        return f"""{self.modules()}
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 600;
  client_body_buffer_size 1m;
  client_max_body_size 16m;
{folders}
{self.servers()}
}}
"""


class MockUpstream(Nginx):
    """The upstream: `api_url` answers whole, `stream_url` streams."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.stream_port = free_port()

    @property
    def api_url(self) -> str:
        """Its whole answers, as a base URL of OpenAI's."""
        return f"{self.url}/v1"

    @property
    def stream_url(self) -> str:
        """Its streams, as a base URL of OpenAI's."""
        return f"http://127.0.0.1:{self.stream_port}/v1"

    def modules(self) -> str:
        return f"load_module {ECHO_MODULE};"

    def servers(self) -> str:
        answer = json.dumps(ANSWER, separators=(",", ":"))
        return f"""
  server {{
    listen 127.0.0.1:{self.port};
    location / {{ default_type application/json; return 200 '{answer}'; }}
  }}
  server {{
    listen 127.0.0.1:{self.stream_port};
    location / {{
      default_type text/event-stream;
      echo_read_request_body;
{_echoed_events()}
    }}
  }}"""


class PlainProxy(Nginx):
    """nginx that passes on what it gets, to whole answers or to streams, and charges nothing."""

    def __init__(self, directory: Path, upstream: MockUpstream, *, core: int) -> None:
        super().__init__(directory)
        self._upstream, self._core = upstream, core
        self.stream_port = free_port()

    @property
    def stream_url(self) -> str:
        """Where it passes streams on."""
        return f"http://127.0.0.1:{self.stream_port}/v1"

    def argv(self) -> Sequence[str]:
        return ["taskset", "-c", str(self._core), *super().argv()]

    def servers(self) -> str:
        return "".join(
            f"""
  upstream {name} {{
    server 127.0.0.1:{behind};
    keepalive 512;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{front};
    location / {{
      proxy_pass http://{name};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering {buffering};
    }}
  }}"""
            for name, front, behind, buffering in (
                ("whole", self.port, self._upstream.port, "on"),
                ("streams", self.stream_port, self._upstream.stream_port, "off"),
            )
        )


def events() -> list[str]:
    """The stream's events, without the empty lines between them."""
    words = [_event({"content": f"word{number} "}) for number in range(EVENTS - 4)]
    usage = json.dumps(_chunk([]) | {"usage": USAGE}, separators=(",", ":"))
    return [
        _event({"role": "assistant", "content": ""}),
        *words,
        _event({}, finish_reason="stop"),
        f"data: {usage}",
        "data: [DONE]",
    ]


def _event(delta: Mapping[str, str], *, finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return f"data: {json.dumps(_chunk([choice]), separators=(',', ':'))}"


def _chunk(choices: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "demo/small",
        "choices": choices,
    }


def _echoed_events() -> str:
    pause = f"      echo_sleep {EVENT_EVERY_S};"
    lines = [f"      echo '{event}\n';\n      echo_flush;" for event in events()]
    return f"\n{pause}\n".join(lines)
