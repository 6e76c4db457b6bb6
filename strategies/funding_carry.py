"""Funding and basis carry: long spot and short the perpetual while longs pay shorts, until it no longer pays.

A position of notional N earns ``rate × N`` at each funding, whose interval belongs to the venue and the symbol. Entering
and leaving costs four taker fees and the basis that is crossed (spot ask against perpetual bid, and back). The number of
fundings that earn this back is the break-even holding; the carry is entered when that is short enough, and left when
the rate no longer pays. Source: the venues' funding pages; the interval is read from the record, never assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from market.decimals import format_decimal, rescale
from market.fees import FEE_EXP, ONE, fee_of, rate_from_bps
from market.terms import Terms
from strategies.amounts import at_exp
from strategies.cross_venue import Walk
from strategies.strategy import Decision, Leg, Parameters, Record, Strategy, View

HOUR_US = 3_600_000_000
RATE_EXP = -18


class FundingCarryParameters(Parameters, forbid_unknown_fields=True, frozen=True):
    """Amounts in quote and rates in basis points, decimal texts."""

    notional: str = "1000"
    max_break_even_hours: int = 72
    exit_below_bps: str = "0"
    """Leave when the funding rate of one interval falls to this or below."""
    borrow_bps_per_day: str = "0"
    """What the spot leg's money costs."""
    depth: int = 50


