"""One random book in every venue's own frames: lost, repeated, swapped and crossed ones are found or do no harm.

The law: while a book is LIVE and its connection trusted, it is what the venue's book was at that frame.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.checksums import interleaved_crc32, kraken_v2_crc32
from tests.venue_replay import Replay

Side = dict[int, int]
Levels = list[tuple[int, int]]


@dataclass
class State:
    """The venue's book after one frame: prices and sizes as whole numbers, and what the frame changed."""

    number: int
    whole: bool
    bids: Levels
    asks: Levels
    book: tuple[Side, Side]

    def best(self) -> tuple[Levels, Levels]:
        return sorted(self.book[0].items(), reverse=True), sorted(self.book[1].items())

    def shown(self) -> tuple[Levels, Levels]:
        """What a frame of this state carries: the whole book, or what changed."""
        return self.best() if self.whole else (self.bids, self.asks)


def encode(frame: Any) -> bytes:
    return json.dumps(frame, separators=(",", ":")).encode()


def texts(levels: Levels) -> list[list[str]]:
    return [[str(price), str(size)] for price, size in levels]


def okx(s: State) -> bytes:
    bids, asks = ([[*level, "0", "1"] for level in texts(side)] for side in s.shown())
    checksum = interleaved_crc32(*(texts(side) for side in s.best()))
    data = {"bids": bids, "asks": asks, "ts": "1", "checksum": checksum, "seqId": 10 * s.number,
            "prevSeqId": -1 if s.whole else 10 * s.number - 10}  # fmt: skip
    arg = {"channel": "books", "instId": "X"}
    return encode({"arg": arg, "action": "snapshot" if s.whole else "update", "data": [data]})


def bybit(s: State) -> bytes:
    bids, asks = (texts(side) for side in s.shown())
    data = {"s": "X", "b": bids, "a": asks, "u": s.number, "seq": 1}
    return encode({"topic": "orderbook.1000.X", "type": "snapshot" if s.whole else "delta", "ts": 1, "data": data, "cts": 1})


def kraken(s: State) -> bytes:
    bids, asks = ([{"price": p, "qty": q} for p, q in side] for side in s.shown())
    data = {"symbol": "X", "bids": bids, "asks": asks, "checksum": kraken_v2_crc32(*s.best())}
    return encode({"channel": "book", "type": "snapshot" if s.whole else "update", "data": [data]})


def kraken_futures(s: State) -> bytes:
    if s.whole:
        bids, asks = ([{"price": p, "qty": q} for p, q in side] for side in s.best())
        return encode({"feed": "book_snapshot", "product_id": "X", "timestamp": 1, "seq": s.number, "bids": bids, "asks": asks})
    side, (price, size) = ("buy", s.bids[0]) if s.bids else ("sell", s.asks[0])
    return encode({"feed": "book", "product_id": "X", "side": side, "seq": s.number, "price": price, "qty": size, "timestamp": 1})


