"""`demo` as a newcomer types it, with a broker of its own; and that broker by its own commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import free_port

SLOW = {
    f"VENUE_MIRROR_{name}": "60"
    for name in ("COLLECTOR__LAG_MAX_S", "PROCESSOR__LAG_MAX_S", "PROCESSOR__BEAT_MAX_S", "PROCESSOR__SILENCE_MAX_S")
}
"""A loaded machine may be slow; that books would say so is another test's business."""

pytestmark = pytest.mark.broker


def test_the_demo_ends_with_its_proof(run_cli, kafka: str) -> None:  # kafka: its jars are there
    env = {"DURATION": "10", "VENUE_MIRROR_BROKER__PORT": str(free_port()), **SLOW}
    done = run_cli("demo", "--no-chain", env=env, timeout_s=600)
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout + done.stderr
    assert "console http://127.0.0.1:" in said
    assert "mismatches=0" in said and "ledger_equal=yes" in said, said[-3000:]


def test_a_broker_is_started_looked_at_and_stopped(run_cli, kafka: str, tmp_path: Path) -> None:
    env = {"VENUE_MIRROR_BROKER__PORT": str(free_port()), "VENUE_MIRROR_BROKER__DATA_DIR": str(tmp_path / "kafka")}
    try:
        started = run_cli("broker", "start", env=env)
        assert started.returncode == 0, started.stderr
        assert run_cli("broker", "status", env=env).returncode == 0
    finally:
        stopped = run_cli("broker", "stop", env=env)
    assert stopped.returncode == 0
    assert run_cli("broker", "status", env=env).returncode != 0
