"""The composition root: what it refuses to open, the key it makes, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.routing import Route

from demo.servers import MODELS_FILE
from routstr.app import create_app, running
from routstr.assembly import Ids, open_ledger
from routstr.config import Settings, check_for_serving
from routstr.core.dialects import DIALECTS
from routstr.errors import ConfigError
from routstr.flows.context import Context
from routstr.flows.upstreams import OWN_PATHS
from routstr.ledger.keyfile import key_from_file, make_key_file
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate
from tests.harness.desk import SECRET, Desk, open_desk

SQLITE = "sqlite+aiosqlite:///"
WAIT_S = 10


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


def settings(directory: Path, **changed: Any) -> Settings:
    given = {
        "data_dir": directory,
        "database_url": f"{SQLITE}{directory}/routstr.db",
        "secret_key": SECRET,
        "cashu_mints": "https://mint.example",
        "upstream_base_url": "https://api.example",
        "models_file": MODELS_FILE,
        "btc_usd_price": "100000",
        **changed,
    }
    return Settings(_env_file=None, **given)  # type: ignore[call-arg]  # pydantic's own


async def opened(given: Settings, *, may_write: bool = True) -> None:
    async with AsyncExitStack() as stack:
        await open_ledger(given, Ids(), stack, may_write=may_write)


@pytest.mark.parametrize(
    ("changed", "begins"),
    [
        ({"database_url": "nonsense"}, "DATABASE_URL: not the URL"),
        ({"database_url": "mysql://x/y"}, "DATABASE_URL: mysql"),
        ({"database_url": "sqlite://"}, "DATABASE_URL: a SQLite"),
        ({"database_url": "sqlite:///:memory:"}, "DATABASE_URL: a SQLite"),
        ({"database_url": "postgresql://u:hush@127.0.0.1:99999/x"}, "DATABASE_URL: "),
        ({"database_url": "postgresql://u:hush@127.0.0.1:1/x"}, "DATABASE_URL: "),
        ({"secret_key": "s" * 31}, "SECRET_KEY: shorter than 32"),
    ],
)
async def test_what_cannot_be_opened(tmp_path: Path, changed: dict[str, Any], begins: str) -> None:
    for may_write in (True, False):
        with pytest.raises(ConfigError) as caught:
            await opened(settings(tmp_path / "data", **changed), may_write=may_write)
        if may_write or begins.startswith("DATABASE"):
            assert str(caught.value).startswith(begins)
        assert "hush" not in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "routstr.db").write_text("not a database at all" * 100)
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: "):
        await opened(settings(tmp_path))


async def test_a_server_that_refuses_us(postgres_url: str, tmp_path: Path) -> None:
    wrong = postgres_url.rpartition("/")[0] + "/nobodys"
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: "):
        await opened(settings(tmp_path / "data", database_url=wrong))


async def test_one_database_has_one_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await opened(settings(data))
    await opened(settings(data))
    await opened(settings(data), may_write=False)
    for other in ("t" * 32, None):
        with pytest.raises(ConfigError, match=r"^SECRET_KEY: it does not open this database"):
            await opened(settings(data, secret_key=other))


async def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no node's database there yet: `routstr upstreams add`"):
        await opened(settings(tmp_path / "data"), may_write=False)
    assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "routstr.db").touch()
    with pytest.raises(ConfigError, match="no node's database"):
        await opened(settings(tmp_path / "data"), may_write=False)
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["routstr.db"]


async def test_two_nodes_never_share_a_sqlite_database(tmp_path: Path) -> None:
    one = settings(tmp_path / "one")
    two = settings(tmp_path / "two", database_url=one.database_url)
    async with AsyncExitStack() as stack:
        await open_ledger(one, Ids(), stack)
        for other in (one, two):
            with pytest.raises(ConfigError, match=r"^DATA_DIR: .* in use by another node"):
                await opened(other)
    await opened(two)


# ── the key file ──────────────────────────────────────────────────────────────────────────────


def zeros(count: int) -> bytes:
    return bytes(count)


def ones(count: int) -> bytes:
    return b"\1" * count


def test_a_key_file_appears_whole_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    (tmp_path / "secret.new").write_text("00")  # half of one, left by a crash
    make_key_file(path, random_bytes=ones)
    make_key_file(path, random_bytes=zeros)
    assert key_from_file(path) == b"\1" * 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 31, "\xe4" * 64])
def test_a_damaged_key_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"^SECRET_KEY: "):
        key_from_file(path)


def test_a_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    make_key_file(path, random_bytes=zeros)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            key_from_file(path)


def test_a_key_file_that_is_gone_or_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        key_from_file(tmp_path / "secret.key")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^DATA_DIR: "):
        make_key_file(tmp_path / "file" / "secret.key", random_bytes=zeros)


# ── starting and stopping ─────────────────────────────────────────────────────────────────────


async def test_what_a_dead_process_left_open_is_ended_at_the_start(
    sqlite_url: str, mint: FakeMint, tmp_path: Path
) -> None:
    """At once, whatever leases the dead one held, and before anybody asks."""
    lost = Trouble(path="/v1/", processed=False, cut=True)
    async with open_desk(sqlite_url, mint, tmp_path / "data", resume_every_s=60) as desk:
        await desk.create(1)
        mint.trouble(lost, lost)
        token = mint.issue(21)
        answer = await desk.http.post("/v1/balance/create", json={"initial_balance_token": token})
        assert answer.status_code == 503
    async with open_desk(sqlite_url, mint, tmp_path / "data", resume_every_s=60) as desk:
        async with asyncio.timeout(5):
            while len(desk.ctx.tasks):
                await desk.ctx.clock.sleep(0.01)
        answer = await desk.http.get(
            "/v1/balance/info", headers={"authorization": f"Bearer {token}"}
        )
        assert answer.json()["balance"] == 21_000


async def test_a_stalling_mint_does_not_keep_a_node_from_stopping(
    sqlite_url: str, mint: FakeMint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a deposit nor the job that recovers one; both are found again at the next start."""
    monkeypatch.setattr("routstr.app.SETTLE_S", 0.1)
    gate = Gate()
    given: dict[str, Any] = {"shutdown_grace_s": 0.1, "resume_every_s": 0.05}
    url = "/v1/balance/create"
    async with asyncio.timeout(WAIT_S):
        async with open_desk(
            sqlite_url, mint, tmp_path / "data", asks_mint_at_end=False, **given
        ) as desk:
            await desk.create(1)
            mint.trouble(*[Trouble(path="/v1/", processed=False, cut=True)] * 2)
            mint.trouble(*[Trouble(path="/v1/", gate=gate)] * 4)
            await desk.http.post(url, json={"initial_balance_token": mint.issue(2)})
            await mint.called(2, "/v1/restore")  # the job is at it, and hangs
            asking = asyncio.create_task(
                desk.http.post(url, json={"initial_balance_token": mint.issue(4)})
            )
            await mint.called(3, "/v1/swap")  # and so does a deposit
        assert (await asking).status_code == 503
        gate.open_for_ever()
        async with open_desk(sqlite_url, mint, tmp_path / "data", **given) as desk:
            while await _held(desk) != 7:
                await desk.ctx.clock.sleep(0.02)


