"""What the top of a book says about its next move, in integers only. Pure; time is the book's own receive time.

Micro-price: Gatheral and Oomen, Zero-intelligence realized variance estimation (2010), the size-weighted mid.
Realised volatility: the square root of the sum of squared returns of the mid between samples.
"""

from __future__ import annotations

from collections import deque
from math import isqrt
from typing import Any, NamedTuple

from processors.mirror_book import MirrorBook

WINDOW_S = 60
MICRO_DIGITS = 4
"""The micro-price has this many digits more than a price."""
MEAN_DIGITS = 3
PPM, PPB = 1_000_000, 1_000_000_000


class Second:
    """Samples of one second of receive time."""

    __slots__ = ("count", "second", "spread_max", "spread_min", "spread_sum", "squares")

    def __init__(self, second: int, spread: int) -> None:
        self.second = second
        self.count = self.spread_sum = self.squares = 0
        self.spread_min = self.spread_max = spread


class Whole(NamedTuple):
    """The sum of the seconds that are over. Without any, ``samples`` is 0 and the spreads say nothing."""

    samples: int
    spread_sum: int
    spread_min: int
    spread_max: int
    squares: tuple[int, int, int]
    """Of the last 1, 10 and 60 seconds."""


class Microstructure:
    """The last sixty seconds of one book."""

    __slots__ = ("_mid2", "_price_exp", "_seconds")

    def __init__(self) -> None:
        self._seconds: deque[Second] = deque()
        self._mid2 = 0
        """Twice the mid of the last sample; 0: there is none."""
        self._price_exp = 0

    def sample(self, book: MirrorBook) -> None:
        """Take the book as it is now; it must be LIVE and have two sides."""
        bid, ask = book.book.bids.best(), book.book.asks.best()
        assert bid is not None and ask is not None
        self._rescale(book.book.price_exp)
        mid2, spread = bid[0] + ask[0], ask[0] - bid[0]
        now = book.ts_received_ns // 1_000_000_000
        seconds = self._seconds
        if not seconds or seconds[-1].second < now:
            seconds.append(Second(now, spread))
            while seconds[0].second < now - WINDOW_S:
                seconds.popleft()
        one = seconds[-1]  # a receive time that goes back counts for the newest second
        one.count += 1
        one.spread_sum += spread
        one.spread_min = min(one.spread_min, spread)
        one.spread_max = max(one.spread_max, spread)
        if self._mid2 > 0:
            one.squares += (abs(mid2 - self._mid2) * PPB // self._mid2) ** 2
        self._mid2 = mid2

    def lost(self) -> None:
        """The book was not LIVE: the next return would be no return."""
        self._mid2 = 0

    def _rescale(self, price_exp: int) -> None:
        if price_exp == self._price_exp:
            return
        if price_exp > self._price_exp:  # coarser, by a new snapshot: what is kept might not fit
            self._seconds.clear()
            self._mid2 = 0
        else:
            factor = 10 ** (self._price_exp - price_exp)
            self._mid2 *= factor
            for one in self._seconds:
                one.spread_sum *= factor
                one.spread_min *= factor
                one.spread_max *= factor
        self._price_exp = price_exp

    def _whole(self, now: int) -> Whole:
        """The seconds that are over, in one pass: this is asked for at each change of a book."""
        samples = spread_sum = spread_min = spread_max = last_1 = last_10 = last_60 = 0
        for one in self._seconds:
            age = now - one.second
            if not 0 < age <= WINDOW_S:
                continue
            if not samples or one.spread_min < spread_min:
                spread_min = one.spread_min
            if not samples or one.spread_max > spread_max:
                spread_max = one.spread_max
            samples += one.count
            spread_sum += one.spread_sum
            last_60 += one.squares
            if age <= 10:
                last_10 += one.squares
                if age <= 1:
                    last_1 += one.squares
        return Whole(samples, spread_sum, spread_min, spread_max, (last_1, last_10, last_60))

    def record(self, book: MirrorBook, partition: int, state: str) -> dict[str, Any] | None:
        """The Microstructure record; None when a side is empty."""
        own = book.book
        bid, ask = own.bids.best(), own.asks.best()
        if bid is None or ask is None:
            return None
        mid2, spread = bid[0] + ask[0], ask[0] - bid[0]
        now = book.ts_received_ns // 1_000_000_000
        whole = self._whole(now)
        count = whole.samples
        weight = bid[1] + ask[1]
        return {
            "venue": book.venue, "symbol": book.symbol, "state": state, "epoch": book.epoch, "index": book.index,
            "offset": book.offset, "partition": partition, "price_exp": own.price_exp, "size_exp": own.size_exp,
            "mid": mid2 * 5,
            "micro_price": (bid[0] * ask[1] + ask[0] * bid[1]) * 10**MICRO_DIGITS // weight,
            "imbalance_ppm": _imbalance(bid[1], ask[1]),
            "imbalance5_ppm": _imbalance(sum(s for _, s in own.bids.top(5)), sum(s for _, s in own.asks.top(5))),
            "spread": spread,
            "spread_ppm": spread * 2 * PPM // mid2 if mid2 > 0 else 0,
            "spread_min": whole.spread_min if count else spread,
            "spread_max": whole.spread_max if count else spread,
            "spread_mean": (whole.spread_sum * 10**MEAN_DIGITS // count) if count else spread * 10**MEAN_DIGITS,
            "volatility_1s_ppb": isqrt(whole.squares[0]),
            "volatility_10s_ppb": isqrt(whole.squares[1]),
            "volatility_60s_ppb": isqrt(whole.squares[2]),
            "samples": count, "ts_venue_us": book.ts_venue_us, "ts_received_ns": book.ts_received_ns,
        }  # fmt: skip


def _imbalance(bid_size: int, ask_size: int) -> int:
    difference, total = bid_size - ask_size, bid_size + ask_size
    part = abs(difference) * PPM // total
    return part if difference >= 0 else -part