class FundingCarry(Strategy):
    """One carry for each base: any spot book of the group against any linear perpetual of it."""

    kind: ClassVar[str] = "funding_carry"
    version: ClassVar[str] = "1"
    parameters_type: ClassVar[type[Parameters]] = FundingCarryParameters
    timer_ns: ClassVar[int] = 1_000_000_000

    def __init__(self, parameters: FundingCarryParameters, view: View) -> None:
        super().__init__(parameters, view)
        self._exit = rate_from_bps(parameters.exit_below_bps)
        self._borrow = rate_from_bps(parameters.borrow_bps_per_day)
        self._spots: dict[str, list[str]] = {}
        self._perpetuals: dict[str, list[str]] = {}
        self._held: dict[str, dict[str, int]] = {}
        """group → key → signed size held, at the instrument's size exponent, by fills."""

    def wants(self, terms: Terms) -> bool:
        linear = terms.kind == "PERPETUAL" and not terms.inverse
        return super().wants(terms) and (linear or terms.kind == "SPOT")

    def on_terms(self, terms: Terms) -> None:
        group = f"{terms.base}/{terms.quote}"
        members = (self._spots if terms.kind == "SPOT" else self._perpetuals).setdefault(group, [])
        if terms.key not in members:
            members.append(terms.key)
            members.sort()

    def on_book(self, key: str) -> Sequence[Decision]:
        return ()

    def on_timer(self) -> Sequence[Decision]:
        out: list[Decision] = []
        for group in sorted(self._perpetuals):
            if any(o.key in self._perpetuals[group] or o.key in self._spots.get(group, ()) for o in self.view.open.values()):
                continue
            decision = self._leave(group) if any(self._held.get(group, {}).values()) else self._enter(group)
            if decision is not None:
                out.append(decision)
        return out

    def on_fill(self, fill: Record) -> Sequence[Decision]:
        key = f"{fill['venue']}|{fill['symbol']}"
        terms = self.view.terms.get(key)
        if terms is not None:
            held = self._held.setdefault(f"{terms.base}/{terms.quote}", {})
            size = rescale(fill["size"], fill["size_exp"], terms.size_exp)
            held[key] = held.get(key, 0) + (size if fill["side"] == "BUY" else -size)
        return ()

    def _enter(self, group: str) -> Decision | None:
        best: tuple[int, Decision] | None = None
        for perpetual in self._perpetuals[group]:
            for spot in self._spots.get(group, ()):
                found = self._entry(group, spot, perpetual)
                if found is not None and (best is None or found[0] < best[0]):
                    best = found
        return best[1] if best else None

    def _entry(self, group: str, spot: str, perpetual: str) -> tuple[int, Decision] | None:
        """(break-even in microseconds, decision)."""
        view, p = self.view, self.parameters
        funding, st, pt = view.funding.get(perpetual), view.terms[spot], view.terms[perpetual]
        sb, pb = view.live(spot), view.live(perpetual)
        if funding is None or sb is None or pb is None or st.taker_fee is None or pt.taker_fee is None:
            return None
        if not funding["interval_us"]:
            return None  # nobody said how often it is paid: no carry can be computed
        rate = rescale(funding["rate"], funding["rate_exp"], min(RATE_EXP, funding["rate_exp"]))
        rate_one = 10 ** -min(RATE_EXP, funding["rate_exp"])
        # The walk asks what entering costs: with a haircut of −1 every level counts, whether it pays or not.
        walk = Walk(st, pt, sb, pb, -ONE + 1, p.depth)
        if not walk.pieces:
            return None
        size = min(walk.size, at_exp(p.notional, walk.exp) // walk.first_ask)
        quote = view.balance(st.venue, st.quote, walk.exp)
        size = min(size, 0 if quote is None else quote * ONE // (walk.last_ask * (ONE + st.taker_fee)))
        size = walk.above_minimums(size // walk.lot * walk.lot)
        if not size:
            return None
        _, buy_limit, sell_limit, spent, earned = walk.exact(size)
        basis = spent - earned  # both fees are inside
        leave = fee_of(spent, st.taker_fee) + fee_of(earned, pt.taker_fee)
        carried = earned * rate // rate_one
        borrowed = spent * self._borrow * funding["interval_us"] // (ONE * 24 * HOUR_US)
        net = carried - borrowed
        if net <= 0:
            return None
        fundings = -(-max(0, basis + leave) // net)
        needs_us = fundings * funding["interval_us"]
        if needs_us > p.max_break_even_hours * HOUR_US:
            return None
        reason = (
            f"funding {format_decimal(funding['rate'], funding['rate_exp'])} each {funding['interval_us'] // 1_000_000} s: "
            f"{format_decimal(net, walk.exp)} {st.quote} a funding against costs of "
            f"{format_decimal(basis + leave, walk.exp)}: {fundings} fundings to break even"
        )
        legs = (walk.leg(st, "BUY", buy_limit, size), walk.leg(pt, "SELL", sell_limit, size))
        decision = Decision(
            "carry_enter", group, (spot, perpetual), legs, leg_mode="SIMULTANEOUS", edge=net, edge_exp=walk.exp,
            edge_asset=st.quote, reason=reason, valid_ns=p.valid_ms * 1_000_000,
        )  # fmt: skip
        return needs_us, decision

    def _leave(self, group: str) -> Decision | None:
        view, held = self.view, self._held[group]
        short = [key for key in self._perpetuals[group] if held.get(key, 0) < 0]
        for key in short:
            funding = view.funding.get(key)
            if funding is None:
                continue
            exponent = min(FEE_EXP, funding["rate_exp"])
            if rescale(funding["rate"], funding["rate_exp"], exponent) > rescale(self._exit, FEE_EXP, exponent):
                return None
        legs: list[Leg] = []
        for key in sorted(k for k, size in held.items() if size):
            live, terms = view.live(key), view.terms[key]
            if live is None:
                return None
            size = terms.size_down(abs(held[key]))
            side = "SELL" if held[key] > 0 else "BUY"
            best = live.book.bids.best() if side == "SELL" else live.book.asks.best()
            if best is None or not size:
                continue
            price = best[0] * 10 ** (live.book.price_exp - terms.price_exp) if live.book.price_exp >= terms.price_exp else (
                best[0] // 10 ** (terms.price_exp - live.book.price_exp)
            )
            # One percent through the touch: leaving matters more than the last basis point, and IOC bounds it.
            price = terms.price_down(price * 99 // 100) if side == "SELL" else terms.price_up(price * 101 // 100)
            if not terms.tradable(price, size):
                legs.append(Leg(key, side, price, size, reduce_only=terms.kind != "SPOT"))
        if not legs:
            return None
        keys = tuple(leg.key for leg in legs)
        return Decision(
            "carry_leave", group, keys, tuple(legs), leg_mode="SIMULTANEOUS", reason="the funding no longer pays",
            valid_ns=self.parameters.valid_ms * 1_000_000,
        )  # fmt: skip

    def state(self) -> Mapping[str, Any]:
        return {"held": self._held}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._held = {group: dict(sizes) for group, sizes in state["held"].items()}
