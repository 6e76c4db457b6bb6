"""Frames that come in order and late are no hole and no silence: the books say LAGGING."""

from __future__ import annotations

import json

from collectors.delays import MEMORY_NS, Delays
from collectors.events import BookSnapshot
from tests.venue_replay import Replay

S = 1_000_000_000
START = 1_800_000_000 * S


class Line:
    """One connection with two books; its looks, and what they wrote."""

    def __init__(self, clock_ms: int = 0) -> None:
        self.replay = Replay("binance-usdm", ["BTCUSDT", "ETHUSDT"])
        self.clock_ms = clock_ms
        self.seq = 0
        self.delays = Delays(3.0)
        self.behind: list[object] = []
        self.replay.subscribed()
        for native in ("BTCUSDT", "ETHUSDT"):
            worker = self.replay.worker(native)
            worker.on_snapshot(BookSnapshot(native, 0, [("9", "1")], [("20", "1")], 1), START, worker.epoch)

    def change(self, now_ns: int, age_ms: int, native: str = "BTCUSDT") -> None:
        self.seq += 1
        data = {
            "e": "depthUpdate", "E": now_ns // 1_000_000 - age_ms - self.clock_ms, "T": 1, "s": native, "U": self.seq,
            "u": self.seq, "pu": self.replay.worker(native).last_seq, "b": [["10", str(self.seq)]], "a": [],
        }  # fmt: skip
        frame = json.dumps({"stream": f"{native.lower()}@depth@0ms", "data": data}).encode()
        self.replay.receive(frame, now_ns)

    def look(self, now_ns: int) -> list[str]:
        self.behind = self.delays.look([(0, ("BTCUSDT", "ETHUSDT", "gone"))], self.replay.pipeline.workers, now_ns)
        return [self.replay.worker(native).state for native in ("BTCUSDT", "ETHUSDT")]


def test_books_of_a_late_connection_lag_until_it_has_caught_up() -> None:
    for clock_ms in (0, 90_000, -90_000):  # the clocks need not agree
        line = Line(clock_ms)
        line.change(START, 40)
        line.change(START, 40, "ETHUSDT")
        assert line.look(START) == ["LIVE", "LIVE"]
        line.change(START + 5 * S, 3000)
        assert line.look(START + 5 * S) == ["LIVE", "LIVE"], "as late as it may be"
        line.change(START + 6 * S, 4100)
        assert line.look(START + 6 * S) == ["LAGGING", "LAGGING"], "all of one connection"
        assert line.replay.counts.laggings == 2
        line.change(START + 7 * S, 60)
        assert line.look(START + 7 * S) == ["LIVE", "LIVE"]
        assert line.replay.counts.gaps == line.replay.counts.resyncs == 0, "nothing was synchronised anew"


def test_the_time_of_a_snapshot_says_nothing_with_heartbeats_behind_it_either() -> None:
    line = Line()
    line.change(START, 40)
    assert line.look(START) == ["LIVE", "LIVE"]
    # Synchronised anew, while the venue's clock is an hour ahead: the snapshot has the time of its last change.
    worker = line.replay.worker("ETHUSDT")
    worker.on_stream_lost("the connection was lost")
    worker.on_subscribed()
    ahead = BookSnapshot("ETHUSDT", 0, [("9", "1")], [("20", "1")], START // 1000 + 3_599_000_000)
    worker.on_snapshot(ahead, START + 5 * S, worker.epoch)
    for _ in range(3):
        worker.beat()
    assert (worker.index, worker.beats) == (3, 3)
    for second in range(5, 8):
        line.change(START + second * S, 50)
        assert line.look(START + second * S) == ["LIVE", "LIVE"], "not an hour behind"


def test_one_old_change_among_new_ones_says_nothing() -> None:
    line = Line()
    line.change(START, 40)
    line.change(START, 9000, "ETHUSDT")
    assert line.look(START) == ["LIVE", "LIVE"]
    line.change(START + S, 40)
    line.change(START + S, 9000, "ETHUSDT")
    assert line.look(START + S) == ["LIVE", "LIVE"]


def test_a_connection_that_brings_nothing_is_not_behind() -> None:
    line = Line()
    line.change(START, 40)
    line.look(START)
    line.change(START + S, 5000)
    assert line.look(START + S)[0] == "LAGGING"
    assert line.look(START + 4 * S) == ["LIVE", "LIVE"]


def test_what_stays_behind_is_opened_anew_and_not_forgotten() -> None:
    line = Line()
    line.change(START, 40)
    line.look(START)
    for now_s in range(1, 700, 50):
        now_ns = START + now_s * S
        line.change(now_ns, 5000)
        assert line.look(now_ns)[0] == "LAGGING"
        assert line.behind == ([0] if now_s > 61 else [])


def test_pauses_do_not_hide_that_every_change_comes_late() -> None:
    """Few books, changed in turn: a few seconds with changes, a few without, and a venue's clock that was set back."""
    line = Line()
    line.change(START, -5000)
    line.look(START)
    for now_s in range(5, 80, 5):
        line.change(START + now_s * S, 40)
        assert line.look(START + now_s * S)[0] == "LAGGING"
        assert line.behind == ([0] if now_s > 65 else [])
        assert line.look(START + (now_s + 3) * S) == ["LIVE", "LIVE"], "nothing waits in it that could be read"
        assert line.behind == []


def test_a_least_age_that_is_long_ago_is_forgotten() -> None:
    line = Line()
    for period in range(4):  # a clock drifts 1.9 s in each
        now_ns = START + period * (MEMORY_NS + S)
        line.change(now_ns, 40 + period * 1900)
        assert line.look(now_ns)[0] == "LIVE", period


def test_a_recording_that_is_played_and_a_lag_of_zero_say_nothing() -> None:
    line = Line(clock_ms=7 * 24 * 3_600_000)
    line.change(START, 40)
    line.look(START)
    line.change(START + S, 60_000)
    assert line.look(START + S) == ["LIVE", "LIVE"]
    line = Line()
    line.delays = Delays(0)
    line.change(START, 40)
    line.look(START)
    line.change(START + S, 60_000)
    assert line.look(START + S) == ["LIVE", "LIVE"]
