"""The venue under load: its score goes round exactly, its frames are the real venue's in shape, its truth is its book's."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from simulator.load_venue import EVENTS, IDS, LEVELS_A_FRAME, TRADES, LoadVenue, Score
from simulator.stream_server import Client
from simulator.truth import TooOld, TruthError

NATIVE = "BTCUSDT"


class Wire:
    """A client's socket that keeps what is written."""

    def __init__(self, waiting: int = 0) -> None:
        self.data, self.waiting, self.aborted = b"", waiting, False

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def frames_of(venue: LoadVenue, *kinds: str, events: int) -> list[dict[str, Any]]:
    """What a subscriber of these streams of BTCUSDT gets, as JSON."""
    wire = Wire()
    client = Client(1, "/stream", None, wire)  # pyright: ignore[reportArgumentType]
    for kind in kinds:
        venue.stream.subscribe(client, f"{NATIVE.lower()}@{kind}")
    out: dict[Client, list[bytes]] = {}
    for _ in range(events):
        venue._event(venue._books[NATIVE], out)
    client.write(out[client], 1 << 30)
    found, data = [], wire.data
    while data:
        size, head = data[1] & 127, 2
        if size >= 126:
            head = 4 if size == 126 else 10
            size = int.from_bytes(data[2:head])
        found.append(json.loads(data[head : head + size])["data"])
        data = data[head + size :]
    return found


def applied(book: tuple[dict[str, str], dict[str, str]], frame: dict[str, Any]) -> None:
    for side, changed in zip(book, (frame["b"], frame["a"]), strict=True):
        for price, size in changed:
            if float(size):
                side[price] = size
            else:
                side.pop(price, None)


def test_a_round_ends_with_the_book_that_it_began_with_and_goes_on() -> None:
    score = Score(3, (2, 3))
    assert len(score.changes) == EVENTS
    assert score.book(0) == score.book(EVENTS) == score.book(5 * EVENTS)
    assert score.book(EVENTS - 1) != score.book(0)


@pytest.mark.parametrize("events", [1, EVENTS - 1, EVENTS, EVENTS + 5, 2 * EVENTS + 17])
def test_a_book_built_from_the_frames_is_the_truth(events: int) -> None:
    venue = LoadVenue(instruments=1)
    seq, bids, asks = venue.books[NATIVE].at()
    book = tuple({price: size for price, size in side} for side in (bids, asks))  # noqa: C416 - pairs as lists
    frames = frames_of(venue, "depth@0ms", events=events)
    assert frames[0]["pu"] == seq
    for frame in frames:
        for side in ("b", "a"):
            frame[side] = [[_plain(p), _plain(s)] for p, s in frame[side]]
        applied((book[0], book[1]), frame)
    found, bids, asks = venue.books[NATIVE].at()
    assert found == frames[-1]["u"]
    assert [sorted(side.items()) for side in book] == [sorted((p, s) for p, s in side) for side in (bids, asks)]
    assert float(bids[0][0]) < float(asks[0][0])


def test_numbers_follow_one_another_and_each_price_stands_once_in_a_frame() -> None:
    frames = frames_of(LoadVenue(instruments=1), "depth@0ms", events=EVENTS + 3)
    assert all(after["pu"] == before["u"] and after["U"] <= after["u"] for before, after in pairwise(frames))
    assert all(len({p for p, _ in f[side]}) == len(f[side]) for f in frames for side in ("b", "a"))
    levels = [len(f["b"]) + len(f["a"]) for f in frames]
    assert sorted(levels)[len(levels) // 2] >= LEVELS_A_FRAME


def test_between_two_depth_frames_come_trades_and_best_bids_and_offers_and_only_to_who_asked() -> None:
    frames = frames_of(LoadVenue(instruments=2), "depth@0ms", "trade", "bookTicker", events=50)
    kinds = [frame["e"] for frame in frames]
    assert kinds.count("depthUpdate") == 50
    assert kinds.count("bookTicker") == 500
    assert 100 < kinds.count("trade") <= 150
    assert {frame["e"] for frame in frames_of(LoadVenue(instruments=2), "trade", events=50)} == {"trade"}
    ids = [frame["t"] for frame in frames if frame["e"] == "trade"]
    assert ids == list(range(1, len(ids) + 1))


def test_a_quiet_instrument_s_frames_have_few_levels_and_as_many_trades_to_a_level() -> None:
    frames = frames_of(LoadVenue(instruments=1, levels=3), "depth@0ms", "trade", events=EVENTS - 1)
    levels = [len(frame["b"]) + len(frame["a"]) for frame in frames if frame["e"] == "depthUpdate"]
    assert len(levels) == EVENTS - 1
    assert 3 <= sorted(levels)[len(levels) // 2] <= 6
    trades = sum(frame["e"] == "trade" for frame in frames)
    assert 0.5 < trades / (EVENTS * 3 * TRADES / LEVELS_A_FRAME) <= 1


def test_a_client_that_does_not_read_is_cut_off() -> None:
    wire = Wire(waiting=11)
    client = Client(1, "/stream", None, wire)  # pyright: ignore[reportArgumentType]
    assert client.write([b"frame"], 10) == 0
    assert client.overflowed
    assert wire.aborted
    assert not wire.data


def test_a_past_that_never_was_is_refused() -> None:
    book = LoadVenue(instruments=1).books[NATIVE]
    with pytest.raises(TruthError, match="not reached yet"):
        book.at(book.seq + IDS)
    with pytest.raises(TooOld):
        book.at(book.seq - EVENTS * IDS)
    with pytest.raises(TruthError):
        book.at(book.seq - 1)


def _plain(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
