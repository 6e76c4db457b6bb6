"""Cross-exchange market making: quote on one venue at another venue's price plus a margin, hedge each fill there.

The bid stands where selling the same size at once on the hedge venue, after both fees, still leaves ``margin_bps``; the
ask likewise. Hedges are driven by fills, never by an order's completion: each fill adds to what is unhedged, and as
soon as that is an order which the hedge venue takes, it goes out as IOC through the touch, within a collar. What is
below the venue's minimum waits for the next fill. A hedge that was refused or missed is tried again at the next book.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from market.decimals import rescale
from market.fees import ONE, rate_from_bps
from market.live_book import LiveBook
from market.terms import Terms
from strategies.amounts import at_exp, shift_down, shift_up
from strategies.strategy import Decision, Leg, OpenIntent, Parameters, Record, Side, Strategy, StrategyError, View

UNIT_EXP = -18


class CrossExchangeParameters(Parameters, forbid_unknown_fields=True, frozen=True):
    """Sizes in base, rates in basis points, decimal texts."""

    maker: str = ""
    """Venue to quote on."""
    hedge: str = ""
    """Venue to hedge on."""
    size: str = "0.01"
    max_unhedged: str = "0.05"
    """Base; beyond it nothing is quoted."""
    margin_bps: str = "2"
    collar_bps: str = "20"
    """How far through the touch a hedge may trade."""
    requote_ticks: int = 2
    min_requote_ms: int = 100
    hedge_retry_ms: int = 50


class CrossExchangeMarketMaking(Strategy):
    """The first of ``symbols``, on both venues."""

    kind: ClassVar[str] = "cross_exchange_mm"
    version: ClassVar[str] = "1"
    parameters_type: ClassVar[type[Parameters]] = CrossExchangeParameters

    def __init__(self, parameters: CrossExchangeParameters, view: View) -> None:
        super().__init__(parameters, view)
        p = parameters
        if not p.symbols or not p.maker or not p.hedge or p.maker == p.hedge:
            raise StrategyError("cross_exchange_mm needs symbols, a maker venue and another hedge venue")
        self._maker, self._hedge = f"{p.maker}|{p.symbols[0]}", f"{p.hedge}|{p.symbols[-1]}"
        self._margin, self._collar = rate_from_bps(p.margin_bps), rate_from_bps(p.collar_bps)
        self._unhedged = 0
        """Signed base at UNIT_EXP that fills have brought and hedges have not taken back."""
        self._group = ""
        self._last_ns = 0
        self._last_hedge_ns = 0

    def wants(self, terms: Terms) -> bool:
        return terms.key in (self._maker, self._hedge) and not terms.inverse

    def on_book(self, key: str) -> Sequence[Decision]:
        terms, hedge = self.view.terms.get(self._maker), self.view.terms.get(self._hedge)
        if terms is None or hedge is None:
            return ()
        return [*self._hedges(), *self._quotes(terms, hedge)]

    def on_fill(self, fill: Record) -> Sequence[Decision]:
        key = f"{fill['venue']}|{fill['symbol']}"
        terms = self.view.terms.get(key)
        if terms is None:
            return ()
        size = rescale(fill["size"], fill["size_exp"], UNIT_EXP - terms.contract_exp) * terms.contract
        self._unhedged += size if fill["side"] == "BUY" else -size
        self._group = fill["group_id"] or fill["intent_id"] if key == self._maker else self._group
        if key != self._maker:
            return ()
        return self._hedges(at_once=True)

    def on_order(self, order: OpenIntent, state: str) -> Sequence[Decision]:
        return self._hedges() if order.key == self._hedge else ()

    def _hedges(self, *, at_once: bool = False) -> list[Decision]:
        view, p = self.view, self.parameters
        terms, live = view.terms.get(self._hedge), view.live(self._hedge)
        if not self._unhedged or terms is None or live is None or not terms.trading:
            return []
        if not at_once and view.now_ns - self._last_hedge_ns < p.hedge_retry_ms * 1_000_000:
            return []
        # What is on its way counts as hedged until it is over: a late fill must not be hedged twice.
        flying = sum((o.left if o.side == "BUY" else -o.left) for o in view.open.values() if o.key == self._hedge)
        due = self._unhedged + flying * terms.contract * 10 ** (terms.size_exp + terms.contract_exp - UNIT_EXP)
        size = terms.size_down(shift_down(abs(due) // terms.contract, UNIT_EXP - terms.contract_exp, terms.size_exp))
        side: Side = "SELL" if due > 0 else "BUY"
        price = self._collared(terms, live, side)
        if not size or terms.tradable(price, size):
            return []
        self._last_hedge_ns = view.now_ns
        leg = Leg(self._hedge, side, price, size)
        return [
            Decision(
                "hedge", terms.symbol, (self._hedge,), (leg,), group_id=self._group, report=False,
                reason="hedge of fills", valid_ns=p.valid_ms * 1_000_000,
            )
        ]  # fmt: skip

    def _collared(self, terms: Terms, live: LiveBook, side: Side) -> int:
        own = live.book
        if side == "SELL":
            price = own.bids.touch() * (ONE - self._collar) // ONE
            return terms.price_down(shift_down(price, own.price_exp, terms.price_exp))
        price = -(-own.asks.touch() * (ONE + self._collar) // ONE)
        return terms.price_up(shift_up(price, own.price_exp, terms.price_exp))

    def _quotes(self, terms: Terms, hedge: Terms) -> list[Decision]:
        view, p = self.view, self.parameters
        live, other = view.live(self._maker), view.live(self._hedge)
        open_ids = tuple(o.id for o in view.open.values() if o.key == self._maker and not o.canceling)
        too_much = abs(self._unhedged) > at_exp(p.max_unhedged, UNIT_EXP)
        if live is None or other is None or not terms.trading or too_much:
            return [self._withdraw(open_ids)] if open_ids else []
        if view.now_ns - self._last_ns < p.min_requote_ms * 1_000_000:
            return []
        if terms.maker_fee is None or hedge.taker_fee is None:
            return []
        out: list[Decision] = []
        for side in ("BUY", "SELL"):
            price = self._target(terms, hedge, live, other, side)
            working = [o for o in view.open.values() if o.key == self._maker and o.side == side]
            size = terms.size_down(at_exp(p.size, terms.size_exp + terms.contract_exp) // terms.contract)
            if working:
                if any(abs(o.price - price) >= p.requote_ticks * terms.tick for o in working):
                    stale = tuple(o.id for o in working if not o.canceling)
                    out += [self._withdraw(stale)] if stale else []
            elif price > 0 and not terms.tradable(price, size):
                leg = Leg(self._maker, side, price, size, "POST_ONLY")
                out.append(
                    Decision(
                        "quote", terms.symbol, (self._maker, self._hedge), (leg,), report=False,
                        valid_ns=p.valid_ms * 1_000_000,
                    )
                )  # fmt: skip
        if out:
            self._last_ns = view.now_ns
        return out

    def _target(self, terms: Terms, hedge: Terms, live: LiveBook, other: LiveBook, side: Side) -> int:
        """Where a fill, hedged at the other venue's price for the whole size, leaves the margin; never crossing."""
        maker, taker = terms.maker_fee or 0, hedge.taker_fee or 0
        size = at_exp(self.parameters.size, UNIT_EXP) // hedge.contract
        size = shift_up(size, UNIT_EXP - hedge.contract_exp, other.book.size_exp)
        factor = ONE * ONE
        if side == "BUY":
            price = _worst(other.book.bids.top(50), size) * (ONE - taker) * (ONE - self._margin) * ONE // ((ONE + maker) * factor)
            target = terms.price_down(shift_down(price, other.book.price_exp, terms.price_exp))
            return min(target, terms.price_down(shift_down(live.book.asks.touch() - 1, live.book.price_exp, terms.price_exp)))
        worst = _worst(other.book.asks.top(50), size)
        price = -(-worst * (ONE + taker) * (ONE + self._margin) * ONE // ((ONE - maker) * factor))
        target = terms.price_up(shift_up(price, other.book.price_exp, terms.price_exp))
        return max(target, terms.price_up(shift_up(live.book.bids.touch() + 1, live.book.price_exp, terms.price_exp)))

    def _withdraw(self, ids: tuple[str, ...]) -> Decision:
        return Decision("quote", self._maker.partition("|")[2], (), cancels=ids, report=False)

    def state(self) -> Mapping[str, Any]:
        return {
            "unhedged": self._unhedged, "group": self._group, "last_ns": self._last_ns, "last_hedge_ns": self._last_hedge_ns
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._unhedged, self._group = state["unhedged"], state["group"]
        self._last_ns, self._last_hedge_ns = state["last_ns"], state["last_hedge_ns"]


def _worst(levels: Sequence[tuple[int, int]], size: int) -> int:
    """The price of the level at which ``size`` is reached; the last one when the depth is less."""
    seen = 0
    for price, available in levels:
        seen += available
        if seen >= size:
            return price
    return levels[-1][0] if levels else 0
