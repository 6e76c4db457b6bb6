"""Market making in one instrument: quotes on both sides, placed by Avellaneda–Stoikov or GLFT, moved with inventory.

A quote is replaced when its target moved by ``requote_ticks``: first the old order is cancelled, and only when the
gateway says that it is over does the new one go out, so that the exposure of a side is never double. With ``amend`` both
are one intent: the gateway sends the new quote the moment the old one is over, not a look at the log later. Quotes are
POST_ONLY. Inventory is counted by fills alone. At the inventory limit the side that would add to it stays empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any, ClassVar, Literal

from market.decimals import rescale
from market.terms import Terms
from strategies.amounts import at_exp
from strategies.quoting import DIGITS, ONE, TWO, Calibration, as_reservation, as_spread, glft_distances, glft_terms
from strategies.strategy import Decision, Leg, Parameters, Record, Side, Strategy, View


class MarketMakingParameters(Parameters, forbid_unknown_fields=True, frozen=True):
    """Prices in quote, sizes in the instrument's own units, as decimal texts."""

    model: Literal["glft", "avellaneda_stoikov"] = "glft"
    size: str = "0.01"
    max_inventory: str = "0.05"
    gamma: str = "0.1"
    """Risk aversion, per quote and unit of ``size``."""
    a: str = ""
    """Fills a second at the mid; empty: calibrated online, as k and sigma."""
    k: str = ""
    sigma: str = ""
    horizon_s: int = 60
    """T−t of Avellaneda–Stoikov, held constant: a market that never closes has no T."""
    min_half_spread_ticks: int = 1
    requote_ticks: int = 2
    min_requote_ms: int = 100
    amend: bool = False
    """Replace quotes by amends (Leg.replaces) instead of a cancel, and a new order when that is told to be over."""
    bucket_ticks: int = 1
    """Distance step of the calibration."""
    window_s: int = 300


