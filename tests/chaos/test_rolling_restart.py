"""The rolling restart, short: `make drill-rolling` is the long one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from bus.topics import apply
from tests.chaos.rolling_restart import run


@pytest.mark.broker
async def test_every_process_is_restarted_under_load_and_no_book_is_wrong_and_no_event_lost(
    kafka: str, settings, unique: str, tmp_path: Path
) -> None:
    own = settings(kafka={"bootstrap_servers": kafka}, collector={"discovery_s": 5})
    await asyncio.to_thread(apply, own)
    rolling = await run(own, tmp_path, name=f"rolling-{unique}", books=20, rate=200, rounds=1)
    seen, report = rolling.seen, rolling.drill.report
    print("\n".join([*seen.lines(), *report.lines()[:3]]), file=sys.stderr)
    assert report.wrong == report.unequal == seen.dishonest == seen.holes == []
    assert seen.gaps == 0
    assert seen.codes == [0] * 5
    assert {room: len(times) for room, times in seen.ready_s.items()} == {"processor": 2, "collector": 2, "console": 1}
    assert report.live_probes > 20 and report.compared == 20 and seen.events > 200 and seen.asked_ready > 5
