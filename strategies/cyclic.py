"""Cyclic arbitrage: from an asset through two, three or more instruments back to it, in one venue.

Each instrument is two directed edges between its assets. The cycles through each instrument are listed once, when the
instrument appears; a book's update then only touches the cycles that contain it, so the search for negative cycles is
incremental: a cycle pays at the touch when the product of its rates (after fees) is above one. Rates are floored
integers, so rounding can only hide a cycle, never invent one.

The size comes from the merged marginal rates: all hops' levels are walked together while the product of the marginal
rates stays above one. The result is then computed forward through the books in whole lots, fees rounded against us,
and only that exact result decides. All legs go out together as IOC; what some of them miss is the hedge group's to close.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from market.decimals import format_decimal
from market.fees import ONE, proceeds, rate_from_bps
from market.live_book import LiveBook
from market.terms import Terms
from strategies.amounts import at_exp, shift_down
from strategies.strategy import Decision, Leg, Parameters, Strategy, View

RATE_BITS = 96
RATE_ONE = 1 << RATE_BITS
MONEY_EXP = -12
"""Exponent at which amounts are carried from hop to hop, rounded down at each."""


class CyclicParameters(Parameters, forbid_unknown_fields=True, frozen=True):
    """Rates in basis points, amounts in the start asset, decimal texts."""

    start: tuple[str, ...] = ("USDT", "USDC", "USD")
    """Assets that a cycle may start from and return to, in order of preference."""
    hops: int = 3
    min_profit: str = "0"
    haircut_bps: str = "1"
    max_input: str = "1000"
    max_age_ms: int = 5000
    depth: int = 20
    cooldown_ms: int = 100
    cycles_max: int = 200_000
    """Of all together: more instruments are looked at only as far as this reaches."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One edge: BUY goes from quote to base, SELL from base to quote."""

    key: str
    side: Literal["BUY", "SELL"]
    given: str
    got: str


Cycle = tuple[Hop, ...]


