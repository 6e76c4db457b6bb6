"""Venues that number nothing: a change that cannot be read costs its own book a synchronisation, and no other anything."""

from __future__ import annotations

import pytest

from collectors.events import BookSnapshot
from schemas.codec import codec
from tests.venue_replay import Replay

FRAMES: dict[str, tuple[list[str], str]] = {
    "bitstamp": ([], '{"event":"data","channel":"diff_order_book_A","data":{"microtimestamp":"9","bids":[[1,2]],"asks":[]}}'),
    "gemini": (
        ['{"type":"l2_updates","symbol":"%s","changes":[["buy","1","2"]],"trades":[]}'],
        '{"type":"l2_updates","symbol":"A","changes":[["hold","1","2"]]}',
    ),
    "bitmex": (
        ['{"table":"orderBookL2","action":"partial","filter":{"symbol":"%s"},"data":[{"symbol":"%s","id":1,"side":"Buy",'
         '"size":1,"price":1}]}'],
        '{"table":"orderBookL2","action":"update","data":[{"symbol":"A","id":1,"side":"Buy","size":null}]}',
    ),
    "dydx": (
        ['{"type":"subscribed","channel":"v4_orderbook","id":"%s","contents":{"bids":[{"price":"1","size":"2"}],"asks":[]}}'],
        '{"type":"channel_data","channel":"v4_orderbook","id":"A","contents":{"bids":[["1","much"]]}}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_an_unreadable_change_is_a_gap_of_its_own_book_alone(name: str) -> None:
    whole, bad = FRAMES[name]
    run = Replay(name, ["A", "B"])
    run.subscribed()
    for native in ("A", "B"):
        for frame in whole:
            run.receive(frame.replace("%s", native).encode(), 1)
        if not whole:
            worker = run.worker(native)
            worker.on_timer(worker.since_ns + 2_000_000_000)
            worker.on_snapshot(BookSnapshot(native, 5, [("1", "1")], []), 1, worker.epoch)
    assert run.pipeline.states() == {"LIVE": 2}
    run.receive(bad.encode(), 2)
    assert (run.worker("A").state, run.worker("B").state) == ("SYNCING", "LIVE")
    assert (run.counts.gaps, run.broken) == (1, [])
    letters = [codec("DeadLetter").decode(value) for topic, _, value in run.records if topic == "dead.letter"]
    assert bad[:60] in letters[0]["payload"].decode()


