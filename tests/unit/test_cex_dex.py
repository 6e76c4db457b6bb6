"""A pool against an exchange's book: sizes against the closed form and brute force, and when nothing may be traded."""

from __future__ import annotations

import random
from math import isqrt
from typing import Any

import pytest

from market.fees import rate_from_bps
from market.live_book import LiveBook
from market.pools.pool import Pool
from market.pools.uniswap_v2 import UniswapV2Pool
from market.pools.uniswap_v3 import UniswapV3Pool
from schemas.codec import codec
from schemas.topics import INTENT, OPPORTUNITY
from strategies.cex_dex import Pair, PoolParameters
from strategies.loop import StrategyLoop
from strategies.registry import config_of
from tests.pool_world import BASE, QUOTE, PoolWorld
from tests.trading_world import World

Q96 = 1 << 96
ONE = PoolParameters("c", "0x1", "uni|ETH/USDT", "a|ETH/USDT", BASE, 18, 6)


def book(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> LiveBook:
    live = LiveBook("a", "ETH/USDT")
    live.book.apply([p for p, _ in bids], [s for _, s in bids], [p for p, _ in asks], [s for _, s in asks], -2, -3, replace=True)
    return live


def test_the_published_example_of_a_pool_against_a_price() -> None:
    """x = 2,000,000, y = 1000, g = 0.997, outside 2050 less 10 bps: 20857.539953 in, 10.290488481 out."""
    pool = UniswapV2Pool(BASE, QUOTE, 1000 * 10**18, 2_000_000 * 10**6)
    pair = Pair(ONE, pool, book([(205_000, 10**9)], [(205_100, 1)]), rate_from_bps("10"), 0, "BUY", 50)
    best = pair.optimum()
    assert abs(best - 10_290488481 * 10**9) <= 10**9, "a unit of the quote's six decimals"
    trade = pair.trade(best)
    assert trade is not None and trade.pool_quote // 10 == 20857_53995


def v3(rnd: random.Random, base0: bool) -> UniswapV3Pool:
    """A pool with overlapping ranges around 3000 quote for one base."""
    tokens = (BASE, QUOTE) if base0 else (QUOTE, BASE)
    price = (isqrt(3000 * 10**6 * Q96 * Q96 // 10**18)) if base0 else isqrt(10**18 * Q96 * Q96 // (3000 * 10**6))
    from market.pools.tick_math import tick_at_sqrt_ratio

    tick = tick_at_sqrt_ratio(price)
    centre = tick // 60 * 60
    net: dict[int, int] = {}
    gross: dict[int, int] = {}
    active = 0
    for width in (1, 2, 5, 40):
        amount = rnd.randint(10**15, 3 * 10**16)
        low, high = centre - 60 * width, centre + 60 * (width + 1)
        active += amount
        for t, sign in ((low, 1), (high, -1)):
            net[t] = net.get(t, 0) + sign * amount
            gross[t] = gross.get(t, 0) + amount
    return UniswapV3Pool(*tokens, 3000, 60, price, tick, active, [(t, gross[t], net[t]) for t in net])


@pytest.mark.parametrize("kind", ["v2", "v3", "v3-turned", "other"])
@pytest.mark.parametrize("seed", range(25))
def test_no_other_size_earns_more(kind: str, seed: int) -> None:
    rnd = random.Random(seed)
    depth = rnd.randint(100, 5000)
    plain = UniswapV2Pool(BASE, QUOTE, depth * 10**18, depth * rnd.randint(2950, 3050) * 10**6)
    pool: Pool = plain if kind == "v2" else Unnamed(plain) if kind == "other" else v3(rnd, kind == "v3")
    side = rnd.choice(("BUY", "SELL"))
    price = 300_000 + rnd.randint(1, 9000) * (1 if side == "BUY" else -1)
    levels = [(price + (-1 if side == "BUY" else 1) * 150 * n, rnd.randint(1, 4000)) for n in range(8)]
    live = book(levels, [(400_000, 1)]) if side == "BUY" else book([(200_000, 1)], levels)
    pair = Pair(ONE, pool, live, rate_from_bps("5"), rate_from_bps("1"), side, 50)
    best = pair.optimum()
    held = pair.trade(best).profit if best else 0  # pyright: ignore[reportOptionalMemberAccess]
    everything = sum(size for _, size in pair.levels)
    near = [best + rnd.randint(-(10**15), 10**15) for _ in range(100)]
    # 64 halvings of a curve that is only asked for amounts find it to a share of the book.
    allowed = 5 if kind != "other" else 5 + held // 1000
    for size in [rnd.randint(1, everything) for _ in range(200)] + near:
        other = pair.trade(size) if 0 < size <= everything else None
        assert other is None or other.profit <= held + allowed, (size, best)


class Unnamed(Pool):
    """A curve of which nothing but amounts is known."""

    family = "unnamed"

    def __init__(self, inner: UniswapV2Pool) -> None:
        self.inner, self.tokens = inner, inner.tokens

    @classmethod
    def from_state(cls, state: Any) -> Any:
        raise NotImplementedError

    def to_state(self) -> dict[str, Any]:
        return {}

    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        return self.inner.amount_out(i, j, amount_in)

    def amount_in(self, i: int, j: int, amount_out: int) -> int:
        return self.inner.amount_in(i, j, amount_out)

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        return self.inner.marginal(i, j)


class Desk:
    """A pool at 3000, an exchange whose book is moved by the test, and the strategy."""

    def __init__(self, **parameters: Any) -> None:
        self.world = World()
        self.pool = PoolWorld(self.world, random.Random(1))
        self.world.list("a", "ETH/USDT")
        held = {v: {"USDT": "1000000", "ETH": "100"} for v in ("a", "uni")}
        self.loop = StrategyLoop(config_of({
            "kind": "cex_dex", "name": "t", "inventory": held, "accounts": {"uni": "testchain:sandbox"},
            "parameters": {
                "pools": [self.pool.parameters("a|ETH/USDT")], "max_notional": "50000", "cooldown_ms": 0, **parameters,
            },
        }), "PAPER")  # fmt: skip
        self.done = 0
        self.old: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])

    def book(self, mid: int) -> list[dict[str, Any]]:
        """The exchange's book moves to this mid (in hundredths); gives the intents that follow."""
        bids, asks = [(mid - 100 - n, 9000) for n in range(3)], [(mid + 100 + n, 9000) for n in range(3)]
        gone = [[(p, 0) for p, _ in was if p not in dict(now)] for was, now in zip(self.old, (bids, asks), strict=True)]
        self.old = bids, asks
        self.world.book("a", "ETH/USDT", [*gone[0], *bids], [*gone[1], *asks])
        return self.feed()

    def feed(self) -> list[dict[str, Any]]:
        batch, self.done = self.world.log[self.done :], len(self.world.log)
        self.out = self.loop.feed(batch)
        return [codec("OrderIntent").decode(o.value) for o in self.out if o.topic == INTENT.name]


def test_the_chain_leg_goes_first_and_the_exchange_is_its_hedge() -> None:
    desk = Desk()
    assert desk.book(300_000) == []
    swap, hedge = desk.book(306_000)
    assert (swap["venue"], swap["side"], swap["account"], swap["time_in_force"]) == ("uni", "BUY", "testchain:sandbox", "FOK")
    assert (hedge["venue"], hedge["side"], hedge["account"], hedge["leg"]) == ("a", "SELL", "a:paper", 1)
    assert swap["leg_mode"] == hedge["leg_mode"] == "HEDGE_OF" and swap["group_id"] == hedge["group_id"] != ""
    told = next(codec("Opportunity").decode(o.value) for o in desk.out if o.topic == OPPORTUNITY.name)
    assert told["edge"] > 0 and "gas" in told["reason"]
    # The limit is the swap's own price with the slippage: the router reverts beyond it, and never before.
    size = swap["size"] * 10 ** (18 + swap["size_exp"])
    paid = desk.pool.pool.amount_in(1, 0, size)
    bound = swap["price"] * size * 10 ** (swap["price_exp"] + 6) // 10**18 if swap["price_exp"] + 6 >= 0 else (
        swap["price"] * size // 10 ** (18 - 6 - swap["price_exp"])
    )  # fmt: skip
    assert paid <= bound <= paid * 10_011 // 10_000


