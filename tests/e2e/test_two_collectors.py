"""Work is handed out by Kafka: two collectors share a venue, one takes over from a dead one, listings come and go."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import pytest

from cli.views import ViewError
from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import rooms_of, section, unified

INSTRUMENTS = 200
DEADLINE_S = 300
"""Of each wait: a loaded machine takes long for everything. What it took is printed (pytest -s), and not judged."""


async def held(rooms, name: str) -> int:
    """Books that a collector holds, by its own health page."""
    with contextlib.suppress(ViewError):  # it is starting, or was killed
        health = await rooms.views.get_url(rooms.metrics_urls[name] + "/healthz")
        return sum(health["books"].values())
    return 0


@pytest.mark.broker
async def test_two_collectors_share_a_venue_and_one_takes_over_when_the_other_is_killed(
    kafka: str, settings, unique: str, tmp_path: Path
):
    name = f"shared-{unique}"
    venue = SyntheticVenue("binance-usdm", instruments=INSTRUMENTS, rate=800, levels=30)
    await venue.start()
    own = settings(
        kafka={"bootstrap_servers": kafka},
        venues={name: section("binance-usdm", venue)},
        collector={"discovery_s": 3},
    )
    async with rooms_of(own, tmp_path) as rooms:
        await rooms.processor()
        first = await rooms.collector(name, "first")
        await rooms.live(name, INSTRUMENTS)
        second = await rooms.collector(name, "second")

        async def halves() -> bool:
            one, two = await held(rooms, "first"), await held(rooms, "second")
            return one + two == INSTRUMENTS and min(one, two) >= INSTRUMENTS * 0.3

        await rooms.stack.until("two halves", halves, DEADLINE_S)
        await rooms.live(name, INSTRUMENTS)

        rooms.stack.children.remove(first)  # its end is expected
        killed_s = time.monotonic()
        first.process.kill()
        await first.process.wait()
        epochs = {symbol: book["epoch"] for symbol, book in (await rooms.books(name)).items()}

        async def taken_over() -> bool:
            books = await rooms.books(name)
            moved = sum(book["epoch"] > epochs[symbol] for symbol, book in books.items())
            live = sum(book["state"] == "LIVE" for book in books.values())
            return await held(rooms, "second") == INSTRUMENTS == live and moved >= INSTRUMENTS * 0.3

        await rooms.stack.until("the takeover", taken_over, DEADLINE_S)
        print(f"all {INSTRUMENTS} books LIVE at the other collector {time.monotonic() - killed_s:.1f} s after the kill")
        for native in venue.books:
            assert await rooms.equals_truth(name, unified(native), native, venue), native

        # A listing becomes LIVE, a delisting ends as DELISTED; a halt says so.
        listed_s = time.monotonic()
        venue.control("list", symbol="NEWUSDT")
        venue.control("delist", symbol="BTCUSDT")
        venue.control("halt", symbol="ETHUSDT")

        async def followed() -> bool:
            books = await rooms.books(name)
            states = [books.get(unified(n), {}).get("state") for n in ("NEWUSDT", "BTCUSDT", "ETHUSDT")]
            return states == ["LIVE", "DELISTED", "HALTED"]

        await rooms.stack.until("listing, delisting and halt", followed, DEADLINE_S)
        print(f"listing, delisting and halt followed {time.monotonic() - listed_s:.1f} s after them; the venue is asked each 3 s")
        assert await rooms.equals_truth(name, unified("NEWUSDT"), "NEWUSDT", venue)
        venue.control("resume", symbol="ETHUSDT")

        async def resumed() -> bool:
            return (await rooms.books(name))[unified("ETHUSDT")]["state"] == "LIVE"

        await rooms.stack.until("the halted one", resumed, DEADLINE_S)

        # The only collector stands still: the log says nothing of it, and its books are not LIVE all the same.
        second.process.send_signal(signal.SIGSTOP)

        async def doubted() -> bool:
            states = {book["state"] for book in (await rooms.books(name)).values()}
            return "LIVE" not in states and "LAGGING" in states

        try:
            await rooms.stack.until("a silent collector", doubted, DEADLINE_S)
        finally:
            second.process.send_signal(signal.SIGCONT)
        await rooms.live(name, INSTRUMENTS)
    await venue.stop()
