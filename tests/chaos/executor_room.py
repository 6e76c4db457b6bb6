"""One real executor, gate and gateway over a simulated venue: records are kept instead of written, time is the drill's own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from config.settings import Settings
from execution.account import Amounts
from execution.config import AccountConfig, ExecutorConfig
from execution.egress import Egress, EgressCaps, RateBudget
from execution.executor import Executor
from execution.gateway import Gateway
from execution.orders import order_id_of
from market.live_book import LiveBook
from market.terms import terms_of
from schemas.codec import codec
from simulator.trading_core import Listing, TradingCore
from tests.chaos.execution_drill import NATIVE, OWNER, SYMBOL, Drill, MemoryJournal
from tests.chaos.faulty_account import SECOND_NS, DrillClock, FaultyAccount
from tests.chaos.trading_floor import LIMITS
from tests.trading_world import START_NS, World, instrument

ACCOUNT, KEY = "sim:main", f"sim|{SYMBOL}"
NOWHERE = Settings(kafka={"bootstrap_servers": "127.0.0.1:1"})  # pyright: ignore[reportCallIssue, reportArgumentType]


class Room:
    """One executor with one account at a simulated venue; nothing of it needs Kafka but the records, which are kept."""

    def __init__(self, seed: int = 1, rate: float = 0, **priority: int) -> None:
        self.core = TradingCore({NATIVE: Listing(NATIVE, "BTC", "USDT")})
        for owner in (OWNER, "other"):
            for asset, amount in (("USDT", "10000000"), ("BTC", "100")):
                self.core.deposit(owner, asset, amount)
        self.clock = DrillClock()
        self.line = FaultyAccount(self.core, OWNER, NATIVE, SYMBOL, self.clock, random.Random(seed), rate)
        config = ExecutorConfig({ACCOUNT: AccountConfig("ccxt", 100_000_000)}, priority=priority)
        self.executor = e = Executor(NOWHERE, config, lambda text: None)
        e.clock, e.desk.clock = self.clock, self.clock.now_ns  # pyright: ignore[reportAttributeAccessIssue]
        self.told: list[tuple[str, dict[str, Any]]] = []
        e.send = self._keep  # pyright: ignore[reportAttributeAccessIssue]
        e.desk.send = self._keep
        world = World()
        e.desk.terms[KEY] = terms_of(instrument("sim", SYMBOL, lot_size="0.00001", min_size="0.00001"))
        live = e.desk.books[KEY] = LiveBook("sim", SYMBOL)
        live.take_status(codec("BookStatus").decode(world.status("sim", SYMBOL, "LIVE").value or b""))
        made = world.book("sim", SYMBOL, [(4_999_900, 1000)], [(5_000_100, 1000)])
        live.take(codec("BookEvent").decode(made.value or b""), 0, made.offset)
        risk = e.desk.risk
        risk.limits["global"], risk.accounts = LIMITS | {"max_book_age_ms": "600000"}, frozenset({ACCOUNT})
        risk.control["all"] = {"state": "RUN", "reason": "", "version": 1}
        e.desk.reconciled(ACCOUNT, {"USDT": Amounts(10_000_000, 10_000_000, 0), "BTC": Amounts(100, 100, 0)})
        e.gateways[ACCOUNT] = self.gateway = Gateway(
            self.line, MemoryJournal([], None), e.desk, self.clock, Egress(EgressCaps(10_000, 100_000_000)), e.whole_notional,
            RateBudget(100_000),
        )  # fmt: skip
        self.clock.ns = START_NS
        self.made = 0

    def _keep(self, topic: str, name: str, key: str, record: dict[str, Any]) -> None:
        self.told.append((topic, codec(name).decode(codec(name).encode(record))))

    def intent(self, strategy: str, side: str, price: int, tif: str, **more: Any) -> str:
        """Hand one over as if it had been read; gives its id."""
        self.made += 1
        _, record = Drill(self.made)._intent(0)
        record |= {
            "strategy": strategy, "side": side, "price": price, "time_in_force": tif, "mode": "LIVE", "size": 1000,
            "group_id": "", "created_ns": self.clock.ns, "valid_until_ns": self.clock.ns + SECOND_NS, **more,
        }  # fmt: skip
        self.executor.intent(codec("OrderIntent").encode(record), record)
        return record["id"]

    async def settle(self, seconds: float = 0.0) -> None:
        """Let all tasks run, the stream come in and a tick pass."""
        await self.clock.sleep(seconds)
        for _ in range(50):
            await asyncio.sleep(0)
        events, self.line.stream = self.line.stream, []
        for event in events:
            await self.gateway.heard(event)
        self.executor.way.look()
        for _ in range(50):
            await asyncio.sleep(0)

    def verdict(self, intent_id: str) -> dict[str, Any] | None:
        found = [r for t, r in self.told if t == "orders.risk" and r["intent_id"] == intent_id]
        assert len(found) <= 1, "one verdict for an intent"
        return found[0] if found else None

    def at_venue(self, intent_id: str) -> str:
        order = self.core.find(OWNER, NATIVE, order_id_of(intent_id))
        return order.status if order else ""

    def no_wash(self) -> bool:
        """Whether we never traded with ourselves, nor could trade now."""
        trades = [(e.trade_id, e.owner) for e in self.core.executions]
        resting = self.core.open_orders(OWNER)
        bids, asks = ([o.price for o in resting if o.side == side] for side in ("BUY", "SELL"))
        return len(set(trades)) == len(trades) and max(bids, default=0) < min(asks, default=10**9)


def run(play: Callable[[Room], Awaitable[None]], room: Room) -> None:
    """Open the account and play."""
    async def whole() -> None:
        await room.gateway.start()
        await play(room)

    asyncio.run(whole())
