"""A book is LIVE only while its collector is heard of in its partition; after Kafka was away, when it has written since."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from processors import books as module
from processors import heard as heard_module
from processors.books import Books
from processors.heard import AWAY_S
from processors.metrics import Counts
from schemas.codec import codec
from schemas.topics import BOOK, STATUS

PARTITION = 3
BOOK_TP = SimpleNamespace(topic=BOOK.name, partition=PARTITION)
STATUS_TP = SimpleNamespace(topic=STATUS.name, partition=PARTITION)


class Held:
    """One partition's books of two venues, all LIVE, and what was said of them."""

    def __init__(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000_000.0
        self.said: list[tuple[str, str]] = []
        self.index: dict[str, int] = {}
        self.offset = 0
        for one in (module, heard_module):
            monkeypatch.setattr(one, "time", SimpleNamespace(time=lambda: self.now_s, monotonic=lambda: self.now_s))
        derived: Any = SimpleNamespace(
            bbo=lambda book, _, state, **__: self.said.append((book.key, state)), forget=lambda _: None
        )
        self.books = Books(settings().processor, derived, Counts(), lambda _: None)
        monkeypatch.setattr(self.books.watch, "lagging", lambda _: "")  # its own tests are in test_watch.py
        for venue, symbol in (("v", "A/B"), ("v", "C/D"), ("w", "A/B")):
            self.event(venue, symbol)
            self.status(venue, symbol)

    def status(self, venue: str, symbol: str, beat_ms: int = 0, owner: str = "", epoch: int = 1) -> None:
        value = codec("BookStatus").encode({
            "venue": venue, "symbol": symbol, "state": "LIVE", "reason": "", "epoch": epoch, "since_ns": 1,
            "owner": owner or venue, "beat_ms": beat_ms,
        })  # fmt: skip
        self.books.on_status_batch(STATUS_TP, [self.record(f"{venue}|{symbol}", value)])

    def promised(self) -> Held:
        """The same where v's collector promises to write each second."""
        for symbol in ("A/B", "C/D"):
            self.status("v", symbol, beat_ms=1000)
        return self

    def record(self, key: str, value: bytes, age_s: float = 0) -> Any:
        self.offset += 1
        return SimpleNamespace(
            key=key.encode(), value=value, offset=self.offset, timestamp=int((self.now_s - age_s) * 1000)
        )

    def event(self, venue: str, symbol: str, age_s: float = 0, epoch: int = 1) -> None:
        """One record of the book, written so long ago."""
        key = f"{venue}|{symbol}"
        index = self.index[key] = self.index.get(key, -1) + 1
        value = codec("BookEvent").encode({
            "venue": venue, "symbol": symbol, "kind": "DELTA" if index else "SNAPSHOT", "epoch": epoch, "index": index,
            "venue_seq": index, "venue_prev_seq": index - 1, "ts_venue_us": 0, "ts_received_ns": 0, "price_exp": 0,
            "size_exp": 0, "bid_prices": [10], "bid_sizes": [1 + index], "ask_prices": [11], "ask_sizes": [1],
            "venue_checksum": None,
        })  # fmt: skip
        self.books.on_book_batch(BOOK_TP, [self.record(key, value, age_s)])

    def states(self) -> list[str]:
        return [self.books.state(book, PARTITION) for _, book in self.books.all()]


@pytest.fixture
def held(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(settings, monkeypatch)


def test_books_are_live_again_when_their_own_collector_has_written(held: Held) -> None:
    assert held.states() == ["LIVE", "LIVE", "LIVE"]
    held.books.watch.back_ms = int(held.now_s * 1000)
    held.now_s += 1
    assert held.states() == ["LAGGING", "LAGGING", "LAGGING"]
    assert "has not written since" in held.books.reason(next(iter(held.books.all()))[1], PARTITION)
    held.event("v", "A/B", age_s=5)  # it was waiting in the collector's queue
    assert held.states() == ["LAGGING", "LAGGING", "LAGGING"]
    assert held.said[-1] == ("v|A/B", "LAGGING")
    held.event("v", "A/B")
    assert held.states() == ["LIVE", "LIVE", "LAGGING"]
    assert ("v|C/D", "LIVE") in held.said[-3:], "a quiet book of the same collector is said again too"
    held.event("w", "A/B")
    assert held.states() == ["LIVE", "LIVE", "LIVE"]


def test_a_collector_that_has_nothing_to_write_is_not_waited_for_for_ever(held: Held) -> None:
    held.books.watch.back_ms = int(held.now_s * 1000)
    held.now_s += AWAY_S - 1
    held.books.look_for_silence()
    assert held.states() == ["LAGGING", "LAGGING", "LAGGING"]
    held.now_s += 7
    held.said.clear()
    held.books.look_for_silence()
    assert held.states() == ["LIVE", "LIVE", "LIVE"]
    assert [state for _, state in held.said] == ["LIVE", "LIVE", "LIVE"]


def test_what_was_heard_in_a_partition_that_is_given_away_says_nothing_later(held: Held) -> None:
    held.books.watch.back_ms = int(held.now_s * 1000)
    held.now_s += 1
    held.event("v", "A/B")
    held.books.drop([PARTITION])
    held.index.clear()
    held.event("v", "A/B", age_s=4)
    assert [book.key for _, book in held.books.all()] == ["v|A/B"]
    assert held.books.heard.doubt(next(iter(held.books.all()))[1], PARTITION)


def test_books_of_a_collector_that_writes_nothing_into_their_partition_are_lagging(held: Held) -> None:
    held.promised()
    assert held.states() == ["LIVE", "LIVE", "LIVE"]
    held.now_s += 5
    held.books.look_for_silence()
    assert held.states() == ["LIVE", "LIVE", "LIVE"]
    held.now_s += 1
    held.said.clear()
    held.books.look_for_silence()
    assert held.states() == ["LAGGING", "LAGGING", "LIVE"], "w promises nothing"
    assert ("v|A/B", "LAGGING") in held.said and ("v|C/D", "LAGGING") in held.said
    assert "has written nothing for 6 s" in held.books.reason(next(iter(held.books.all()))[1], PARTITION)
    held.event("w", "A/B")
    assert held.states() == ["LAGGING", "LAGGING", "LIVE"], "another collector's record says nothing of it"
    held.said.clear()
    held.event("v", "C/D")
    assert held.states() == ["LIVE", "LIVE", "LIVE"]
    assert ("v|A/B", "LIVE") in held.said, "the quiet book is said again too"


def test_a_status_is_no_proof_that_the_books_are_written(held: Held) -> None:
    held.promised()
    held.now_s += 6
    held.status("v", "A/B", beat_ms=1000)
    assert held.states() == ["LAGGING", "LAGGING", "LIVE"]


def test_a_new_owner_does_not_vouch_for_the_old_ones_books(held: Held) -> None:
    held.promised()
    held.now_s += 6
    held.index.clear()
    held.event("v", "A/B", epoch=2)
    assert held.states() == ["SYNCING", "LAGGING", "LIVE"]
    held.status("v", "A/B", beat_ms=1000, owner="another", epoch=2)
    assert held.states() == ["LIVE", "LAGGING", "LIVE"]


def test_what_is_read_while_recovering_was_not_heard(held: Held) -> None:
    held.promised()
    checkpoints = {book.key: book.checkpoint() for _, book in held.books.all()}
    held.books.drop([PARTITION])
    held.books._restore = checkpoints.get
    held.books.catch_up = {(BOOK.name, PARTITION): held.offset + 2}
    for key in checkpoints:
        held.books.get(key, PARTITION)
    assert set(held.states()) == {"RECOVERING"}
    held.event("v", "A/B", age_s=40)
    assert held.states() == ["LAGGING", "LAGGING", "LIVE"]
    assert "since this worker began" in held.books.reason(next(iter(held.books.all()))[1], PARTITION)
    held.event("v", "A/B")
    assert held.states() == ["LIVE", "LIVE", "LIVE"]
