"""CEX–DEX arbitrage: a pool on a chain against an order book of an exchange; the swap first, the hedge by its fills.

For each level of the exchange's book the pool is traded until its marginal price, fee inside, meets the level's price
after the exchange's fee and the haircut. Where it meets it is known in closed form: for constant product
``x* = (√(g·x·y·m) − x) / g`` (closed_form.py), for concentrated liquidity (Uniswap V3 white paper, section 6.2: inside a
range √P moves by Δy / L) by a swap that ends at the price ``m``, range after range. The level at which the pool stops
inside of the level's own cumulated size has the optimum. That size is capped by notional and by what is held on both
sides, rounded down to lots of both, and its profit is computed again in whole wei with the contract's own floors.

Gas is counted in the quote: ``gas_units × (base fee × 9/8 + tip)``, the most that the next block may ask (EIP-1559),
at the mirror's own price of the native asset. The swap's limit is its own average price and ``slippage_bps``; beyond it
the router reverts. Nothing is traded on a pool that is not canonical (market/pools/mirror_state.py), on a head that is
older than ``max_head_age_ms`` (the next block may hold anything), or before a change is ``settled_blocks`` deep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, lcm
from typing import Any, ClassVar, Literal

import msgspec

from market.decimals import format_decimal
from market.fees import ONE, cost, proceeds, rate_from_bps
from market.live_book import LiveBook
from market.pools.mirror_state import Head
from market.pools.pool import Pool, PoolError
from market.pools.uniswap_v2 import UniswapV2Pool
from market.pools.uniswap_v3 import UniswapV3Pool
from market.terms import Terms
from strategies.amounts import at_exp, shift_down, shift_up
from strategies.closed_form import Pool as Hop
from strategies.closed_form import best_against_price
from strategies.strategy import Decision, Leg, OpenIntent, Parameters, Side, Strategy, StrategyError, View

Q96 = 1 << 96
WEI_EXP = -18
V3_LIMITS = (4295128740, 1461446703485210103287273052203988822378723970341)
"""The least and the greatest sqrt price of a swap (TickMath, one step inside)."""


class PoolParameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One pool and the book that it is held against. By naming them one says that their bases and quotes are worth the same."""

    chain: str
    address: str
    """As in chain.pool: the contract, or V4's pool id."""
    pool: str
    """``venue|symbol`` of the pool in market.*."""
    cex: str
    """``venue|symbol`` of the exchange's book, where the swap is hedged."""
    base_token: str
    """The token's address that is the symbol's base."""
    base_decimals: int
    quote_decimals: int


class CexDexParameters(Parameters, forbid_unknown_fields=True, frozen=True):
    """Amounts in quote, rates in basis points: decimal texts."""

    pools: tuple[PoolParameters, ...] = ()
    native: str = ""
    """``venue|symbol`` whose mid prices the chain's own coin in quote; empty: the hedge's own book."""
    gas_units: int = 180_000
    tip_wei: int = 1_000_000_000
    max_fee_wei: int = 500_000_000_000
    """Of one unit of gas; above it nothing is traded."""
    min_profit: str = "0"
    """After fees, gas and haircut; an opportunity must be above it."""
    max_notional: str = "1000"
    haircut_bps: str = "2"
    """Expected adverse move until the hedge."""
    slippage_bps: str = "10"
    max_age_ms: int = 5000
    """Of the exchange's book."""
    max_head_age_ms: int = 15_000
    settled_blocks: int = 0
    """How deep the pool's newest change must lie below the head."""
    depth: int = 50
    cooldown_ms: int = 500
    valid_ms: int = 30_000
    """The swap's deadline: blocks take their time."""
    legs: Literal["HEDGE_OF", "SIMULTANEOUS"] = "HEDGE_OF"


@dataclass(frozen=True, slots=True)
class Trade:
    """A size that pays, in base wei, with what it moves in quote wei; gas not counted yet."""

    base: int
    pool_quote: int
    """Paid to the pool, or got from it."""
    cex_quote: int
    """Got from the exchange, or paid to it, fee and haircut inside."""
    cex_price: int
    """The worst level touched, at the book's exponent."""
    profit: int


