"""A venue account over the simulated venue's core, whose line to it fails by a seeded script. Time is the drill's own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from execution.account import Amounts, Capabilities, FillReport, OrderReport, OrderRequest, VenueAccount
from execution.errors import NotFound, Refused, Throttled, Unclear
from market.decimals import format_decimal, parse_decimal
from simulator.trading_core import Execution, TradingCore, TradingError, VenueOrder

STATES = {"NEW": "OPEN", "PARTIALLY_FILLED": "PARTIAL"}
SECOND_NS = 1_000_000_000


class Killed(BaseException):
    """kill -9: nothing catches it, nothing more is done."""


class DrillClock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000 * SECOND_NS
        self.waits: list[Any] = []
        """Called with each wait: what happens at the venue meanwhile."""

    def now_ns(self) -> int:
        return self.ns

    async def sleep(self, seconds: float) -> None:
        self.ns += int(seconds * SECOND_NS)
        for wait in list(self.waits):
            wait()
        await asyncio.sleep(0)


class FaultyAccount(VenueAccount):
    """One process's line to the venue. ``dead`` cuts it for ever; the venue goes on."""

    capabilities = Capabilities(request_expiry_ms=5000, not_found_grace_s=15)

    def __init__(
        self, core: TradingCore, owner: str, native: str, symbol: str, clock: DrillClock, rnd: random.Random, rate: float
    ) -> None:
        self.venue, self.account = "sim", "sim:main"
        self.core, self.owner, self.native, self.symbol = core, owner, native, symbol
        self.clock, self.rnd, self.rate = clock, rnd, rate
        self.dead = False
        self.stream: list[OrderReport | FillReport | None] = []
        self.sent_ns: list[tuple[str, int]] = []
        """(client id, time) of each socket write."""
        self.seen: dict[str, int] = {}
        """client id → time at which the venue took it, for orders that queries do not find at first."""
        self.stale: list[OrderReport] = []
        self.done: dict[str, int] = {}
        self.taking: Callable[[str], None] = lambda order_id: None
        """Called as an order reaches the venue, before it is there."""
        self._held: list[FillReport] = []
        core.listen = self.venue_says

    def _fault(self, *names: str) -> str:
        """The fault of this call, or nothing."""
        if self.dead:
            raise Killed
        name = self.rnd.choice(names) if self.rnd.random() < self.rate else ""
        if name:
            self.done[name] = self.done.get(name, 0) + 1
        return name

    async def place(self, order: OrderRequest) -> OrderReport:
        self.sent_ns.append((order.order_id, self.clock.ns))
        fault = self._fault(
            "drop the answer", "fail but accept", "lose the request", "throttle", "slow", "refuse", "arrive late",
            "hide from queries",
        )  # fmt: skip
        await asyncio.sleep(0)
        if fault == "throttle":
            raise Throttled("429", 1.0)
        if fault == "refuse":
            raise Refused("Account has insufficient balance")
        if fault == "lose the request":
            raise Unclear("connection reset")
        if fault == "arrive late":
            # Under way for seconds: it reaches the venue after we have given up waiting, inside its expiry.
            due = self.clock.ns + self.rnd.randint(1, 4) * SECOND_NS
            def arrive() -> None:
                if self.clock.ns >= due and arrive in self.clock.waits:
                    self.clock.waits.remove(arrive)
                    self._take(order)
            self.clock.waits.append(arrive)
            raise Unclear("time-out")
        if fault == "hide from queries":
            self.seen[order.order_id] = self.clock.ns + 10 * SECOND_NS
        report = self._take(order)
        if self.dead:
            raise Killed
        if fault in ("drop the answer", "fail but accept", "hide from queries"):
            raise Unclear(fault)
        if fault == "slow":
            self.clock.ns += 3 * SECOND_NS
        if isinstance(report, TradingError):
            raise Refused(str(report))
        return report

    def _take(self, order: OrderRequest) -> OrderReport | TradingError:
        self.taking(order.order_id)
        try:
            made, _ = self.core.place(
                self.owner, self.native, order.side, Decimal(format_decimal(order.price, order.price_exp)),
                Decimal(format_decimal(order.size, order.size_exp)), order.time_in_force, order.order_id,
                self.clock.ns // 1_000_000,
            )  # fmt: skip
        except TradingError as error:
            return error
        return self._report(made)

    async def cancel(self, order_id: str, venue_order_id: str, symbol: str) -> OrderReport | None:
        fault = self._fault("fail", "drop the answer", "fill meanwhile", "throttle", "leave out the fills")
        if fault == "throttle":
            raise Throttled("429", 1.0)
        if fault == "fail":
            raise Unclear("503")
        found = self.core.find(self.owner, self.native, order_id)
        if fault in ("fill meanwhile", "leave out the fills") and found is not None and found.left and found.status in STATES:
            self._trade_against(found)
        try:
            report = self._report(self.core.cancel(self.owner, self.native, found, self.clock.ns // 1_000_000))
        except TradingError as error:
            raise NotFound(str(error)) from error
        if fault == "drop the answer":
            raise Unclear("connection reset")
        return replace(report, filled=0) if fault == "leave out the fills" else report

    def _trade_against(self, order: VenueOrder) -> None:
        side = "SELL" if order.side == "BUY" else "BUY"
        size = order.left if self.rnd.random() < 0.5 else max(Decimal("0.00001"), (order.left / 2).quantize(Decimal("0.00001")))
        if order.price * size >= 5:
            now_ms, name = self.clock.ns // 1_000_000, f"o{len(self.core.orders)}"
            self.core.place("other", self.native, side, order.price, size, "IOC", name, now_ms)

    async def query(self, order_id: str, symbol: str) -> OrderReport:
        fault = self._fault("fail", "stale", "not found")
        if fault == "fail":
            raise Unclear("504")
        if self.seen.get(order_id, 0) > self.clock.ns:
            raise NotFound("-2013")
        found = self.core.find(self.owner, self.native, order_id)
        if found is None or fault == "not found":
            raise NotFound("-2013")
        if fault == "stale":
            return OrderReport(order_id, str(found.order_id), symbol, "OPEN", 0, 0)
        return self._report(found)

    async def open_orders(self) -> list[OrderReport]:
        if self._fault("fail"):
            raise Unclear("502")
        return [self._report(o) for o in self.core.open_orders(self.owner)]

    async def fills(self, symbol: str, since_us: int) -> list[FillReport]:
        if self._fault("fail"):
            raise Unclear("502")
        rows = self.core.trades(self.owner, self.native, since_us // 1000)
        return [self._fill(e, "REST", named=False) for e in rows]

    async def balances(self) -> dict[str, Amounts]:
        out: dict[str, Amounts] = {}
        for asset, total in self.core.totals(self.owner).items():
            mantissa, exponent = parse_decimal(format(total, "f"))
            out[asset] = Amounts(mantissa, mantissa, exponent)
        return out

    async def events(self) -> AsyncIterator[OrderReport | FillReport | None]:
        raise NotImplementedError("the drill hands events over itself")
        yield None

    def venue_says(self, order: VenueOrder, execution: Execution | None) -> None:
        """The private stream, with what streams do wrong."""
        if order.owner != self.owner or self.dead:
            return
        if execution is None:
            if order.order_id % 3:
                self.stream.append(self._report(order))
            return
        fill = self._fill(execution, "STREAM", named=True)
        match self._fault("miss a fill", "tell a fill twice", "swap fills", "cut the stream"):
            case "miss a fill":
                return
            case "tell a fill twice":
                self.stream += [fill, fill]
            case "swap fills":
                self._held.append(fill)
                return
            case "cut the stream":
                self.stream.append(None)
            case _:
                self.stream.append(fill)
        if self._held:
            self.stream.append(self._held.pop())

    def _report(self, o: VenueOrder) -> OrderReport:
        mantissa, exponent = parse_decimal(format(o.filled, "f"))
        return OrderReport(o.client_id, str(o.order_id), self.symbol, STATES.get(o.status, o.status), mantissa, exponent)

    def _fill(self, e: Execution, source: Any, *, named: bool) -> FillReport:
        (p, pe), (s, se), (f, fe) = (parse_decimal(format(x, "f")) for x in (e.price, e.size, e.fee))
        return FillReport(
            str(e.trade_id), e.client_id if named else "", str(e.order_id), self.symbol, e.side, p, pe, s, se, f, fe,
            e.fee_asset, e.maker, e.time_ms * 1000, source,
        )  # fmt: skip
