"""`config check` and `config show`: every mistake with its remedy, what holds in the end, and no secret in either."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from config.settings import ConfigError, load_settings

CANARY = "canary-5f2a"
WHOLE = f"""
[kafka]
bootstrap_servers = "kafka-1:9092"
sasl_password_file = "/run/secrets/kafka"
[venues.okx]
symbols = ["BTC/USDT"]
[venues.okx.options]
apiKey = "{CANARY}"
secret = "{CANARY}"
password = "{CANARY}"
[venues.other]
adapter = "okx"
rest_url = "https://{CANARY}:{CANARY}@venue.example/v5?key={CANARY}"
[chains.ethereum]
http_urls = ["https://node.example/v3/{CANARY}", "http://127.0.0.1:8545"]
[chains.ethereum.tokens."0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"]
asset = "USDC"
decimals = 6
[[chains.ethereum.factories]]
protocol = "uniswap-v3"
address = "0x1f98431c8ad98523631ae4a59f267346ea31f984"
"""


def run(*arguments: object, **env: str) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments], env=env)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "venue-mirror.toml"
    path.write_text(WHOLE, "utf-8")
    return path


def test_what_is_shown_is_toml_that_says_the_same_without_the_secrets(file: Path) -> None:
    for options in ((), ("--all",)):
        told = run("config", "show", "-c", file, *options)
        assert told.exit_code == 0, told.stderr
        assert CANARY not in told.stdout + told.stderr
        shown = tomllib.loads(told.stdout)
        assert shown["kafka"]["sasl_password_file"] == "/run/secrets/kafka"
        assert shown["venues"]["okx"]["options"] == dict.fromkeys(("apiKey", "secret", "password"), "[hidden]")
        assert shown["venues"]["other"]["rest_url"] == "https://venue.example/[hidden]"
        assert shown["chains"]["ethereum"]["http_urls"] == ["https://node.example/[hidden]", "http://127.0.0.1:8545"]
        assert shown["chains"]["ethereum"]["factories"][0]["protocol"] == "uniswap-v3"
        assert ("broker" in shown) == bool(options)
        file.with_name("again.toml").write_text(told.stdout)
        again, was = load_settings(file.with_name("again.toml")), load_settings(file)
        assert again.collector == was.collector and again.kafka == was.kafka
    assert run("config", "check", "-c", file).stdout == "the settings hold: 2 venues, 1 chains\n"


def test_the_environment_is_in_what_is_shown() -> None:
    told = run("config", "show", VENUE_MIRROR_COLLECTOR__STALE_S="7")
    assert tomllib.loads(told.stdout) == {"collector": {"stale_s": 7.0}}
    assert run("config", "show").stdout.startswith("# nothing differs")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'[kafka]\nsasl_password = "{CANARY}"', "did you mean sasl_password_file?"),
        (f'[console]\ntoken = "{CANARY}"', "console.token: no such setting"),
        (f'[venues.okx]\nsecret = "{CANARY}"', "venues.okx.secret: no such setting (did you mean"),
        (f'[chains.e]\nhttp_url = "https://node/{CANARY}"', "did you mean http_urls?"),
        (f'[chains.e]\nhttp_urls = "https://node/{CANARY}"', "chains.e.http_urls"),
        ("[kafka]\nmarket_partitions = 0", "greater than or equal to 1"),
        ('[venues.okx]\nchannels = ["boook"]', "'book', 'trade'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_would_be_right_and_never_with_a_secret(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "bad.toml")
    assert says in str(caught.value)
    assert CANARY not in str(caught.value)


def test_a_check_that_fails_says_so_by_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[kafka]\nmarket_partitions = 0\n[brokr]\nport = 1\n")
    told = run("config", "check", "-c", tmp_path / "bad.toml")
    assert told.exit_code == 64
    assert "kafka.market_partitions" in told.stderr and "did you mean broker?" in told.stderr
