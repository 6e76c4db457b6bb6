"""The floor that a collector is measured against: the least that any program must do with Binance's futures frames.

Typed msgspec decode, the sequence check, a dict and a sorted list of prices a side. No exact numbers, no states, no checks of
the input, no records: this is what is left when everything that makes a mirror trustworthy is taken away.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import msgspec


class _Depth(msgspec.Struct, gc=False):
    s: str
    U: int
    u: int
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]
    pu: int = -1


class _DepthFrame(msgspec.Struct, gc=False):
    data: _Depth


class _Trade(msgspec.Struct, gc=False):
    s: str
    p: str
    q: str
    T: int


class _TradeFrame(msgspec.Struct, gc=False):
    data: _Trade


class _Ticker(msgspec.Struct, gc=False):
    s: str
    u: int
    b: str
    B: str
    a: str
    A: str


class _TickerFrame(msgspec.Struct, gc=False):
    data: _Ticker


class _Snapshot(msgspec.Struct):
    lastUpdateId: int  # noqa: N815
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class BareLoop:
    """One instrument."""

    def run(self, snapshot: bytes, frames: Sequence[bytes]) -> None:
        """Start from the snapshot and handle every frame."""
        depth = msgspec.json.Decoder(_DepthFrame).decode
        trade = msgspec.json.Decoder(_TradeFrame).decode
        ticker = msgspec.json.Decoder(_TickerFrame).decode
        start = msgspec.json.decode(snapshot, type=_Snapshot)
        bids = {float(price): float(size) for price, size in start.bids}
        asks = {-float(price): float(size) for price, size in start.asks}
        bid_order, ask_order = sorted(bids), sorted(asks)
        last, started, gaps = start.lastUpdateId, False, 0
        for frame in frames:
            if b"@depth" in frame[:60]:
                event = depth(frame).data
                if event.u < last:
                    continue
                if started and (event.pu if event.pu >= 0 else event.U - 1) != last:
                    gaps += 1
                started, last = True, event.u
                for text, amount in event.b:
                    price, size = float(text), float(amount)
                    if size:
                        if price not in bids:
                            insort(bid_order, price)
                        bids[price] = size
                    elif bids.pop(price, None) is not None:
                        del bid_order[bisect_left(bid_order, price)]
                for text, amount in event.a:
                    price, size = -float(text), float(amount)
                    if size:
                        if price not in asks:
                            insort(ask_order, price)
                        asks[price] = size
                    elif asks.pop(price, None) is not None:
                        del ask_order[bisect_left(ask_order, price)]
                assert bid_order[-1] < -ask_order[-1]
            elif b"Ticker" in frame[:60]:
                ticker(frame)
            else:
                trade(frame)
        assert gaps == 0, gaps
