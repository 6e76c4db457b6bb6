"""The heart of every run of a strategy, live or again: records in, decisions as records out. No I/O, no wall clock.

Everything that decides is in the inputs and their order: the same batches give byte-identical records. The log's clock
is the greatest time seen: a book's receipt, or a record's own Kafka time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bus.log_reader import LogRecord
from market.decimals import parse_decimal
from market.live_book import LiveBook
from market.terms import TermsError, terms_of
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import (
    BALANCE,
    BOOK,
    CHAIN_BLOCK,
    CHAIN_POOL,
    FILL,
    FUNDING,
    INSTRUMENT,
    INTENT,
    OPPORTUNITY,
    ORDER,
    RISK,
    SHADOW,
    STATUS,
    TRADE,
)
from strategies.registry import Config, Mode, make
from strategies.strategy import Decision, OpenIntent, Record, Strategy, View

INPUTS = (INSTRUMENT, STATUS, BOOK, TRADE, FUNDING, BALANCE, RISK, ORDER, FILL)
"""Topics that a runner reads. Market topics first: a fill that arrives in the same batch finds the newest books."""
CHAIN_INPUTS = (CHAIN_POOL, CHAIN_BLOCK)
"""What a strategy that names pools reads beside them."""
OVER = frozenset(
    ("FILLED", "CANCELED", "REJECTED", "EXPIRED", "NEVER_EXISTED", "REVERTED", "DROPPED", "MINED", "FINAL")
)  # fmt: skip
LOST_AFTER_NS = 10_000_000_000
"""An intent of which nothing was heard for so long after its validity never reached a gateway."""
FILLS_REMEMBERED = 10_000


Input = LogRecord


class Output(NamedTuple):
    """One record to write."""

    topic: str
    key: str
    value: bytes


class Trigger(NamedTuple):
    """What a decision was made on: the record, or a timer at its due time."""

    topic: str
    partition: int
    offset: int


@dataclass
class LoopCounts:
    """What a loop counts."""

    records: int = 0
    unreadable: int = 0
    first_error: str = ""
    decisions: int = 0
    intents: int = 0
    not_live: int = 0
    """Decisions thrown away because a book that they name was not live: a strategy's bug, never an order."""
    not_tradable: int = 0
    """Legs that the instrument's own terms refuse: a strategy's bug too; the whole decision is thrown away."""


