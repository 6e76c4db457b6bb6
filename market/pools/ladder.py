"""A pool as an order book: executable depth at both sides, fee inside, in exact integers of one exponent each.

A taker who walks the first n levels of a side gets from the pool at least what the levels promise: sizes are rounded
down to whole lots and prices against the taker, and a curve's later slices are never better than its earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from market.decimals import EXPONENT_MIN, LONG_MAX
from market.pools.pool import DEFAULT_BPS, Pool, Segment

Columns = tuple[list[int], list[int], list[int], list[int]]
"""Bid prices, bid sizes, ask prices, ask sizes: best first, as in a BookEvent's SNAPSHOT."""

PriceOf = Callable[[int, int], int]

PRICE_DIGITS = 12
SIZE_DIGITS = 15


class Scale:
    """How a pool's amounts become a book's mantissas: price is quote for each base, size is base."""

    __slots__ = ("_price_den", "_price_num", "lot", "price_exp", "size_exp")

    def __init__(self, base_decimals: int, quote_decimals: int, price_exp: int, size_exp: int) -> None:
        self.price_exp = price_exp
        self.size_exp = size_exp
        self.lot = 10 ** max(0, base_decimals + size_exp)
        """Smallest units of base in one step of size."""
        power = base_decimals - quote_decimals - price_exp
        self._price_num, self._price_den = (10**power, 1) if power >= 0 else (1, 10**-power)

    def bid(self, base: int, quote: int) -> int:
        """The price of a slice, rounded down."""
        return quote * self._price_num // (base * self._price_den)

    def ask(self, base: int, quote: int) -> int:
        """The price of a slice, rounded up."""
        return -(-quote * self._price_num // (base * self._price_den))


def scale_of(pool: Pool, base: int, quote: int, base_decimals: int, quote_decimals: int) -> Scale | None:
    """Exponents that fit the pool as it is now: 12 digits of price, 15 of size; None for an empty pool.

    They leave room: a price may grow a million times before it needs another scale.
    """
    sold = pool.segments(base, quote, buy=False)
    if not sold:
        return None
    base_amount, quote_amount = (sum(part) for part in zip(*sold, strict=True))
    # log10 of the price in whole tokens, from the lengths of the integers: one digit of error costs nothing.
    price_log = len(str(quote_amount)) - quote_decimals - len(str(base_amount)) + base_decimals
    size_log = len(str(base_amount)) - base_decimals
    return Scale(
        base_decimals, quote_decimals, max(EXPONENT_MIN, min(0, price_log - PRICE_DIGITS)),
        max(-base_decimals, min(0, size_log - SIZE_DIGITS)),
    )  # fmt: skip


def ladder(pool: Pool, base: int, quote: int, scale: Scale, bps: Sequence[int] = DEFAULT_BPS) -> Columns:
    """The levels of both sides. Raises NotQuotable for pools that only the chain can quote."""
    bids = _levels(pool.segments(base, quote, buy=False, bps=bps), scale.lot, scale.bid, rising=False)
    floor = next(iter(bids), 0)
    asks = _levels(pool.segments(base, quote, buy=True, bps=bps), scale.lot, scale.ask, rising=True, above=floor)
    return list(bids), list(bids.values()), list(asks), list(asks.values())


def _levels(slices: list[Segment], lot: int, price_of: PriceOf, *, rising: bool, above: int = 0) -> dict[int, int]:
    out: dict[int, int] = {}
    last = 0
    for base, quote in slices:
        size = base // lot
        price = price_of(base, quote)
        if not size or price <= 0 or size > LONG_MAX or price > LONG_MAX:
            continue
        if last:
            # Roundings of tiny slices may not make a farther slice look better than a nearer one.
            price = max(price, last) if rising else min(price, last)
        if rising:
            price = max(price, above + 1)
        out[price] = min(LONG_MAX, out.get(price, 0) + size)
        last = price
    return out