class Cyclic(Strategy):
    """Cycles of up to ``hops`` spot instruments in each venue."""

    kind: ClassVar[str] = "cyclic"
    version: ClassVar[str] = "1"
    parameters_type: ClassVar[type[Parameters]] = CyclicParameters

    def __init__(self, parameters: CyclicParameters, view: View) -> None:
        super().__init__(parameters, view)
        self._edges: dict[tuple[str, str], list[Hop]] = {}
        """(venue, asset given) → hops."""
        self._through: dict[str, list[Cycle]] = {}
        self._rates: dict[tuple[str, str], int] = {}
        """(key, side) → how much of the other asset one unit brings at the touch, × RATE_ONE; absent: not live."""
        self._cycles = 0
        self._haircut = rate_from_bps(parameters.haircut_bps)
        self._last_ns: dict[str, int] = {}

    def wants(self, terms: Terms) -> bool:
        return super().wants(terms) and terms.kind == "SPOT"

    def on_terms(self, terms: Terms) -> None:
        if terms.key in self._through:
            return
        self._through[terms.key] = []
        hops = (Hop(terms.key, "BUY", terms.quote, terms.base), Hop(terms.key, "SELL", terms.base, terms.quote))
        for hop in hops:
            self._edges.setdefault((terms.venue, hop.given), []).append(hop)
        for hop in hops:
            for path in self._paths(terms.venue, hop):
                cycle = self._rotated(path)
                if cycle is None or self._cycles >= self.parameters.cycles_max:
                    continue
                self._cycles += 1
                for one in cycle:
                    self._through[one.key].append(cycle)

    def _paths(self, venue: str, first: Hop) -> list[Cycle]:
        """All simple cycles that begin with this hop, each instrument and asset used once."""
        found: list[Cycle] = []
        stack: list[Cycle] = [(first,)]
        while stack:
            path = stack.pop()
            for hop in self._edges.get((venue, path[-1].got), ()):
                if any(hop.key == p.key for p in path):
                    continue
                if hop.got == first.given:
                    found.append((*path, hop))
                elif len(path) + 1 < self.parameters.hops and all(hop.got != p.given for p in path):
                    stack.append((*path, hop))
        return found

    def _rotated(self, path: Cycle) -> Cycle | None:
        """The cycle from the asset that it may start with; None where it touches none of them."""
        for asset in self.parameters.start:
            for i, hop in enumerate(path):
                if hop.given == asset:
                    return path[i:] + path[:i]
        return None

    def on_book(self, key: str) -> Sequence[Decision]:
        book, terms = self.view.live(key), self.view.terms[key]
        if book is None or terms.taker_fee is None or not terms.trading:
            self._rates.pop((key, "BUY"), None)
            self._rates.pop((key, "SELL"), None)
            return ()
        self._touch(key, book, terms.taker_fee)
        last = self._last_ns.get(terms.venue)
        if last is not None and self.view.now_ns - last < self.parameters.cooldown_ms * 1_000_000:
            return ()
        best_product, best = (RATE_ONE * (ONE + self._haircut) // ONE), None
        rates = self._rates
        for cycle in self._through[key]:
            product = RATE_ONE
            for hop in cycle:
                rate = rates.get((hop.key, hop.side))
                if rate is None:
                    product = 0
                    break
                product = product * rate >> RATE_BITS
            if product > best_product:
                best_product, best = product, cycle
        if best is None or any(o.key.startswith(f"{terms.venue}|") for o in self.view.open.values()):
            return ()
        decision = self._sized(best)
        if decision is None:
            return ()
        self._last_ns[terms.venue] = self.view.now_ns
        return (decision,)

    def on_restored(self) -> None:
        for key in self._through:
            book, fee = self.view.live(key), self.view.terms[key].taker_fee
            if book is not None and fee is not None and self.view.terms[key].trading:
                self._touch(key, book, fee)

    def _touch(self, key: str, book: LiveBook, fee: int) -> None:
        own = book.book
        up = 10**-own.price_exp
        ask, bid = own.asks.touch(), own.bids.touch()
        # Exponents matter: RATE is in whole units of each asset, so that hops of any instruments multiply.
        self._rates[(key, "BUY")] = RATE_ONE * up * ONE // (ask * (ONE + fee))
        self._rates[(key, "SELL")] = RATE_ONE * bid * (ONE - fee) // (up * ONE)

    def _sized(self, cycle: Cycle) -> Decision | None:
        view, p = self.view, self.parameters
        if any(view.live(h.key) is None or view.age_ns(h.key) > p.max_age_ms * 1_000_000 for h in cycle):
            return None
        venue = view.terms[cycle[0].key].venue
        start = cycle[0].given
        have = view.balance(venue, start, MONEY_EXP)
        cap = min(at_exp(p.max_input, MONEY_EXP), have or 0)
        amount = marginal_input([self._curve(h) for h in cycle], cap, self._haircut)
        if not amount:
            return None
        result = self._forward(cycle, amount)
        if result is None:
            return None
        legs, spent, came_back = result
        # The later legs sell what the earlier ones buy; sent together, they need inventory of their own.
        for hop, leg in zip(cycle[1:], legs[1:], strict=True):
            terms = view.terms[hop.key]
            need = leg.size if leg.side == "SELL" else terms.notional(leg.price, leg.size) * (ONE + (terms.taker_fee or 0)) // ONE
            exponent = terms.size_exp if leg.side == "SELL" else terms.notional_exp
            held = view.balance(venue, hop.given, exponent)
            if held is None or held < need:
                return None
        edge = came_back - spent - spent * self._haircut // ONE
        if edge <= max(0, at_exp(p.min_profit, MONEY_EXP)):
            return None
        path = " → ".join([start, *(h.got for h in cycle)])
        reason = (
            f"{path}: {format_decimal(spent, MONEY_EXP)} becomes {format_decimal(came_back, MONEY_EXP)} {start} after fees"
        )
        return Decision(
            "cyclic", f"{venue}:{path}", tuple(h.key for h in cycle), tuple(legs), leg_mode="SIMULTANEOUS", edge=edge,
            edge_exp=MONEY_EXP, edge_asset=start, reason=reason, valid_ns=p.valid_ms * 1_000_000,
        )  # fmt: skip

    def _curve(self, hop: Hop) -> list[tuple[int, int]]:
        """(rate × RATE_ONE after fee, capacity in the asset given at MONEY_EXP) of each level, best first."""
        live, terms = self.view.books[hop.key], self.view.terms[hop.key]
        book, fee, out = live.book, terms.taker_fee or 0, list[tuple[int, int]]()
        up = 10**-book.price_exp
        side = book.asks if hop.side == "BUY" else book.bids
        for price, size in side.top(self.parameters.depth):
            if hop.side == "BUY":
                whole = shift_down(price * size, book.price_exp + book.size_exp, MONEY_EXP)
                out.append((RATE_ONE * up * ONE // (price * (ONE + fee)), whole * (ONE + fee) // ONE))
            else:
                capacity = shift_down(size, book.size_exp, MONEY_EXP)
                out.append((RATE_ONE * price * (ONE - fee) // (up * ONE), capacity))
        return out

    def _forward(self, cycle: Cycle, amount: int) -> tuple[list[Leg], int, int] | None:
        """Trade the cycle exactly, in whole lots: (legs, spent, came back) in the start asset at MONEY_EXP."""
        legs: list[Leg] = []
        spent_first = 0
        for number, hop in enumerate(cycle):
            terms, book = self.view.terms[hop.key], self.view.books[hop.key].book
            fee = terms.taker_fee or 0
            if hop.side == "BUY":
                size, limit, paid = _buy(book, terms, fee, amount)
                got = shift_down(size, terms.size_exp, MONEY_EXP)
            else:
                size = terms.size_down(shift_down(amount, MONEY_EXP, terms.size_exp))
                limit, earned = _sell(book, terms, size)
                got = shift_down(proceeds(earned, fee), book.price_exp + terms.size_exp, MONEY_EXP)
                paid = -shift_down(-size, terms.size_exp, MONEY_EXP)
            if not size or not limit or terms.tradable(limit, size):
                return None
            spent_first = spent_first or (paid if number == 0 else 0)
            legs.append(Leg(hop.key, hop.side, limit, size))
            amount = got
        return legs, spent_first, amount

    def state(self) -> Mapping[str, Any]:
        return {"last_ns": self._last_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._last_ns = dict(state["last_ns"])


def _buy(book: Any, terms: Terms, fee: int, amount: int) -> tuple[int, int, int]:
    """(size, limit, paid) of what ``amount`` at MONEY_EXP buys with the fee on top; size at the terms' exponents."""
    exp = book.price_exp + book.size_exp
    budget = shift_down(amount * ONE // (ONE + fee), MONEY_EXP, exp)
    size, left = 0, budget
    for price, available in book.asks.top(50):
        part = min(available, left // price)
        size += part
        left -= part * price
        if part < available:
            break
    size = terms.size_down(shift_down(size, book.size_exp, terms.size_exp))
    limit, spent, need = 0, 0, size * 10 ** (terms.size_exp - book.size_exp)
    for price, available in book.asks.top(50):
        if need <= 0:
            break
        part = min(available, need)
        spent += part * price
        need -= part
        limit = price
    paid = -shift_down(-(spent * (ONE + fee)) // ONE, exp, MONEY_EXP)
    return size, terms.price_up(-shift_down(-limit, book.price_exp, terms.price_exp)), paid


def _sell(book: Any, terms: Terms, size: int) -> tuple[int, int]:
    """(limit, earned) of selling this size; earned at book.price_exp + terms.size_exp; (0, 0) where depth is missing."""
    earned, limit = 0, 0
    factor = 10 ** (terms.size_exp - book.size_exp)
    left = size * factor
    for price, available in book.bids.top(50):
        part = min(available, left)
        earned += part * price
        left -= part
        limit = price
        if left <= 0:
            break
    if left > 0:
        return 0, 0
    return terms.price_down(shift_down(limit, book.price_exp, terms.price_exp)), earned // factor


def marginal_input(curves: Sequence[Sequence[tuple[int, int]]], cap: int, haircut: int) -> int:
    """How much to put into the first hop: pieces are taken while the product of the marginal rates pays.

    ``curves``: for each hop its levels as (rate × RATE_ONE, capacity in the asset given), best first. Each piece is as
    large as the tightest hop allows, seen from the start. Gives at most ``cap``.
    """
    at = [0] * len(curves)
    left = [curve[0][1] if curve else 0 for curve in curves]
    bound = RATE_ONE * (ONE + haircut) // ONE
    total = 0
    while total < cap:
        product, tightest = RATE_ONE, cap - total
        for i, curve in enumerate(curves):
            if at[i] >= len(curve):
                return total
            # What hop i can still take, counted in the start asset.
            tightest = min(tightest, (left[i] << RATE_BITS) // product)
            product = product * curve[at[i]][0] >> RATE_BITS
        if product <= bound:
            return total
        flow = tightest
        total += tightest
        for i, curve in enumerate(curves):
            rate = curve[at[i]][0]
            left[i] -= flow
            flow = flow * rate >> RATE_BITS
            # Less than a millionth of the level is dust left by rounding: on to the next one.
            if left[i] * 1_000_000 <= curve[at[i]][1]:
                at[i] += 1
                left[i] = curve[at[i]][1] if at[i] < len(curve) else 0
        if tightest == 0 and total:
            return total
        if tightest == 0:
            return 0
    return total