@dataclass
class StrategyLoop:
    """One strategy instance. ``feed`` takes batches in log order; each gives the records to write, in order."""

    config: Config
    mode: Mode
    kind: type[Strategy] | None = None
    view: View = field(default_factory=View)
    counts: LoopCounts = field(default_factory=LoopCounts)
    timer_ns: int = 0

    def __post_init__(self) -> None:
        self.strategy = make(self.config, self.view, self.kind)
        self.instruments: dict[str, bytes] = {}
        """key → the Instrument record as read, of those that matter."""
        self.saved_books: Record = {}
        """Where a snapshot's books stood, until they are folded again (recovery.py)."""
        self._fills: dict[tuple[str, ...], None] = {}
        self._decoders = {topic.name: codec(topic.record).decode for topic in (*INPUTS, *CHAIN_INPUTS)}
        self._encode_intent = codec("OrderIntent").encode
        self._encode_opportunity = codec("Opportunity").encode
        self._out: list[Output] = []
        self._lost_at_ns = 0
        """No order can count as lost before this time of the log."""
        self._numbers: dict[Trigger, int] = {}
        """Decisions already made on a trigger of this batch."""
        for venue, amounts in self.config.inventory.items():
            for asset, text in amounts.items():
                self.view.balances[(venue, asset)] = parse_decimal(text)

    def feed(self, batch: Iterable[Input]) -> list[Output]:
        """Take some records. ``on_book`` is called once for each book that changed, after the batch's books are folded:
        a strategy that falls behind looks at the newest books, not at every step between. Fills, trades and orders are
        told one by one, in order."""
        self._out = []
        self._numbers.clear()
        changed: dict[str, Trigger] = {}
        for record in batch:
            self.counts.records += 1
            try:
                self._take(record, changed)
            except (DecodeError, KeyError, ValueError, TypeError) as error:
                if isinstance(error, DecodeError) or record.topic in (BOOK.name, STATUS.name, INSTRUMENT.name, TRADE.name):
                    self.counts.unreadable += 1
                    self.counts.first_error = self.counts.first_error or f"{record.topic}@{record.offset}: {error}"
                    continue
                raise
        for key, trigger in changed.items():
            self._decide(self.strategy.on_book(key), trigger)
        self._timers()
        return self._out

    def _take(self, record: Input, changed: dict[str, Trigger]) -> None:
        value = self._decoders[record.topic](record.value) if record.value is not None else None
        view, topic = self.view, record.topic
        if value is None:
            return
        trigger = Trigger(topic, record.partition, record.offset)
        if topic == BOOK.name:
            book = view.books.get(f"{value['venue']}|{value['symbol']}")
            view.now_ns = max(view.now_ns, value["ts_received_ns"])
            if book is not None and book.take(value, record.partition, record.offset):
                changed[book.key] = trigger
            return
        view.now_ns = max(view.now_ns, record.ts_ns)
        if topic in (CHAIN_POOL.name, CHAIN_BLOCK.name):
            view.chain.take(topic == CHAIN_POOL.name, value)
        elif topic == STATUS.name:
            book = view.books.get(f"{value['venue']}|{value['symbol']}")
            if book is not None and book.take_status(value):
                changed[book.key] = trigger
        elif topic == TRADE.name:
            if f"{value['venue']}|{value['symbol']}" in view.books:
                self._decide(self.strategy.on_trade(value), trigger)
        elif topic == INSTRUMENT.name:
            self.take_instrument(value, record.value or b"")
        elif topic == FUNDING.name:
            key = f"{value['venue']}|{value['symbol']}"
            if key in view.books:
                view.funding[key] = value
                self._decide(self.strategy.on_funding(value), trigger)
        elif topic == BALANCE.name:
            # A chain's account trades at many venues: every one of its pools.
            for venue in (value["account"].partition(":")[0], *self.config.accounts):
                if self.config.account(venue, self.mode) == value["account"]:
                    view.balances[(venue, value["asset"])] = (value["ledger"], value["exp"])
        elif topic == RISK.name:
            order = view.open.get(value["intent_id"])
            # An acceptance alone is no order yet: the gateway may have died before it prepared one.
            if order is not None and value["verdict"] == "REFUSE":
                self._over(order, "REFUSED", trigger)
        elif topic == ORDER.name:
            order = view.open.get(value["intent_id"])
            if order is not None:
                order.seen = True
                if order.replaces:  # less than was wanted where the old order filled meanwhile
                    order.size = value["size"]
                if value["state"] in OVER:
                    self._over(order, value["state"], trigger)
        elif topic == FILL.name and value["strategy"] == self.config.name:
            self._fill(value, trigger)

    def take_instrument(self, record: Record, raw: bytes) -> None:
        """An instrument as discovery wrote it."""
        try:
            terms = terms_of(record, self.config.rates(record["venue"]))
        except TermsError as error:
            self.counts.unreadable += 1
            self.counts.first_error = self.counts.first_error or str(error)
            return
        if not self.strategy.wants(terms):
            return
        self.instruments[terms.key] = raw
        self.view.terms[terms.key] = terms
        self.view.books.setdefault(terms.key, LiveBook(terms.venue, terms.symbol))
        self.strategy.on_terms(terms)

    def _fill(self, fill: Record, trigger: Trigger) -> None:
        unique = (fill["account"], fill["symbol"], fill["trade_id"], fill["side"])
        if unique in self._fills:
            return
        self._fills[unique] = None
        if len(self._fills) > FILLS_REMEMBERED:
            del self._fills[next(iter(self._fills))]
        order = self.view.open.get(fill["intent_id"])
        if order is not None:
            terms = self.view.terms[order.key]
            order.filled += fill["size"] * 10 ** max(0, fill["size_exp"] - terms.size_exp)
        if fill["size"]:
            self._decide(self.strategy.on_fill(fill), trigger)

    def fills(self) -> list[list[str]]:
        """The fills that were counted last, by account, symbol and trade id: none is told twice."""
        return [list(unique) for unique in self._fills]

    def remember_fills(self, fills: Iterable[Sequence[str]]) -> None:
        """The inverse of ``fills``."""
        self._fills = dict.fromkeys(tuple(unique) for unique in fills)

    def _over(self, order: OpenIntent, state: str, trigger: Trigger) -> None:
        del self.view.open[order.id]
        self._decide(self.strategy.on_order(order, state), trigger)

    def _timers(self) -> None:
        now, every = self.view.now_ns, self.strategy.timer_ns
        if now > self._lost_at_ns:
            waiting = [order for order in self.view.open.values() if not order.seen]
            # Set first: what is decided below may bring it forward again.
            self._lost_at_ns = min((o.valid_until_ns + LOST_AFTER_NS for o in waiting), default=now + LOST_AFTER_NS)
            for order in waiting:
                if now > order.valid_until_ns + LOST_AFTER_NS and order.id in self.view.open:
                    self._over(order, "LOST", Trigger("", -1, now))
        if every and now >= self.timer_ns:
            due = self.timer_ns
            # A long silence is one tick, not a hundred late ones.
            self.timer_ns = now - now % every + every
            if due:
                self._decide(self.strategy.on_timer(), Trigger("", -1, due))

    def _decide(self, decisions: Sequence[Decision], trigger: Trigger) -> None:
        for decision in decisions:
            self._emit(decision, trigger)

    def _emit(self, decision: Decision, trigger: Trigger) -> None:
        view = self.view
        if any(view.live(key) is None for key in decision.books) or any(leg.key not in decision.books for leg in decision.legs):
            self.counts.not_live += 1
            return
        if any(view.terms[leg.key].tradable(leg.price, leg.size) for leg in decision.legs):
            self.counts.not_tradable += 1
            return
        number = self._numbers.get(trigger, 0)
        self._numbers[trigger] = number + 1
        self.counts.decisions += 1
        base = (self.config.name, self.strategy.version, *trigger, number)
        opportunity_id = _hash(*base)
        inputs = self._inputs(decision.books, trigger)
        group_id = decision.group_id or (opportunity_id if len(decision.legs) > 1 else "")
        if decision.report:
            self._opportunity(decision, opportunity_id, inputs)
        topic = SHADOW if self.mode == "SHADOW" else INTENT
        for leg, wanted in enumerate(decision.legs):
            terms = view.terms[wanted.key]
            old = view.open.get(wanted.replaces)
            if wanted.replaces and old is None:
                continue  # over since it was decided on: there is nothing to replace
            order = OpenIntent(
                _hash(*base, leg), wanted.key, wanted.side, wanted.price, wanted.size, 0, view.now_ns,
                view.now_ns + decision.valid_ns, group_id, replaces=wanted.replaces,
            )  # fmt: skip
            view.open[order.id] = order
            self._lost_at_ns = min(self._lost_at_ns, order.valid_until_ns + LOST_AFTER_NS)
            own: Record = {
                "action": "PLACE", "target_id": "", "time_in_force": wanted.time_in_force,
                "reduce_only": wanted.reduce_only, "price_exp": terms.price_exp, "size_exp": terms.size_exp,
            }  # fmt: skip
            if old is not None:
                old.canceling = True
                # The record's size is the whole: with what the old order is known to have filled.
                own |= {"action": "CANCEL", "target_id": old.id, "amend": True, "size": wanted.size + old.filled}
            self._intent(topic.name, opportunity_id, order, leg, decision, inputs, own)
        for n, target in enumerate(decision.cancels, len(decision.legs)):
            if (order := view.open.get(target)) is None:
                continue
            order.canceling = True
            terms = view.terms[order.key]
            cancel = OpenIntent(
                _hash(*base, n), order.key, order.side, order.price, order.left, 0, view.now_ns,
                view.now_ns + decision.valid_ns, order.group_id,
            )  # fmt: skip
            self._intent(topic.name, opportunity_id, cancel, n, decision, inputs, {
                "action": "CANCEL", "target_id": target, "time_in_force": "GTC", "reduce_only": False,
                "price_exp": terms.price_exp, "size_exp": terms.size_exp,
            })  # fmt: skip

    def _inputs(self, books: Sequence[str], trigger: Trigger) -> Record:
        held = [self.view.books[key] for key in books]
        return {
            "trigger_topic": trigger.topic, "trigger_partition": trigger.partition, "trigger_offset": trigger.offset,
            "input_topics": [BOOK.name] * len(held), "input_keys": list(books),
            "input_partitions": [b.partition for b in held], "input_offsets": [b.offset for b in held],
            "input_epochs": [b.epoch for b in held], "input_indexes": [b.index for b in held],
            "input_states": [b.state for b in held],
            "input_ages_ns": [max(0, self.view.now_ns - b.ts_received_ns) for b in held],
        }  # fmt: skip

    def _opportunity(self, decision: Decision, opportunity_id: str, inputs: Record) -> None:
        terms = [self.view.terms[leg.key] for leg in decision.legs]
        record = {
            "id": opportunity_id, "strategy": self.config.name, "strategy_version": self.strategy.version,
            "mode": self.mode, "group": decision.group, "kind": decision.kind, "ts_ns": self.view.now_ns,
            "edge": decision.edge, "edge_exp": decision.edge_exp, "edge_asset": decision.edge_asset,
            "size": decision.legs[0].size if decision.legs else 0, "size_exp": terms[0].size_exp if terms else 0,
            "leg_venues": [t.venue for t in terms], "leg_symbols": [t.symbol for t in terms],
            "leg_sides": [leg.side for leg in decision.legs], "leg_prices": [leg.price for leg in decision.legs],
            "leg_price_exps": [t.price_exp for t in terms], "leg_sizes": [leg.size for leg in decision.legs],
            "leg_size_exps": [t.size_exp for t in terms], "reason": decision.reason, **inputs,
        }  # fmt: skip
        self._out.append(Output(OPPORTUNITY.name, decision.group, self._encode_opportunity(record)))

    def _intent(
        self, topic: str, opportunity_id: str, order: OpenIntent, leg: int, decision: Decision, inputs: Record, own: Record
    ) -> None:
        venue, _, symbol = order.key.partition("|")
        account = self.config.account(venue, self.mode)
        record = {
            "id": order.id, "opportunity_id": opportunity_id, "group_id": order.group_id, "strategy": self.config.name,
            "strategy_version": self.strategy.version, "mode": self.mode, "leg": leg,
            "legs": len(decision.legs) + len(decision.cancels), "leg_mode": decision.leg_mode, "account": account,
            "venue": venue, "symbol": symbol, "side": order.side, "order_type": "LIMIT", "price": order.price,
            "size": order.size, "created_ns": order.created_ns, "valid_until_ns": order.valid_until_ns, **own, **inputs,
        }  # fmt: skip
        self.counts.intents += 1
        self._out.append(Output(topic, account, self._encode_intent(record)))


def _hash(*parts: Any) -> str:
    """24 hexadecimal digits: they fit every venue's client order id, and never collide in practice."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:24]


def input_topics(loop: StrategyLoop) -> list[str]:
    """The topics that this strategy's runner must read; on shadow nothing comes back from orders."""
    names = [topic.name for topic in (*INPUTS, *(CHAIN_INPUTS if loop.view.chain.pools else ()))]
    if loop.mode == "SHADOW":
        return [name for name in names if not name.startswith("orders.") or name == BALANCE.name]
    return names