class MarketMaking(Strategy):
    """One instance quotes one instrument: the first in ``symbols`` on the first of ``venues``."""

    kind: ClassVar[str] = "market_making"
    version: ClassVar[str] = "1"
    parameters_type: ClassVar[type[Parameters]] = MarketMakingParameters
    timer_ns: ClassVar[int] = 5_000_000_000

    def __init__(self, parameters: MarketMakingParameters, view: View) -> None:
        super().__init__(parameters, view)
        p = parameters
        self._gamma = Decimal(p.gamma)
        self._given = (Decimal(p.a), Decimal(p.k), Decimal(p.sigma)) if p.a and p.k and p.sigma else None
        self._fitted: tuple[Decimal, Decimal, Decimal] | None = self._given
        self._glft: tuple[Decimal, Decimal] | None = None
        self._calibration: Calibration | None = None
        self._inventory = 0
        self._key = ""
        self._last_ns = 0
        self._refit()

    def wants(self, terms: Terms) -> bool:
        p = self.parameters
        return terms.venue == p.venues[0] and terms.symbol == p.symbols[0] if p.venues and p.symbols else False

    def on_terms(self, terms: Terms) -> None:
        self._key = terms.key
        if self._calibration is None:
            step = Decimal(terms.tick * self.parameters.bucket_ticks).scaleb(terms.price_exp)
            self._calibration = Calibration(step, window_s=self.parameters.window_s)

    def on_book(self, key: str) -> Sequence[Decision]:
        view, p, terms = self.view, self.parameters, self.view.terms[key]
        live = view.live(key)
        if live is None:
            return self._withdraw(key, "the book is not live")
        mid = Decimal(live.mid2()).scaleb(live.book.price_exp) / 2
        if self._calibration is not None:
            self._calibration.on_mid(view.now_ns, mid)
        if view.now_ns - self._last_ns < p.min_requote_ms * 1_000_000 or not terms.trading:
            return ()
        quotes = self._quotes(terms, mid)
        if quotes is None:
            return ()
        # Never through the other side's best: POST_ONLY would be refused again and again.
        best_bid, best_ask = live.book.bids.touch(), live.book.asks.touch()
        factor = 10 ** (terms.price_exp - live.book.price_exp) if terms.price_exp >= live.book.price_exp else 1
        bid = min(quotes[0], terms.price_down((best_ask - 1) // factor))
        ask = max(quotes[1], terms.price_up(-(-(best_bid + 1) // factor)))
        size = terms.size_down(at_exp(p.size, terms.size_exp))
        bound = at_exp(p.max_inventory, terms.size_exp)
        wanted: list[tuple[Side, int, int]] = [
            ("BUY", bid, min(size, terms.size_down(max(0, bound - self._inventory)))),
            ("SELL", ask, min(size, terms.size_down(max(0, bound + self._inventory)))),
        ]
        out: list[Decision] = []
        for side, price, amount in wanted:
            out += self._side(terms, side, price, amount)
        if out:
            self._last_ns = view.now_ns
        return out

    def _side(self, terms: Terms, side: Side, price: int, size: int) -> list[Decision]:
        p = self.parameters
        working = [o for o in self.view.open.values() if o.key == terms.key and o.side == side]
        ok = size > 0 and not terms.tradable(price, size)
        if working:
            keep = ok and all(abs(o.price - price) < p.requote_ticks * terms.tick for o in working)
            stale = () if keep else tuple(o.id for o in working if not o.canceling)
            if p.amend and ok and stale and len(working) == 1:
                return [self._decision(terms, legs=(Leg(terms.key, side, price, size, "POST_ONLY", replaces=stale[0]),))]
            if p.amend and any(o.canceling for o in working):
                return []  # the new one is on its way, or the old one still is
            return [self._decision(terms, cancels=stale)] if stale else []
        if not ok:
            return []
        return [self._decision(terms, legs=(Leg(terms.key, side, price, size, "POST_ONLY"),))]

    def _decision(self, terms: Terms, legs: tuple[Leg, ...] = (), cancels: tuple[str, ...] = ()) -> Decision:
        return Decision(
            "quote", terms.symbol, (terms.key,) if legs else (), legs, cancels, report=False,
            valid_ns=self.parameters.valid_ms * 1_000_000,
        )  # fmt: skip

    def _withdraw(self, key: str, reason: str) -> Sequence[Decision]:
        """Cancels everything; cancelling needs no live book."""
        ids = tuple(o.id for o in self.view.open.values() if o.key == key and not o.canceling)
        return (Decision("quote", key.partition("|")[2], (), cancels=ids, reason=reason, report=False),) if ids else ()

    def _quotes(self, terms: Terms, mid: Decimal) -> tuple[int, int] | None:
        """(bid, ask) at the terms' ticks; None while nothing is calibrated."""
        if self._fitted is None:
            return None
        p = self.parameters
        with localcontext() as context:
            context.prec = DIGITS
            q = Decimal(self._inventory) / max(1, at_exp(p.size, terms.size_exp))
            if p.model == "glft":
                assert self._glft is not None
                to_bid, to_ask = glft_distances(q, *self._glft)
                low, high = mid - to_bid, mid + to_ask
            else:
                _, k, sigma = self._fitted
                left = Decimal(p.horizon_s)
                middle = as_reservation(mid, q, self._gamma, sigma, left)
                half = as_spread(self._gamma, sigma, k, left) / TWO
                low, high = middle - half, middle + half
            least = Decimal(terms.tick * p.min_half_spread_ticks).scaleb(terms.price_exp)
            low, high = min(low, mid - least), max(high, mid + least)
            scale = ONE.scaleb(terms.price_exp)
            bid = int((low / scale).to_integral_value(ROUND_FLOOR))
            ask = int((high / scale).to_integral_value(ROUND_CEILING))
        return terms.price_down(bid), terms.price_up(ask)

    def on_trade(self, trade: Record) -> Sequence[Decision]:
        live = self.view.live(self._key)
        if live is not None and self._calibration is not None:
            price = Decimal(trade["price"]).scaleb(trade["price_exp"])
            mid = Decimal(live.mid2()).scaleb(live.book.price_exp) / 2
            self._calibration.on_trade(self.view.now_ns, price, mid)
        return ()

    def on_fill(self, fill: Record) -> Sequence[Decision]:
        terms = self.view.terms[self._key]
        size = rescale(fill["size"], fill["size_exp"], terms.size_exp)
        self._inventory += size if fill["side"] == "BUY" else -size
        return ()

    def on_timer(self) -> Sequence[Decision]:
        if self._given is None and self._calibration is not None:
            self._fitted = self._calibration.fit(self.view.now_ns) or self._fitted
            self._refit()
        return ()

    def _refit(self) -> None:
        if self._fitted is not None and self.parameters.model == "glft":
            a, k, sigma = self._fitted
            self._glft = glft_terms(self._gamma, sigma, a, k)

    def state(self) -> Mapping[str, Any]:
        return {
            "inventory": self._inventory, "last_ns": self._last_ns,
            "fitted": [str(v) for v in self._fitted] if self._fitted else None,
            "calibration": self._calibration.state() if self._calibration else None,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._inventory, self._last_ns = state["inventory"], state["last_ns"]
        if state["fitted"]:
            a, k, sigma = (Decimal(v) for v in state["fitted"])
            self._fitted = (a, k, sigma)
        if state["calibration"] and self._calibration is not None:
            self._calibration.restore(state["calibration"])
        self._refit()