class CexDex(Strategy):
    """Each named pair is looked at when either of its books changes; the better direction is traded."""

    kind: ClassVar[str] = "cex_dex"
    version: ClassVar[str] = "1"
    parameters_type: ClassVar[type[Parameters]] = CexDexParameters

    def __init__(self, parameters: CexDexParameters, view: View) -> None:
        super().__init__(parameters, view)
        if not parameters.pools:
            raise StrategyError("cex_dex needs at least one of [[parameters.pools]]")
        self._haircut = rate_from_bps(parameters.haircut_bps)
        self._slippage = rate_from_bps(parameters.slippage_bps)
        self._last_ns: dict[str, int] = {}
        self._by_key: dict[str, list[PoolParameters]] = {}
        for one in parameters.pools:
            view.chain.watch(one.chain, one.address)
            for key in (one.pool, one.cex):
                self._by_key.setdefault(key, []).append(one)

    def wants(self, terms: Terms) -> bool:
        return (terms.key in self._by_key and terms.kind == "SPOT") or terms.key == self.parameters.native

    def on_book(self, key: str) -> Sequence[Decision]:
        best: tuple[Decision, str] | None = None
        for one in self._by_key.get(key, ()):
            found = self._look(one)
            if found is not None and (best is None or _worth(found) > _worth(best[0])):
                best = (found, one.pool)
        if best is None:
            return ()
        self._last_ns[best[1]] = self.view.now_ns
        return (best[0],)

    def on_order(self, order: OpenIntent, state: str) -> Sequence[Decision]:
        # What the pool looks like after our own swap is known with the next head; until then it is let alone.
        for one in self._by_key.get(order.key, ()):
            self._last_ns[one.pool] = self.view.now_ns
        return ()

    def _look(self, one: PoolParameters) -> Decision | None:
        view, p = self.view, self.parameters
        dex, cex = view.terms.get(one.pool), view.terms.get(one.cex)
        book, last = view.live(one.cex), self._last_ns.get(one.pool)
        if dex is None or cex is None or book is None or view.live(one.pool) is None or cex.taker_fee is None:
            return None
        if not (dex.trading and cex.trading) or view.age_ns(one.cex) > p.max_age_ms * 1_000_000:
            return None
        if last is not None and view.now_ns - last < p.cooldown_ms * 1_000_000:
            return None
        if any(o.key in (one.pool, one.cex) for o in view.open.values()):
            return None
        canonical = view.chain.canonical(one.chain, one.address)
        if canonical is None:
            return None
        pool, state, head = canonical
        if head.number - state.block < p.settled_blocks or view.now_ns - head.ts_received_ns > p.max_head_age_ms * 1_000_000:
            return None
        gas = self._gas(one, head, cex)
        if gas is None:
            return None
        found = [self._direction(one, pool, book, dex, cex, side, gas) for side in ("BUY", "SELL")]
        return max((f for f in found if f is not None), key=lambda f: f.edge, default=None)

    def _gas(self, one: PoolParameters, head: Head, cex: Terms) -> int | None:
        """What the swap's gas costs in quote wei, rounded up; None without a price, or above the cap."""
        p = self.parameters
        each = -(-max(0, head.base_fee_wei) * 9 // 8) + p.tip_wei
        priced = self.view.live(p.native or one.cex)
        if each > p.max_fee_wei or priced is None:
            return None
        # wei × mid / 10^18, in units of the quote's smallest part.
        return shift_up(-(-p.gas_units * each * priced.mid2() // 2), WEI_EXP + priced.book.price_exp, -one.quote_decimals)

    def _direction(
        self, one: PoolParameters, pool: Pool, book: LiveBook, dex: Terms, cex: Terms, side: Side, gas: int
    ) -> Decision | None:
        """Buy (or sell) at the pool, the other way at the exchange."""
        p = self.parameters
        desk = Pair(one, pool, book, cex.taker_fee or 0, self._haircut, side, p.depth)
        wanted = desk.optimum()
        if not wanted:
            return None
        lot = lcm(dex.lot * 10 ** (dex.size_exp + one.base_decimals), cex.lot * 10 ** (cex.size_exp + one.base_decimals))
        cap = self._cap(one, desk, dex, cex, side)
        # The floors may move the best size by a lot.
        sizes = {min(wanted, cap) // lot * lot, min(wanted + lot, cap) // lot * lot}
        trades = [t for size in sorted(sizes) if size and (t := desk.trade(size)) is not None]
        best = max(trades, key=lambda t: t.profit, default=None)
        minimum = at_exp(p.min_profit, -one.quote_decimals)
        if best is None or best.profit - gas <= max(0, minimum):
            return None
        legs = self._legs(one, best, book, dex, cex, side)
        if any(terms.tradable(leg.price, leg.size) for terms, leg in zip((dex, cex), legs, strict=True)):
            return None
        amounts = [format_decimal(v, -one.quote_decimals) for v in (best.pool_quote, best.cex_quote, gas)]
        verb, other = ("buy", "sell") if side == "BUY" else ("sell", "buy")
        reason = (
            f"{verb} {format_decimal(best.base, -one.base_decimals)} {dex.base} on {dex.venue} for {amounts[0]}, {other} on "
            f"{cex.venue} for {amounts[1]} {cex.quote} after fee and haircut; gas {amounts[2]}; head "
            f"{self.view.chain.heads[one.chain].number}"
        )
        return Decision(
            "cex_dex", f"{cex.base}/{cex.quote}", (one.pool, one.cex), legs, leg_mode=p.legs, edge=best.profit - gas,
            edge_exp=-one.quote_decimals, edge_asset=cex.quote, reason=reason, valid_ns=p.valid_ms * 1_000_000,
        )  # fmt: skip

    def _cap(self, one: PoolParameters, desk: Pair, dex: Terms, cex: Terms, side: Side) -> int:
        """The most base wei that notional and inventory on both sides allow."""
        view, quote_exp, base_exp = self.view, -one.quote_decimals, -one.base_decimals
        unit = desk.quote_for_base(10**one.base_decimals)
        cap = at_exp(self.parameters.max_notional, quote_exp) * 10**one.base_decimals // unit
        buyer, seller = (dex, cex) if side == "BUY" else (cex, dex)
        quote, base = view.balance(buyer.venue, buyer.quote, quote_exp), view.balance(seller.venue, seller.base, base_exp)
        if quote is None or base is None:
            return 0
        # The dearest price counted with, fee and slippage on top.
        worst = desk.worst_for_base(10**one.base_decimals) * (ONE + self._slippage + (cex.taker_fee or 0)) // ONE + 1
        return max(0, min(cap, base, quote * 10**one.base_decimals // worst))

    def _legs(
        self, one: PoolParameters, t: Trade, book: LiveBook, dex: Terms, cex: Terms, side: Side
    ) -> tuple[Leg, Leg]:
        """The swap at its average price and the slippage, the hedge at the worst level counted with."""
        exponent = one.base_decimals - one.quote_decimals
        bound = t.pool_quote * (ONE + self._slippage if side == "BUY" else ONE - self._slippage)
        digits = exponent - dex.price_exp
        scaled, divisor = (bound * 10**digits, t.base * ONE) if digits >= 0 else (bound, t.base * ONE * 10**-digits)
        price = dex.price_up(-(-scaled // divisor)) if side == "BUY" else dex.price_down(scaled // divisor)
        sizes = [shift_down(t.base, -one.base_decimals, terms.size_exp) for terms in (dex, cex)]
        if side == "BUY":
            hedge = cex.price_down(shift_down(t.cex_price, book.book.price_exp, cex.price_exp))
            return Leg(one.pool, "BUY", price, sizes[0], "FOK"), Leg(one.cex, "SELL", hedge, sizes[1])
        hedge = cex.price_up(shift_up(t.cex_price, book.book.price_exp, cex.price_exp))
        return Leg(one.pool, "SELL", price, sizes[0], "FOK"), Leg(one.cex, "BUY", hedge, sizes[1])

    def state(self) -> Mapping[str, Any]:
        return {"last_ns": self._last_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._last_ns = dict(state["last_ns"])


def _worth(decision: Decision) -> int:
    """A decision's edge at an exponent that all of them share."""
    return decision.edge * 10 ** (decision.edge_exp + 36)


class Pair:
    """A pool against the side of a book that it is hedged on; everything in wei of base and quote.

    ``side`` is what is done at the pool. A level is (price, base wei); a price is quote wei for ``unit`` base wei as
    num/den, after fee and haircut.
    """

    def __init__(
        self, one: PoolParameters, pool: Pool, book: LiveBook, fee: int, haircut: int, side: Side, depth: int
    ) -> None:
        own = book.book
        self.pool, self.side, self.fee, self.haircut = pool, side, fee, haircut
        self.base = pool.tokens.index(one.base_token.lower())
        levels = own.bids.top(depth) if side == "BUY" else own.asks.top(depth)
        # quote wei for each base wei: price × 10^(price_exp + quote_decimals − base_decimals)
        power = own.price_exp + one.quote_decimals - one.base_decimals
        self.num, self.den = (10**power, 1) if power >= 0 else (1, 10**-power)
        self.levels = [(p, shift_down(s, own.size_exp, -one.base_decimals)) for p, s in levels]

    def optimum(self) -> int:
        """The best size in base wei; 0 where nothing pays."""
        seen = best = 0
        for price, size in self.levels:
            reach = self._reach(price)
            if reach <= seen:
                break
            seen += size
            best = min(reach, seen)
            if reach <= seen:
                break
        return best

    def _reach(self, price: int) -> int:
        """How much base the pool trades until its marginal price meets this level's, fees and haircut inside."""
        net = ONE - self.fee - self.haircut if self.side == "BUY" else ONE + self.fee + self.haircut
        num, den = price * self.num * net, self.den * ONE
        pool, base = self.pool, self.base
        try:
            if isinstance(pool, UniswapV2Pool):
                x, y = (pool.reserve0, pool.reserve1) if base == 0 else (pool.reserve1, pool.reserve0)
                gn, gd = pool.fee_den - pool.fee_num, pool.fee_den
                if self.side == "BUY":  # quote in, base out; base is worth num/den of quote
                    return best_against_price(Hop(y, x, gn, gd), num, den)[1]
                return best_against_price(Hop(x, y, gn, gd), den, num)[0]
            if isinstance(pool, UniswapV3Pool):
                return self._to_price(pool, num, den)
        except PoolError:
            return 0
        return self._by_halves(num, den)

    def _to_price(self, pool: UniswapV3Pool, num: int, den: int) -> int:
        """Concentrated liquidity: a swap that ends where the pool's price, fee on top, is num/den."""
        zero_for_one = (self.base == 0) == (self.side == "SELL")
        keep, million = 1_000_000 - pool.swap_fee(zero_for_one), 1_000_000
        # Buying base costs price / keep, selling it brings price × keep.
        num, den = (num * keep, den * million) if self.side == "BUY" else (num * million, den * keep)
        # √(token1 / token0) · 2^96; the pool's price is quote/base only where base is token0.
        limit = isqrt(num * Q96 * Q96 // den) if self.base == 0 else isqrt(den * Q96 * Q96 // num)
        limit = max(V3_LIMITS[0], min(V3_LIMITS[1], limit))
        swap = pool.swap(zero_for_one, 1 << 127, exact_in=True, limit=limit)
        return swap.amount_out if self.side == "BUY" else swap.amount_in

    def _by_halves(self, num: int, den: int) -> int:
        """Any other curve: the greatest depth at which a small piece more still pays, in 64 halvings."""
        low, high = 0, sum(size for _, size in self.levels)
        piece = max(1, high >> 20)
        for _ in range(64):
            middle = (low + high) // 2
            if middle == low:
                break
            here, more = self.pool_quote(middle), self.pool_quote(middle + piece)
            worth = piece * num // den
            pays = here is not None and more is not None and (more - here < worth if self.side == "BUY" else more - here > worth)
            low, high = (middle, high) if pays else (low, middle)
        return low

    def pool_quote(self, base: int) -> int | None:
        """Quote wei that the contract takes for exactly this base, or pays for it; None where it cannot."""
        try:
            if self.side == "BUY":
                return self.pool.amount_in(1 - self.base, self.base, base)
            return self.pool.amount_out(self.base, 1 - self.base, base)
        except PoolError:
            return None

    def trade(self, base: int) -> Trade | None:
        """Exactly this size, floors of the contract and of the exchange's fee against us."""
        at_pool, worth, left, worst = self.pool_quote(base), 0, base, 0
        if at_pool is None:
            return None
        for price, size in self.levels:
            part = min(left, size)
            worth += price * part
            left, worst = left - part, price
            if not left:
                break
        if left:
            return None
        if self.side == "BUY":
            got = proceeds(worth * self.num // self.den, self.fee + self.haircut)
            return Trade(base, at_pool, got, worst, got - at_pool)
        paid = cost(-(-worth * self.num // self.den), self.fee + self.haircut)
        return Trade(base, at_pool, paid, worst, at_pool - paid)

    def quote_for_base(self, base: int) -> int:
        """What this much base is worth at the exchange's touch, rounded up."""
        return -(-self.levels[0][0] * base * self.num // self.den)

    def worst_for_base(self, base: int) -> int:
        """The same at the last level."""
        return -(-max(p for p, _ in self.levels) * base * self.num // self.den)
