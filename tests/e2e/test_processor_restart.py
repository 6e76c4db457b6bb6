"""Processors that die, come back and share: the books end exact, and any worker answers for any key."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from cli.stack import Child, free_port
from cli.views import ViewError, Views
from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import DEADLINE_S, Rooms, rooms_of, section, unified

INSTRUMENTS = 12


@pytest.fixture
async def running(kafka: str, settings, unique: str, tmp_path: Path):
    """A synthetic venue and its collector; processors are the tests' own."""
    name = f"restart-{unique}"
    venue = SyntheticVenue("binance-usdm", instruments=INSTRUMENTS, rate=600, levels=30)
    await venue.start()
    own = settings(kafka={"bootstrap_servers": kafka}, venues={name: section("binance-usdm", venue)})
    async with rooms_of(own, tmp_path) as rooms:
        await rooms.collector(name)
        yield rooms, name, venue
    await venue.stop()


async def kill(rooms: Rooms, child: Child) -> None:
    """As the kernel's out-of-memory killer does it."""
    rooms.stack.children.remove(child)
    os.kill(child.process.pid, signal.SIGKILL)
    await child.process.wait()


async def all_equal(rooms: Rooms, name: str, venue: SyntheticVenue) -> None:
    for native in venue.books:
        assert await rooms.equals_truth(name, unified(native), native, venue), native


@pytest.mark.broker
async def test_a_killed_worker_comes_back_with_exact_books_and_serves_none_too_early(running) -> None:
    rooms, name, venue = running
    child = await rooms.processor()
    await rooms.live(name, INSTRUMENTS)
    for _ in range(2):
        await asyncio.sleep(2.5)  # so that there are checkpoints, and events behind them
        await kill(rooms, child)
        child = await rooms.processor()
        await all_equal(rooms, name, venue)
        metrics = await rooms.views.metrics()
        assert metrics["processor_restored_total"] >= INSTRUMENTS
        assert metrics["processor_gaps_total"] == 0
        assert metrics["processor_keyframes_bad_total"] == 0


@pytest.mark.broker
async def test_a_stopped_worker_leaves_a_checkpoint_of_everything(running) -> None:
    rooms, name, venue = running
    child = await rooms.processor()
    await rooms.live(name, INSTRUMENTS)
    assert await rooms.stack.stop(child) == 0
    await rooms.processor("again")
    metrics = await rooms.views.metrics()
    assert metrics["processor_restored_total"] >= INSTRUMENTS
    await all_equal(rooms, name, venue)
    assert (await rooms.views.metrics())["processor_gaps_total"] == 0


@pytest.mark.broker
async def test_any_of_two_workers_answers_for_any_key_and_the_other_takes_over(running) -> None:
    rooms, name, venue = running
    first = await rooms.processor("first")
    port = free_port()
    await rooms.processor("second", web_port=port)
    async with Views(f"http://127.0.0.1:{port}") as second:

        async def shared() -> bool:
            with contextlib.suppress(ViewError):
                mine, other = [
                    {b["symbol"] for b in await views.books() if b["venue"] == name} for views in (rooms.views, second)
                ]
                return bool(mine) and bool(other) and not mine & other and len(mine | other) == INSTRUMENTS
            return False

        await rooms.stack.until("both workers hold books, each its own", shared, DEADLINE_S)
        for native in venue.books:
            asked: list[Any] = []
            for views in (rooms.views, second):
                for _ in range(1000):
                    with contextlib.suppress(ViewError):
                        answer = await views.book(name, unified(native), depth=1)
                        if answer["state"] == "LIVE":
                            asked.append(answer)
                            break
                    await asyncio.sleep(0.1)
            assert [a["symbol"] for a in asked] == [unified(native)] * 2
            assert asked[0]["epoch"] == asked[1]["epoch"]
        await kill(rooms, first)
        rooms.views = second

        async def taken_over() -> bool:
            with contextlib.suppress(ViewError):
                return sum(b["state"] == "LIVE" for b in (await rooms.books(name)).values()) == INSTRUMENTS
            return False

        await rooms.stack.until("the second worker holds all", taken_over, DEADLINE_S)
        await all_equal(rooms, name, venue)
        assert (await second.metrics())["processor_gaps_total"] == 0
