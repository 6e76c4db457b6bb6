"""The audit: agrees with a venue's snapshot taken at any moment, and finds every kind of difference."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from collectors.audit import Auditor, Finding, Journal, compare
from collectors.events import BookDelta, BookSnapshot
from collectors.local_book import Columns
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.publisher import Publisher
from collectors.venue import adapter
from collectors.worker import BookWorker
from config.settings import CollectorSettings

WIDE = (0, 10**9)


class Walk:
    """A book that changes; remembers what it was at every sequence number."""

    def __init__(self, seed: int, *, span: int = 1) -> None:
        self.random = random.Random(seed)
        self.span = span
        self.bids = {100 - i: 10 + i for i in range(30)}
        self.asks = {101 + i: 20 + i for i in range(30)}
        self.seq = 1000
        self.at = {self.seq: (dict(self.bids), dict(self.asks))}
        self.journal: Journal = []

    def step(self) -> None:
        """One delta that covers ``span`` ids; the book inside it changes id by id."""
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        first = self.seq + 1
        for _ in range(self.span):
            self.seq += 1
            for changed, book, base, sign in ((bids, self.bids, 100, -1), (asks, self.asks, 101, 1)):
                price = base + sign * self.random.randint(0, 29)
                size = self.random.choice([0, self.random.randint(1, 99)])
                changed[price] = size
                book[price] = size
                if not size:
                    del book[price]
            self.at[self.seq] = (dict(self.bids), dict(self.asks))
        columns: Columns = (list(bids), list(bids.values()), list(asks), list(asks.values()))
        self.journal.append((BookDelta("X", first, self.seq, first - 1, [], []), columns))

    def snapshot(self, seq: int) -> tuple[BookSnapshot, Columns]:
        bids, asks = self.at[seq]
        return BookSnapshot("X", seq, [], []), (list(bids), list(bids.values()), list(asks), list(asks.values()))


@pytest.mark.parametrize("seed", range(30))
def test_a_true_mirror_agrees_at_every_moment(seed: int) -> None:
    walk = Walk(seed)
    before = walk.at[1000]
    for _ in range(20):
        walk.step()
    for seq in range(1000, walk.seq + 1):
        finding = compare(before, 1000, walk.journal, *walk.snapshot(seq), WIDE)
        assert finding.agrees is True, (seq, finding)
        assert finding.levels > 10


@pytest.mark.parametrize("seed", range(30))
def test_a_snapshot_inside_a_delta_is_bracketed(seed: int) -> None:
    walk = Walk(seed, span=4)
    before = walk.at[1000]
    for _ in range(5):
        walk.step()
    whole = {delta.last_seq for delta, _ in walk.journal}
    straddled = [seq for seq in range(1001, walk.seq) if seq not in whole]
    wrong = 0
    for seq in straddled:
        snapshot, theirs = walk.snapshot(seq)
        # A price that changes twice inside one delta was, for a moment, what no message says: at most those differ.
        finding = compare(before, 1000, walk.journal, snapshot, theirs, WIDE)
        wrong += len(finding.differences)
    assert wrong <= len(straddled)


@pytest.mark.parametrize("seed", range(30))
def test_one_wrong_level_is_found(seed: int) -> None:
    walk = Walk(seed)
    bids, asks = (dict(side) for side in walk.at[1000])
    touched = 100 - walk.random.randint(0, 29)
    bids[touched] += 1
    walk.step()
    seq = walk.seq
    finding = compare((bids, asks), 1000, walk.journal, *walk.snapshot(seq), WIDE)
    repaired = touched in walk.journal[0][1][0]
    assert finding.agrees is repaired
    if not repaired:
        assert [(side, price) for side, price, _, _ in finding.differences] == [("bid", touched)]


def test_a_level_above_the_venues_top_is_found() -> None:
    walk = Walk(1)
    bids, asks = (dict(side) for side in walk.at[1000])
    del walk.at[1000][0][100]
    finding = compare((bids, asks), 1000, [], *walk.snapshot(1000), WIDE)
    assert finding.differences == (("bid", 100, 10, 0),)


def test_levels_that_the_mirror_never_knew_are_not_held_against_it() -> None:
    walk = Walk(1)
    bids, asks = (dict(side) for side in walk.at[1000])
    for price in range(71, 76):
        del bids[price]
    assert compare((bids, asks), 1000, [], *walk.snapshot(1000), (76, 10**9)).agrees is True
    assert compare((bids, asks), 1000, [], *walk.snapshot(1000), WIDE).agrees is False


def test_an_answer_older_than_the_question_proves_nothing() -> None:
    walk = Walk(1)
    walk.step()
    assert compare(walk.at[1001], 1001, [], *walk.snapshot(1000), WIDE).agrees is None


def test_without_numbers_equal_is_proof_and_different_is_none() -> None:
    walk = Walk(2)
    before = walk.at[1000]
    snapshot, theirs = walk.snapshot(1000)
    snapshot.last_seq = -1
    assert compare(before, -1, [], snapshot, theirs, WIDE).agrees is True
    assert compare((before[0] | {100: 77}, before[1]), -1, [], snapshot, theirs, WIDE).agrees is None
    # What changed while the answer was on its way may be either.
    journal: Journal = [(BookDelta("X", -1, -1, -1, [], []), ([100], [77], [], []))]
    assert compare(before, -1, journal, snapshot, theirs, WIDE).agrees is True


def test_a_finding_is_comparable() -> None:
    assert Finding(True) == Finding(True, "")


class StoodStill:
    """A clock by which the process was stopped for a minute after its second look."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return 1000.0 + self.looks * 0.02 + (60 if self.looks > 2 else 0)

    time_ns = staticmethod(time.time_ns)


async def test_a_process_that_was_stopped_reads_what_came_meanwhile_before_it_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP while the answer is on its way: the stream's frames are in the socket still, and the book is no other one."""
    counts, venue = Counts(), adapter("binance-spot")()
    publisher = Publisher("audited", lambda topic, key, value: None, counts)
    pipeline = Pipeline(publisher, counts)
    worker = BookWorker("BTC/USDT", "BTCUSDT", venue.rule("BTCUSDT"), publisher, counts, CollectorSettings(), lambda *_: None)  # pyright: ignore
    pipeline.workers["BTCUSDT"] = worker
    worker.announce()
    worker.on_snapshot(BookSnapshot("BTCUSDT", 10, [("100", "5")], [("101", "5")]), 1)
    worker.on_delta(BookDelta("BTCUSDT", 11, 11, 10, [("99", "1")], []), 2)
    assert worker.synced

    class Rest:
        async def call(self, request: object) -> bytes:
            return b'{"lastUpdateId":12,"bids":[["100","7"],["99","1"]],"asks":[["101","5"]]}'

    async def late_frame() -> None:
        for _ in range(10):
            await asyncio.sleep(0.02)
        worker.on_delta(BookDelta("BTCUSDT", 12, 12, 11, [("100", "7")], []), 3)

    monkeypatch.setattr("collectors.audit.time", StoodStill())
    auditor = Auditor(venue, Rest(), pipeline, counts, 1)  # pyright: ignore
    finding, _ = await asyncio.gather(auditor.audit(worker), late_frame())
    assert finding.agrees is True, finding
    assert counts.audit_mismatches == 0
