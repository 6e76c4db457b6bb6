"""How orders of ours would fill against a mirrored book: taken liquidity is used up, resting orders wait in a queue.

The same model serves paper execution and backtests. It never makes us richer than the book allowed: what was taken
from a level stays taken until the level itself changes, and a resting order stands behind everything that was there.

Queue: an order joins behind the whole level. A trade at its price moves the queue by the trade's size; a level that
shrinks by more than the trades explain loses orders before and behind us in proportion (the uniform model of
hftbacktest's ProbQueueModel with f(x) = x); a trade or an opposite quote through the price fills the order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from market.book import BookSide, OrderBook

Side = Literal["BUY", "SELL"]


@dataclass(slots=True)
class Resting:
    """One resting order; price and sizes at the model's exponents."""

    order_id: str
    side: Side
    price: int
    remaining: int
    ahead: int
    """Size that trades before this order."""
    level: int
    """The level's size when it was last looked at."""


@dataclass(frozen=True, slots=True)
class ModelFill:
    """What the model filled, at its exponents as they are now."""

    order_id: str
    side: Side
    price: int
    size: int
    maker: bool


@dataclass(slots=True)
class _Taken:
    size: int
    level: int


@dataclass
class FillModel:
    """The orders of ours on one instrument. ``queue=False`` lets a resting order fill with the first trade at its price."""

    book: OrderBook
    queue: bool = True
    resting: dict[str, Resting] = field(default_factory=dict[str, Resting])
    _taken: dict[tuple[Side, int], _Taken] = field(default_factory=dict[tuple[Side, int], _Taken])
    _traded: dict[tuple[Side, int], int] = field(default_factory=dict[tuple[Side, int], int])
    """(side of the resting orders, price) → traded since the book last spoke of that level."""
    _exps: tuple[int, int] = (0, 0)

    def place(
        self, order_id: str, side: Side, price: int, size: int, time_in_force: str
    ) -> tuple[list[ModelFill], int, str]:
        """Let an order arrive. Prices and sizes at the book's exponents (see ``sync``).

        Gives (fills, size that rests, why the rest was refused or cancelled: empty when nothing was).
        """
        self.sync()
        available = self._crossing(side, price)
        reachable = sum(free for _, free in available)
        if time_in_force == "POST_ONLY" and available:
            return [], 0, "would have taken liquidity"
        if time_in_force == "FOK" and reachable < size:
            return [], 0, "could not be filled whole"
        fills: list[ModelFill] = []
        left = size
        for level_price, free in available:
            part = min(left, free)
            self._take(side, level_price, part)
            fills.append(ModelFill(order_id, side, level_price, part, maker=False))
            left -= part
            if not left:
                return fills, 0, ""
        if time_in_force in ("IOC", "FOK"):
            return fills, 0, "the rest was not filled at once"
        level = self._own_side(side).levels.get(price, 0)
        self.resting[order_id] = Resting(order_id, side, price, left, level if self.queue else 0, level)
        return fills, left, ""

    def cancel(self, order_id: str) -> int:
        """Take a resting order away; gives the size that was left, 0 when it does not rest."""
        order = self.resting.pop(order_id, None)
        return order.remaining if order else 0

    def on_trade(self, price: int, size: int, taker_side: str) -> list[ModelFill]:
        """A public trade, at the book's exponents. Trades of UNKNOWN side move nothing."""
        self.sync()
        if taker_side not in ("BUY", "SELL"):
            return []
        side: Side = "SELL" if taker_side == "BUY" else "BUY"
        self._traded[(side, price)] = self._traded.get((side, price), 0) + size
        fills: list[ModelFill] = []
        left = size
        for order in list(self.resting.values()):
            if order.side != side:
                continue
            if (price < order.price) if side == "BUY" else (price > order.price):
                fills.append(self._fill(order, order.remaining))
            elif price == order.price:
                order.ahead -= size
                if order.ahead < 0:
                    part = min(order.remaining, -order.ahead, left)
                    order.ahead = 0
                    if part > 0:
                        left -= part
                        fills.append(self._fill(order, part))
        return fills

    def on_book(self) -> list[ModelFill]:
        """The book changed: queues move by what was cancelled, and quotes through an order fill it."""
        self.sync()
        self._forget_taken()
        fills: list[ModelFill] = []
        for order in list(self.resting.values()):
            other = self._other_side(order.side).best()
            if other is not None and ((other[0] <= order.price) if order.side == "BUY" else (other[0] >= order.price)):
                fills.append(self._fill(order, order.remaining))
                continue
            level = self._own_side(order.side).levels.get(order.price, 0)
            shrunk = order.level - level - self._traded.get((order.side, order.price), 0)
            if shrunk > 0 and order.level > 0:
                order.ahead -= shrunk * order.ahead // order.level
            order.ahead = max(0, min(order.ahead, level))
            order.level = level
        self._traded.clear()
        return fills

    def sync(self) -> None:
        """Follow the book to finer exponents."""
        exps = (self.book.price_exp, self.book.size_exp)
        if exps == self._exps:
            return
        price, size = self._exps[0] - exps[0], self._exps[1] - exps[1]
        if self.resting and (price < 0 or size < 0):
            self.book.refine(*self._exps)  # a new snapshot came coarser: orders keep their digits
            return
        for order in self.resting.values():
            order.price *= 10**price
            order.remaining *= 10**size
            order.ahead *= 10**size
            order.level *= 10**size
        self._taken.clear()
        self._traded.clear()
        self._exps = exps

    def _own_side(self, side: Side) -> BookSide:
        return self.book.bids if side == "BUY" else self.book.asks

    def _other_side(self, side: Side) -> BookSide:
        return self.book.asks if side == "BUY" else self.book.bids

    def _crossing(self, side: Side, limit: int) -> list[tuple[int, int]]:
        """(price, size still free) of the levels that an order of this side and limit would take, best first."""
        other, out = self._other_side(side), list[tuple[int, int]]()
        for key in reversed(other.order):
            price = key * other.sign
            if (price > limit) if side == "BUY" else (price < limit):
                break
            free = other.levels[price]
            taken = self._taken.get((side, price))
            if taken is not None and taken.level == free:
                free -= taken.size
            if free > 0:
                out.append((price, free))
        return out

    def _take(self, side: Side, price: int, size: int) -> None:
        level = self._other_side(side).levels[price]
        taken = self._taken.get((side, price))
        if taken is None or taken.level != level:
            self._taken[(side, price)] = _Taken(size, level)
        else:
            taken.size += size

    def _forget_taken(self) -> None:
        """What was taken from a level is the mirror's again once the level says something new."""
        for (side, price), taken in list(self._taken.items()):
            if self._other_side(side).levels.get(price, 0) != taken.level:
                del self._taken[(side, price)]

    def _fill(self, order: Resting, size: int) -> ModelFill:
        order.remaining -= size
        if not order.remaining:
            self.resting.pop(order.order_id, None)
        return ModelFill(order.order_id, order.side, order.price, size, maker=True)
