"""A matching engine with price-time priority: integers in, trades out. Pure; no I/O, no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["BUY", "SELL"]


@dataclass(slots=True)
class Resting:
    """One order in the book."""

    order_id: int
    owner: str
    side: Side
    price: int
    left: int


@dataclass(frozen=True, slots=True)
class Match:
    """One trade: the resting order's price counts."""

    maker: Resting
    price: int
    size: int


@dataclass
class MatchingEngine:
    """One instrument's book. Prices in ticks, sizes in lots."""

    bids: dict[int, deque[Resting]] = field(default_factory=dict)
    asks: dict[int, deque[Resting]] = field(default_factory=dict)
    resting: dict[int, Resting] = field(default_factory=dict)

    def crossing(self, side: Side, price: int) -> int:
        """How much an order of this side and limit would take at once."""
        levels = self.asks if side == "BUY" else self.bids
        reachable = (q for level, q in levels.items() if (level <= price if side == "BUY" else level >= price))
        return sum(order.left for queue in reachable for order in queue)

    def best(self, side: Side) -> int | None:
        """The best price of the book's side: highest bid for BUY, lowest ask for SELL."""
        levels = self.bids if side == "BUY" else self.asks
        if not levels:
            return None
        return max(levels) if side == "BUY" else min(levels)

    def match(self, owner: str, side: Side, price: int, size: int) -> tuple[list[Match], int]:
        """Trade against the book as far as the limit goes; gives (matches, what is left). Nothing rests yet."""
        levels = self.asks if side == "BUY" else self.bids
        other: Side = "SELL" if side == "BUY" else "BUY"
        out: list[Match] = []
        while size and (best := self.best(other)) is not None and (best <= price if side == "BUY" else best >= price):
            queue = levels[best]
            maker = queue[0]
            part = min(size, maker.left)
            maker.left -= part
            size -= part
            out.append(Match(maker, best, part))
            if not maker.left:
                queue.popleft()
                del self.resting[maker.order_id]
                if not queue:
                    del levels[best]
        return out, size

    def rest(self, order: Resting) -> None:
        """Join the queue at its price, behind all that is there."""
        levels = self.bids if order.side == "BUY" else self.asks
        levels.setdefault(order.price, deque()).append(order)
        self.resting[order.order_id] = order

    def cancel(self, order_id: int) -> int:
        """Take an order out; gives what was left of it, 0 when it does not rest."""
        order = self.resting.pop(order_id, None)
        if order is None:
            return 0
        levels = self.bids if order.side == "BUY" else self.asks
        queue = levels[order.price]
        queue.remove(order)
        if not queue:
            del levels[order.price]
        return order.left

    def level(self, side: Side, price: int) -> int:
        """The whole size at a price."""
        return sum(order.left for order in (self.bids if side == "BUY" else self.asks).get(price, ()))

    def depth(self, limit: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(bids, asks) as (price, size), best first."""
        bids = [(p, self.level("BUY", p)) for p in sorted(self.bids, reverse=True)[:limit]]
        return bids, [(p, self.level("SELL", p)) for p in sorted(self.asks)[:limit]]
