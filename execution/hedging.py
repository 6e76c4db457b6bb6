"""Hedge groups: legs that belong together, what their fills left over, and the orders that close it.

Driven by fills: when all legs of a group are over, each asset that the group was only meant to pass through must be back
where it was. What is left over is traded back as IOC through the touch within a collar; each try is a new intent through
the same risk gate. What is left over is a Residual record in one of these states, and nothing else:

HEDGING    tries go on. One that the gate refuses (a book that is not live, a price outside the collar) is no try; it is
           made again, elsewhere if another leg's venue can
UNHEDGED   given up, with an alarm: TRIES_MAX tries filled nothing, AGE_MAX_NS passed, or a kill of all, of the venue or
           of the account stops hedges too. A kill of the strategy does not: it must leave nothing half done
DUST       less than any of the legs' venues takes
CLOSED     nothing is left

HEDGE_OF: the first leg goes out alone (group_gate.py); the others only say where its fills are hedged. Each of its fills,
and each that a reorganised chain takes back, is hedged at once, whatever the order's state. The hedge's base stands for
the first leg's, whatever the two are called (WETH and ETH).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from execution.accounting import value_of
from execution.orders import places
from market.decimals import format_decimal, parse_decimal
from market.live_book import LiveBook
from market.terms import Terms

Record = dict[str, Any]
UNIT_EXP = -18
TRIES_MAX = 8
AGE_MAX_NS = 60_000_000_000
GROUPS_MAX = 10_000
COLLAR_BPS = 50
VALID_NS = 1_000_000_000
SETTLE_NS = 100_000_000
"""From the last news of a group until it is looked at: fills may still be on their way."""
AGAIN_NS = 500_000_000
"""After a refusal."""
LEG_GRACE_NS = 2_000_000_000
"""A leg that has not come so long after the group's validity never will: its strategy died in between."""
HEDGE = "hedge"
"""In place of a strategy's version: no strategy decided this order."""
OVER = frozenset(
    ("FILLED", "CANCELED", "REJECTED", "EXPIRED", "NEVER_EXISTED", "MINED", "FINAL", "REVERTED", "DROPPED")
)  # fmt: skip
"""What is mined is over until the chain says otherwise; a fill that is taken back comes as a fill."""


@dataclass
class Group:
    """One group: its intents, what is over, and the signed amounts that its fills moved, by asset at UNIT_EXP."""

    intents: dict[str, Record] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    filled: set[str] = field(default_factory=set)
    """Intents that filled something."""
    trades: set[tuple[str, str, str, str]] = field(default_factory=set)
    moved: dict[str, int] = field(default_factory=dict)
    not_before_ns: int = 0
    since_ns: int = 0
    """When it was first found that something is left over."""
    avoid: dict[str, int] = field(default_factory=dict)
    """``venue|symbol`` → until when: its last hedge was refused there."""
    cause: str = ""

    @property
    def hedges(self) -> list[str]:
        """Our own orders of this group."""
        return [name for name, intent in self.intents.items() if intent["strategy_version"] == HEDGE]

    @property
    def tries(self) -> int:
        """Hedges that the gate let out and that filled nothing."""
        return sum(h in self.over and h not in self.refused and h not in self.filled for h in self.hedges)

    @property
    def legs(self) -> list[Record]:
        """What the strategy decided."""
        return [intent for intent in self.intents.values() if intent["strategy_version"] != HEDGE]

    @property
    def hedge_of(self) -> bool:
        """Whether the first leg alone trades, and the others say where it is hedged."""
        return any(intent["leg_mode"] == "HEDGE_OF" for intent in self.legs)


