"""The audit in a running collector: it agrees with a venue that is mirrored, and finds a stream that was frozen."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import DEADLINE_S, rooms_of, section


@pytest.mark.broker
async def test_the_audit_agrees_and_finds_a_frozen_stream(kafka: str, settings, unique: str, tmp_path: Path):
    name = f"audited-{unique}"
    venue = SyntheticVenue("binance-usdm", instruments=3, rate=150, levels=40)
    await venue.start()
    own = settings(
        kafka={"bootstrap_servers": kafka},
        venues={name: section("binance-usdm", venue)},
        collector={"audit_s": 0.2},
    )
    async with rooms_of(own, tmp_path) as rooms:
        await rooms.collector(name)

        async def audited() -> bool:
            return await rooms.count("audit_checks") >= 10

        await rooms.stack.until("ten audits", audited, DEADLINE_S)
        assert await rooms.count("audit_mismatches") == 0

        venue.control("freeze", symbol="BTCUSDT", seconds=60)

        async def found() -> bool:
            return await rooms.count("audit_mismatches") >= 1

        await rooms.stack.until("the frozen book", found, DEADLINE_S)
        assert await rooms.count("gaps") >= 1
    await venue.stop()
