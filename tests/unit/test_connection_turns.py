"""How fast connections are opened: a burst that the venue's window allows, then one an interval."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from collectors.pool import ConnectionPool
from collectors.venue import adapter
from tests.venue_replay import Replay


async def test_a_burst_is_opened_at_once_and_the_next_one_waits_for_the_interval() -> None:
    run = Replay("gate-futures", [])
    kind = adapter("gate-futures")
    slow = type("Slow", (kind,), {"limits": replace(kind.limits, connect_interval_s=1000.0, connect_burst=3)})
    pool = ConnectionPool("gate-futures", slow(), "ws://127.0.0.1:1", run.pipeline, run.counts, silence_s=60)
    for _ in range(3):
        await asyncio.wait_for(pool.connect_turn(), 60)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.connect_turn(), 0.2)


async def test_what_an_interval_brings_is_not_saved_beyond_the_burst() -> None:
    run = Replay("gate-futures", [])
    kind = adapter("gate-futures")
    quick = type("Quick", (kind,), {"limits": replace(kind.limits, connect_interval_s=0.001, connect_burst=1)})
    pool = ConnectionPool("gate-futures", quick(), "ws://127.0.0.1:1", run.pipeline, run.counts, silence_s=60)
    for _ in range(5):
        await asyncio.wait_for(pool.connect_turn(), 60)
    await asyncio.sleep(0.05)
    assert pool._turns <= 1
