"""Settings: one typed model, from TOML, environment and command line, with all errors at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import ConfigError, load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "venue-mirror.toml"
    path.write_text(text, "utf-8")
    return path


def test_without_a_file_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings.broker.port == 19092
    assert settings.collector.discovery_s == 60
    assert settings.venues == {}


def test_the_file_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [broker]
        port = 20000
        [collector]
        keyframe_max_s = 10
        [venues.sim-spot]
        adapter = "binance-spot"
        rest_url = "http://127.0.0.1:8000"
        symbols = ["BTC/USDT", "ETH/USDT"]
        """,
    )
    settings = load_settings(path)
    assert settings.broker.port == 20000
    assert settings.collector.keyframe_max_s == 10
    assert settings.venue("sim-spot").adapter == "binance-spot"
    assert settings.venue("sim-spot").symbols == ("BTC/USDT", "ETH/USDT")


def test_the_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENUE_MIRROR_CONFIG", str(write(tmp_path, "[broker]\nport = 20001\n")))
    assert load_settings().broker.port == 20001


def test_the_environment_overrides_the_file_and_leaves_the_rest_of_its_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "[collector]\nkeyframe_max_s = 10\nstale_s = 7\n")
    monkeypatch.setenv("VENUE_MIRROR_COLLECTOR__KEYFRAME_MAX_S", "30")
    settings = load_settings(path)
    assert settings.collector.keyframe_max_s == 30
    assert settings.collector.stale_s == 7


def test_the_command_line_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENUE_MIRROR_BROKER__PORT", "20002")
    monkeypatch.setenv("VENUE_MIRROR_BROKER__HEAP_MB", "300")
    settings = load_settings(broker={"port": 20003})
    assert (settings.broker.port, settings.broker.heap_mb) == (20003, 300)


def test_every_error_is_reported_at_once_with_its_place_and_value(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        colector = 1
        [broker]
        port = 99999
        [kafka]
        security_protocol = "TLS"
        [collector]
        discovery_s = -1
        metrics_prot = 9
        """,
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    text = str(caught.value)
    for part in (
        "broker.port", "99999", "kafka.security_protocol", "'TLS'", "collector.discovery_s", "-1",
        "collector.metrics_prot", "colector",
    ):  # fmt: skip
        assert part in text
    assert len(text.splitlines()) == 6


def test_an_unknown_name_in_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENUE_MIRROR_COLLECTOR__KEYFRAME_MAXS", "30")
    with pytest.raises(ConfigError, match="keyframe_maxs"):
        load_settings()


def test_a_section_of_the_environment_that_is_no_section_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENUE_MIRROR_BROKER", "{not json")
    with pytest.raises(ConfigError, match="broker"):
        load_settings()


@pytest.mark.parametrize("text", ["broker = [", "\x00", "[broker]\nport = 1\nport = 2\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=path.name):
        load_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load_settings(tmp_path / "missing.toml")


def test_a_venue_that_no_file_names_gets_the_adapter_of_its_name() -> None:
    assert load_settings().venue("binance-usdm").adapter == "binance-usdm"


def test_settings_do_not_change_after_they_are_read() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.broker.port = 1  # pyright: ignore[reportAttributeAccessIssue]
