"""Laws of the mirrored book: whatever the log repeats, loses or restarts, LIVE means exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from processors.mirror_book import MirrorBook, Outcome
from schemas.codec import codec

LEVELS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), max_size=4)
STEP = st.tuples(st.sampled_from(["delta", "delta", "delta", "delta", "keyframe", "resync"]), LEVELS, LEVELS)
FATE = st.sampled_from(["read", "read", "read", "read", "read", "lost", "twice", "restart", "checkpoint"])
Side = dict[int, int]


@dataclass
class Written:
    """One record of the log with the book that it leads to."""

    record: dict[str, Any]
    bids: Side
    asks: Side
    is_status: bool = False


def writer(steps: list[Any]) -> Iterator[Written]:
    """A collector in the plainest words: the log of one instrument, with the truth after each record."""
    bids: Side = {}
    asks: Side = {}
    epoch, index = 0, -1
    for kind, bid_changes, ask_changes in [("resync", [(1, 1)], [(12, 1)]), *steps]:
        if kind == "resync":
            epoch, index = epoch + 1, 0
            bids, asks = dict(bids), dict(asks)
        elif kind == "delta":
            index += 1
        if kind != "keyframe":
            for side, changes in ((bids, bid_changes), (asks, ask_changes)):
                for price, size in changes:
                    side[price] = size
                    if not size:
                        del side[price]
        name = {"resync": "SNAPSHOT", "delta": "DELTA", "keyframe": "KEYFRAME"}[kind]
        columns = [list(c) for c in (bids, bids.values(), asks, asks.values())]
        if kind == "delta":
            columns = [[p for p, _ in bid_changes], [s for _, s in bid_changes], [p for p, _ in ask_changes],
                       [s for _, s in ask_changes]]  # fmt: skip
        record = {
            "venue": "v", "symbol": "A/B", "kind": name, "epoch": epoch, "index": index, "venue_seq": index,
            "venue_prev_seq": index - 1, "ts_venue_us": 1, "ts_received_ns": 1, "price_exp": -2, "size_exp": -3,
            "bid_prices": columns[0], "bid_sizes": columns[1], "ask_prices": columns[2], "ask_sizes": columns[3],
            "venue_checksum": None,
        }  # fmt: skip
        yield Written(record, dict(bids), dict(asks))
        if kind == "resync":
            status = {"venue": "v", "symbol": "A/B", "state": "LIVE", "reason": "", "epoch": epoch, "since_ns": epoch}
            status |= {"owner": "o", "beat_ms": 1000}
            yield Written(status, dict(bids), dict(asks), is_status=True)


def take(book: MirrorBook, written: Written, offset: int) -> Outcome | None:
    if written.is_status:
        book.take_status(written.record)
        return None
    return book.apply(written.record, offset)


def exact(book: MirrorBook, log: list[Written]) -> bool:
    """Whether the levels are the writer's at this very epoch and index."""
    for one in log:
        if not one.is_status and (one.record["epoch"], one.record["index"]) == (book.epoch, book.index):
            return book.book.bids.levels == one.bids and book.book.asks.levels == one.asks
    return False


@given(st.lists(STEP, max_size=40), st.lists(FATE, max_size=60))
def test_a_live_book_is_the_writers_book_whatever_was_lost_repeated_or_restarted(steps, fates) -> None:
    log = list(writer(steps))
    book = MirrorBook("v", "A/B")
    checkpoint, covered = book.checkpoint(), 0
    offset = 0
    fate_of = iter(fates)
    while offset < len(log):
        fate = next(fate_of, "read")
        if fate == "restart":
            # The crash: back to the checkpoint, and the log is read on from what it covers, or from before.
            book = MirrorBook.restored(codec("BookCheckpoint").decode(codec("BookCheckpoint").encode(checkpoint)))
            offset = max(0, covered - 2)
            continue
        if fate != "lost":
            take(book, log[offset], offset)
            if fate == "twice":
                assert take(book, log[offset], offset) in (
                    None, Outcome.REPLAYED, Outcome.KEYFRAME_OK, Outcome.FENCED,
                )  # fmt: skip
        offset += 1
        if fate == "checkpoint":
            checkpoint, covered = book.checkpoint(), offset
        if book.state == "LIVE":
            assert exact(book, log)
        assert (book.state == "GAP") <= bool(book.reason)


@given(st.lists(STEP, max_size=40), st.integers(0, 39))
def test_one_who_joins_late_is_exact_from_the_next_snapshot_or_key_frame_on(steps, start: int) -> None:
    log = list(writer(steps))
    book = MirrorBook("v", "A/B")
    for one in log:  # market.status is compacted: the newest is always there
        if one.is_status:
            book.take_status(one.record)
    newest = max(one.record["epoch"] for one in log)
    whole = False
    for offset, one in enumerate(log[start:], start):
        if one.is_status:
            continue
        assert book.apply(one.record, offset) is not Outcome.KEYFRAME_BAD
        if one.record["epoch"] == newest:
            whole = whole or one.record["kind"] != "DELTA"
            assert (book.state == "LIVE") == whole
            assert not whole or exact(book, log)
        else:
            assert book.state != "LIVE"


@given(st.lists(STEP, min_size=1, max_size=30), st.data())
def test_a_lost_index_is_a_gap_at_the_next_delta_and_healed_by_the_next_key_frame(steps, data) -> None:
    log = list(writer(steps))
    deltas = [i for i, one in enumerate(log) if not one.is_status and one.record["kind"] == "DELTA"]
    if not deltas:
        return
    lost = data.draw(st.sampled_from(deltas))
    book = MirrorBook("v", "A/B")
    for offset, one in enumerate(log):
        if offset == lost:
            continue
        outcome = take(book, one, offset)
        if offset == lost + 1 and outcome is not None and one.record["kind"] == "DELTA":
            assert outcome is Outcome.GAP
            assert book.state == "GAP"
            assert str(one.record["index"]) in book.reason
    if any(one.record.get("kind") in ("SNAPSHOT", "KEYFRAME") for one in log[lost + 1 :]):
        assert book.state == "LIVE"
        assert exact(book, log)


@given(st.lists(STEP, max_size=20))
def test_a_checkpoint_is_the_whole_book(steps) -> None:
    book = MirrorBook("v", "A/B")
    for offset, one in enumerate(writer(steps)):
        take(book, one, offset)
    again = MirrorBook.restored(codec("BookCheckpoint").decode(codec("BookCheckpoint").encode(book.checkpoint())))
    for name in MirrorBook.__slots__:
        if name != "book":
            assert getattr(again, name) == getattr(book, name), name
    assert again.book.digest() == book.book.digest()
    assert (again.book.bids.order, again.book.asks.order) == (book.book.bids.order, book.book.asks.order)
