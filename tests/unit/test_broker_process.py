"""Whether the embedded broker of a folder runs: seen at once when it starts, and at once when it has ended."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from bus.broker import KAFKA_VERSION, STATE_FILE, EmbeddedBroker
from config.settings import BrokerSettings


def started(folder: Path, marked: Path) -> subprocess.Popen[bytes]:
    """A process that looks like the broker of a folder, noted down as one starts it."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)", f"-Dvenue-mirror.data={marked}"], start_new_session=True
    )
    state = {"pid": process.pid, "bootstrap": "127.0.0.1:1", "version": KAFKA_VERSION, "data_dir": str(folder), "started_s": 0.0}
    (folder / STATE_FILE).write_text(json.dumps(state))
    return process


def test_a_broker_that_was_started_just_now_is_running(tmp_path: Path) -> None:
    broker = EmbeddedBroker(BrokerSettings(data_dir=tmp_path))
    for _ in range(50):  # a look in the wrong moment missed most of them
        process = started(tmp_path, tmp_path)
        try:
            status = broker.status()
            assert status is not None and status.pid == process.pid
        finally:
            process.kill()
            process.wait()
        assert broker.status() is None


def test_one_that_ended_and_nobody_asked_for_is_not_running(tmp_path: Path) -> None:
    broker = EmbeddedBroker(BrokerSettings(data_dir=tmp_path))
    process = started(tmp_path, tmp_path)
    assert broker.status() is not None
    process.kill()
    began = time.monotonic()
    while broker.status() is not None:
        assert time.monotonic() - began < 60
    process.wait()


def test_another_program_with_the_same_number_is_not_the_broker(tmp_path: Path) -> None:
    process = started(tmp_path, tmp_path / "elsewhere")
    try:
        assert EmbeddedBroker(BrokerSettings(data_dir=tmp_path)).status() is None
    finally:
        process.kill()
        process.wait()
