"""The crash drill, short: `make drill-processor` is the long one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from bus.topics import apply
from tests.chaos.processor_drill import run_drill


@pytest.mark.broker
async def test_killed_restarted_and_paused_workers_never_give_a_wrong_live_book(
    kafka: str, settings, unique: str, tmp_path: Path
) -> None:
    own = settings(kafka={"bootstrap_servers": kafka}, collector={"lag_max_s": 3})
    await asyncio.to_thread(apply, own)
    report = await run_drill(
        own, tmp_path, ["kill", "pause", "restart"], name=f"drill-{unique}", books=40, rate=300, workers=3, seed=5
    )
    print("\n".join(report.lines()), file=sys.stderr)
    assert report.wrong == []
    assert report.unequal == []
    assert report.dangling == []
    assert report.live_probes > 50
    assert report.compared == 3 * 40
    assert report.derived > 100
