"""The mirrored book, story by story: what each record does to it and what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from market.pools.ladder import scale_of
from market.pools.uniswap_v2 import UniswapV2Pool
from processors.mirror_book import InvalidEvent, MirrorBook, Outcome


def event(kind: str, epoch: int, index: int, bids: dict[int, int] | None = None, **more: Any) -> dict[str, Any]:
    bids = bids or {}
    return {
        "venue": "v", "symbol": "A/B", "kind": kind, "epoch": epoch, "index": index, "venue_seq": index,
        "venue_prev_seq": index - 1, "ts_venue_us": 5, "ts_received_ns": 6, "price_exp": -1, "size_exp": 0,
        "bid_prices": list(bids), "bid_sizes": list(bids.values()), "ask_prices": [], "ask_sizes": [],
        "venue_checksum": None, **more,
    }  # fmt: skip


def status(state: str, epoch: int, since_ns: int, reason: str = "") -> dict[str, Any]:
    status = {"venue": "v", "symbol": "A/B", "state": state, "reason": reason, "epoch": epoch, "since_ns": since_ns}
    return status | {"owner": "o", "beat_ms": 0}


@pytest.fixture
def live() -> MirrorBook:
    book = MirrorBook("v", "A/B")
    assert book.apply(event("SNAPSHOT", 3, 0, {10: 1, 9: 2}), 100) is Outcome.APPLIED
    assert book.take_status(status("LIVE", 3, 50))
    assert book.state == "LIVE"
    return book


def test_a_book_may_be_as_fine_as_a_pool_of_a_cheap_token() -> None:
    """A token at 10^-12 of the other: the chain's collector writes its prices at 10^-24."""
    fine = scale_of(UniswapV2Pool("a", "b", 10**33, 10**21, 3, 1000), 0, 1, 18, 18)
    assert fine is not None and fine.price_exp < -18
    book = MirrorBook("v", "A/B")
    assert book.apply(event("SNAPSHOT", 3, 0, {10: 1}, price_exp=fine.price_exp), 100) is Outcome.APPLIED
    with pytest.raises(InvalidEvent):
        book.apply(event("SNAPSHOT", 4, 0, {10: 1}, price_exp=-37), 101)


def test_before_the_first_status_a_book_is_syncing_however_whole_it_is() -> None:
    book = MirrorBook("v", "A/B")
    book.apply(event("SNAPSHOT", 3, 0, {10: 1}), 1)
    assert (book.state, book.reason) == ("SYNCING", "no status yet")


def test_a_status_of_another_epoch_makes_no_book_live(live: MirrorBook) -> None:
    assert live.take_status(status("LIVE", 4, 60))
    assert (live.state, live.reason) == ("SYNCING", "the status speaks of another epoch than the book's")
    live.apply(event("SNAPSHOT", 4, 0, {10: 1}), 101)
    assert live.state == "LIVE"


def test_an_older_status_changes_nothing(live: MirrorBook) -> None:
    assert not live.take_status(status("STALE", 3, 49, "old news"))
    assert not live.take_status(status("STALE", 2, 99, "of the owner before"))
    assert live.state == "LIVE"
    assert live.take_status(status("STALE", 3, 51, "silent"))
    assert (live.state, live.reason) == ("STALE", "silent")


def test_the_late_messages_of_an_old_owner_are_fenced(live: MirrorBook) -> None:
    before = live.checkpoint()
    assert live.apply(event("DELTA", 2, 900, {10: 7}), 101) is Outcome.FENCED
    assert live.apply(event("SNAPSHOT", 2, 0, {10: 7}), 102) is Outcome.FENCED
    assert live.checkpoint() == before


def test_a_delta_read_again_is_not_applied_again(live: MirrorBook) -> None:
    assert live.apply(event("DELTA", 3, 1, {10: 5}), 101) is Outcome.APPLIED
    assert live.apply(event("DELTA", 3, 2, {10: 6}), 102) is Outcome.APPLIED
    assert live.apply(event("DELTA", 3, 1, {10: 5}), 101) is Outcome.REPLAYED
    assert live.apply(event("SNAPSHOT", 3, 0, {}), 100) is Outcome.REPLAYED
    assert live.book.bids.levels == {10: 6, 9: 2}


def test_a_skipped_index_is_a_gap_until_the_next_key_frame(live: MirrorBook) -> None:
    assert live.apply(event("DELTA", 3, 2, {10: 5}), 102) is Outcome.GAP
    assert (live.state, live.reason) == ("GAP", "index 2 came after 0")
    assert live.apply(event("DELTA", 3, 3, {10: 6}), 103) is Outcome.UNSYNCED
    assert live.state == "GAP"
    assert live.apply(event("KEYFRAME", 3, 2, {10: 5, 8: 1}), 104) is Outcome.REPLAYED
    assert live.state == "GAP"
    assert live.apply(event("KEYFRAME", 3, 3, {10: 6, 8: 1}), 105) is Outcome.APPLIED
    assert (live.state, live.reason) == ("LIVE", "")
    assert live.book.bids.levels == {10: 6, 8: 1}


def test_a_delta_of_a_new_epoch_without_its_snapshot_is_a_gap(live: MirrorBook) -> None:
    live.take_status(status("LIVE", 4, 60))
    assert live.apply(event("DELTA", 4, 7, {10: 5}), 101) is Outcome.GAP
    assert (live.state, live.reason) == ("GAP", "joined epoch 4 at index 7")


def test_a_key_frame_with_the_same_book_proves_it_in_any_exponent(live: MirrorBook) -> None:
    finer = event("KEYFRAME", 3, 0, {100: 10, 90: 20}, price_exp=-2, size_exp=-1)
    assert live.apply(finer, 101) is Outcome.KEYFRAME_OK
    assert live.offset == 101


def test_a_key_frame_with_another_book_is_an_alarm_and_the_key_frames_book_is_taken(live: MirrorBook) -> None:
    assert live.apply(event("KEYFRAME", 3, 0, {10: 1, 9: 3}), 101) is Outcome.KEYFRAME_BAD
    assert live.book.bids.levels == {10: 1, 9: 3}


@pytest.mark.parametrize(
    "wrong",
    [
        event("DELTA", 3, 1, bid_prices=[1, 2], bid_sizes=[1]),
        event("DELTA", 3, 1, {10: -1}),
        event("SNAPSHOT", 4, 0, {10: 0}),
        event("DELTA", 3, 1, {10: 1}, price_exp=1),
        event("DELTA", 3, 1, {10: 1}, size_exp=-37),
        event("KEYFRAME", 3, 0, {10: 0}),
    ],
)
def test_an_impossible_record_is_refused_and_changes_nothing(live: MirrorBook, wrong: dict[str, Any]) -> None:
    before = live.checkpoint()
    with pytest.raises(InvalidEvent):
        live.apply(wrong, 101)
    assert live.checkpoint() == before


def test_a_book_restored_with_a_gap_says_so() -> None:
    book = MirrorBook("v", "A/B")
    book.apply(event("SNAPSHOT", 3, 0, {10: 1}), 1)
    book.take_status(status("LIVE", 3, 50))
    book.apply(event("DELTA", 3, 5), 2)
    again = MirrorBook.restored(book.checkpoint())
    assert (again.state, again.reason) == ("GAP", "an index was missed before the restart")
