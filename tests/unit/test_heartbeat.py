"""Heartbeats: where a partition is quiet one of its LIVE books is repeated, as a delta without levels behind all else."""

from __future__ import annotations

from typing import Any

from bus.errors import QueueFull
from collectors.events import BookDelta, BookSnapshot
from collectors.heartbeat import due
from collectors.metrics import Counts
from collectors.publisher import Publisher
from collectors.venue import adapter
from collectors.worker import BookWorker
from config.settings import CollectorSettings
from processors.mirror_book import MirrorBook, Outcome
from schemas.codec import codec
from schemas.topics import BOOK, STATUS

S = 1_000_000_000


def test_only_quiet_partitions_are_due_and_one_book_of_each() -> None:
    books: Any = [(0, 10 * S, "a"), (0, 5 * S, "b"), (1, 9 * S, "c"), (1, 8 * S, "d"), (2, 1 * S, "e")]
    assert due(books, 10 * S, S) == ["c", "e"]
    assert due(books, 10 * S, 2 * S) == ["e"]
    assert due([], 10 * S, S) == []


def test_a_heartbeat_is_an_event_that_changes_nothing_and_a_refused_one_leaves_no_hole() -> None:
    records: list[tuple[str, bytes]] = []
    full = False

    def send(topic: str, key: str, value: bytes) -> None:
        if full:
            raise QueueFull("full")
        records.append((topic, value))

    counts, venue = Counts(), adapter("binance-spot")()
    publisher = Publisher("binance-spot", send, counts, owner="me", beat_ms=1000)
    worker = BookWorker("BTC/USDT", "BTCUSDT", venue.rule("BTCUSDT"), publisher, counts, CollectorSettings(), lambda *_: None)  # pyright: ignore
    worker.announce()
    worker.on_snapshot(BookSnapshot("BTCUSDT", 10, [("100", "5")], [("101", "5")]), 1)
    worker.beat()
    full = True
    worker.beat()
    full = publisher.congested = False
    worker.on_delta(BookDelta("BTCUSDT", 11, 11, 10, [("99", "1")], []), 2)
    worker.beat()

    book, outcomes = MirrorBook("binance-spot", "BTC/USDT"), []
    for offset, (topic, value) in enumerate(records):
        if topic == STATUS.name:
            status = codec("BookStatus").decode(value)
            assert (status["beat_ms"], status["owner"]) == (1000, "me")
            book.take_status(status)
        elif topic == BOOK.name:
            outcomes.append(book.apply(codec("BookEvent").decode(value), offset))
    assert outcomes == [Outcome.APPLIED] * 4
    assert (book.state, book.index, book.venue_seq, book.beat_ms) == ("LIVE", 3, 11, 1000)
    assert book.book.bids.levels == worker.local.book.bids.levels
    assert counts.beats == 2
    again = MirrorBook.restored(codec("BookCheckpoint").decode(codec("BookCheckpoint").encode(book.checkpoint())))
    assert (again.owner, again.beat_ms) == ("me", 1000)
