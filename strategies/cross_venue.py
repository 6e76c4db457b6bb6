"""Cross-venue arbitrage: buy where an instrument is cheap and sell where it is dear, at once, over all venues of a group.

Both books are walked together, level against level, while ``bid × (1 − fee) > ask × (1 + fee)`` still holds after the
haircut. The quantity is capped by inventory on both sides, by notional and by the depth looked at, and rounded down to
what both venues' lots divide. The profit is then computed again for exactly that quantity, fees rounded against us.

The haircut pays for what can happen until the orders arrive: a fixed part, and a part that grows with the age of the
older of the two books (expected adverse move per second). Both legs go out together as IOC at the worst price counted
with; what fills on one side alone is the hedge group's to close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any, ClassVar

from market.decimals import format_decimal
from market.fees import FEE_EXP, ONE, cost, fee_of, proceeds, rate_from_bps
from market.live_book import LiveBook
from market.terms import Terms
from strategies.amounts import at_exp, shift_down
from strategies.strategy import Decision, Leg, Parameters, Strategy, View

SECOND_NS = 1_000_000_000


class CrossVenueParameters(Parameters, forbid_unknown_fields=True, frozen=True):
    """Rates in basis points, amounts in quote, all decimal texts."""

    min_profit: str = "0"
    """In quote, after fees and haircut; the opportunity must be above it."""
    max_notional: str = "1000"
    """Of one leg, in quote."""
    haircut_bps: str = "1"
    adverse_bps_per_s: str = "2"
    """Expected move against us for each second of age of the older book, and of the delay to the venue."""
    delay_ms: int = 5
    """Measured time from decision to the venue's matching."""
    max_age_ms: int = 5000
    depth: int = 50
    """Levels looked at on each side."""
    cooldown_ms: int = 100
    """Between two decisions on one group."""


