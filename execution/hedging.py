"""Hedge groups: legs that belong together, what their fills leave over, and the orders that close it.

Driven by fills, never by an order's completion alone: when all legs of a group are over, each asset that the group was
only meant to pass through must be back where it was. What is left over is traded back, on the leg's own instrument, as
IOC through the touch within a collar; each try is a new intent through the same risk gate. What is too small for the
venue is dust, counted; what is still open after the last try is an alarm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from market.live_book import LiveBook
from market.terms import Terms

Record = dict[str, Any]
UNIT_EXP = -18
TRIES_MAX = 5
GROUPS_MAX = 10_000
COLLAR_BPS = 50
VALID_NS = 1_000_000_000
HEDGE = "hedge"
"""In place of a strategy's version: no strategy decided this order."""
OVER = frozenset(("FILLED", "CANCELED", "REJECTED", "EXPIRED", "NEVER_EXISTED"))


@dataclass
class Group:
    """One group: its intents, what is over, and the signed amounts that its fills moved, by asset at UNIT_EXP."""

    intents: dict[str, Record] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    moved: dict[str, int] = field(default_factory=dict)
    tries: int = 0
    closed: bool = False
    settle_ns: int = 0
    """Not looked at before: fills may still be on their way."""


@dataclass
class HedgeGroups:
    """A fold over intents, verdicts, order events and fills of groups with several legs."""

    terms: Mapping[str, Terms]
    books: Mapping[str, LiveBook]
    groups: dict[str, Group] = field(default_factory=dict)
    dust: int = 0
    unhedged: list[str] = field(default_factory=list)
    _fills: set[tuple[str, str, str, str]] = field(default_factory=set)

    def intent(self, intent: Record) -> None:
        """A leg, or one of our own orders to close a group."""
        group_id = intent["group_id"]
        if not group_id or intent["action"] != "PLACE" or (intent["legs"] < 2 and group_id not in self.groups):
            return
        self.groups.setdefault(group_id, Group()).intents[intent["id"]] = intent
        if len(self.groups) > GROUPS_MAX:
            del self.groups[next(iter(self.groups))]

    def over(self, intent_id: str, group_id: str, now_ns: int) -> None:
        """A leg was refused, or its order is over."""
        group = self.groups.get(group_id)
        if group is not None and intent_id in group.intents:
            group.over.add(intent_id)
            group.settle_ns = now_ns + 100_000_000

    def refused(self, intent_id: str, now_ns: int) -> None:
        """The risk gate refused an intent."""
        for group_id, group in self.groups.items():
            if intent_id in group.intents:
                self.over(intent_id, group_id, now_ns)

    def fill(self, fill: Record, now_ns: int) -> None:
        """A fill of a leg, late ones included; each counts once."""
        group = self.groups.get(fill["group_id"])
        terms = self.terms.get(f"{fill['venue']}|{fill['symbol']}")
        unique = (fill["account"], fill["symbol"], fill["trade_id"], fill["side"])
        if group is None or terms is None or unique in self._fills:
            return
        self._fills.add(unique)
        sign = 1 if fill["side"] == "BUY" else -1
        size = fill["size"] * terms.contract * 10 ** (fill["size_exp"] + terms.contract_exp - UNIT_EXP)
        exponent = fill["price_exp"] + fill["size_exp"] + terms.contract_exp
        value = fill["price"] * fill["size"] * terms.contract * 10 ** (exponent - UNIT_EXP)
        for asset, moved in ((terms.base, sign * size), (terms.quote, -sign * value)):
            group.moved[asset] = group.moved.get(asset, 0) + moved
        group.settle_ns = now_ns + 100_000_000
        group.closed = False

    def due(self, now_ns: int) -> tuple[list[Record], list[str]]:
        """(intents that close what is left over, alarms), for groups of which all is over and settled."""
        out: list[Record] = []
        alarms: list[str] = []
        for group_id, group in self.groups.items():
            if group.closed or now_ns < group.settle_ns or len(group.over) < len(group.intents) or not self._whole(group):
                continue
            left = self.residual(group)
            made = [order for asset, amount in left.items() if (order := self._order(group_id, group, asset, amount, now_ns))]
            if not made:
                group.closed = True
                self.dust += bool(left)
            elif group.tries >= TRIES_MAX:
                group.closed = True
                alarms.append(f"group {group_id} is not hedged after {group.tries} tries: {left}")
                self.unhedged.append(group_id)
            else:
                group.tries += 1
                out += made
        return out, alarms

    @staticmethod
    def _whole(group: Group) -> bool:
        first = next(iter(group.intents.values()))
        return len(group.intents) >= first["legs"]

    def residual(self, group: Group) -> dict[str, int]:
        """What the group left over of each asset that is the base of a leg: it should be nothing."""
        bases = {self.terms[f"{i['venue']}|{i['symbol']}"].base for i in group.intents.values()}
        return {asset: group.moved.get(asset, 0) for asset in sorted(bases) if group.moved.get(asset, 0)}

    def _order(self, group_id: str, group: Group, asset: str, amount: int, now_ns: int) -> Record | None:
        """The order that trades an asset back; None where the venue takes no so small one, or has no live book."""
        bases = {self.terms[f"{i['venue']}|{i['symbol']}"].base for i in group.intents.values()}
        side = "SELL" if amount > 0 else "BUY"
        best: tuple[int, Record, Terms, int] | None = None
        for intent in group.intents.values():
            key = f"{intent['venue']}|{intent['symbol']}"
            terms, live = self.terms[key], self.books.get(key)
            if terms.base != asset or terms.quote in bases or live is None or not live.live or intent["leg"] < 0:
                continue
            touch = live.book.bids.order[-1] if side == "SELL" else -live.book.asks.order[-1]
            price = touch * 10 ** (live.book.price_exp - UNIT_EXP)
            if best is None or ((price > best[0]) if side == "SELL" else (price < best[0])):
                best = (price, intent, terms, live.offset)
        if best is None:
            return None
        price, leg, terms, _ = best
        live = self.books[terms.key]
        shift = 10 ** (terms.price_exp - UNIT_EXP)
        limit = price * (10_000 - COLLAR_BPS) // 10_000 if side == "SELL" else -(-price * (10_000 + COLLAR_BPS) // 10_000)
        own = terms.price_down(limit // shift) if side == "SELL" else terms.price_up(-(-limit // shift))
        size = terms.size_down(abs(amount) // (terms.contract * 10 ** (terms.size_exp + terms.contract_exp - UNIT_EXP)))
        if terms.tradable(own, size):
            return None
        name = hashlib.sha256(f"hedge\x1f{group_id}\x1f{asset}\x1f{group.tries}".encode()).hexdigest()[:24]
        return leg | {
            "id": name, "strategy_version": HEDGE,
            "leg": 0, "legs": 1, "leg_mode": "SINGLE", "side": side, "time_in_force": "IOC", "price": own,
            "size": size, "reduce_only": False, "created_ns": now_ns, "valid_until_ns": now_ns + VALID_NS,
            "trigger_topic": "", "trigger_partition": -1, "trigger_offset": now_ns, "input_topics": ["market.book"],
            "input_keys": [terms.key], "input_partitions": [live.partition], "input_offsets": [live.offset],
            "input_epochs": [live.epoch], "input_indexes": [live.index], "input_states": [live.state],
            "input_ages_ns": [max(0, now_ns - live.ts_received_ns)],
        }  # fmt: skip
