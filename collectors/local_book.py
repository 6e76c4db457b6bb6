"""The collector's own book of one instrument, fed with the venue's texts: exact integers, finer exponents as they come."""

from __future__ import annotations

from collections.abc import Sequence

from collectors.events import BookSnapshot, Level
from collectors.mantissas import FinerExponent, price_mantissas, size_mantissas
from market.book import OrderBook

Columns = tuple[list[int], list[int], list[int], list[int]]
"""(bid prices, bid sizes, ask prices, ask sizes) as mantissas at the book's exponents."""


class LocalBook:
    """An order book and the exponents in which it reads numbers. A finer number re-scales it; nothing is rounded."""

    __slots__ = ("_known", "book", "prices", "sizes")

    def __init__(self, price_exp: int, size_exp: int) -> None:
        self.prices = price_mantissas(price_exp)
        self.sizes = size_mantissas(size_exp)
        self.book = OrderBook(price_exp, size_exp)
        self._known = (0, 0, price_exp)

    def exponents(self) -> tuple[int, int]:
        """(price, size) exponent now."""
        return self.prices.exponent, self.sizes.exponent

    @property
    def known(self) -> tuple[int, int]:
        """(lowest bid, highest ask) that the last snapshot reached: below it only what changed since is known."""
        low, high, exponent = self._known
        factor = 10 ** (exponent - self.prices.exponent)
        return low * factor, high * factor

    def price(self, text: str) -> int:
        """The text's mantissa, after making the exponent as fine as it needs. Raises DecimalError."""
        try:
            return self.prices[text]
        except FinerExponent as error:
            self.prices = price_mantissas(error.exponent)
            self.book.refine(error.exponent, self.book.size_exp)
            return self.prices[text]

    def size(self, text: str) -> int:
        """The same for a size."""
        try:
            return self.sizes[text]
        except FinerExponent as error:
            self.sizes = size_mantissas(error.exponent)
            self.book.refine(self.book.price_exp, error.exponent)
            return self.sizes[text]

    def columns(self, bids: Sequence[Level], asks: Sequence[Level]) -> Columns:
        """The levels' mantissas, all at the same exponents. Raises DecimalError for what is no number or does not fit."""
        prices, sizes = self.prices, self.sizes
        out: Columns = ([], [], [], [])
        try:
            # Plain loops: most changes have few levels, and four comprehensions are four calls.
            if bids:
                add_price, add_size = out[0].append, out[1].append
                for price, size in bids:
                    add_price(prices[price])
                    add_size(sizes[size])
            if asks:
                add_price, add_size = out[2].append, out[3].append
                for price, size in asks:
                    add_price(prices[price])
                    add_size(sizes[size])
            return out
        except FinerExponent:
            for levels in (bids, asks):
                for level in levels:
                    self.price(level[0])
                    self.size(level[1])
            # Read again: what was read before the exponent changed is at the coarser one.
            return self.columns(bids, asks)

    def take(self, bids: Sequence[Level], asks: Sequence[Level]) -> tuple[Columns, bool]:
        """``columns`` and ``apply`` in one pass. Raises DecimalError, and then the book may hold a part of it."""
        book, prices, sizes = self.book, self.prices, self.sizes
        try:
            bid_prices, bid_sizes = book.bids.take(bids, prices, sizes) if bids else ([], [])
            ask_prices, ask_sizes = book.asks.take(asks, prices, sizes) if asks else ([], [])
        except FinerExponent:
            columns = self.columns(bids, asks)  # what was set already is set again, the same
            return columns, self.apply(columns)
        bid, ask = book.bids.best_price(), book.asks.best_price()
        return (bid_prices, bid_sizes, ask_prices, ask_sizes), bid is None or ask is None or bid < ask

    def load(self, snapshot: BookSnapshot) -> None:
        """Replace the book. Raises DecimalError, and then the old book stands."""
        columns = self.columns(snapshot.bids, snapshot.asks)
        self.book = OrderBook(self.prices.exponent, self.sizes.exponent)
        self.book.apply(*columns, self.prices.exponent, self.sizes.exponent, replace=True)
        bids, asks = self.book.bids.levels, self.book.asks.levels
        self._known = (min(bids, default=0), max(asks, default=0), self.prices.exponent)

    def difference(self, snapshot: BookSnapshot) -> Columns:
        """What has to be set to make the book this one, deletes included. Raises DecimalError."""
        new = self.columns(snapshot.bids, snapshot.asks)
        out: list[list[int]] = []
        for side, prices, sizes in ((self.book.bids, new[0], new[1]), (self.book.asks, new[2], new[3])):
            wanted = {p: s for p, s in zip(prices, sizes, strict=True) if s}
            changed = {p: s for p, s in wanted.items() if side.levels.get(p) != s}
            changed |= {p: 0 for p in side.levels if p not in wanted}
            out += [list(changed), list(changed.values())]
        return (out[0], out[1], out[2], out[3])

    def apply(self, columns: Columns) -> bool:
        """Set these levels; gives whether the book is uncrossed."""
        book = self.book
        if columns[0]:
            book.bids.update(columns[0], columns[1])
        if columns[2]:
            book.asks.update(columns[2], columns[3])
        bid, ask = book.bids.best_price(), book.asks.best_price()
        return bid is None or ask is None or bid < ask

    def cut(self, depth: int, columns: Columns) -> None:
        """Keep the best ``depth`` levels a side; what falls out is deleted in ``columns`` too, for those who follow."""
        for side, prices, sizes in ((self.book.bids, columns[0], columns[1]), (self.book.asks, columns[2], columns[3])):
            fallen = len(side.levels) - depth
            if fallen > 0:
                prices += [key * side.sign for key in side.order[:fallen]]
                sizes += [0] * fallen
                side.cut(depth)
