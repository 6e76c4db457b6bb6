"""One account's gateway: the only writer of its orders. What may have reached the venue is never sent again.

amending  the old order over, with all its fills; then placing what is left (amending.py)
placing   PREPARED durable → still valid, not stopped, egress agrees → one socket write → the answer
no answer UNKNOWN; its exposure stays reserved until the venue shows the order, or cannot find it for long enough
restart   every order that is not over is resolved with the venue before anything new goes out
fills     counted in every state, once each by (symbol, trade id, order: one may trade with oneself), from the stream,
          from REST and from answers alike
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from execution.account import FillReport, OrderReport, VenueAccount
from execution.amending import replaces
from execution.egress import Egress, RateBudget
from execution.errors import NotFound, Refused, Throttled, VenueError
from execution.flatten import FLATTEN
from execution.gateway_counts import GatewayCounts
from execution.journal import Journal
from execution.orders import FINAL, ORPHANED, Order, amends, order_id_of
from execution.resolution import Resolver
from market.decimals import rescale
from schemas.codec import codec

log = logging.getLogger(__name__)

Record = dict[str, Any]
PARKED_MAX = 10_000
ORDERS_MAX = 50_000
"""Orders remembered; the oldest that are over are forgotten first: their intents expired long ago."""
FILL_FIELDS = (
    "trade_id", "symbol", "side", "price", "price_exp", "size", "size_exp", "fee", "fee_exp", "fee_asset", "maker",
    "source", "ts_venue_us", "ts_ns", "value",
)  # fmt: skip
IN_DOUBT = frozenset(("PREPARED", "SENDING", "UNKNOWN"))


class Clock(Protocol):
    """Time, so that a drill may let hours pass in a moment."""

    def now_ns(self) -> int: ...
    async def sleep(self, seconds: float) -> None: ...


class Outbox(Protocol):
    """Where news of orders goes."""

    def order(self, order: Order, previous: str, now_ns: int) -> None: ...
    def fill(self, fill: Record) -> None: ...
    def alarm(self, text: str) -> None: ...


@dataclass
class Gateway:
    """``await start()``, then ``submit`` intents, feed ``heard`` with the stream, ``resolver.sweep`` from time to time."""

    account: VenueAccount
    journal: Journal
    outbox: Outbox
    clock: Clock
    egress: Egress
    notional: Callable[[Record], int]
    """An intent's worth in whole units of the quote, rounded up; for the egress counter."""
    budget: RateBudget = field(default_factory=RateBudget)
    amends: ClassVar[bool] = True
    """Whether its orders rest, so that one may replace another."""
    step: Callable[[str], None] = lambda name: None
    """Called between all steps; a drill kills the process here."""
    orders: dict[str, Order] = field(default_factory=dict)
    counts: GatewayCounts = field(default_factory=GatewayCounts)
    killed: str = ""
    flattening: bool = False
    """Killed, and verified to be so: orders that close positions may still leave."""
    ready: bool = False
    _by_venue_id: dict[str, str] = field(default_factory=dict)
    known_trades: set[tuple[str, str, str]] = field(default_factory=set)
    parked: dict[tuple[str, str, str], FillReport] = field(default_factory=dict)
    newest_fill_us: int = 0
    _in_order: asyncio.Lock = field(default_factory=asyncio.Lock)
    started_ns: int = 0
    symbols: set[str] = field(default_factory=set)
    past_fills: list[Record] = field(default_factory=list)
    """Fill records made from the journal: a crash may have come between journal and publication."""

    def __post_init__(self) -> None:
        self.resolver = Resolver(self)

    # Start: the past first.

    async def start(self) -> None:
        """Take the account over and bring the past in order. Raises Fenced, AccountError."""
        for record in await self.journal.open():
            self._replay(record)
        self.started_ns = self.clock.now_ns()
        unfinished = self.unfinished()
        while unfinished:
            for order in unfinished:
                await self.resolver.ask(order)
            await self.resolver.fetch_fills()
            unfinished = [o for o in self.unfinished() if o.state in IN_DOUBT or o.fills_missing]
            if unfinished:
                await self.clock.sleep(1.0)
        await self.resolver.sweep()
        self.ready = True

    def _replay(self, r: Record) -> None:
        step = r["step"]
        if step == "PREPARED":
            intent = codec("OrderIntent").decode(r["intent"])
            order = Order(r["order_id"], intent, "PREPARED", prepared_ns=r["ts_ns"], sized=r["size"] or -1)
            self.orders[order.order_id] = order
            self.symbols.add(order.symbol)
            self.egress.remember(intent["id"], order.size)
            if amends(intent) and (old := self.orders.get(order_id_of(intent["target_id"]))) is not None:
                old.replaced = order.order_id
        elif step == "STATE" and r["order_id"] in self.orders:
            order = self.orders[r["order_id"]]
            order.state, order.cause = r["state"], r["cause"]
            self._name(order, r["venue_order_id"])
            order.reported = max(order.reported, r["filled"])
        elif step == "FILL":
            symbol = r["cause"]
            self.known_trades.add((symbol, r["trade_id"], r["venue_order_id"]))
            self.newest_fill_us = max(self.newest_fill_us, r["ts_venue_us"])
            order = self.orders.get(r["order_id"])
            if order is not None:
                self._count(order, r["trade_id"], r["size"], r["size_exp"])
                told = r | {"side": order.side_of(r["trade_id"]), "symbol": symbol, "source": "REST"}
                self.past_fills.append(self._record(order, told))
        elif step in ("HALT", "RESUME"):
            self.egress.halted = r["cause"] if step == "HALT" else ""

    def _forget(self) -> None:
        if len(self.orders) >= ORDERS_MAX:
            over = [o for o in self.orders.values() if o.over and not o.fills_missing][: ORDERS_MAX // 10]
            for order in over:
                del self.orders[order.order_id]
                self._by_venue_id.pop(order.venue_order_id, None)

    def unfinished(self) -> list[Order]:
        """Orders that are not over, or of which fills are missing; oldest first."""
        return [o for o in self.orders.values() if not o.over or o.fills_missing]

    # Placing.

    async def submit(self, raw: bytes, intent: Record) -> Order | None:
        """Send the order of an accepted intent, once; None when it was known already or may not go out.

        An amend cancels the order that it replaces first, and waits for its end. Raises Fenced: this gateway must end.
        """
        order_id = order_id_of(intent["id"])
        if order_id in self.orders:
            self.counts.duplicates += 1
            return None
        self._forget()
        order = self.orders[order_id] = Order(order_id, intent)
        self.symbols.add(order.symbol)
        if amends(intent) and (reason := await replaces(self, order)):
            await self.to(order, "EXPIRED", reason, durable=False)
            return None
        if reason := self.stopped(intent):
            await self.to(order, "REJECTED", reason, durable=False)
            return None
        order.prepared_ns = self.clock.now_ns()
        order.to("PREPARED")
        self.step("before PREPARED")
        await self.journal.append(self._entry(order, "PREPARED", intent=raw) | {"size": order.size})
        self.step("after PREPARED")
        self.outbox.order(order, "NEW", order.prepared_ns)
        # The last looks, with nothing between them and the write.
        now = self.clock.now_ns()
        if reason := self.stopped(intent) or ("too late to leave" if now > intent["valid_until_ns"] else ""):
            self.counts.expired += 1
            await self.to(order, "EXPIRED", reason)
            return None
        if not self.budget.take(now):
            await self.to(order, "EXPIRED", "the venue's rate limit leaves no room")
            return None
        if reason := self.egress.check(now, intent["id"], intent["size"], order.size, self.notional(intent)):
            self.alarm(f"{self.account.account} halts itself: {reason}")
            await self.to(order, "EXPIRED", reason)
            await self.journal.append({"step": "HALT", "cause": reason, "ts_ns": now})
            return None
        await self.send(order)
        if order.cancel_wanted and not order.over:
            await self.ask_cancel(order)
        return order

    async def send(self, order: Order) -> None:
        """Everything was looked at: the one socket write, and what its answer means."""
        await self.to(order, "SENDING", "", durable=False)
        self.counts.sent += 1
        self.step("before the socket")
        try:
            report = await self.account.place(order.request())
        except Refused as error:
            self.step("after the answer")
            await self._rejected(order, str(error))
        except Throttled as error:
            self.budget.silence(self.clock.now_ns(), error.retry_after_s)
            await self._rejected(order, f"not looked at: {error}")
        except VenueError as error:
            self.step("after the answer")
            await self.unknown(order, str(error))
        else:
            self.step("after the answer")
            await self.take(order, report)

    async def _rejected(self, order: Order, cause: str) -> None:
        if order.may("REJECTED"):
            await self.to(order, "REJECTED", cause)
        elif not order.over:
            self.alarm(f"{order.order_id} was refused ({cause}), and yet traded")

    def stopped(self, intent: Record) -> str:
        """Why nothing may be sent for this intent now; empty: it may."""
        closes = self.flattening and intent["reduce_only"] and intent["strategy_version"] == FLATTEN
        killed = "" if closes else self.killed
        return killed or self.egress.halted or ("" if self.ready else "the gateway still resolves its past")

    async def unknown(self, order: Order, cause: str) -> None:
        """Nobody knows whether it exists, unless a fill has already shown that it does."""
        if order.may("UNKNOWN"):
            self.counts.unknown += 1
            await self.to(order, "UNKNOWN", cause)

    # Cancelling.

    async def cancel(self, order_id: str, why: str = "asked to") -> None:
        """Cancel one of ours; nothing happens when it is over or not known. Asking twice does no harm."""
        order = self.orders.get(order_id)
        if order is None or order.over:
            return
        order.cancel_wanted = order.cancel_wanted or why
        if order.state in ("NEW", "PREPARED", "SENDING"):
            return  # it is being sent right now: submit cancels it afterwards
        await self.ask_cancel(order)

    async def ask_cancel(self, order: Order) -> None:
        if order.over:
            return
        if order.state not in ("CANCELING", "UNKNOWN"):
            await self.to(order, "CANCELING", order.cancel_wanted or "asked to")
        if not self.budget.take(self.clock.now_ns(), urgent=True):
            return  # the sweep asks again
        self.step("before the cancel")
        try:
            report = await self.account.cancel(order.order_id, order.venue_order_id, order.symbol)
            self.step("after the cancel")
            if report is not None:
                await self.take(order, report)
        except (NotFound, Refused):
            # Filled, cancelled before, or not there yet: the venue's own record decides.
            await self.resolver.ask(order)
        except Throttled as error:
            self.budget.silence(self.clock.now_ns(), error.retry_after_s)
        except VenueError as error:
            log.warning("%s: the cancel of %s is unclear: %s", self.account.account, order.order_id, error)

    # What the venue tells.

    async def heard(self, event: OrderReport | FillReport | None) -> None:
        """Take one event of the private stream; None means that some may be missing, so everything is swept."""
        if event is None:
            await self.resolver.sweep()
        elif isinstance(event, FillReport):
            await self.take_fill(event)
        elif (order := self.orders.get(event.order_id)) is not None:
            await self.take(order, event)

    async def take(self, order: Order, report: OrderReport) -> None:
        state = order.heard(report)
        self._name(order, report.venue_order_id)
        await self._unpark(order)
        if not state:
            return
        if state in FINAL and order.fills_missing:
            # Over, but not all its fills are here: they are fetched before it is closed, so that no hedge is late.
            await self.resolver.fetch_fills(order.symbol)
        if order.may(state):
            await self.to(order, state, order.cause if state == "CANCELED" else "")
        if order.cancel_wanted and state in ("OPEN", "PARTIAL"):
            await self.ask_cancel(order)

    def _name(self, order: Order, venue_order_id: str) -> None:
        if venue_order_id:
            order.venue_order_id = venue_order_id
            self._by_venue_id[venue_order_id] = order.order_id

    async def _unpark(self, order: Order) -> None:
        for key, fill in list(self.parked.items()):
            if fill.venue_order_id == order.venue_order_id:
                del self.parked[key]
                await self.take_fill(fill)

    async def take_fill(self, fill: FillReport) -> None:
        key = (fill.symbol, fill.trade_id, fill.venue_order_id)
        if key in self.known_trades:
            self.counts.fills_again += 1
            async with self._in_order:  # so that whoever fetches what is missing finds it counted
                return
        order = self.orders.get(fill.order_id or self._by_venue_id.get(fill.venue_order_id, ""))
        if order is None and not fill.order_id and any(not o.venue_order_id and not o.over for o in self.orders.values()):
            # It may be of an order whose own answer is still on its way.
            if len(self.parked) < PARKED_MAX:
                self.parked[key] = fill
            return
        self.known_trades.add(key)
        self.parked.pop(key, None)
        self.newest_fill_us = max(self.newest_fill_us, fill.ts_venue_us)
        told = {f: getattr(fill, f) for f in FILL_FIELDS if f != "ts_ns"} | {"ts_ns": self.clock.now_ns()}
        async with self._in_order:  # what a position realises depends on the order, whoever tells of it
            self.step("before the fill")
            await self.journal.append({
                "step": "FILL", "order_id": order.order_id if order else "", "intent_id": order.intent["id"] if order else "",
                "venue_order_id": fill.venue_order_id, "state": order.state if order else "NEW", "cause": fill.symbol,
                **{name: value for name, value in told.items() if name not in ("symbol", "side", "source")},
            })  # fmt: skip
            self.step("after the fill")
            self.counts.fills += 1
            if order is None:
                self.counts.foreign_fills += 1
                self.alarm(f"{self.account.account}: trade {fill.trade_id} is of an order that is not ours")
            self.outbox.fill(self._record(order, told))
        if order is None:
            return
        late = order.over
        self._count(order, fill.trade_id, fill.size, fill.size_exp)
        self._name(order, fill.venue_order_id)
        if late:
            self.counts.late_fills += 1
            if order.state in ("NEVER_EXISTED", "REJECTED"):
                self.alarm(f"{order.order_id} was {order.state}, and traded")
        elif order.filled >= order.size:
            if order.may("FILLED"):
                await self.to(order, "FILLED", "")
        elif order.may("PARTIAL"):
            await self.to(order, "PARTIAL", "")

    def _record(self, order: Order | None, told: Record) -> Record:
        """A Fill record; ``told`` has FILL_FIELDS."""
        intent = order.intent if order else {}
        own = {"intent_id": intent.get("id", ""), "group_id": intent.get("group_id", ""), "strategy": intent.get("strategy", "")}
        own |= {"order_id": order.order_id if order else "", "account": self.account.account}
        return own | {"venue": intent.get("venue", self.account.venue)} | {f: told[f] for f in FILL_FIELDS}

    @staticmethod
    def _count(order: Order, trade_id: str, size: int, size_exp: int) -> None:
        exponent = order.intent["size_exp"]
        if trade_id not in order.trades:
            order.trades.add(trade_id)
            size = -size if trade_id.endswith(ORPHANED) else size
            order.filled += rescale(size, size_exp, exponent) if size_exp >= exponent else size // 10 ** (exponent - size_exp)

    # Stopping.

    def resume(self) -> None:
        """Trade again after a kill or a halt."""
        self.killed, self.flattening = "", False
        self.egress.reset()

    # Steps of the state machine.

    async def to(self, order: Order, state: str, cause: str, *, durable: bool = True, raw: bytes | None = None) -> None:
        # The time at which it was known: what acts on it at once may be told of before the journal has it.
        before, known_ns = order.to(state, cause), self.clock.now_ns()
        if durable:
            self.step(f"before {state}")
            await self.journal.append(self._entry(order, "STATE") | {"raw": raw})
            self.step(f"after {state}")
        self.outbox.order(order, before, known_ns)

    def _entry(self, order: Order, step: str, intent: bytes | None = None) -> Record:
        return {
            "step": step, "order_id": order.order_id, "intent_id": order.intent["id"], "state": order.state,
            "venue_order_id": order.venue_order_id, "cause": order.cause, "filled": order.reported,
            "size_exp": order.intent["size_exp"], "ts_ns": self.clock.now_ns(), "intent": intent,
        }  # fmt: skip

    def alarm(self, text: str) -> None:
        self.counts.alarms += 1
        log.error("ALARM %s", text)
        self.outbox.alarm(text)
