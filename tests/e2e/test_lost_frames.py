"""A venue that loses frames: every hole is found, said, mended, and never served as LIVE."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus.consumer import TailReader
from schemas.codec import codec
from schemas.topics import STATUS
from simulator.capture_venue import CaptureVenue
from tests.e2e.rooms import DEADLINE_S, rooms_of, section
from tests.rebuild import Rebuilt

CAPTURE = "binance_cm_btcusd_perp_20240808.gz"


@pytest.mark.broker
async def test_every_lost_frame_is_found_and_no_wrong_book_is_served_as_live(
    kafka: str, captures: Path, settings, unique: str, tmp_path: Path
):
    name, symbol = f"capture-{unique}", "BTC/USD:BTC"
    venue = CaptureVenue([captures / CAPTURE], speed=10, drop_every=500, seed=7)
    await venue.start()
    own = settings(kafka={"bootstrap_servers": kafka}, venues={name: section("binance-coinm", venue)})
    served: list[tuple[int, list[list[str]], list[list[str]]]] = []
    states: set[str] = set()
    async with rooms_of(own, tmp_path) as rooms:
        statuses = TailReader(own, [STATUS.name], start="end")
        await rooms.processor()
        await rooms.collector(name)
        await rooms.live(name, 1)
        while not venue.done.is_set():
            rooms.stack.check()
            book = await rooms.views.book(name, symbol)
            states.add(book["state"])
            if book["state"] == "LIVE" and (not served or served[-1][0] != book["venue_seq"]):
                served.append((book["venue_seq"], book["bids"], book["asks"]))
            await asyncio.sleep(0.02)
        seq, bids, asks = venue.books["BTCUSD_PERP"].at()

        async def caught_up() -> bool:
            last = await rooms.views.book(name, symbol)
            return last["state"] == "LIVE" and last["venue_seq"] == seq

        await rooms.stack.until("the end of the capture", caught_up, DEADLINE_S)
        final = await rooms.views.book(name, symbol)
        gaps, resyncs = await rooms.count("gaps"), await rooms.count("resyncs")
        said = [codec("BookStatus").decode(m.value()) for m in statuses.read_to_end() if m.key().startswith(name.encode())]
        statuses.close()
    await venue.stop()

    assert venue.dropped > 40
    # A frame lost while the book waits for its snapshot needs no second resynchronisation, and how many those are
    # depends on how long a snapshot takes: on a loaded machine most of them. That none went unseen is shown below, by
    # every book that was served as LIVE.
    assert 5 <= gaps <= venue.dropped
    # A second loss while the first one's snapshot is still awaited is one more gap, mended by the same snapshot.
    assert 0 < resyncs <= gaps
    sequence = [status["state"] for status in said]
    assert sequence.count("GAP") == gaps
    for i, state in enumerate(sequence):
        if state == "GAP":
            assert sequence[i + 1] == "SYNCING", "a gap is followed by a new synchronisation"
    assert [s["epoch"] for s in said] == sorted(s["epoch"] for s in said)

    rebuilt = Rebuilt(captures / CAPTURE)
    wanted = {seq: (bids, asks) for seq, bids, asks in served}
    compared = 0
    for seq in rebuilt.events():
        if seq in wanted:
            assert rebuilt.levels() == wanted[seq], f"a wrong book was served as LIVE at {seq}"
            compared += 1
    assert compared == len(wanted) > 30
    assert (final["bids"], final["asks"]) == rebuilt.levels() == (bids, asks)
