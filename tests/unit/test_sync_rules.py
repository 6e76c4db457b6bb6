"""How books are put together: every verdict of each rule, with the traps that real streams show."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.venue import BookDelta, PredecessorChain, RangeChain, SyncRule, Verdict, adapter
from simulator.capture_file import read_capture

APPLY, STALE, GAP = Verdict.APPLY, Verdict.STALE, Verdict.GAP


def delta(first: int, last: int, prev: int = -1) -> BookDelta:
    return BookDelta("X", first, last, prev, [], [])


@pytest.mark.parametrize(
    ("first", "last", "verdict", "why"),
    [
        (90, 99, STALE, "ends before the snapshot"),
        (95, 100, STALE, "ends at the snapshot: all of it is inside"),
        (95, 101, APPLY, "spans it"),
        (101, 101, APPLY, "starts right behind"),
        (101, 110, APPLY, "starts right behind"),
        (102, 110, GAP, "101 is missing: the snapshot is older than the stream"),
    ],
)
def test_spot_starts_at_the_event_that_spans_the_snapshot(first: int, last: int, verdict: Verdict, why: str) -> None:
    assert RangeChain().bridges(100, delta(first, last)) is verdict, why


@pytest.mark.parametrize(
    ("first", "last", "verdict", "why"),
    [
        (101, 101, APPLY, "the next id"),
        (101, 150, APPLY, "the next range"),
        (102, 102, GAP, "one id is missing"),
        (150, 160, GAP, "many are missing"),
        (95, 100, STALE, "sent again"),
        (100, 101, GAP, "overlaps: not the venue's rule, so it is not trusted"),
        (101, 100, STALE, "an empty range says nothing new"),
    ],
)
def test_spot_goes_on_with_the_next_id(first: int, last: int, verdict: Verdict, why: str) -> None:
    assert RangeChain().follows(100, delta(first, last)) is verdict, why


@pytest.mark.parametrize(
    ("prev", "first", "last", "verdict", "why"),
    [
        (80, 85, 99, STALE, "ends before the snapshot"),
        (90, 95, 100, APPLY, "ends exactly at the snapshot's id: the starting event, never dropped"),
        (90, 95, 110, APPLY, "spans it"),
        (99, 105, 110, APPLY, "no id of this instrument is the snapshot's: ids are shared, pu says that nothing is missing"),
        (100, 105, 110, APPLY, "follows the snapshot"),
        (101, 105, 110, GAP, "an event that ended at 101 is missing"),
    ],
)
def test_futures_start_by_the_predecessor(prev: int, first: int, last: int, verdict: Verdict, why: str) -> None:
    assert PredecessorChain().bridges(100, delta(first, last, prev)) is verdict, why


@pytest.mark.parametrize(
    ("prev", "first", "last", "verdict", "why"),
    [
        (100, 101, 105, APPLY, "follows"),
        (100, 180, 190, APPLY, "U jumps, as ids are shared: never chain by U"),
        (100, 100, 100, APPLY, "no id passed in between"),
        (120, 121, 130, GAP, "an event is missing"),
        (80, 101, 105, GAP, "names another predecessor"),
        (80, 85, 90, STALE, "sent again"),
    ],
)
def test_futures_go_on_by_the_predecessor_only(prev: int, first: int, last: int, verdict: Verdict, why: str) -> None:
    assert PredecessorChain().follows(100, delta(first, last, prev)) is verdict, why


def test_a_venue_without_numbers_and_checksums_is_taken_as_it_comes() -> None:
    rule = SyncRule()
    assert rule.bridges(-1, delta(-1, -1)) is APPLY
    assert rule.follows(-1, delta(-1, -1)) is APPLY
    assert rule.max_depth is None
    assert not rule.has_checksum


@given(st.lists(st.integers(1, 5), min_size=2, max_size=20), st.data())
def test_a_lost_event_is_always_noticed_at_the_next_one(lengths: list[int], draw: st.DataObject) -> None:
    """Both chains: take any event out of any stream, and the one behind it is a GAP."""
    events, last = [], 100
    for length in lengths:
        events.append(delta(last + 1, last + length, last))
        last += length
    lost = draw.draw(st.integers(0, len(events) - 2))
    for rule in (RangeChain(), PredecessorChain()):
        seq = 100
        for number, event in enumerate(events):
            if number == lost:
                continue
            verdict = rule.follows(seq, event)
            assert verdict is (GAP if number == lost + 1 else APPLY)
            if verdict is GAP:
                break
            seq = event.last_seq


@pytest.mark.parametrize(
    ("market", "file", "native", "stale"),
    [
        ("binance-usdm", "binance_usdm_btcusdt_20240808.gz", "BTCUSDT", 4),
        ("binance-spot", "binance_spot_btcusdt_20240808.gz", "BTCUSDT", 2),
        ("binance-coinm", "binance_cm_btcusd_perp_20240808.gz", "BTCUSD_PERP", 23),
    ],
)
def test_a_real_stream_has_its_known_stale_events_and_no_gap(
    market: str, file: str, native: str, stale: int, captures: Path
) -> None:
    venue = adapter(market)()
    rule = venue.rule(native)
    deltas: list[BookDelta] = []
    snapshot_seq = -1
    for line in read_capture([captures / file]):
        if line.kind == "rest":
            snapshot_seq = venue.parse_snapshot(native, line.data).last_seq
        else:
            deltas += [event for event in venue.parse(line.data) if isinstance(event, BookDelta)]
    verdicts = []
    seq = -1
    for event in deltas:
        verdict = rule.bridges(snapshot_seq, event) if seq < 0 else rule.follows(seq, event)
        verdicts.append(verdict)
        if verdict is APPLY:
            seq = event.last_seq
    assert verdicts == [STALE] * stale + [APPLY] * (len(deltas) - stale)
