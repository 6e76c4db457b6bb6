"""Which lost frames a client of a venue without sequence numbers can know of: those that its next checksum sees, no others."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from simulator.kraken_wire import CHECKED
from simulator.synthetic import SyntheticVenue
from simulator.truth import Texts, TruthBook, TruthError
from simulator.wire import Change


def three_changes() -> TruthBook:
    book = TruthBook()
    book.load(1, [("9", "1")], [("11", "1")])
    book.apply(2, [("9", "5")], [])
    book.apply(3, [("9", "6")], [("11", "2")])
    book.apply(4, [("8", "1")], [])
    return book


def test_a_change_shows_unless_the_next_one_that_came_wrote_the_same_levels():
    book = three_changes()
    assert not book.shows(2, {2})  # bid 9 was written anew by 3
    assert book.shows(3, {3})
    assert book.shows(2, {2, 3})  # 4 wrote neither


def test_a_change_undone_before_anything_came_does_not_show():
    book = three_changes()
    book.apply(5, [("8", "0")], [])
    book.apply(6, [], [("12", "1")])
    assert not book.shows(4, {4, 5})


def test_what_cannot_be_told_is_an_error():
    book = three_changes()
    with pytest.raises(TruthError, match="nothing that was sent follows"):
        book.shows(4, {4})
    with pytest.raises(TruthError, match="no remembered event"):
        book.shows(1, {1})


def test_a_lost_frame_shows_just_when_the_next_checksum_does_not_fit(monkeypatch: pytest.MonkeyPatch):
    """Over an order flow of Kraken's protocol: a frame that may be lost on purpose (``provable``), the next one delivered."""
    venue = SyntheticVenue("kraken", instruments=5, levels=12, seed=3)
    lost: dict[str, int] = {}
    seen: Counter[tuple[bool, bool]] = Counter()

    def publish(change: Change) -> None:
        one, seq = change.one, lost.pop(change.one.native, None)
        if seq is not None:
            _, *theirs = one.truth.at(one.truth.seq_behind(2))
            _, *ours = one.truth.at()
            wrong = any(
                best(had, one.texts(changes), descending=not side) != best(has, [], descending=not side)
                for side, (had, has, changes) in enumerate(zip(theirs, ours, (change.bids, change.asks), strict=True))
            )
            seen[one.truth.shows(seq, {seq}), wrong] += 1
        elif venue.wire.provable(change):
            lost[one.native] = change.seq

    monkeypatch.setattr(venue.wire, "publish", publish)
    for _ in range(6000):
        venue.event()
    assert seen.keys() == {(True, True), (False, False)}, seen
    assert seen[True, True] > 1000 and seen[False, False] > 50, seen


def best(side: Texts, changes: list[tuple[str, str]], *, descending: bool) -> list[tuple[Decimal, Decimal]]:
    held = {Decimal(price): Decimal(size) for price, size in [*side, *changes]}
    return sorted(((price, size) for price, size in held.items() if size), reverse=descending)[:CHECKED]
