"""The order book: exact integers, best prices tracked, sorted only for those who ask."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from heapq import heappop, heappush

from market.decimals import format_decimal

IDLE = 64
"""Updates after which an order that nobody asked for is no longer kept."""


class BookSide:
    """One side: price mantissa → size mantissa, and its best price.

    ``levels`` is the truth. Beside it stands one of two indices. Who only asks for the best price needs a heap: a new level
    costs one comparison or two, and a deleted one stays in it until it is the best. Who asks for levels in order (a
    checksum at each event, a ladder) has the sorted list kept as well, as long as he goes on asking.
    """

    __slots__ = ("_heap", "_idle", "_order", "levels", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        """+1 for bids (best is highest), -1 for asks (best is lowest)."""
        self.levels: dict[int, int] = {}
        self._heap: list[int] = []
        """price × -sign, the smallest first; every held level is in it, and some that are gone."""
        self._order: list[int] | None = None
        self._idle = 0

    @property
    def order(self) -> list[int]:
        """Sorted sort-keys, the best one last: the price for bids, its negative for asks. Not to be changed."""
        self._idle = 0
        if self._order is None:
            sign = self.sign
            self._order = sorted(self.levels) if sign == 1 else sorted([-price for price in self.levels])
            self._heap = []
        return self._order

    def set(self, price: int, size: int) -> None:
        """Set a level's absolute size; 0 deletes it. Deleting a level that is not held is normal and does nothing."""
        self.update((price,), (size,))

    def update(self, prices: Sequence[int], sizes: Sequence[int]) -> None:
        """Set many levels, in order; the hot path of every book. Sizes are absolute, 0 deletes."""
        if self._order is not None:
            if self._idle < IDLE:
                self._idle += 1
                self._update_order(self._order, prices, sizes)
                return
            self._heap = [-key for key in reversed(self._order)]
            self._order = None
        levels, heap, down = self.levels, self._heap, -self.sign
        for price, size in zip(prices, sizes, strict=True):
            if size:
                if price not in levels:
                    heappush(heap, price * down)
                levels[price] = size
            elif price in levels:
                del levels[price]
        if len(heap) > 2 * len(levels) + 64:
            self._heap = sorted([price * down for price in levels])

    def take(
        self, rows: Iterable[tuple[str, str]], price_of: Mapping[str, int], size_of: Mapping[str, int]
    ) -> tuple[list[int], list[int]]:
        """``update`` with (price, size) texts of which these make integers; gives the integers, prices and sizes.

        One pass instead of two. What a mapping raises passes through, and the rows before it are in the book by then.
        """
        prices: list[int] = []
        sizes: list[int] = []
        add_price, add_size = prices.append, sizes.append
        if self._order is not None:
            for price_text, size_text in rows:
                add_price(price_of[price_text])
                add_size(size_of[size_text])
            self.update(prices, sizes)
            return prices, sizes
        levels, heap, down = self.levels, self._heap, -self.sign
        for price_text, size_text in rows:
            price, size = price_of[price_text], size_of[size_text]
            add_price(price)
            add_size(size)
            if size:
                if price not in levels:
                    heappush(heap, price * down)
                levels[price] = size
            elif price in levels:
                del levels[price]
        if len(heap) > 2 * len(levels) + 64:
            self._heap = sorted([price * down for price in levels])
        return prices, sizes

    def _update_order(self, order: list[int], prices: Sequence[int], sizes: Sequence[int]) -> None:
        """The same, keeping the sorted list: its busy end is its tail, so that an insertion moves few elements."""
        levels, sign = self.levels, self.sign
        for price, size in zip(prices, sizes, strict=True):
            if size:
                if price not in levels:
                    key = price * sign
                    if not order or key > order[-1]:
                        order.append(key)
                    else:
                        order.insert(bisect_left(order, key), key)
                levels[price] = size
            elif price in levels:
                del levels[price]
                key = price * sign
                if order[-1] == key:
                    order.pop()
                else:
                    del order[bisect_left(order, key)]

    def replace(self, prices: Sequence[int], sizes: Sequence[int]) -> None:
        """Replace the whole side; sizes of 0 are left out."""
        self.levels = {p: s for p, s in zip(prices, sizes, strict=True) if s}
        self._reindex()

    def _reindex(self) -> None:
        self._order = None
        down = -self.sign
        self._heap = sorted([price * down for price in self.levels])

    def best_price(self) -> int | None:
        """The best level's price, or None when the side is empty."""
        order = self._order
        if order is not None:
            return order[-1] * self.sign if order else None
        heap, levels, down = self._heap, self.levels, -self.sign
        while heap:
            price = heap[0] * down
            if price in levels:
                return price
            heappop(heap)
        return None

    def touch(self) -> int:
        """The best level's price; LookupError when the side is empty."""
        price = self.best_price()
        if price is None:
            raise LookupError("the side is empty")
        return price

    def best(self) -> tuple[int, int] | None:
        """(price, size) of the best level, or None when the side is empty."""
        price = self.best_price()
        return None if price is None else (price, self.levels[price])

    def top(self, n: int | None = None) -> list[tuple[int, int]]:
        """The best ``n`` levels as (price, size), best first; all of them with None."""
        sign, levels = self.sign, self.levels
        keys = self.order[::-1] if n is None else self.order[: -n - 1 : -1] if n > 0 else []
        return [(k * sign, levels[k * sign]) for k in keys]

    def columns(self) -> tuple[list[int], list[int]]:
        """All levels as (prices, sizes), best first: the level arrays of a SNAPSHOT or KEYFRAME."""
        levels = self.levels
        # Key frames come rarely: they sort for themselves, and keep nobody's order alive.
        prices = sorted(levels, reverse=self.sign == 1)
        return prices, [levels[p] for p in prices]

    def cut(self, depth: int) -> int:
        """Keep the best ``depth`` levels (venues that send no delete for what falls out); gives how many fell."""
        fallen = len(self.levels) - depth
        if fallen <= 0:
            return 0
        order = self.order
        for key in order[:fallen]:
            del self.levels[key * self.sign]
        del order[:fallen]
        return fallen

    def multiply(self, price_factor: int, size_factor: int) -> None:
        """Rescale every level to a finer exponent."""
        self.levels = {p * price_factor: s * size_factor for p, s in self.levels.items()}
        self._reindex()

    def __len__(self) -> int:
        return len(self.levels)


