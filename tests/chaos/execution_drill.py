"""Orders under fire: seeded faults of the venue's line × kill -9 between any two steps, and what must hold afterwards.

``python -m tests.chaos.execution_drill --runs 5000`` prints its table. One run places, cancels, amends, lets others trade, kills
the gateway at a random step up to three times, restarts it from its journal, kills the switch at the end, and then holds
the venue's own record against the gateway's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
from collections import Counter
from decimal import Decimal
from typing import Any

from execution.egress import Egress, EgressCaps, RateBudget
from execution.errors import Fenced
from execution.gateway import Gateway
from execution.journal import BLANK, Journal
from execution.orders import Order, amends, order_id_of
from schemas.codec import codec
from simulator.trading_core import Listing, TradingCore, TradingError
from tests.chaos.faulty_account import SECOND_NS, STATES, DrillClock, FaultyAccount, Killed

OWNER, NATIVE, SYMBOL = "us", "BTCUSDT", "BTC/USDT"
INVARIANTS = (
    "one venue order an intent", "positions equal the venue's", "every fill counted once", "nothing after the kill",
    "nothing past its validity", "unknown keeps its exposure", "no open order after the kill, or an alarm",
    "no final state left", "quantity sent within the intent", "every order has its lineage", "a fenced gateway is silent",
    "an amend is never beside its old order", "an amend within its size in total",
)  # fmt: skip


class MemoryJournal(Journal):
    """The journal's records in memory: durable across gateways, as the log is."""

    def __init__(self, log: list[dict[str, Any]], step: Any) -> None:
        self.log, self.step, self.seq = log, step, 0

    async def load(self) -> list[dict[str, Any]]:
        return list(self.log)

    async def append(self, record: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.seq += 1
        full = BLANK | record | {"account": "sim:main", "writer": self.writer, "seq": self.seq}
        self.log.append(codec("JournalRecord").decode(codec("JournalRecord").encode(full)))
        if any(r["writer"] > self.writer for r in self.log[-50:]):
            raise Fenced("a newer gateway has taken over")


class News:
    """What the gateway published, over all its lives."""

    def __init__(self) -> None:
        self.fills: dict[tuple[str, str], dict[str, Any]] = {}
        self.told = 0
        self.states: list[tuple[str, str, str]] = []
        self.alarms: list[str] = []

    def order(self, order: Order, previous: str, now_ns: int) -> None:
        self.states.append((order.order_id, previous, order.state))

    def fill(self, fill: dict[str, Any]) -> None:
        self.told += 1
        self.fills[(fill["trade_id"], fill["order_id"])] = fill

    def alarm(self, text: str) -> None:
        self.alarms.append(text)


class Drill:
    """One run."""

    def __init__(self, seed: int, rate: float = 0.35, kills: int = 3) -> None:
        self.rnd = random.Random(seed)
        self.rate, self.kills = rate, kills
        self.clock = DrillClock()
        self.core = TradingCore({NATIVE: Listing(NATIVE, "BTC", "USDT")})
        for owner, assets in ((OWNER, {"USDT": "50000", "BTC": "1"}), ("other", {"USDT": "10000000", "BTC": "1000"})):
            for asset, amount in assets.items():
                self.core.deposit(owner, asset, amount)
        self.news = News()
        self.log: list[dict[str, Any]] = []
        self.intents: list[tuple[bytes, dict[str, Any]]] = []
        self.steps_left = -1
        self.steps: Counter[str] = Counter()
        self.killed_at: list[str] = []
        self.faults: Counter[str] = Counter()
        self.violations: list[str] = []
        self.account: FaultyAccount = self._line()
        self.sent: list[tuple[str, int]] = []
        self.kill_ns = 0
        self.amended = 0
        """Amends whose new order reached the venue."""
        self.old: Gateway | None = None

    def _line(self) -> FaultyAccount:
        made = FaultyAccount(self.core, OWNER, NATIVE, SYMBOL, self.clock, self.rnd, self.rate)
        made.taking = self._taking
        return made

    def _taking(self, order_id: str) -> None:
        """An order reaches the venue: what it replaces, or what replaces it, must not be there."""
        for amend in self._amends():
            pair = [order_id_of(amend["id"]), order_id_of(amend["target_id"])]
            if order_id in pair:
                pair.remove(order_id)
                other = self.core.find(OWNER, NATIVE, pair[0])
                live = other is not None and other.status in STATES
                self._hold("an amend is never beside its old order", not live, f"{order_id} {pair[0]}")

    def _amends(self) -> list[dict[str, Any]]:
        return [intent for _, intent in self.intents if amends(intent)]

    def _step(self, account: FaultyAccount, name: str) -> None:
        """Between two steps of the gateway: the process may die here."""
        if account.dead:
            raise Killed
        self.steps[name] += 1
        if self.steps_left > 0:
            self.steps_left -= 1
            if self.steps_left == 0:
                account.dead = True
                self.killed_at.append(name)
                raise Killed

    def _gateway(self) -> Gateway:
        self.sent += self.account.sent_ns
        self.faults.update(self.account.done)
        self.account = account = self._line()
        return Gateway(
            account, MemoryJournal(self.log, None), self.news, self.clock, Egress(EgressCaps(1000, 10_000_000)),
            notional=lambda i: -(-i["price"] * i["size"] // 10**7), budget=RateBudget(100_000, reserve=100),
            step=lambda name: self._step(account, name),
        )  # fmt: skip

    def _intent(self, number: int) -> tuple[bytes, dict[str, Any]]:
        rnd = self.rnd
        side = rnd.choice(("BUY", "SELL"))
        price = 5_000_000 + rnd.randint(-200, 200) * 100
        record = {
            "id": f"{rnd.getrandbits(96):024x}", "opportunity_id": "", "group_id": f"g{number // 2}", "strategy": "drill",
            "strategy_version": "1", "mode": "PAPER", "leg": 0, "legs": 1, "leg_mode": "SINGLE", "action": "PLACE",
            "target_id": "", "account": "sim:main", "venue": "sim", "symbol": SYMBOL, "side": side, "order_type": "LIMIT",
            "time_in_force": rnd.choice(("GTC", "GTC", "IOC", "POST_ONLY", "FOK")), "price": price, "price_exp": -2,
            "size": rnd.randint(20, 5000), "size_exp": -5, "reduce_only": False, "created_ns": self.clock.ns,
            "valid_until_ns": self.clock.ns + rnd.choice((50_000_000, SECOND_NS, 20 * SECOND_NS, -1)), "trigger_topic": "",
            "trigger_partition": 0, "trigger_offset": number, "input_topics": [], "input_keys": [], "input_partitions": [],
            "input_offsets": [], "input_epochs": [], "input_indexes": [], "input_states": [], "input_ages_ns": [],
        }  # fmt: skip
        return codec("OrderIntent").encode(record), record

    def _amend(self) -> tuple[bytes, dict[str, Any]]:
        """A new price for some order of before, and a size that is the same, less or more in total."""
        old = self.rnd.choice(self.intents[-3:])[1]
        _, record = self._intent(len(self.intents))
        size = max(20, old["size"] * self.rnd.choice((2, 4, 4, 4, 6)) // 4)
        record |= {
            "action": "CANCEL", "amend": True, "target_id": old["id"], "side": old["side"], "size": size,
            "time_in_force": self.rnd.choice(("GTC", "POST_ONLY")),
        }  # fmt: skip
        self.intents.append((codec("OrderIntent").encode(record), record))
        return self.intents[-1]

    def _others(self) -> None:
        """The rest of the market: quotes come and go, and sometimes take ours."""
        rnd, now = self.rnd, self.clock.ns // 10**6
        for _ in range(rnd.randint(0, 3)):
            side, price = rnd.choice(("BUY", "SELL")), Decimal(50_000 + rnd.randint(-210, 210))
            size = Decimal(rnd.randint(10, 4000)) / 100_000
            try:
                self.core.place("other", NATIVE, side, price, size, rnd.choice(("GTC", "IOC")), f"m{len(self.core.orders)}", now)
            except TradingError:
                continue

    async def run(self) -> None:
        """Play it, and fill ``violations``."""
        rnd = self.rnd
        self.clock.waits.append(self._others)
        gateway = self._gateway()
        kills = rnd.randint(0, self.kills)
        self.steps_left = rnd.randint(1, 40) if kills else -1
        again: list[tuple[bytes, dict[str, Any]]] = []
        turns = rnd.randint(6, 16)
        turn = 0
        while True:
            try:
                if not gateway.ready:
                    await gateway.start()
                while turn < turns:
                    turn += 1
                    await self._turn(gateway, again)
                break
            except Killed:
                kills -= 1
                self.steps_left = rnd.randint(1, 40) if kills > 0 else -1
                # What was being handled is read again from the log, as all that was not yet judged.
                again = list(self.intents)
                self.old, gateway = gateway, self._gateway()
                await self.clock.sleep(rnd.choice((0.01, 0.5, 8)))
        await self._end(gateway)

    async def _turn(self, gateway: Gateway, again: list[tuple[bytes, dict[str, Any]]]) -> None:
        rnd = self.rnd
        self._others()
        for raw, intent in [*again, *([self._new()] if rnd.random() < 0.8 else [])]:
            if rnd.random() < 0.2:
                await self.clock.sleep(0.2)
            await gateway.submit(raw, intent)
        again.clear()
        if self.intents and rnd.random() < 0.1:
            await gateway.submit(*rnd.choice(self.intents))  # delivered twice
        if self.intents and rnd.random() < 0.5:
            await gateway.submit(*self._amend())
        if self.intents and rnd.random() < 0.4:
            await gateway.cancel(order_id_of(rnd.choice(self.intents)[1]["id"]))
        await self._deliver(gateway)
        await self.clock.sleep(rnd.choice((0.01, 0.3, 2)))
        if rnd.random() < 0.3:
            await gateway.resolver.sweep()
        self._exposure(gateway)

    def _new(self) -> tuple[bytes, dict[str, Any]]:
        self.intents.append(self._intent(len(self.intents)))
        return self.intents[-1]

    async def _deliver(self, gateway: Gateway) -> None:
        account = gateway.account
        assert isinstance(account, FaultyAccount)
        events, account.stream = account.stream, []
        for event in events:
            await gateway.heard(event)

    def _exposure(self, gateway: Gateway) -> None:
        """Whatever the venue may still trade for us is inside what the gateway holds to be possible."""
        for order in self.core.open_orders(OWNER):
            own = gateway.orders.get(order.client_id)
            if own is None or (Decimal(own.left).scaleb(-5) < order.left and not own.fills_missing):
                self.violations.append(f"unknown keeps its exposure: {order.client_id}: {own}")

    async def _end(self, gateway: Gateway) -> None:
        account = gateway.account
        assert isinstance(account, FaultyAccount)
        self.steps_left = -1
        alarms = len(self.news.alarms)
        self.kill_ns = self.clock.ns
        sent_before = len(account.sent_ns)
        sure = await gateway.resolver.kill("the drill ends", timeout_s=120)
        await gateway.submit(*self._intent(10_000))
        if self.intents:
            await gateway.submit(*self._amend())
        self._hold("nothing after the kill", len(account.sent_ns) == sent_before)
        resting = self.core.open_orders(OWNER)
        self._hold("no open order after the kill, or an alarm", not resting or (not sure and len(self.news.alarms) > alarms))
        account.rate = 0
        for _ in range(40):
            await self._deliver(gateway)
            await gateway.resolver.sweep()
            await self.clock.sleep(1)
        self._judge(gateway)
        await self._fenced()

    async def _fenced(self) -> None:
        """The gateway that was killed last comes back to life: it may not send a thing."""
        if self.old is None or not self.old.ready:
            return
        line = self.old.account
        assert isinstance(line, FaultyAccount)
        line.dead, self.old.step, before = False, lambda name: None, len(line.sent_ns)
        with contextlib.suppress(Fenced):
            await self.old.submit(*self._intent(20_000))
        self._hold("a fenced gateway is silent", len(line.sent_ns) == before)

    def _judge(self, gateway: Gateway) -> None:
        core = self.core
        self.sent += self.account.sent_ns
        self.faults.update(self.account.done)
        by_id = {order_id_of(i["id"]): i for _, i in self.intents}
        self._hold("one venue order an intent", all(n == 1 for (o, _), n in core.placed.items() if o == OWNER))
        self._hold("one venue order an intent", max(Counter(i for i, _ in self.sent).values(), default=0) <= 1)
        self._hold("nothing past its validity", all(at <= by_id[i]["valid_until_ns"] for i, at in self.sent if i in by_id))
        trades = {(str(e.trade_id), e.client_id): e for e in core.executions if e.owner == OWNER}
        fills = self.news.fills | {(r["trade_id"], r["order_id"]): r for r in self.log if r["step"] == "FILL"}
        self._hold("positions equal the venue's", set(fills) == set(trades), f"{set(trades) ^ set(fills)}")
        journal = [(r["trade_id"], r["order_id"]) for r in self.log if r["step"] == "FILL"]
        self._hold("every fill counted once", len(journal) == len(set(journal)))
        for order in core.orders.values():
            if order.owner != OWNER:
                continue
            own = gateway.orders.get(order.client_id)
            if own is None:
                self.violations.append(f"every order has its lineage: {order.client_id}")
                continue
            self._hold("positions equal the venue's", Decimal(own.filled).scaleb(-5) == order.filled, order.client_id)
            self._hold("quantity sent within the intent", order.size <= Decimal(own.size).scaleb(-5))
            self._hold("no final state left", own.over, f"{order.client_id} {own.state} venue {order.status}")
            right = own.state == ("EXPIRED" if order.status == "EXPIRED" else order.status)
            self._hold("no final state left", right or not own.over, f"{order.client_id} {own.state} venue {order.status}")
        for amend in self._amends():
            old, new = (core.find(OWNER, NATIVE, order_id_of(amend[name])) for name in ("target_id", "id"))
            total = (old.filled if old else 0) + (new.size if new else 0)
            self.amended += new is not None
            within = new is None or total <= Decimal(amend["size"]).scaleb(-5)
            self._hold("an amend within its size in total", within, amend["id"])
        after: dict[str, str] = {}
        for order_id, _, state in self.news.states:
            if after.get(order_id) in ("FILLED", "REJECTED", "NEVER_EXISTED") and state != after[order_id]:
                self.violations.append(f"no final state left: {order_id} {after[order_id]} → {state}")
            after[order_id] = state

    def _hold(self, name: str, holds: bool, what: str = "") -> None:
        if not holds:
            self.violations.append(f"{name}: {what}")


def one(seed: int) -> Drill:
    """Run one seed."""
    drill = Drill(seed)
    asyncio.run(drill.run())
    return drill


def main(argv: list[str]) -> int:
    """Run many seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args(argv)
    faults: Counter[str] = Counter()
    crashes: Counter[str] = Counter()
    bad: dict[int, list[str]] = {}
    orders = fills = amended = 0
    for seed in range(options.first, options.first + options.runs):
        drill = one(seed)
        faults.update(drill.faults)
        crashes.update(drill.killed_at)
        orders += len(drill.sent)
        fills += len(drill.news.fills)
        amended += drill.amended
        if drill.violations:
            bad[seed] = drill.violations
    print(f"{options.runs} runs, {orders} orders sent, {amended} of them amends, {fills} fills, {sum(crashes.values())} kills")
    for title, counts in (("fault", faults), ("killed", crashes)):
        for name, number in sorted(counts.items()):
            print(f"  {title:7} {name:34} {number:8}")
    kinds = Counter(v.partition(":")[0] for vs in bad.values() for v in vs)
    for name in INVARIANTS:
        print(f"  {'FAILED' if kinds[name] else 'held':7} {name:44} {kinds[name]:6} violations")
    for seed, violations in list(bad.items())[:10]:
        print(f"seed {seed}: {violations[:3]}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
