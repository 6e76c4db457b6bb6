"""Generated order flow of one instrument: a drifting market in ticks and lots, with what real streams also contain."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

Changes = list[tuple[int, int]]
"""(price in ticks, absolute size in lots); size 0 deletes."""

UNKNOWN_DELETES = 0.1
"""Share of deletes for levels that the book does not hold: real streams have 18 to 32 % of them."""


@dataclass
class Step:
    """What one moment of the flow changed."""

    bids: Changes = field(default_factory=list[tuple[int, int]])
    asks: Changes = field(default_factory=list[tuple[int, int]])
    trade: tuple[int, int, bool] | None = None
    """(price, size, buyer is maker)."""


class OrderFlow:
    """A book of integers that walks. Deterministic for a seed; never crossed, never empty on a side.

    With ``fair`` it stays around the price, in ticks, that this gives at each step: deterministic for the seed and it.
    """

    def __init__(self, seed: int, mid: int, levels: int, fair: Callable[[], int] | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._fair = fair
        self.levels = levels
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.best_bid, self.best_ask = mid - 1, mid + 1
        for i in range(levels):
            self.bids[self.best_bid - i * self._random.randint(1, 2)] = self._size()
            self.asks[self.best_ask + i * self._random.randint(1, 2)] = self._size()

    def _size(self) -> int:
        return self._random.randint(1, 10 ** self._random.randint(1, 5))

    def step(self) -> Step:
        """One event: some levels change near the touch, sometimes a trade takes the touch away."""
        rnd, out = self._random, Step()
        if self._fair is not None:
            self._follow(out, max(2, self._fair()))
        if rnd.random() < 0.25:
            self._trade(out, buyer_is_maker=rnd.random() < 0.5)
        for _ in range(rnd.randint(1, 4)):
            bid = rnd.random() < 0.5
            book, changes = (self.bids, out.bids) if bid else (self.asks, out.asks)
            sign, best = (-1, self.best_bid) if bid else (1, self.best_ask)
            away = int(rnd.expovariate(1 / max(2, self.levels // 8)))
            price = best + sign * away
            if away == 0 and rnd.random() < 0.5 and self.best_ask - self.best_bid > 1:
                price = best - sign  # improve the touch, never onto the other side
            if price < 1:
                continue
            if price in book and len(book) > 5 and rnd.random() < 0.45:
                del book[price]
                changes.append((price, 0))
            elif rnd.random() < UNKNOWN_DELETES and price not in book:
                changes.append((price, 0))
            else:
                book[price] = self._size()
                changes.append((price, book[price]))
            self._touch()
        self._trim(out)
        return out

    def _follow(self, out: Step, fair: int) -> None:
        """What would trade at a loss is taken back, and somebody quotes one tick beside the price."""
        for book, changes, sign in ((self.bids, out.bids, -1), (self.asks, out.asks, 1)):
            if fair + sign not in book:
                book[fair + sign] = self._size()
                changes.append((fair + sign, book[fair + sign]))
            for price in [p for p in book if (p - fair) * sign <= 0]:
                del book[price]
                changes.append((price, 0))
        self.best_bid, self.best_ask = max(self.bids), min(self.asks)

    def _trade(self, out: Step, *, buyer_is_maker: bool) -> None:
        book, changes, price = (
            (self.bids, out.bids, self.best_bid) if buyer_is_maker else (self.asks, out.asks, self.best_ask)
        )
        have = book[price]
        size = have if self._random.random() < 0.3 and len(book) > 5 else self._random.randint(1, have)
        out.trade = (price, size, buyer_is_maker)
        if size == have and len(book) > 5:
            del book[price]
        else:
            book[price] = max(1, have - size)
        changes.append((price, book.get(price, 0)))
        self._touch()

    def _touch(self) -> None:
        if self.best_bid not in self.bids or self.best_bid + 1 in self.bids:
            self.best_bid = max(self.bids)
        if self.best_ask not in self.asks or self.best_ask - 1 in self.asks:
            self.best_ask = min(self.asks)

    def _trim(self, out: Step) -> None:
        """Keep about as many levels as at the start: the farthest ones are cancelled, new ones join far away."""
        if len(self.bids) > 2 * self.levels:
            price = min(self.bids)
            del self.bids[price]
            out.bids.append((price, 0))
        if len(self.asks) > 2 * self.levels:
            price = max(self.asks)
            del self.asks[price]
            out.asks.append((price, 0))
        if len(self.bids) < self.levels // 2 and min(self.bids) > 1:
            price = min(self.bids) - 1
            self.bids[price] = self._size()
            out.bids.append((price, self.bids[price]))
        if len(self.asks) < self.levels // 2:
            price = max(self.asks) + 1
            self.asks[price] = self._size()
            out.asks.append((price, self.asks[price]))