@dataclass
class HedgeGroups:
    """A fold over intents, verdicts, order events and fills of groups with several legs.

    ``unusable(intent)`` says why nothing may be sent to an intent's account (a kill, a halt); ``incomplete(intent id)``
    whether the venue told of fills of it that are not here yet; ``owns(account)`` whether this process trades for it.
    """

    terms: Mapping[str, Terms]
    books: Mapping[str, LiveBook]
    unusable: Callable[[Record], str] = lambda intent: ""
    incomplete: Callable[[str], bool] = lambda intent_id: False
    owns: Callable[[str], bool] = lambda account: True
    groups: dict[str, Group] = field(default_factory=dict)
    told: dict[str, Record] = field(default_factory=dict)
    """group → its newest Residual record."""
    _active: dict[str, None] = field(default_factory=dict)
    _group_of: dict[str, str] = field(default_factory=dict)

    def intent(self, intent: Record) -> None:
        """A leg, or one of our own orders to close a group."""
        group_id = intent["group_id"]
        if not group_id or not places(intent) or (intent["legs"] < 2 and group_id not in self.groups):
            return
        self.groups.setdefault(group_id, Group()).intents[intent["id"]] = intent
        self._group_of[intent["id"]] = group_id
        self._active[group_id] = None
        if len(self.groups) > GROUPS_MAX:
            self._forget()

    def _forget(self) -> None:
        """The oldest that are closed go; one that is open never does."""
        for group_id in [g for g in self.groups if g not in self._active][: GROUPS_MAX // 10]:
            for intent_id in self.groups.pop(group_id).intents:
                self._group_of.pop(intent_id, None)
            self.told.pop(group_id, None)

    def remember(self, residual: Record) -> None:
        """A Residual record of an earlier life."""
        if residual["state"] == "CLOSED":
            self.told.pop(residual["group_id"], None)
        else:
            self.told[residual["group_id"]] = residual

    def over(self, intent_id: str, now_ns: int) -> None:
        """An order of a group is over."""
        if (group_id := self._group_of.get(intent_id)) is not None:
            self.groups[group_id].over.add(intent_id)
            self._soon(group_id, now_ns)

    def refused(self, intent_id: str, now_ns: int, cause: str) -> None:
        """The risk gate refused an intent."""
        group_id = self._group_of.get(intent_id)
        if group_id is None:
            return
        group = self.groups[group_id]
        group.over.add(intent_id)
        group.refused.add(intent_id)
        self._soon(group_id, now_ns)
        if (intent := group.intents[intent_id])["strategy_version"] == HEDGE:
            group.cause = cause
            group.avoid[f"{intent['venue']}|{intent['symbol']}"] = now_ns + AGAIN_NS

    def fill(self, fill: Record, now_ns: int) -> None:
        """A fill of a leg, late ones included; each counts once, in every state."""
        group = self.groups.get(fill["group_id"])
        unique = (fill["account"], fill["symbol"], fill["trade_id"], fill["side"])
        if group is None or unique in group.trades:
            return
        group.trades.add(unique)
        group.filled.add(fill["intent_id"])
        terms = self.terms.get(f"{fill['venue']}|{fill['symbol']}")
        contract, contract_exp = (terms.contract, terms.contract_exp) if terms else (1, 0)
        base, quote = (terms.base, terms.quote) if terms else _pair(fill["symbol"])
        base = next(iter(self._bases(group))) if group.hedge_of else base
        sign = 1 if fill["side"] == "BUY" else -1
        size = fill["size"] * contract * 10 ** (fill["size_exp"] + contract_exp - UNIT_EXP)
        value = value_of(fill, contract, contract_exp)
        for asset, moved in ((base, sign * size), (quote, -sign * value)):
            group.moved[asset] = group.moved.get(asset, 0) + moved
        self._soon(fill["group_id"], now_ns)

    def _soon(self, group_id: str, now_ns: int) -> None:
        group = self.groups[group_id]
        group.not_before_ns = now_ns + (0 if group.hedge_of else SETTLE_NS)
        self._active[group_id] = None

    def due(self, now_ns: int) -> tuple[list[Record], list[Record]]:
        """(intents that close what is left over, Residual records that are new), for all groups that have settled."""
        out: list[Record] = []
        news: list[Record] = []
        for group_id in list(self._active):
            group = self.groups[group_id]
            if now_ns < group.not_before_ns or not self._settled(group, now_ns):
                continue
            if not self.owns(_first(group)["account"]):
                del self._active[group_id]
                continue
            state, orders = self._look(group_id, group, now_ns)
            if orders:
                out += orders
                for order in orders:
                    self.intent(order)
            elif state != "HEDGING":
                del self._active[group_id]
                group.since_ns = 0
            news += self._tell(group_id, group, state, now_ns)
        return out, news

    def _settled(self, group: Group, now_ns: int) -> bool:
        """All legs are here and over, with all their fills."""
        if len(group.legs) < _first(group)["legs"]:
            last = max(intent["valid_until_ns"] for intent in group.intents.values())
            if now_ns <= last + LEG_GRACE_NS:
                return False
        if group.hedge_of:
            return not any(name not in group.over or self.incomplete(name) for name in group.hedges)
        return len(group.over) >= len(group.intents) and not any(self.incomplete(name) for name in group.intents)

    def _look(self, group_id: str, group: Group, now_ns: int) -> tuple[str, list[Record]]:
        """(state, the orders to send now)."""
        left = self.residual(group)
        if not left:
            return "CLOSED", []
        known = self.told.get(group_id)
        if known is not None and known["state"] in ("UNHEDGED", "DUST") and _amounts(known) == left:
            group.cause = known["cause"]
            return known["state"], []  # given up before a restart: a person was told
        group.since_ns = group.since_ns or now_ns
        found = [self._order(group_id, group, asset, amount, now_ns) for asset, amount in left.items()]
        orders = [order for order in found if not isinstance(order, str)]
        reasons = [order for order in found if isinstance(order, str)]
        if not orders and all(reason == "" for reason in reasons):
            group.cause = "less than the venues take"
            return "DUST", []
        stopped = next((reason for reason in reasons if reason.startswith("stopped")), "")
        if not orders and stopped:
            group.cause = stopped
            return "UNHEDGED", []
        if group.tries >= TRIES_MAX or now_ns - group.since_ns > AGE_MAX_NS:
            what = f"{group.tries} tries filled nothing" if group.tries >= TRIES_MAX else "too old"
            group.cause = f"{what}; {group.cause or next(iter(reasons), '')}".rstrip("; ")
            return "UNHEDGED", []
        group.cause = group.cause if orders else next((r for r in reasons if r), "")
        return "HEDGING", orders

    def _tell(self, group_id: str, group: Group, state: str, now_ns: int) -> list[Record]:
        left = self.residual(group)
        known = self.told.get(group_id)
        if known is None and state == "CLOSED":
            return []
        if known is not None and known["state"] == state and _amounts(known) == left:
            return []
        first = _first(group)
        made = {
            "group_id": group_id, "strategy": first["strategy"], "account": first["account"], "state": state,
            "cause": group.cause[:500], "tries": group.tries, "created_ns": first["created_ns"], "assets": list(left),
            "amounts": [format_decimal(amount, UNIT_EXP) for amount in left.values()], "ts_ns": now_ns,
        }  # fmt: skip
        self.told[group_id] = made
        return [made]

    def residual(self, group: Group) -> dict[str, int]:
        """What the group left over of each asset that is the base of a leg: it should be nothing."""
        return {asset: group.moved[asset] for asset in sorted(self._bases(group)) if group.moved.get(asset)}

    def _bases(self, group: Group) -> set[str]:
        if group.hedge_of:
            places = sorted((intent for intent in group.legs if intent["leg"]), key=lambda intent: intent["leg"])
            return {self._base(places[0] if places else _first(group))}
        return {self._base(intent) for intent in group.intents.values()}

    def _base(self, intent: Record) -> str:
        terms = self.terms.get(f"{intent['venue']}|{intent['symbol']}")
        return terms.base if terms else _pair(intent["symbol"])[0]

    def closes(self, intent: Record) -> str:
        """Why this hedge would do something else than to make its group's residual smaller; empty when it does that."""
        group = self.groups.get(intent["group_id"])
        terms = self.terms.get(f"{intent['venue']}|{intent['symbol']}")
        if group is None or terms is None:
            return "its group is not known here"
        left = self.residual(group).get(terms.base, 0)
        size = intent["size"] * terms.contract * 10 ** (terms.size_exp + terms.contract_exp - UNIT_EXP)
        right = (left > 0) == (intent["side"] == "SELL") and size <= abs(left)
        return "" if right else f"{intent['side']} of {size} where {left} is left over"

    def _order(self, group_id: str, group: Group, asset: str, amount: int, now_ns: int) -> Record | str:
        """The order that trades an asset back, at the best of the legs' venues that can take it now.

        Else why there is none; empty: no venue takes so small a one.
        """
        side = "SELL" if amount > 0 else "BUY"
        bases = self._bases(group)
        places: dict[str, Record] = {}
        reasons: list[str] = []
        for intent in group.legs:
            key = f"{intent['venue']}|{intent['symbol']}"
            terms = self.terms.get(key)
            if self._base(intent) != asset or key in places or (terms and terms.quote in bases):
                continue
            if group.hedge_of and not intent["leg"]:
                continue  # what the first leg did is not undone there
            if terms is None:
                reasons.append(f"the terms of {key} are not known")
            elif reason := self.unusable(intent):
                reasons.append(f"stopped: {reason}")
            elif (live := self.books.get(key)) is None or not live.live:
                reasons.append(f"{key} is not live")
            elif group.avoid.get(key, 0) > now_ns:
                reasons.append(group.cause)
            else:
                places[key] = intent
        ranked = sorted(places, key=lambda key: (self._touch(key, side) * (-1 if side == "SELL" else 1), key))
        for key in ranked:
            if (made := self._made(group_id, group, asset, amount, places[key], now_ns)) is not None:
                return made
        # Where one of the venues only waits, it may still take what the others call too small.
        waiting = [reason for reason in reasons if not reason.startswith("stopped")]
        return next(iter(waiting or ([] if ranked else reasons)), "")

    def _touch(self, key: str, side: str) -> int:
        book = self.books[key].book
        touch = book.bids.touch() if side == "SELL" else book.asks.touch()
        return touch * 10 ** (book.price_exp - UNIT_EXP)

    def _made(self, group_id: str, group: Group, asset: str, amount: int, leg: Record, now_ns: int) -> Record | None:
        terms, live = self.terms[f"{leg['venue']}|{leg['symbol']}"], self.books[f"{leg['venue']}|{leg['symbol']}"]
        side = "SELL" if amount > 0 else "BUY"
        price, size = collared(terms, live, side), abs(amount)
        size = terms.size_down(size // (terms.contract * 10 ** (terms.size_exp + terms.contract_exp - UNIT_EXP)))
        if terms.tradable(price, size):
            return None
        name = hashlib.sha256(f"hedge\x1f{group_id}\x1f{asset}\x1f{len(group.hedges)}".encode()).hexdigest()[:24]
        return leg | closing_order(name, HEDGE, terms, live, side, price, size, now_ns)


def collared(terms: Terms, live: LiveBook, side: str) -> int:
    """A price through the touch by COLLAR_BPS, in ticks, at the terms' exponent. The book must be live."""
    book = live.book
    touch = book.bids.touch() if side == "SELL" else book.asks.touch()
    price = touch * 10 ** (book.price_exp - UNIT_EXP)
    shift = 10 ** (terms.price_exp - UNIT_EXP)
    if side == "SELL":
        return terms.price_down(price * (10_000 - COLLAR_BPS) // 10_000 // shift)
    return terms.price_up(-(-price * (10_000 + COLLAR_BPS) // 10_000 // shift))


def closing_order(
    name: str, version: str, terms: Terms, live: LiveBook, side: str, price: int, size: int, now_ns: int
) -> Record:
    """The fields of an intent that trades something back at once, seen on one book."""
    return {
        "id": name, "strategy_version": version, "leg": 0, "legs": 1, "leg_mode": "SINGLE", "side": side,
        "order_type": "LIMIT", "time_in_force": "IOC", "price": price, "price_exp": terms.price_exp, "size": size,
        "size_exp": terms.size_exp, "reduce_only": False, "created_ns": now_ns, "valid_until_ns": now_ns + VALID_NS,
        "trigger_topic": "", "trigger_partition": -1, "trigger_offset": now_ns, "input_topics": ["market.book"],
        "input_keys": [terms.key], "input_partitions": [live.partition], "input_offsets": [live.offset],
        "input_epochs": [live.epoch], "input_indexes": [live.index], "input_states": [live.state],
        "input_ages_ns": [max(0, now_ns - live.ts_received_ns)],
    }  # fmt: skip


def _first(group: Group) -> Record:
    return min(group.legs or group.intents.values(), key=lambda intent: (intent["leg"], intent["id"]))


def _pair(symbol: str) -> tuple[str, str]:
    base, _, rest = symbol.partition("/")
    return base, rest.partition(":")[0]


def _amounts(residual: Record) -> dict[str, int]:
    parts = ((asset, parse_decimal(text)) for asset, text in zip(residual["assets"], residual["amounts"], strict=True))
    return {asset: mantissa * 10 ** (exponent - UNIT_EXP) for asset, (mantissa, exponent) in parts}
