"""What every strategy must hold to, over a generated market with trades, funding, fills, halts and lost books."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from bus.log_reader import LogRecord
from schemas.codec import codec
from schemas.topics import FILL, INTENT, OPPORTUNITY, ORDER
from strategies.loop import Output, StrategyLoop
from strategies.recovery import fold_books, positions_of, restored, snapshot
from strategies.registry import KINDS, config_of
from tests.pool_world import ADDRESS, BASE, CHAIN, PoolWorld
from tests.trading_world import World

INVENTORY = {v: {"USDT": "1000000", "BTC": "10", "ETH": "100"} for v in ("a", "b", "uni")}
POOL = {
    "chain": CHAIN, "address": ADDRESS, "pool": "uni|ETH/USDT", "cex": "a|ETH/USDT", "base_token": BASE, "base_decimals": 18,
    "quote_decimals": 6,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "cross_venue": {"max_notional": "50000", "haircut_bps": "0", "cooldown_ms": 5},
    "cex_dex": {"pools": [POOL], "max_notional": "50000", "cooldown_ms": 5, "haircut_bps": "0"},
    "cyclic": {"max_input": "50000", "haircut_bps": "0", "cooldown_ms": 5},
    "funding_carry": {"notional": "5000"},
    "market_making": {
        "venues": ["a"], "symbols": ["BTC/USDT"], "size": "0.05", "max_inventory": "0.2", "gamma": "0.1",
        "a": "1", "k": "0.5", "sigma": "1", "min_requote_ms": 5,
    },
    "market_making amending": {
        "venues": ["a"], "symbols": ["BTC/USDT"], "size": "0.05", "max_inventory": "0.2", "gamma": "0.1",
        "a": "1", "k": "0.5", "sigma": "1", "min_requote_ms": 5, "amend": True,
    },
    "cross_exchange_mm": {
        "symbols": ["BTC/USDT"], "maker": "a", "hedge": "b", "size": "0.05", "margin_bps": "-15", "min_requote_ms": 5,
    },
}  # fmt: skip


def config(kind: str) -> Any:
    own = {"kind": kind.partition(" ")[0], "name": f"test-{kind}"}
    return config_of(own | {"inventory": INVENTORY, "parameters": CONFIGS[kind]})


class Market(World):
    """A market over two venues whose mids wander apart, and a gateway that fills what is sent, in full or in part."""

    def __init__(self, seed: int) -> None:
        super().__init__(step_ns=3_000_000)
        self.rnd = random.Random(seed)
        self.mids = {"BTC/USDT": 5_000_000, "ETH/USDT": 300_000, "BTC/USDT:USDT": 5_000_000}
        self.asks: dict[tuple[str, str], tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {}
        self.trades = 0
        for venue in ("a", "b"):
            for symbol in (*self.mids, "ETH/BTC"):
                more = {"tick_size": "0.00001", "min_notional": "0.0001"} if symbol == "ETH/BTC" else {}
                self.list(venue, symbol, **more)

    def step(self) -> None:
        rnd, venue = self.rnd, self.rnd.choice("ab")
        symbol = rnd.choice((*self.mids, "ETH/BTC"))
        roll = rnd.random()
        if roll < 0.02:
            self.status(venue, symbol, rnd.choice(("GAP", "STALE", "HALTED")))
            return
        if roll < 0.1:
            self.status(venue, symbol, "LIVE")
            return
        if roll < 0.12:
            self.funding("a", "BTC/USDT:USDT", rnd.randint(-5, 40), -4, 8 * 3600 * 1_000_000)
        if symbol in self.mids:
            self.mids[symbol] += rnd.randint(-3000, 3000) if symbol.startswith("BTC") else rnd.randint(-200, 200)
            mid = self.mids[symbol] + rnd.randint(-6000, 6000) * (1 if symbol.startswith("BTC") else 0)
            tick, exp = 100, -2
        else:
            mid, tick, exp = 6000 + rnd.randint(-40, 40), 1, -5
        levels = 6
        bids = [(mid - tick * (i + 1), rnd.randint(1, 3000)) for i in range(levels)]
        asks = [(mid + tick * (i + 1), rnd.randint(1, 3000)) for i in range(levels)]
        old = self.asks.get((venue, symbol), ([], []))
        gone = [(p, 0) for p, _ in old[0] if p not in dict(bids)], [(p, 0) for p, _ in old[1] if p not in dict(asks)]
        self.asks[(venue, symbol)] = (bids, asks)
        self.book(venue, symbol, [*gone[0], *bids], [*gone[1], *asks], price_exp=exp)
        if rnd.random() < 0.05:
            self.book(venue, symbol, bids, asks, kind="KEYFRAME", price_exp=exp)
        if roll > 0.7 and symbol in self.mids:
            self.trades += 1
            price = rnd.choice((bids, asks))[0][0]
            self.trade(venue, symbol, price, rnd.randint(1, 500), rnd.choice(("BUY", "SELL")), self.trades)

    def answer(self, out: list[Output]) -> None:
        """What a gateway would say to these intents."""
        for output in out:
            if output.topic != INTENT.name:
                continue
            intent = codec("OrderIntent").decode(output.value)
            common = {k: intent[k] for k in ("account", "venue", "symbol", "side", "strategy", "group_id")}
            target = intent["target_id"] or intent["id"]
            common |= {"order_id": target, "intent_id": target, "ts_ns": self.now_ns, "size_exp": intent["size_exp"]}
            common |= {"price": intent["price"], "price_exp": intent["price_exp"]}
            if intent["action"] == "PLACE" and self.rnd.random() < 0.6:
                self.trades += 1
                fill = {
                    "trade_id": str(self.trades), "size": max(1, intent["size"] // self.rnd.randint(1, 3)), "fee": 0,
                    "fee_exp": -8, "fee_asset": "USDT", "maker": False, "source": "PAPER", "ts_venue_us": 0,
                }
                self.record(FILL.name, common | fill)
            if intent["amend"]:
                over = {"state": "CANCELED", "previous": "OPEN", "cause": "", "venue_order_id": "1", "size": 1, "filled": 0}
                self.record(ORDER.name, common | over)
                less = {"size": max(1, intent["size"] // self.rnd.randint(1, 2)), "state": "PREPARED", "previous": "NEW"}
                own = {"order_id": intent["id"], "intent_id": intent["id"]}
                self.record(ORDER.name, common | over | less | own)
            elif intent["time_in_force"] != "POST_ONLY":
                over = {"state": "CANCELED", "previous": "OPEN", "cause": "", "venue_order_id": "1", "size": 1, "filled": 0}
                self.record(ORDER.name, common | over)


class ChainMarket(Market):
    """The same with a pool beside it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.pool = PoolWorld(self, self.rnd)

    def step(self) -> None:
        if self.rnd.random() < 0.3:
            self.now_ns += self.step_ns
            self.pool.step()
        else:
            super().step()


