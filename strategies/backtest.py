"""A strategy over the recorded log, faster than it came: the same loop as live, with a model of latency and queues.

Decisions leave at the log's clock and meet the books ``latency_ns`` later; what happens to the orders comes back another
``latency_ns`` later, as the records that the gateway would have written. Resting orders wait behind what was there
(market/fill_model.py); with ``queue=False`` they fill with the first trade at their price, which shows what the queue
is worth. The same log gives the same fills, always.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bus.log_reader import LogRecord
from market.decimals import DecimalError, rescale
from market.fees import FEE_EXP
from market.fill_model import FillModel, ModelFill
from market.live_book import LiveBook
from schemas.codec import codec
from schemas.topics import BOOK, FILL, INTENT, ORDER, STATUS, TRADE
from strategies.loop import Output, StrategyLoop
from strategies.registry import Config
from strategies.strategy import Record, Strategy

UNIT_EXP = -18
CURVE_STEP_NS = 1_000_000_000


@dataclass
class BacktestResult:
    """What a run came to; money at UNIT_EXP, by quote asset where there are several."""

    intents: int = 0
    orders: int = 0
    refused: int = 0
    fills: list[Record] = field(default_factory=list)
    curve: list[tuple[int, int]] = field(default_factory=list)
    """(log clock, equity) about once a second: money and positions at the mid, from zero."""
    fees: int = 0
    volume: int = 0
    drawdown: int = 0
    inventory: dict[str, int] = field(default_factory=dict)
    """key → signed size at the end, at UNIT_EXP."""

    @property
    def profit(self) -> int:
        """Equity at the end."""
        return self.curve[-1][1] if self.curve else 0


class Backtest:
    """Feed it the log with ``run``. One instance is one run."""

    def __init__(
        self, config: Config, *, latency_ns: int = 5_000_000, queue: bool = True, kind: type[Strategy] | None = None
    ) -> None:
        self.loop = StrategyLoop(config, "BACKTEST", kind)
        self.result = BacktestResult()
        self._latency_ns, self._queue = latency_ns, queue
        self._venue: dict[str, LiveBook] = {}
        """The venue's side of each book: the strategy's own copy must not be touched by the model."""
        self._models: dict[str, FillModel] = {}
        self._intents: dict[str, Record] = {}
        self._waiting: list[tuple[int, int, str, Any]] = []
        """Heap of (time, number, what, value): orders on their way out, records on their way back."""
        self._number = 0
        self._money = 0
        self._peak = 0
        self._offsets = {ORDER.name: 0, FILL.name: 0}
        self._decode = {t.name: codec(t.record).decode for t in (BOOK, STATUS, TRADE)}
        self._decode_intent = codec("OrderIntent").decode
        self._encode = {ORDER.name: codec("OrderEvent").encode, FILL.name: codec("Fill").encode}
        self._next_ns = 0

    def run(self, log: Iterable[LogRecord]) -> BacktestResult:
        """Play the whole log."""
        for record in log:
            self._until(self.loop.view.now_ns)
            self._market(record)
            self._decided(self.loop.feed((record,)))
            self._until(self.loop.view.now_ns)
            if self.loop.view.now_ns >= self._next_ns:
                self._point()
        self._until(self.loop.view.now_ns + 10 * self._latency_ns)
        self._point()
        for key, units in sorted(self.result.inventory.items()):
            if not units:
                del self.result.inventory[key]
        return self.result

    def _push(self, at_ns: int, what: str, value: Any) -> None:
        self._number += 1
        heapq.heappush(self._waiting, (at_ns, self._number, what, value))

    def _until(self, now_ns: int) -> None:
        """Let everything happen that is due by now."""
        while self._waiting and self._waiting[0][0] <= now_ns:
            at, _, what, value = heapq.heappop(self._waiting)
            if what == "order":
                self._arrive(value, at)
            else:
                topic, record = value
                offset = self._offsets[topic]
                self._offsets[topic] = offset + 1
                self._decided(self.loop.feed((LogRecord(topic, 0, offset, at, None, self._encode[topic](record)),)))

    def _decided(self, out: list[Output]) -> None:
        for output in out:
            if output.topic == INTENT.name:
                intent = self._decode_intent(output.value)
                self.result.intents += 1
                self._push(self.loop.view.now_ns + self._latency_ns, "order", intent)

    def _market(self, record: LogRecord) -> None:
        """Show the venue's side what the log says, and let resting orders fill."""
        decode = self._decode.get(record.topic)
        if decode is None or record.value is None:
            return
        value = decode(record.value)
        key = f"{value['venue']}|{value['symbol']}"
        live = self._venue.setdefault(key, LiveBook(value["venue"], value["symbol"]))
        model = self._models.get(key)
        if record.topic == BOOK.name:
            if live.take(value, record.partition, record.offset) and model is not None and live.live:
                self._filled(key, model.on_book(), value["ts_received_ns"])
        elif record.topic == STATUS.name:
            live.take_status(value)
        elif model is not None and live.live and model.resting:
            live.book.refine(value["price_exp"], value["size_exp"])
            price = rescale(value["price"], value["price_exp"], live.book.price_exp)
            size = rescale(value["size"], value["size_exp"], live.book.size_exp)
            self._filled(key, model.on_trade(price, size, value["taker_side"]), record.ts_ns)

    def _arrive(self, intent: Record, at_ns: int) -> None:
        """An order, or a cancel, reaches the venue."""
        key = f"{intent['venue']}|{intent['symbol']}"
        if intent["action"] == "CANCEL":
            target = self._intents.get(intent["target_id"])
            model = self._models.get(key)
            gone = target is not None and model is not None and model.cancel(intent["target_id"])
            if target is not None and gone:
                self._tell(target, "CANCELED", at_ns)
            if intent["amend"]:
                self._amended(intent, at_ns, gone=bool(gone))
            return
        self._intents[intent["id"]] = intent
        self.result.orders += 1
        live = self._venue.get(key)
        if live is None or not live.live:
            self.result.refused += 1
            self._tell(intent, "REJECTED", at_ns)
            return
        live.book.refine(intent["price_exp"], intent["size_exp"])
        model = self._models.setdefault(key, FillModel(live.book, self._queue))
        try:
            price = rescale(intent["price"], intent["price_exp"], live.book.price_exp)
            size = rescale(intent["size"], intent["size_exp"], live.book.size_exp)
        except DecimalError:
            self._tell(intent, "REJECTED", at_ns)
            return
        fills, rests, reason = model.place(intent["id"], intent["side"], price, size, intent["time_in_force"])
        self._filled(key, fills, at_ns)
        if not fills and not rests:
            self.result.refused += 1
        if not rests and (reason or not fills):
            self._tell(intent, "CANCELED" if fills else "REJECTED", at_ns)

    def _amended(self, intent: Record, at_ns: int, *, gone: bool) -> None:
        """What the gateway does next: once it has heard of the cancel, what is left goes out as an order of its own."""
        shift = intent["size_exp"] - UNIT_EXP
        fills = (f for f in self.result.fills if f["intent_id"] == intent["target_id"])
        filled = sum(f["size"] * 10 ** (f["size_exp"] - UNIT_EXP) for f in fills)
        left = intent["size"] - -(-filled // 10**shift)
        if not gone or left <= 0:
            self._tell(intent, "EXPIRED", at_ns)
            return
        self._push(at_ns + 2 * self._latency_ns, "order", intent | {"action": "PLACE", "size": left})

    def _filled(self, key: str, fills: list[ModelFill], at_ns: int) -> None:
        if not fills:
            return
        terms, book, model = self.loop.view.terms[key], self._venue[key].book, self._models[key]
        for fill in fills:
            intent = self._intents[fill.order_id]
            rate = (terms.maker_fee if fill.maker else terms.taker_fee) or 0
            exponent = book.price_exp + book.size_exp + terms.contract_exp
            exact = fill.price * fill.size * terms.contract
            value = exact * 10 ** (exponent - UNIT_EXP)
            fee = -(-exact * rate * 10 ** (exponent - UNIT_EXP) // 10**-FEE_EXP)
            sign = 1 if fill.side == "BUY" else -1
            self._money -= sign * value + fee
            self.result.fees += fee
            self.result.volume += value
            size = fill.size * terms.contract * 10 ** (book.size_exp + terms.contract_exp - UNIT_EXP)
            self.result.inventory[key] = self.result.inventory.get(key, 0) + sign * size
            self._balances(terms.venue, terms.base, terms.quote, sign * size, -sign * value - fee)
            fee_text, fee_exp = fee, UNIT_EXP
            while fee_text and (fee_text % 10 == 0 or abs(fee_text) >= 1 << 62) and fee_exp < 0:
                fee_text, fee_exp = fee_text // 10, fee_exp + 1
            record = {
                "trade_id": str(len(self.result.fills) + 1), "order_id": f"vm{fill.order_id}", "intent_id": fill.order_id,
                "group_id": intent["group_id"], "strategy": intent["strategy"], "account": intent["account"],
                "venue": intent["venue"], "symbol": intent["symbol"], "side": fill.side, "price": fill.price,
                "price_exp": book.price_exp, "size": fill.size, "size_exp": book.size_exp, "fee": fee_text,
                "fee_exp": fee_exp, "fee_asset": terms.quote, "maker": fill.maker, "source": "PAPER",
                "ts_venue_us": at_ns // 1000, "ts_ns": at_ns,
            }  # fmt: skip
            self.result.fills.append(record)
            self._push(at_ns + self._latency_ns, "record", (FILL.name, record))
            total = sum(f["size"] * 10 ** (f["size_exp"] + 18) for f in self.result.fills if f["intent_id"] == fill.order_id)
            if fill.order_id not in model.resting and total >= intent["size"] * 10 ** (intent["size_exp"] + 18):
                self._tell(intent, "FILLED", at_ns)

    def _balances(self, venue: str, base: str, quote: str, base_units: int, quote_units: int) -> None:
        """Keep the strategy's inventory as the ledger would; only where it was told of one at the start."""
        held = self.loop.view.balances
        for asset, units in ((base, base_units), (quote, quote_units)):
            if (known := held.get((venue, asset))) is not None:
                held[(venue, asset)] = (known[0] * 10 ** (known[1] - UNIT_EXP) + units, UNIT_EXP)

    def _tell(self, intent: Record, state: str, at_ns: int) -> None:
        record = {
            "order_id": f"vm{intent['id']}", "intent_id": intent["id"], "group_id": intent["group_id"],
            "strategy": intent["strategy"], "account": intent["account"], "venue": intent["venue"],
            "symbol": intent["symbol"], "side": intent["side"], "state": state, "previous": "OPEN", "cause": "",
            "venue_order_id": "", "price": intent["price"], "price_exp": intent["price_exp"], "size": intent["size"],
            "size_exp": intent["size_exp"], "filled": 0, "ts_ns": at_ns,
        }  # fmt: skip
        self._push(at_ns + self._latency_ns, "record", (ORDER.name, record))

    def _point(self) -> None:
        """Note the equity; positions without a live book keep the last mid that they had."""
        equity = self._money
        for key, units in self.result.inventory.items():
            live = self._venue[key]
            if units and live.book.bids.levels and live.book.asks.levels:
                equity += units * live.mid2() // (2 * 10**-live.book.price_exp)
        now = self.loop.view.now_ns
        self._peak = max(self._peak, equity)
        self.result.drawdown = max(self.result.drawdown, self._peak - equity)
        if not self.result.curve or self.result.curve[-1] != (now, equity):
            self.result.curve.append((now, equity))
        self._next_ns = now + CURVE_STEP_NS