class OrderBook:
    """Bids and asks of one instrument, as integers with one exponent for prices and one for sizes.

    A finer exponent re-scales the book; nothing is ever rounded.
    """

    __slots__ = ("asks", "bids", "price_exp", "size_exp")

    def __init__(self, price_exp: int = 0, size_exp: int = 0) -> None:
        self.price_exp: int = price_exp
        self.size_exp: int = size_exp
        self.bids = BookSide(1)
        self.asks = BookSide(-1)

    def refine(self, price_exp: int, size_exp: int) -> None:
        """Make the exponents at least this fine, rescaling what is held. Coarser requests change nothing."""
        price_factor: int = 10 ** max(0, self.price_exp - price_exp)
        size_factor: int = 10 ** max(0, self.size_exp - size_exp)
        if price_factor == 1 and size_factor == 1:
            return
        self.bids.multiply(price_factor, size_factor)
        self.asks.multiply(price_factor, size_factor)
        self.price_exp = min(self.price_exp, price_exp)
        self.size_exp = min(self.size_exp, size_exp)

    def scaled(self, values: Sequence[int], from_exp: int, to_exp: int) -> Sequence[int]:
        """Bring mantissas of an event to the book's exponent; the book must have been refined first."""
        if from_exp == to_exp:
            return values
        factor = 10 ** (from_exp - to_exp)
        return [v * factor for v in values]

    def apply(
        self,
        bid_prices: Sequence[int],
        bid_sizes: Sequence[int],
        ask_prices: Sequence[int],
        ask_sizes: Sequence[int],
        price_exp: int,
        size_exp: int,
        *,
        replace: bool = False,
    ) -> None:
        """Apply a delta, or with ``replace`` a whole book, given in the message's own exponents."""
        if price_exp != self.price_exp or size_exp != self.size_exp:
            if replace:
                self.price_exp, self.size_exp = price_exp, size_exp
            else:
                self.refine(price_exp, size_exp)
                bid_prices = self.scaled(bid_prices, price_exp, self.price_exp)
                ask_prices = self.scaled(ask_prices, price_exp, self.price_exp)
                bid_sizes = self.scaled(bid_sizes, size_exp, self.size_exp)
                ask_sizes = self.scaled(ask_sizes, size_exp, self.size_exp)
        if replace:
            self.bids.replace(bid_prices, bid_sizes)
            self.asks.replace(ask_prices, ask_sizes)
            return
        if bid_prices:
            self.bids.update(bid_prices, bid_sizes)
        if ask_prices:
            self.asks.update(ask_prices, ask_sizes)

    def crossed(self) -> bool:
        """True when the best bid is at or above the best ask, which no continuous venue can show."""
        bid, ask = self.bids.best_price(), self.asks.best_price()
        return bid is not None and ask is not None and bid >= ask

    def depth_to_notional(self, side: str, notional: int) -> tuple[int, int, bool]:
        """Walk a side (``bid`` or ``ask``) until price × size reaches ``notional``.

        ``notional`` and the result's second value are mantissas at exponent price_exp + size_exp.
        Gives (size, notional reached, complete); the last level is taken whole, so that nothing is rounded.
        """
        levels = self.bids if side == "bid" else self.asks
        size = reached = 0
        for key in reversed(levels.order):
            price = key * levels.sign
            quantity = levels.levels[price]
            size += quantity
            reached += price * quantity
            if reached >= notional:
                return size, reached, True
        return size, reached, False

    def level_texts(self, depth: int | None = None) -> tuple[list[list[str]], list[list[str]]]:
        """(bids, asks) as [price, size] decimal texts, best first: the form of the web views."""
        pe, se = self.price_exp, self.size_exp
        bids = [[format_decimal(p, pe), format_decimal(s, se)] for p, s in self.bids.top(depth)]
        asks = [[format_decimal(p, pe), format_decimal(s, se)] for p, s in self.asks.top(depth)]
        return bids, asks

    def digest(self) -> str:
        """Canonical digest, independent of the exponents: SHA-256 (hex) of book_lines()."""
        bids, asks = self.level_texts()
        return digest_levels(bids, asks)


def digest_levels(bids: Iterable[Sequence[str]], asks: Iterable[Sequence[str]]) -> str:
    """SHA-256 of the lines ``bid PRICE SIZE`` (highest first), then ``ask PRICE SIZE`` (lowest first).

    Plain decimals without exponent or trailing zeros, joined by newlines without a final one.
    """
    lines = [f"bid {p} {s}" for p, s in bids]
    lines += [f"ask {p} {s}" for p, s in asks]
    return sha256("\n".join(lines).encode()).hexdigest()