def market_for(kind: str, seed: int) -> Market:
    """What a strategy of this kind looks at."""
    return ChainMarket(seed) if kind == "cex_dex" else Market(seed)


def run(kind: str, seed: int, steps: int = 1500) -> tuple[Market, StrategyLoop, list[list[Output]], list[list[LogRecord]]]:
    """Play a market against a strategy; gives what was fed and what came out, batch by batch."""
    market, loop = market_for(kind, seed), StrategyLoop(config(kind), "PAPER")
    fed: list[list[LogRecord]] = []
    outs: list[list[Output]] = []
    done = 0
    for _ in range(steps):
        market.step()
        if market.rnd.random() < 0.3:
            continue  # several records in a batch
        batch = market.log[done:]
        done = len(market.log)
        fed.append(batch)
        outs.append(loop.feed(batch))
        market.answer(outs[-1])
    return market, loop, outs, fed


def flat(outs: list[list[Output]]) -> list[Output]:
    return [o for out in outs for o in out]


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_strategy_trades_in_this_market_and_only_on_live_books(kind: str) -> None:
    _, loop, outs, _ = run(kind, seed=1)
    intents = [codec("OrderIntent").decode(o.value) for o in flat(outs) if o.topic == INTENT.name]
    assert intents, "the laws below would hold of nothing"
    assert set(CONFIGS) >= set(KINDS)
    assert any(i["amend"] for i in intents) == kind.endswith(" amending")
    assert loop.counts.not_live == loop.counts.not_tradable == loop.counts.unreadable == 0
    for intent in intents:
        if intent["action"] == "PLACE":
            assert set(intent["input_states"]) == {"LIVE"}
            assert f"{intent['venue']}|{intent['symbol']}" in intent["input_keys"]
        assert intent["valid_until_ns"] > intent["created_ns"]
        assert intent["account"].endswith(":paper")
    ids = [i["id"] for i in intents]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_the_same_log_gives_the_same_bytes(kind: str) -> None:
    _, _, outs, fed = run(kind, seed=2)
    again = StrategyLoop(config(kind), "PAPER")
    assert [again.feed(batch) for batch in fed] == outs


