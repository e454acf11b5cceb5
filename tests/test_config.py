"""Settings: either spelling, one line for what is wrong, and nothing that quietly differs."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from routstr.config import Settings, check_for_serving, load_models, load_settings
from routstr.errors import ConfigError

GOOD = {
    "CASHU_MINTS": "https://mint.example",
    "UPSTREAM_BASE_URL": "https://api.example/v1",
    "MODELS_FILE": "models.json",
    "BTC_USD_PRICE": "100000",
}
MODEL = {
    "id": "m",
    "context_length": 100,
    "max_output_tokens": 10,
    "input_msat_per_mtok": 1,
    "output_msat_per_mtok": 1,
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the tester's environment nor a `.env` of the working directory has a say."""
    import os

    for name in list(os.environ):
        if name.upper().removeprefix("ROUTSTR_").lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def given(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.mark.parametrize("prefix", ["", "ROUTSTR_", "routstr_"])
def test_either_spelling(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    settings = given(monkeypatch, {prefix + name: value for name, value in GOOD.items()})
    checked = check_for_serving(settings)
    assert checked.cashu_mints == ("https://mint.example",)
    assert checked.upstream_base_url == "https://api.example/v1"
    assert checked.btc_usd_price == Decimal(100_000)


def test_the_prefixed_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch, {"PORT": "1", "ROUTSTR_PORT": "2"}).port == 2


def test_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PORT=1\nHOST=::1\nUNKNOWN=x\n")
    settings = given(monkeypatch, {"PORT": "2"})
    assert (settings.port, settings.host) == (2, "::1")


def test_mints_are_canonical_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mints = " https://Mint.example/ ,https://mint.example, https://b.example/Bitcoin/ ,"
    settings = check_for_serving(given(monkeypatch, {**GOOD, "CASHU_MINTS": mints}))
    assert settings.cashu_mints == ("https://mint.example", "https://b.example/Bitcoin")


def test_the_database_is_in_the_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = given(monkeypatch, {"DATA_DIR": "there"})
    assert settings.data_dir.is_absolute()
    assert settings.database_url == f"sqlite+aiosqlite:///{settings.data_dir}/routstr.db"


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"CASHU_MINTS": ""}, "CASHU_MINTS"),
        ({"CASHU_MINTS": " , "}, "CASHU_MINTS"),
        ({"CASHU_MINTS": "http://mint.example"}, "CASHU_MINTS"),
        ({"CASHU_MINTS": "http://127.0.0.1:3338"}, "CASHU_MINTS"),
        (
            {"CASHU_MINTS": "http://192.168.0.1:3338", "ALLOW_LOOPBACK_HTTP": "true"},
            "CASHU_MINTS",
        ),
        ({"CASHU_MINTS": "https://user:pass@mint.example"}, "CASHU_MINTS"),
        ({"UPSTREAM_BASE_URL": ""}, "UPSTREAM_BASE_URL"),
        ({"UPSTREAM_BASE_URL": "http://api.example/v1"}, "UPSTREAM_BASE_URL"),
        ({"MODELS_FILE": ""}, "MODELS_FILE"),
        ({"BTC_USD_PRICE": "0"}, "BTC_USD_PRICE"),
        ({"BTC_USD_PRICE": "NaN"}, "BTC_USD_PRICE"),
        ({"BTC_USD_PRICE": "Infinity"}, "BTC_USD_PRICE"),
        ({"PAYOUT_TO": "lnbc1"}, "PAYOUT_TO"),
        ({"PAYOUT_TO": "you@example.com/pay"}, "PAYOUT_TO"),
        ({"PORT": "x"}, "PORT"),
        ({"PORT": "65536"}, "PORT"),
        ({"routstr_port": "-1"}, "PORT"),
        ({"SHUTDOWN_GRACE_S": "0"}, "SHUTDOWN_GRACE_S"),
        ({"SHUTDOWN_GRACE_S": "inf"}, "SHUTDOWN_GRACE_S"),
        ({"SHUTDOWN_GRACE_S": "nan"}, "SHUTDOWN_GRACE_S"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL"),
        ({"BODY_BYTES_MAX": "1.5"}, "BODY_BYTES_MAX"),
        ({"MINT_CALLS_MAX": "0"}, "MINT_CALLS_MAX"),
    ],
)
def test_one_line_names_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], name: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_for_serving(given(monkeypatch, {**GOOD, **changed}))
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert "pass" not in message.removeprefix(name)


def test_loopback_http_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    local = {
        **GOOD,
        "CASHU_MINTS": "http://127.0.0.1:3338",
        "UPSTREAM_BASE_URL": "http://localhost:1",
        "ALLOW_LOOPBACK_HTTP": "true",
    }
    settings = check_for_serving(given(monkeypatch, local))
    assert settings.cashu_mints == ("http://127.0.0.1:3338",)
    assert settings.upstream_base_url == "http://localhost:1/v1"


# ── models ────────────────────────────────────────────────────────────────────────────────────


def models(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "models.json"
    path.write_text(text)
    return Settings(models_file=path)


def test_models_are_read(tmp_path: Path) -> None:
    (model,) = load_models(models(tmp_path, json.dumps({"models": [MODEL]})))
    assert (model.id, model.name, model.price.request_msat) == ("m", "m", 0)


def test_a_price_version_follows_the_prices_and_nothing_else(tmp_path: Path) -> None:
    def version(**changed: object) -> str:
        text = json.dumps({"models": [{**MODEL, **changed}]})
        return load_models(models(tmp_path, text))[0].price.version

    assert version() == version(description="other", context_length=200)
    different = {version(), version(input_msat_per_mtok=2), version(request_msat=1)}
    assert len(different) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"models": {}}',
        '{"models": []}',
        '{"models": [1]}',
        '{"models": [{}]}',
        json.dumps({"models": [MODEL, MODEL]}),
        *[
            json.dumps({"models": [{**MODEL, name: value}]})
            for name, value in [
                ("input_msat_per_mtok", 0.5),
                ("input_msat_per_mtok", 1.0),
                ("input_msat_per_mtok", "1"),
                ("input_msat_per_mtok", True),
                ("input_msat_per_mtok", None),
                ("output_msat_per_mtok", -1),
                ("output_msat_per_mtok", 10**13),
                ("request_msat", 0.1),
                ("request_msat", -1),
                ("context_length", 0),
                ("context_length", -5),
                ("max_output_tokens", 101),
                ("max_output_tokens", -1),
                ("id", 1),
                ("id", ""),
                ("name", []),
            ]
        ],
        '{"models": [], "models": []}',
        json.dumps({"models": [MODEL]})[:-1],
    ],
)
def test_models_that_could_sell_wrongly_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^MODELS_FILE: [^\n]+$"):
        load_models(models(tmp_path, text))


def test_a_models_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ConfigError, match=r"^MODELS_FILE: [^\n]+ cannot be read$"):
            load_models(Settings(models_file=path))
    (tmp_path / "bytes.json").write_bytes(b'{"models": "\xff"}')
    with pytest.raises(ConfigError, match=r"^MODELS_FILE: "):
        load_models(Settings(models_file=tmp_path / "bytes.json"))
