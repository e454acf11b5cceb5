"""The demo as a person runs it: it adds up, or says what does not, and leaves nothing behind."""

import io
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # its stubs are one package more
import pytest
from rich.console import Console

from demo.customer import Customer
from demo.mint import RealMint
from demo.page import Page, StepFailed
from demo.prices import PriceList
from demo.process import ROOT
from demo.servers import MODELS_FILE, DemoUpstream
from demo.stage import Stage
from demo.story import Story
from demo.wallet import Wallet
from tests.harness.process import StartNode

PATIENCE_S = 60


@contextmanager
def running_demo(tmp_path: Path, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    """The demo with a temporary directory of its own, by which what it started is found."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "demo"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def left_behind(tmp_path: Path) -> list[str]:
    """Processes that live in the directory, and files in it."""
    names = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(tmp_path):
                names.append(process.name())
        except (psutil.Error, FileNotFoundError):
            continue
    return names + [path.name for path in tmp_path.iterdir()]


def read_until(demo: "subprocess.Popen[str]", text: str) -> str:
    """What it printed up to the line with `text`."""
    assert demo.stdout is not None
    printed, deadline = "", time.monotonic() + PATIENCE_S
    for line in demo.stdout:
        printed += line
        if text in line:
            return printed
        assert time.monotonic() < deadline, printed
    raise AssertionError(f"it ended without {text!r}:\n{printed}")


def ask(arguments: str) -> httpx.Response:
    """What curl would do with them: a URL, headers and a body."""
    url, *options = shlex.split(arguments.replace("\\\n", ""))
    values = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in values if option == "-H")
    (body,) = (value for option, value in values if option == "-d")
    return httpx.post(url, headers=headers, content=body.encode(), trust_env=False)


@pytest.mark.real_mint
def test_every_amount_adds_up_and_nothing_is_left(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        printed, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, printed
    assert printed.count("✓") == 13, printed  # twelve steps and the verdict
    assert "together           1\u2009000.000" in printed
    assert left_behind(tmp_path) == []


@pytest.mark.real_mint
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with running_demo(tmp_path) as demo:
        read_until(demo, "Chat completion")
        demo.send_signal(number)
        assert demo.wait(PATIENCE_S) == 130
    assert left_behind(tmp_path) == []


@pytest.mark.real_mint
def test_kept_running_it_hands_over_a_key_that_pays(tmp_path: Path) -> None:
    with running_demo(tmp_path, KEEP="1") as demo:
        answer = ask(read_until(demo, "  -d '").rpartition("\ncurl ")[2])
        assert answer.json()["usage"]["cost"]["total_msats"] == 15, answer.text
        demo.send_signal(signal.SIGINT)
        assert demo.wait(PATIENCE_S) == 0
    assert left_behind(tmp_path) == []


async def test_a_node_with_other_prices_is_found_out(
    tmp_path: Path, real_mint: RealMint, demo_upstream: DemoUpstream, start_node: StartNode
) -> None:
    models = json.loads(MODELS_FILE.read_text())
    models["models"][0]["output_msat_per_mtok"] += 50_000  # 24 words cost 1.2 msat more
    dearer = tmp_path / "models.json"
    dearer.write_text(json.dumps(models))
    node = start_node(
        {
            "CASHU_MINTS": real_mint.url,
            "UPSTREAM_BASE_URL": demo_upstream.api_url,
            "MODELS_FILE": str(dearer),
        }
    )
    async with (
        Wallet(real_mint.url, seed=secrets.token_bytes(64)) as wallet,
        Customer(node.api_url) as customer,
    ):
        story = Story(
            stage=Stage(mint=real_mint, upstream=demo_upstream, node=node),
            page=Page(Console(file=io.StringIO())),
            wallet=wallet,
            customer=customer,
            prices=PriceList.load(),
        )
        with pytest.raises(StepFailed, match="Step 3 failed: Chat completion") as caught:
            await story.tell()
    assert caught.value.why == ("DoesNotAddUp: the cost told with the answer is 17, and must be 16")