class CrossVenue(Strategy):
    """One group is a base and a quote; its members are that pair on every venue (spot, and linear perpetuals)."""

    kind: ClassVar[str] = "cross_venue"
    version: ClassVar[str] = "1"
    parameters_type: ClassVar[type[Parameters]] = CrossVenueParameters

    def __init__(self, parameters: CrossVenueParameters, view: View) -> None:
        super().__init__(parameters, view)
        self._haircut = rate_from_bps(parameters.haircut_bps)
        self._adverse = rate_from_bps(parameters.adverse_bps_per_s)
        self._groups: dict[str, list[str]] = {}
        self._last_ns: dict[str, int] = {}

    def wants(self, terms: Terms) -> bool:
        return super().wants(terms) and terms.kind in ("SPOT", "PERPETUAL") and not terms.inverse

    def on_terms(self, terms: Terms) -> None:
        members = self._groups.setdefault(_group(terms), [])
        if terms.key not in members:
            members.append(terms.key)
            members.sort()

    def on_book(self, key: str) -> Sequence[Decision]:
        view, terms = self.view, self.view.terms[key]
        group = _group(terms)
        if len(self._groups[group]) < 2 or view.live(key) is None or self._busy(group):
            return ()
        best: Decision | None = None
        for other in self._groups[group]:
            if other == key or view.terms[other].venue == terms.venue or view.live(other) is None:
                continue
            for buy, sell in ((key, other), (other, key)):
                found = self._pair(group, buy, sell)
                if found is not None and (best is None or found.edge > best.edge):
                    best = found
        if best is None:
            return ()
        self._last_ns[group] = view.now_ns
        return (best,)

    def _busy(self, group: str) -> bool:
        view, last = self.view, self._last_ns.get(group)
        if last is not None and view.now_ns - last < self.parameters.cooldown_ms * 1_000_000:
            return True
        return any(o.key in self._groups[group] for o in view.open.values())

    def _pair(self, group: str, buy: str, sell: str) -> Decision | None:
        view, p = self.view, self.parameters
        bt, st = view.terms[buy], view.terms[sell]
        if not (bt.trading and st.trading) or bt.taker_fee is None or st.taker_fee is None:
            return None
        bb, sb = view.books[buy], view.books[sell]
        age = max(view.age_ns(buy), view.age_ns(sell))
        if age > p.max_age_ms * 1_000_000:
            return None
        haircut = self._haircut + self._adverse * (age + p.delay_ms * 1_000_000) // SECOND_NS
        walk = Walk(bt, st, bb, sb, haircut, p.depth)
        if not walk.size:
            return None
        cap = self._cap(walk, bt, st)
        size = min(walk.size, cap) // walk.lot * walk.lot
        size = walk.above_minimums(size)
        if not size:
            return None
        edge, buy_limit, sell_limit, spent, earned = walk.exact(size)
        if edge <= max(0, at_exp(p.min_profit, walk.exp)):
            return None
        legs = (walk.leg(bt, "BUY", buy_limit, size), walk.leg(st, "SELL", sell_limit, size))
        reason = (
            f"buy {format_decimal(size, walk.size_exp)} {bt.base} on {bt.venue} for {format_decimal(spent, walk.exp)}, "
            f"sell on {st.venue} for {format_decimal(earned, walk.exp)} {bt.quote} after fees "
            f"{_bps(bt.taker_fee)} and {_bps(st.taker_fee)} bps; haircut {_bps(haircut)} bps at age {age // 1000} us"
        )
        return Decision(
            "cross_venue", group, (buy, sell), legs, leg_mode="SIMULTANEOUS", edge=edge, edge_exp=walk.exp,
            edge_asset=bt.quote, reason=reason, valid_ns=p.valid_ms * 1_000_000,
        )  # fmt: skip

    def _cap(self, walk: Walk, bt: Terms, st: Terms) -> int:
        """The most that inventory and notional allow, at the walk's size exponent."""
        price = walk.first_ask
        cap = at_exp(self.parameters.max_notional, walk.exp) // price
        if bt.kind == "SPOT":
            quote = self.view.balance(bt.venue, bt.quote, walk.exp)
            # The dearest level counted with, and the fee on top.
            cap = min(cap, 0 if quote is None else quote * ONE // (walk.last_ask * (ONE + (bt.taker_fee or 0))))
        if st.kind == "SPOT":
            base = self.view.balance(st.venue, st.base, walk.size_exp)
            cap = min(cap, 0 if base is None else base)
        return cap

    def state(self) -> Mapping[str, Any]:
        return {"last_ns": self._last_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._last_ns = dict(state["last_ns"])


class Walk:
    """Two books walked against each other, in base units: prices and sizes of both at common exponents.

    ``size`` is the quantity over which each further piece still pays after fees and ``haircut`` (a rate); ``exp`` is
    the exponent of price × size.
    """

    def __init__(
        self, buy: Terms, sell: Terms, buy_book: LiveBook, sell_book: LiveBook, haircut: int, depth: int
    ) -> None:
        self.buy, self.sell, self.haircut = buy, sell, haircut
        self.price_exp = min(buy_book.book.price_exp, sell_book.book.price_exp, buy.price_exp, sell.price_exp)
        self.size_exp = min(
            min(b.book.size_exp, t.size_exp) + t.contract_exp for b, t in ((buy_book, buy), (sell_book, sell))
        )
        self.exp = self.price_exp + self.size_exp
        self.lot = lcm(self._size(buy.lot, buy, buy.size_exp), self._size(sell.lot, sell, sell.size_exp))
        self.pieces: list[tuple[int, int, int]] = []
        """(ask, bid, size)."""
        self.size = 0
        self.first_ask = self.last_ask = 0
        self._walk(self._levels(buy_book, buy, "asks", depth), self._levels(sell_book, sell, "bids", depth))

    def _size(self, size: int, terms: Terms, exp: int) -> int:
        return size * terms.contract * 10 ** (exp + terms.contract_exp - self.size_exp)

    def _levels(self, live: LiveBook, terms: Terms, side: str, depth: int) -> list[tuple[int, int]]:
        book = live.book
        factor = 10 ** (book.price_exp - self.price_exp)
        return [(p * factor, self._size(s, terms, book.size_exp)) for p, s in getattr(book, side).top(depth)]

    def _walk(self, asks: list[tuple[int, int]], bids: list[tuple[int, int]]) -> None:
        pay, get = ONE + (self.buy.taker_fee or 0) + self.haircut, ONE - (self.sell.taker_fee or 0)
        i = j = 0
        ask_left = bid_left = 0
        while i < len(asks) and j < len(bids) and bids[j][0] * get > asks[i][0] * pay:
            ask_left = ask_left or asks[i][1]
            bid_left = bid_left or bids[j][1]
            part = min(ask_left, bid_left)
            self.pieces.append((asks[i][0], bids[j][0], part))
            self.size += part
            self.first_ask = self.first_ask or asks[i][0]
            self.last_ask = asks[i][0]
            ask_left, bid_left = ask_left - part, bid_left - part
            i, j = i + (not ask_left), j + (not bid_left)

    def above_minimums(self, size: int) -> int:
        """The size, or 0 where one of the venues would not take so little."""
        if size <= 0:
            return 0
        for terms, price in ((self.buy, self.pieces[0][0]), (self.sell, self.pieces[-1][1])):
            own = self.own_size(terms, size)
            own_price = shift_down(price, self.price_exp, terms.price_exp)
            if own < max(terms.min_size, 1) or terms.notional(own_price, own) < terms.min_notional:
                return 0
        return size

    def own_size(self, terms: Terms, size: int) -> int:
        """A base quantity as the instrument's own size."""
        units = size // terms.contract
        return shift_down(units, self.size_exp - terms.contract_exp, terms.size_exp)

    def exact(self, size: int) -> tuple[int, int, int, int, int]:
        """(edge, buy limit, sell limit, spent, earned) for exactly this size; the edge is after the haircut."""
        spent = earned = 0
        buy_limit = sell_limit = 0
        left = size
        for ask, bid, part in self.pieces:
            part = min(part, left)
            spent += ask * part
            earned += bid * part
            buy_limit, sell_limit = ask, bid
            left -= part
            if not left:
                break
        paid = cost(spent, self.buy.taker_fee or 0)
        got = proceeds(earned, self.sell.taker_fee or 0)
        return got - paid - fee_of(spent, self.haircut), buy_limit, sell_limit, paid, got

    def leg(self, terms: Terms, side: Any, price: int, size: int) -> Leg:
        """The order at the instrument's own exponents and ticks, never beyond the price counted with."""
        own = shift_down(price, self.price_exp, terms.price_exp)
        if side == "SELL" and own * 10 ** (terms.price_exp - self.price_exp) < price:
            own += 1
        own = terms.price_down(own) if side == "BUY" else terms.price_up(own)
        return Leg(terms.key, side, own, self.own_size(terms, size))


def _group(terms: Terms) -> str:
    return f"{terms.base}/{terms.quote}"


def _bps(rate: int) -> str:
    return format_decimal(rate, FEE_EXP + 4)