def test_the_other_way_round() -> None:
    swap, hedge = Desk().book(294_000)
    assert (swap["side"], hedge["side"]) == ("SELL", "BUY")


def test_gas_decides() -> None:
    assert Desk(gas_units=50_000_000_000).book(306_000) == []
    assert Desk(max_fee_wei=10**9).book(306_000) == [], "a fee above the cap"


@pytest.mark.parametrize("trouble", ["stale", "retracted", "gap", "old head", "unsettled", "gone"])
def test_nothing_on_a_pool_that_is_not_canonical(trouble: str) -> None:
    desk = Desk(settled_blocks=2 if trouble == "unsettled" else 0)
    desk.book(300_000)
    desk.pool.swap(10**15, buy=True)
    if trouble == "stale":
        desk.world.status("uni", "ETH/USDT", "STALE")
    elif trouble == "retracted":
        desk.pool.retract()
    elif trouble == "gap":
        desk.pool.index += 1
        desk.pool.tell("DELTA")
        desk.pool.block("COMPLETE")
    elif trouble == "old head":
        desk.world.now_ns += 20_000_000_000
    elif trouble == "gone":
        desk.pool.tell("RETRACT", {}, event="Created")
        desk.pool.block("COMPLETE")
    assert desk.book(306_000) == []
    if trouble in ("retracted", "unsettled", "old head"):
        for _ in range(3):
            desk.pool.number += 1
            desk.pool.block("COMPLETE")
        assert len(desk.book(306_500)) == 2, "the new branch is as good as the old one"


def test_inventory_on_both_sides_caps_the_size() -> None:
    desk = Desk()
    desk.loop.view.balances[("a", "ETH")] = (5, -1)
    swap, _ = desk.book(306_000)
    assert swap["size"] * 10 ** (18 + swap["size_exp"]) <= 5 * 10**17
    poor = Desk()
    poor.loop.view.balances[("uni", "USDT")] = (1000, 0)
    swap, _ = poor.book(306_000)
    assert swap["size"] * 10 ** (18 + swap["size_exp"]) < 10**18 // 3
    none = Desk()
    none.loop.view.balances = {}
    assert none.book(306_000) == []
