"""Venues that share a price: near each other, never crossed, apart often enough; each book its own flow's."""

from __future__ import annotations

import itertools

from simulator.common_price import COMMON_PARTS, OWN_PARTS, PARTS, CommonPrice
from simulator.order_flow import OrderFlow

MID = 11_000


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000_000_000

    def __call__(self) -> int:
        return self.ms


def test_the_same_moment_is_the_same_price_everywhere_and_it_moves_without_jumps() -> None:
    clock = Clock()
    one, same = CommonPrice(7, "ETH", clock=clock), CommonPrice(7, "ETH", clock=clock)
    others = [CommonPrice(8, "ETH", clock=clock), CommonPrice(7, "BTC", clock=clock), CommonPrice(7, "ETH", 1, clock)]
    seen: list[int] = []
    for _ in range(3000):
        clock.ms += 10
        seen.append(one.parts())
        assert one.parts() == same.parts()
        assert abs(others[2].parts() - seen[-1]) <= OWN_PARTS
    assert all(abs(p - PARTS) <= COMMON_PARTS for p in seen) and max(seen) - min(seen) > COMMON_PARTS // 2
    assert max(abs(a - b) for a, b in itertools.pairwise(seen)) < COMMON_PARTS // 100
    assert all(other.parts() != one.parts() for other in others)


def test_books_stay_around_it_and_cross_each_others_only() -> None:
    clock = Clock()
    prices = [CommonPrice(7, "ETH", seed, clock) for seed in (1, 2)]
    flows = [OrderFlow(seed, MID, 50, lambda p=price: p.of(MID)) for seed, price in enumerate(prices)]
    books: list[tuple[dict[int, int], dict[int, int]]] = [(dict(f.bids), dict(f.asks)) for f in flows]
    apart = 0
    for _ in range(3000):
        clock.ms += 40
        for flow, price, (bids, asks) in zip(flows, prices, books, strict=True):
            step = flow.step()
            for held, changes in ((bids, step.bids), (asks, step.asks)):
                for level, size in changes:
                    if size:
                        held[level] = size
                    else:
                        held.pop(level, None)
            assert (bids, asks) == (flow.bids, flow.asks), "what is told is all that changed"
            assert max(bids) == flow.best_bid < flow.best_ask == min(asks)
            assert flow.best_bid - 2 <= price.of(MID) <= flow.best_ask + 2
            assert flow.best_ask - flow.best_bid <= 12
        apart += any(a.best_bid > b.best_ask * 10_005 // 10_000 for a, b in (flows, flows[::-1]))
    assert 300 < apart < 2700