def deribit(s: State) -> bytes:
    bids, asks = ([["change" if q else "delete", p, q] for p, q in side] for side in s.shown())
    data = {"type": "snapshot" if s.whole else "change", "instrument_name": "X", "change_id": 7 * s.number, "bids": bids,
            "asks": asks, "timestamp": 1} | ({} if s.whole else {"prev_change_id": 7 * s.number - 7})  # fmt: skip
    return encode({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": "book.X.100ms", "data": data}})


def coinbase(s: State) -> bytes:
    updates = [{"side": side, "price_level": str(p), "new_quantity": str(q)}
               for side, levels in zip(("bid", "offer"), s.shown(), strict=True) for p, q in levels]  # fmt: skip
    event = {"type": "snapshot" if s.whole else "update", "product_id": "X", "updates": updates}
    return encode({"channel": "l2_data", "timestamp": "2023-02-09T20:32:50Z", "sequence_num": s.number, "events": [event]})


def bitget(s: State) -> bytes:
    bids, asks = (texts(side) for side in s.shown())
    checksum = 0 if s.whole else interleaved_crc32(*(texts(side) for side in s.best()))
    data = {"bids": bids, "asks": asks, "ts": "1", "checksum": checksum, "seq": 3 * s.number}
    arg = {"instType": "USDT-FUTURES", "channel": "books", "instId": "X"}
    return encode({"action": "snapshot" if s.whole else "update", "arg": arg, "data": [data]})


def bitget_unified(s: State) -> bytes:
    frame = json.loads(bitget(s))
    frame["data"][0] |= {"checksum": 0, "seq": str(3 * s.number), "pseq": 0 if s.whole else 3 * s.number - 3}
    return encode(frame)


def kucoin_futures(s: State) -> bytes:
    side, (price, size) = ("buy", s.bids[0]) if s.bids else ("sell", s.asks[0])
    data = {"sequence": s.number, "change": f"{price},{side},{size}", "timestamp": 1}
    return encode({"type": "message", "topic": "/contractMarket/level2:X", "subject": "level2", "data": data})


def kucoin_spot_full(s: State) -> bytes:
    bids, asks = ([[*level, str(s.number)] for level in texts(side)] for side in (s.bids, s.asks))
    data = {"sequenceStart": s.number, "sequenceEnd": s.number, "symbol": "X", "changes": {"bids": bids, "asks": asks}}
    return encode({"type": "message", "topic": "/market/level2:X", "subject": "trade.l2update", "data": data})


def kucoin_spot(s: State) -> bytes:
    bids, asks = (texts(side) for side in s.best())
    data = {"bids": bids, "asks": asks, "timestamp": 1733124805073 + s.number}
    return encode({"type": "message", "topic": "/spotMarket/level2Depth50:X", "subject": "level2", "data": data})


def bitfinex(s: State) -> bytes:
    rows = [[p, 1, q] for p, q in s.best()[0]] + [[p, 1, -q] for p, q in s.best()[1]]
    if not s.whole:
        rows = [[p, 1 if q else 0, (q or 1) * sign] for levels, sign in ((s.bids, 1), (s.asks, -1)) for p, q in levels]
    return encode([10, rows if s.whole else rows[0], s.number])


def hyperliquid(s: State) -> bytes:
    levels = [[{"px": str(p), "sz": str(q), "n": 1} for p, q in side] for side in s.best()]
    return encode({"channel": "l2Book", "data": {"coin": "X", "time": 1710131872708 + s.number, "levels": levels}})


REFRESH = {"kucoin-spot", "hyperliquid"}
"""Whole books without a number: an older one that comes late is the book for one moment, until the next."""
CHECKSUM_ONLY = {"kraken", "bitget"}
"""A loss that the next frames undo is never seen, and does no harm."""
UNNUMBERED = REFRESH | {"kraken"}
"""Each frame proves the book as it was at that frame, not that it is the newest."""
WIRES: dict[str, tuple[str, Callable[[State], bytes]]] = {
    "okx": ("okx", okx), "bybit-spot": ("bybit-spot", bybit), "bybit-linear": ("bybit-linear", bybit),
    "kraken": ("kraken", kraken), "krakenfutures": ("krakenfutures", kraken_futures), "deribit": ("deribit", deribit),
    "coinbase": ("coinbase", coinbase), "bitget": ("bitget-usdt", bitget), "bitget-unified": ("bitget-usdt", bitget_unified),
    "kucoin-futures": ("kucoin-futures", kucoin_futures), "kucoin-spot-full": ("kucoin-spot-full", kucoin_spot_full),
    "kucoin-spot": ("kucoin-spot", kucoin_spot), "bitfinex": ("bitfinex", bitfinex), "hyperliquid": ("hyperliquid", hyperliquid),
}  # fmt: skip
FROM_REST = {"kucoin-futures": '"sequence":1', "kucoin-spot-full": '"sequence":"1"'}


def walk(seed: int, length: int) -> list[State]:
    """A whole book, then changes of one level each; at most eight levels a side, so that checksums see all of them."""
    chance = random.Random(seed)
    bids: Side = {100 - n: 5 for n in range(4)}
    asks: Side = {110 + n: 5 for n in range(4)}
    states = [State(1, True, [], [], (dict(bids), dict(asks)))]
    for number in range(2, length + 2):
        on_bids = chance.random() < 0.5
        side = bids if on_bids else asks
        price = chance.randint(97, 104) if on_bids else chance.randint(106, 113)
        size = 0 if price in side and len(side) > 1 and chance.random() < 0.4 else chance.randint(1, 9)
        if side.get(price) == size:
            size += 1
        side[price] = size
        if not size:
            del side[price]
        change = [(price, size)]
        states.append(State(number, False, change if on_bids else [], [] if on_bids else change, (dict(bids), dict(asks))))
    return states


def start(name: str, states: Sequence[State]) -> Replay:
    venue, _ = WIRES[name]
    replay = Replay(venue, ["X"])
    if name == "bitfinex":
        replay.receive(b'{"event":"subscribed","channel":"book","chanId":10,"symbol":"X"}', 0)
    if name in FROM_REST:
        replay.subscribed()
        bids, asks = (texts(side) for side in states[0].best())
        body = f'{{"code":"200000","data":{{{FROM_REST[name]},"bids":{json.dumps(bids)},"asks":{json.dumps(asks)}}}}}'
        worker = replay.worker("X")
        worker.on_snapshot(replay.venue.parse_snapshot("X", body.encode()), 0, worker.epoch)
    return replay


def play(name: str, states: Sequence[State], order: Sequence[int]) -> Replay:
    """Play the frames in this order (indices of ``states``), holding the law after each."""
    replay = start(name, states)
    newest = 0
    for index in order:
        if index == 0 and name in FROM_REST:
            continue
        replay.receive(WIRES[name][1](states[index]), index + 1)
        newest = index if name in UNNUMBERED else max(newest, index)
        if replay.broken:
            return replay  # the connection is closed here, and every book of it starts anew
        if replay.worker("X").state == "LIVE":
            wanted = states[newest].book
            assert replay.book("X") == tuple({Decimal(p): Decimal(q) for p, q in side.items()} for side in wanted)
    assert (replay.counts.dead_letters, replay.counts.internal_errors) == (0, 0)
    return replay


@pytest.mark.parametrize("name", WIRES)
def test_what_comes_in_order_is_the_venues_book_at_every_frame(name: str) -> None:
    for seed in range(5):
        states = walk(seed, 60)
        replay = play(name, states, range(len(states)))
        counts = replay.counts
        assert (replay.worker("X").state, counts.gaps, counts.crossed, counts.checksum_bad) == ("LIVE", 0, 0, 0)
        assert replay.broken == []
        assert replay.rebuilt()["X"] == replay.book("X")


@given(st.sampled_from(sorted(WIRES)), st.integers(0, 1000), st.data())
@settings(deadline=None, max_examples=200)
def test_a_lost_frame_is_found_or_does_no_harm(name: str, seed: int, draw: st.DataObject) -> None:
    states = walk(seed, 12)
    lost = draw.draw(st.integers(1, len(states) - 2))
    replay = play(name, states, [n for n in range(len(states)) if n != lost])
    if name not in REFRESH | CHECKSUM_ONLY:
        assert replay.broken or replay.counts.gaps, "a hole that nobody found"


@given(st.sampled_from(sorted(WIRES)), st.integers(0, 1000), st.data())
@settings(deadline=None, max_examples=200)
def test_a_frame_sent_again_changes_nothing(name: str, seed: int, draw: st.DataObject) -> None:
    states = walk(seed, 12)
    again = draw.draw(st.integers(1, len(states) - 1))
    replay = play(name, states, [m for n in range(len(states)) for m in ([n, n] if n == again else [n])])
    assert (replay.worker("X").state, replay.broken, replay.counts.gaps) == ("LIVE", [], 0)


@given(st.sampled_from(sorted(WIRES)), st.integers(0, 1000), st.data())
@settings(deadline=None, max_examples=200)
def test_frames_in_the_wrong_order_are_found_or_do_no_harm(name: str, seed: int, draw: st.DataObject) -> None:
    states = walk(seed, 12)
    at = draw.draw(st.integers(1, len(states) - 2))
    order = list(range(len(states)))
    order[at], order[at + 1] = order[at + 1], order[at]
    replay = play(name, states, order)
    assert name in REFRESH | CHECKSUM_ONLY or replay.broken or replay.counts.gaps


@pytest.mark.parametrize("name", WIRES)
def test_a_crossed_book_is_never_live(name: str) -> None:
    states = walk(1, 3)
    last = states[-1]
    crossed = State(last.number + 1, False, [(200, 1)], [], ({**last.book[0], 200: 1}, last.book[1]))
    replay = start(name, states)
    for index, state in enumerate([*states, crossed]):
        if index or name not in FROM_REST:
            replay.receive(WIRES[name][1](state), index + 1)
    assert replay.counts.crossed == 1
    assert replay.worker("X").state == "SYNCING"
