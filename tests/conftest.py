"""What every test may ask for: a real Kafka, settings of its own, the captures, the command-line program."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

from config.settings import BrokerSettings, Settings, load_settings

ROOT = Path(__file__).parent.parent
LINGER_MS = 25
SMALL = {"VENUE_MIRROR_BROKER__HEAP_MB": "256", "VENUE_MIRROR_KAFKA__LINGER_MS": str(LINGER_MS)}
"""A program's own broker that starts cheaply."""

# A shared machine is slow at times: a law that holds late still holds.
hypothesis_settings.register_profile("house", deadline=None, max_examples=200)
hypothesis_settings.load_profile("house")


def free_port() -> int:
    """A port of localhost that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell exports must not decide what a test sees."""
    for name in list(os.environ):
        if name.startswith("VENUE_MIRROR_") and name not in ("VENUE_MIRROR_CACHE", "VENUE_MIRROR_LOG"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Kafka, one for each file of tests: some write what others must not have to read past.

    KAFKA_BOOTSTRAP_SERVERS if it is set; else testcontainers' Kafka where a Docker engine answers; else the embedded
    broker on a free port with its data in a temporary folder. What was started here is stopped at the end.
    """
    if address := os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip():
        yield address
        return
    if _docker_answers():
        from testcontainers.kafka import KafkaContainer

        with KafkaContainer() as container:
            yield container.get_bootstrap_server()
        return
    from bus.broker import EmbeddedBroker

    def said(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    folder = tmp_path_factory.mktemp("kafka")
    EmbeddedBroker(BrokerSettings(data_dir=folder / "first", port=free_port(), heap_mb=256), said).share_classes()
    broker = EmbeddedBroker(
        BrokerSettings(data_dir=folder, port=free_port(), heap_mb=256, start_timeout_s=300), log=said
    )
    try:
        yield broker.start()
    finally:
        broker.stop()


def _docker_answers() -> bool:
    try:
        import docker  # pyright: ignore[reportMissingImports]  # comes with testcontainers

        client = docker.from_env(timeout=2)
        client.ping()
        client.close()
    except Exception:  # no client, no socket, no engine, no permission: all mean the same here
        return False
    return True


@pytest.fixture(scope="session")
def captures() -> Path:
    """The folder with real venues' captures: CAPTURES, else shared/captures beside the project."""
    folder = Path(os.environ.get("CAPTURES") or ROOT.parent / "shared" / "captures")
    if not folder.is_dir():
        pytest.skip(f"no captures in {folder}; CAPTURES=folder names another place")
    return folder


@pytest.fixture
def unique() -> str:
    """A word of this test's own, for venue names, groups and app ids: tests share one broker."""
    return uuid.uuid4().hex[:8]


@pytest.fixture
def settings(tmp_path: Path, unique: str) -> Callable[..., Settings]:
    """A factory of Settings for this test alone; keyword arguments are sections, e.g. ``collector={"stale_s": 5}``.

    Fixed unless given: an app id and folders of the test's own, a free web port. Ask for ``kafka`` too and pass
    ``kafka={"bootstrap_servers": kafka}`` where a broker is needed.
    """

    def make(**sections: Any) -> Settings:
        own: dict[str, dict[str, Any]] = {
            # Fewer and fuller requests: most of a broker's work on a small machine.
            "kafka": {"linger_ms": LINGER_MS},
            # A machine that is slow for seconds makes books LAGGING, rightly; most tests are about something else.
            "collector": {"lag_max_s": 60},
            "broker": {"data_dir": tmp_path / "kafka", "port": free_port(), "heap_mb": 256},
            "processor": {
                "app_id": f"processor-{unique}",
                "web_port": free_port(),
                "data_dir": tmp_path / "faust",
            },
        }
        for name, values in sections.items():
            own[name] = {**own.get(name, {}), **values}
        return load_settings(None, **own)

    return make


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the program as a user would: ``run_cli("topics", "check", env={...}, timeout_s=60)``.

    Never raises for the exit code. Its working folder is the test's own, so that nothing is left in the project.
    """

    def run(
        *arguments: str, env: dict[str, str] | None = None, timeout_s: float = 180
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program(), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **SMALL, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


def program() -> list[str]:
    """How to start venue-mirror: the console script of this environment, else the module."""
    script = Path(sys.executable).parent / "venue-mirror"
    return [str(script)] if script.exists() else [sys.executable, "-m", "cli.main"]
