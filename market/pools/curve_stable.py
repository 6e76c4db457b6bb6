"""Curve's StableSwap: plain pools and NG pools (with rates and a dynamic fee), A ramps included.

Follows get_dy of the plain pools (3pool and later) and of StableSwap-NG. The plain contracts round the fee in
``exchange`` after scaling and in ``get_dy`` before; ``rounding`` says whose answer is meant. There is no exact-out
call on plain pools; amount_in finds the least input that pays at least the amount.

State::

    family       "curve_stable"
    variant      "plain" or "ng"; default "plain"
    rounding     "exchange" (what a swap pays) or "get_dy" (what the view says); default "exchange"
    tokens       addresses, in the contract's order
    balances     smallest units
    rates        10^(36 - decimals) of each token, for NG times its oracle's rate
    fee          of what comes out, in 10^-10
    offpeg_fee_multiplier   NG: in 10^-10; default 10^10 (no dynamic fee)
    a_precision  1 (3pool and its age) or 100 (later); default 100
    initial_a, future_a     A × a_precision, as the contract stores them
    initial_a_time, future_a_time, timestamp   seconds; timestamp is the block's. Defaults 0: no ramp
"""

from __future__ import annotations

from typing import Any, Self

from market.pools.pool import Fields, InsufficientLiquidity, Pool, State

E18 = 10**18
FEE_DENOMINATOR = 10**10
ROUNDS = 255