class LogInMemory:
    """The part of a playback that folding books needs, over a world's own log."""

    def __init__(self, log: list[LogRecord]) -> None:
        self._log = log

    def take(self, topic: str, partition: int, start: int, end: int) -> list[LogRecord]:
        return [r for r in self._log if r.topic == topic and start <= r.offset < end]


@pytest.mark.parametrize("kind", sorted(CONFIGS))
@pytest.mark.parametrize("seed", range(3))
def test_a_restart_in_mid_stream_gives_the_same_intents(kind: str, seed: int) -> None:
    market, _, outs, fed = run(kind, seed=10 + seed)
    cut = random.Random(seed).randint(len(fed) // 4, 3 * len(fed) // 4)
    first = StrategyLoop(config(kind), "PAPER")
    positions: dict[tuple[str, int], int] = {}
    for batch in fed[:cut]:
        first.feed(batch)
        positions |= {(r.topic, r.partition): r.offset + 1 for r in batch}
    state = codec("StrategyState").decode(snapshot(first, 1, positions, 0))
    second = restored(state)
    assert fold_books(second, LogInMemory(market.log), positions_of(state)) == []  # pyright: ignore
    for key, book in first.view.books.items():
        assert second.view.books[key].book.digest() == book.book.digest()
    assert [second.feed(batch) for batch in fed[cut:]] == outs[cut:]


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_work_for_one_event_is_bounded(kind: str) -> None:
    """A book of 20,000 levels costs a decision no more than a small one: nothing walks a whole book."""
    def cost(levels: int) -> float:
        market = market_for(kind, 5)
        for _ in range(300):
            market.step()
        for venue in "ab":
            for symbol, exp, mid in (("BTC/USDT", -2, 5_000_000), ("ETH/BTC", -5, 30_000), ("ETH/USDT", -2, 3_000_000)):
                bids = [(mid - 10_000 - i, 5) for i in range(min(levels, mid - 10_001))]
                market.book(venue, symbol, bids, [(mid + 10_000 + i, 5) for i in range(levels)], price_exp=exp)
        loop = StrategyLoop(config(kind), "PAPER")
        loop.feed(market.log)
        best = 1.0
        for _ in range(5):
            start = len(market.log)
            for _ in range(60):
                market.step()
            began = time.perf_counter()
            for record in market.log[start:]:
                loop.feed([record])
            best = min(best, time.perf_counter() - began)
        return best

    assert cost(20_000) < 5 * cost(20) + 0.01


def test_garbage_is_counted_and_never_stops_the_rest() -> None:
    market, loop, _, _ = run("cross_venue", seed=1, steps=50)
    before = loop.counts.unreadable
    good = market.book("a", "ETH/USDT", [(1, 1)], [(2_000_000, 1)])
    loop.feed([good._replace(value=b"\x00garbage", offset=10**6), good])
    assert loop.counts.unreadable == before + 1
    assert "market.book@1000000" in loop.counts.first_error
    assert loop.view.books["a|ETH/USDT"].offset == good.offset


def test_shadow_writes_its_own_topic() -> None:
    market = Market(1)
    for _ in range(1500):
        market.step()
    loop = StrategyLoop(config("cross_venue"), "SHADOW")
    topics = {o.topic for o in loop.feed([]) + [o for r in market.log for o in loop.feed([r])]}
    assert topics == {OPPORTUNITY.name, "orders.shadow"}


def test_a_changed_version_changes_every_id() -> None:
    _, _, outs, fed = run("cross_venue", seed=2)

    class Newer(KINDS["cross_venue"]):
        version = "2"

    loop = StrategyLoop(config("cross_venue"), "PAPER", Newer)
    theirs = {codec("OrderIntent").decode(o.value)["id"] for o in flat(outs) if o.topic == INTENT.name}
    ours = [codec("OrderIntent").decode(o.value)["id"] for b in fed for o in loop.feed(b) if o.topic == INTENT.name]
    assert ours
    assert not theirs & set(ours)
