"""The order book: exact integers, best prices tracked, sorted without walking it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import sha256

from market.decimals import format_decimal


class BookSide:
    """One side: price mantissa → size mantissa, and the prices sorted with the best one last.

    ``levels`` is the truth. ``order`` holds sorted sort-keys: the price for bids, its negative for asks, so that the
    busy end of the list is its tail and an insertion moves few elements.
    """

    __slots__ = ("levels", "order", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        """+1 for bids (best is highest), -1 for asks (best is lowest)."""
        self.levels: dict[int, int] = {}
        self.order: list[int] = []

    def set(self, price: int, size: int) -> None:
        """Set a level's absolute size; 0 deletes it. Deleting a level that is not held is normal and does nothing."""
        levels = self.levels
        if size:
            if price not in levels:
                order = self.order
                key = price * self.sign
                if not order or key > order[-1]:
                    order.append(key)
                else:
                    order.insert(bisect_left(order, key), key)
            levels[price] = size
        elif levels.pop(price, None) is not None:
            order = self.order
            key = price * self.sign
            if order[-1] == key:
                order.pop()
            else:
                del order[bisect_left(order, key)]

    def update(self, prices: Sequence[int], sizes: Sequence[int]) -> None:
        """Set many levels, in order; the hot path of every book. Sizes are absolute, 0 deletes."""
        levels, order, sign = self.levels, self.order, self.sign
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
        sign = self.sign
        self.order = sorted(p * sign for p in self.levels)

    def best(self) -> tuple[int, int] | None:
        """(price, size) of the best level, or None when the side is empty."""
        if not self.order:
            return None
        price = self.order[-1] * self.sign
        return price, self.levels[price]

    def top(self, n: int | None = None) -> list[tuple[int, int]]:
        """The best ``n`` levels as (price, size), best first; all of them with None."""
        sign, levels = self.sign, self.levels
        keys = self.order[::-1] if n is None else self.order[: -n - 1 : -1] if n > 0 else []
        return [(k * sign, levels[k * sign]) for k in keys]

    def columns(self) -> tuple[list[int], list[int]]:
        """All levels as (prices, sizes), best first: the level arrays of a SNAPSHOT or KEYFRAME."""
        sign, levels = self.sign, self.levels
        prices = [k * sign for k in reversed(self.order)]
        return prices, [levels[p] for p in prices]

    def cut(self, depth: int) -> int:
        """Keep the best ``depth`` levels (venues that send no delete for what falls out); gives how many fell."""
        fallen = len(self.order) - depth
        if fallen <= 0:
            return 0
        for key in self.order[:fallen]:
            del self.levels[key * self.sign]
        del self.order[:fallen]
        return fallen

    def multiply(self, price_factor: int, size_factor: int) -> None:
        """Rescale every level to a finer exponent."""
        self.levels = {p * price_factor: s * size_factor for p, s in self.levels.items()}
        self.order = [k * price_factor for k in self.order]

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
        bids, asks = self.bids.order, self.asks.order
        return bool(bids) and bool(asks) and bids[-1] >= -asks[-1]

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
