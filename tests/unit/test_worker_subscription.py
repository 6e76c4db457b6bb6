"""What a stream brings before the venue's confirmation has been seen belongs to it."""

from __future__ import annotations

import json

from collectors.events import BookSnapshot
from tests.venue_replay import Replay


def depth(first: int, last: int, before: int, price: str) -> bytes:
    data = {"e": "depthUpdate", "E": 1, "T": 1, "s": "BTCUSDT", "U": first, "u": last, "pu": before, "b": [[price, "1"]], "a": []}
    return json.dumps({"stream": "btcusdt@depth@0ms", "data": data}).encode()


def test_changes_that_overtake_the_confirmation_are_kept_for_the_snapshot() -> None:
    replay = Replay("binance-usdm", ["BTCUSDT"])
    worker = replay.worker("BTCUSDT")
    worker.announce()
    replay.receive(depth(1, 5, 0, "10"), 1)
    replay.receive(depth(6, 9, 5, "11"), 2)
    assert replay.wanted == []  # nothing is asked for before the venue has confirmed
    replay.subscribed()
    assert replay.wanted == [worker]

    worker.on_snapshot(BookSnapshot("BTCUSDT", 4, [("9", "1")], [("20", "1")], 1), 3, worker.epoch)
    assert (worker.state, worker.last_seq) == ("LIVE", 9)
    assert replay.counts.old_snapshots == 0
    assert set(replay.book("BTCUSDT")[0]) == {9, 10, 11}


def test_a_lost_connections_changes_are_not_kept() -> None:
    replay = Replay("binance-usdm", ["BTCUSDT"])
    worker = replay.worker("BTCUSDT")
    worker.announce()
    replay.receive(depth(1, 5, 0, "10"), 1)
    worker.on_stream_lost("cut")
    replay.receive(depth(6, 9, 5, "11"), 2)
    replay.subscribed()
    assert replay.wanted == []
    assert not worker.pending