class CurveStablePool(Pool):
    """Two to eight tokens near one price."""

    family = "curve_stable"
    base_gas = 150_000

    def __init__(self, tokens: tuple[str, ...], balances: list[int], rates: list[int], fee: int, **more: Any) -> None:
        self.tokens = tokens
        self.balances = balances
        self.rates = rates
        self.fee = fee
        self.variant: str = more.get("variant", "plain")
        self.rounding: str = more.get("rounding", "exchange")
        self.offpeg_fee_multiplier: int = more.get("offpeg_fee_multiplier", FEE_DENOMINATOR)
        self.a_precision: int = more.get("a_precision", 100)
        self.initial_a: int = more.get("initial_a", 0)
        self.future_a: int = more.get("future_a", 0)
        self.initial_a_time: int = more.get("initial_a_time", 0)
        self.future_a_time: int = more.get("future_a_time", 0)
        self.timestamp: int = more.get("timestamp", 0)

    @classmethod
    def from_state(cls, state: State) -> Self:
        f = Fields(state, cls.family)
        tokens = f.texts("tokens")
        future_a = f.integer("future_a", low=1)
        pool = cls(
            tokens,
            f.integers("balances", len(tokens)),
            f.integers("rates", len(tokens), low=1),
            f.integer("fee", high=FEE_DENOMINATOR - 1),
            variant=f.text("variant", "plain", ("plain", "ng")),
            rounding=f.text("rounding", "exchange", ("exchange", "get_dy")),
            offpeg_fee_multiplier=f.integer("offpeg_fee_multiplier", FEE_DENOMINATOR),
            a_precision=f.integer("a_precision", 100, low=1),
            initial_a=f.integer("initial_a", future_a),
            future_a=future_a,
            initial_a_time=f.integer("initial_a_time", 0),
            future_a_time=f.integer("future_a_time", 0),
            timestamp=f.integer("timestamp", 0),
        )
        f.require(2 <= len(tokens) <= 8, f"{len(tokens)} tokens; a pool has 2 to 8")
        f.done()
        return pool

    def to_state(self) -> dict[str, Any]:
        names = (
            "variant", "rounding", "balances", "rates", "fee", "offpeg_fee_multiplier", "a_precision", "initial_a",
            "future_a", "initial_a_time", "future_a_time", "timestamp",
        )  # fmt: skip
        return {"family": self.family, "tokens": list(self.tokens)} | {name: getattr(self, name) for name in names}

    def amplification(self) -> int:
        """A × a_precision at ``timestamp``: linear between the two times of a ramp, as the contract rounds it."""
        a0, a1, t0, t1 = self.initial_a, self.future_a, self.initial_a_time, self.future_a_time
        if self.timestamp >= t1:
            return a1
        if a1 > a0:
            return a0 + (a1 - a0) * (self.timestamp - t0) // (t1 - t0)
        return a0 - (a0 - a1) * (self.timestamp - t0) // (t1 - t0)

    def scaled(self) -> list[int]:
        """Balances times rates, 18 decimals."""
        return [b * r // E18 for b, r in zip(self.balances, self.rates, strict=True)]

    def invariant(self) -> int:
        """D, as get_D finds it. Raises InsufficientLiquidity for an empty pool."""
        return self._get_d(self.scaled(), self.amplification())

    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        xp = self.scaled()
        amp = self.amplification()
        d = self._get_d(xp, amp)
        x = xp[i] + amount_in * self.rates[i] // E18
        y = self._get_y(i, j, x, xp, amp, d)
        bought = xp[j] - y - 1
        if bought < 0:
            raise InsufficientLiquidity("so little buys nothing: the contract would revert")
        fee = self.fee
        if self.variant == "ng":
            fee = self._dynamic_fee((xp[i] + x) // 2, (xp[j] + y) // 2)
            if bought * fee // FEE_DENOMINATOR > bought:
                raise InsufficientLiquidity("so far off its peg the fee is more than all of it: the contract would revert")
            return (bought - bought * fee // FEE_DENOMINATOR) * E18 // self.rates[j]
        if self.rounding == "get_dy":
            bought = bought * E18 // self.rates[j]
            return bought - bought * fee // FEE_DENOMINATOR
        return (bought - bought * fee // FEE_DENOMINATOR) * E18 // self.rates[j]

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        xp, amp = self.scaled(), self.amplification()
        if not all(xp):
            return 0, 1
        d = self._get_d(xp, amp)
        n = len(xp)
        # dF/dx_k of Ann·S + D = Ann·D + D^(n+1)/(n^n ∏x), times ∏-free common factors.
        ann = amp * n
        p = d
        for x in xp:
            p = p * d // (x * n)  # D^(n+1) / (n^n ∏x)
        up = (ann * xp[i] + p * self.a_precision) * xp[j]
        down = (ann * xp[j] + p * self.a_precision) * xp[i]
        fee = self.fee if self.variant == "plain" else self._dynamic_fee(xp[i], xp[j])
        return up * max(0, FEE_DENOMINATOR - fee) * self.rates[i], down * FEE_DENOMINATOR * self.rates[j]

    def _depth_of(self, index: int) -> int:
        return self.balances[index] * 4  # flat: a share of the price's move is a far larger share of the balance

    def _get_d(self, xp: list[int], amp: int) -> int:
        total = sum(xp)
        if not total:
            raise InsufficientLiquidity("the pool is empty")
        if not all(xp):
            raise InsufficientLiquidity("a balance is zero: the contract would revert")
        n, precision = len(xp), self.a_precision
        d, ann = total, amp * n
        ng = self.variant == "ng"
        for _ in range(ROUNDS):
            p = d
            if ng:
                for x in xp:
                    p = p * d // x
                p //= n**n
            else:
                for x in xp:
                    p = p * d // (x * n)
            before = d
            d = (ann * total // precision + p * n) * d // ((ann - precision) * d // precision + (n + 1) * p)
            if abs(d - before) <= 1:
                return d
        if ng or precision != 1:
            raise InsufficientLiquidity("D does not converge: the contract would revert")
        return d

    def _get_y(self, i: int, j: int, x: int, xp: list[int], amp: int, d: int) -> int:
        n, precision = len(xp), self.a_precision
        ann, c, total = amp * n, d, 0
        for k in range(n):
            if k == j:
                continue
            value = x if k == i else xp[k]
            total += value
            c = c * d // (value * n)
        c = c * d * precision // (ann * n)
        b = total + d * precision // ann
        y = d
        for _ in range(ROUNDS):
            before = y
            y = (y * y + c) // (2 * y + b - d)
            if abs(y - before) <= 1:
                return y
        if self.variant == "ng" or precision != 1:
            raise InsufficientLiquidity("y does not converge: the contract would revert")
        return y

    def _dynamic_fee(self, xpi: int, xpj: int) -> int:
        multiplier = self.offpeg_fee_multiplier
        if multiplier <= FEE_DENOMINATOR:
            return self.fee
        squared = (xpi + xpj) ** 2
        share = (multiplier - FEE_DENOMINATOR) * 4 * xpi * xpj // squared
        return multiplier * self.fee // (share + FEE_DENOMINATOR)