async def _held(desk: Desk) -> int:
    async with desk.ctx.database.reading() as connection:
        rows = await connection.execute(text("SELECT sum(amount) FROM proof"))
        return int(rows.scalar_one())


async def test_an_app_is_made_of_checked_settings_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^CASHU_MINTS: "):
        create_app(settings(tmp_path, cashu_mints=""))


async def test_a_node_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = check_for_serving(settings(tmp_path / "data", models_file=tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"^MODELS_FILE: "):
        async with running(broken, Ids(), lambda _: None):
            raise AssertionError("it started")
    await opened(settings(tmp_path / "data"))


async def test_ids_are_different_and_long() -> None:
    ids = Ids()
    made = {ids.new("x") for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(len(each) == 34 and each.startswith("x_") for each in made)


def test_ids_of_requests_go_by_the_time_and_differ_without_it() -> None:
    now_ns = 1_700_000_000_000_000_000
    ids = Ids(lambda: now_ns)
    first = {ids.new("req") for _ in range(1_000)}
    now_ns += 1_000_000
    then = {ids.new("req") for _ in range(1_000)}
    assert max(first) < min(then)
    now_ns -= 1_000_000  # a clock that went back makes no id twice
    first |= {ids.new("req") for _ in range(1_000)}
    assert len(first) == 2_000
    assert all(len(each) == 36 for each in first | then)
    assert ids.new("inv")[:12] != ids.new("inv")[:12]  # a secret has no clock in it


def test_a_context_hides_its_secrets() -> None:
    assert not Context.__dataclass_fields__["wallet"].repr


def test_no_path_of_the_nodes_own_is_for_sale(tmp_path: Path) -> None:
    app = create_app(settings(tmp_path))
    paths = {route.path for route in app.routes if isinstance(route, Route)} | set(
        app.openapi()["paths"]
    )
    sold = {f"/v1{path}" for path in DIALECTS}
    firsts = {path.removeprefix("/v1").strip("/").partition("/")[0] for path in paths - sold}
    assert firsts - OWN_PATHS == {"", "chat", "{path:path}"}
