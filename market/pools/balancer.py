"""Balancer V2: weighted pools and stable pools, as the Vault's swaps see them.

Follows BaseMinimalSwapInfoPool.onSwap / BaseGeneralPool.onSwap with WeightedMath and StableMath. The fee comes off
what goes in. Both ways have a call of their own, so that exact-out is exact.

State::

    family           "balancer_weighted" or "balancer_stable"
    tokens           addresses, in the Vault's order
    balances         smallest units
    scaling_factors  10^(18 - decimals) × 10^18 of each token, times its rate where the pool has a rate provider
    swap_fee         18 decimals
    weights          weighted: 18 decimals, summing to 10^18
    pow_shortcuts    weighted: 0 for the first version (2021), 1 later; default 1
    amp              stable: amplification × 1000, as getAmplificationParameter says
    round_up         stable: 1 where the pool rounds its invariant up (2021 pools); default 0
"""

from __future__ import annotations

from typing import Any, Self

from market.pools.log_exp import ONE, div_down, div_up, mul_down, mul_up, power_up
from market.pools.pool import Fields, InsufficientLiquidity, Pool, State

RATIO_MAX = 3 * 10**17
"""At most 30 % of a balance in or out of a weighted pool at once."""
AMP_PRECISION = 1000
ROUNDS = 255


class _BalancerPool(Pool):
    """Scaling and fee, which both kinds share. ``_given_in`` and ``_given_out`` work on amounts with 18 decimals."""

    def __init__(self, tokens: tuple[str, ...], balances: list[int], scaling_factors: list[int], swap_fee: int) -> None:
        self.tokens = tokens
        self.balances = balances
        self.scaling_factors = scaling_factors
        self.swap_fee = swap_fee

    @staticmethod
    def _shared(f: Fields) -> tuple[tuple[str, ...], list[int], list[int], int]:
        tokens = f.texts("tokens")
        f.require(len(tokens) >= 2, f"{len(tokens)} tokens; a pool has at least 2")
        n = len(tokens)
        return (
            tokens, f.integers("balances", n), f.integers("scaling_factors", n, low=1), f.integer("swap_fee", high=ONE - 1)
        )  # fmt: skip

    def to_state(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "tokens": list(self.tokens),
            "balances": self.balances,
            "scaling_factors": self.scaling_factors,
            "swap_fee": self.swap_fee,
        }

    def _given_in(self, balances: list[int], i: int, j: int, amount: int) -> int:
        raise NotImplementedError

    def _given_out(self, balances: list[int], i: int, j: int, amount: int) -> int:
        raise NotImplementedError

    def _upscaled(self) -> list[int]:
        return [mul_down(b, s) for b, s in zip(self.balances, self.scaling_factors, strict=True)]

    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        if not all(self.balances):
            raise InsufficientLiquidity("a balance is zero")
        amount = mul_down(amount_in - mul_up(amount_in, self.swap_fee), self.scaling_factors[i])
        return div_down(self._given_in(self._upscaled(), i, j, amount), self.scaling_factors[j])

    def amount_in(self, i: int, j: int, amount_out: int) -> int:
        if not all(self.balances):
            raise InsufficientLiquidity("a balance is zero")
        amount = mul_down(amount_out, self.scaling_factors[j])
        paid = div_up(self._given_out(self._upscaled(), i, j, amount), self.scaling_factors[i])
        return div_up(paid, ONE - self.swap_fee)

    def _depth_of(self, index: int) -> int:
        return self.balances[index]


class BalancerWeightedPool(_BalancerPool):
    """∏ balance^weight is kept."""

    family = "balancer_weighted"
    base_gas = 140_000

    def __init__(
        self, tokens: tuple[str, ...], balances: list[int], scaling_factors: list[int], swap_fee: int, weights: list[int],
        pow_shortcuts: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(tokens, balances, scaling_factors, swap_fee)
        self.weights = weights
        self.pow_shortcuts = pow_shortcuts

    @classmethod
    def from_state(cls, state: State) -> Self:
        f = Fields(state, cls.family)
        shared = cls._shared(f)
        weights = f.integers("weights", len(shared[0]), low=1, high=ONE)
        f.require(sum(weights) == ONE, f"the weights sum to {sum(weights)}, not 10^18")
        pool = cls(*shared, weights, bool(f.integer("pow_shortcuts", 1, high=1)))
        f.done()
        return pool

    def to_state(self) -> dict[str, Any]:
        return super().to_state() | {"weights": self.weights, "pow_shortcuts": int(self.pow_shortcuts)}

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        keep = ONE - self.swap_fee
        return self.balances[j] * self.weights[i] * keep, self.balances[i] * self.weights[j] * ONE

    def _given_in(self, balances: list[int], i: int, j: int, amount: int) -> int:
        x, y = balances[i], balances[j]
        if amount > mul_down(x, RATIO_MAX):
            raise InsufficientLiquidity(f"at most 30 % of the balance goes in at once: {mul_down(x, RATIO_MAX)} (18 decimals)")
        ratio = power_up(div_up(x, x + amount), div_down(self.weights[i], self.weights[j]), self.pow_shortcuts)
        return mul_down(y, max(0, ONE - ratio))

    def _given_out(self, balances: list[int], i: int, j: int, amount: int) -> int:
        x, y = balances[i], balances[j]
        if amount > mul_down(y, RATIO_MAX):
            raise InsufficientLiquidity(f"at most 30 % of the balance comes out at once: {mul_down(y, RATIO_MAX)} (18 decimals)")
        ratio = power_up(div_up(y, y - amount), div_up(self.weights[j], self.weights[i]), self.pow_shortcuts)
        return mul_up(x, ratio - ONE)


class BalancerStablePool(_BalancerPool):
    """Curve's invariant with Balancer's roundings."""

    family = "balancer_stable"
    base_gas = 180_000

    def __init__(
        self, tokens: tuple[str, ...], balances: list[int], scaling_factors: list[int], swap_fee: int, amp: int,
        round_up: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(tokens, balances, scaling_factors, swap_fee)
        self.amp = amp
        self.round_up = round_up

    @classmethod
    def from_state(cls, state: State) -> Self:
        f = Fields(state, cls.family)
        pool = cls(*cls._shared(f), f.integer("amp", low=1), bool(f.integer("round_up", 0, high=1)))
        f.done()
        return pool

    def to_state(self) -> dict[str, Any]:
        return super().to_state() | {"amp": self.amp, "round_up": int(self.round_up)}

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        xp = self._upscaled()
        d, n = self._invariant(xp), len(xp)
        p = d
        for x in xp:
            p = p * d // (x * n)
        ann = self.amp * n
        up = (ann * xp[i] + p * AMP_PRECISION) * xp[j] * self.scaling_factors[i]
        down = (ann * xp[j] + p * AMP_PRECISION) * xp[i] * self.scaling_factors[j]
        return up * (ONE - self.swap_fee), down * ONE

    def _given_in(self, balances: list[int], i: int, j: int, amount: int) -> int:
        d = self._invariant(balances)
        before = balances[j]
        balances[i] += amount
        bought = before - self._balance(balances, d, j) - 1
        if bought < 0:
            raise InsufficientLiquidity("so little buys nothing: the contract would revert")
        return bought

    def _given_out(self, balances: list[int], i: int, j: int, amount: int) -> int:
        if amount >= balances[j]:
            raise InsufficientLiquidity(f"the pool holds {balances[j]} (18 decimals)")
        d = self._invariant(balances)
        before = balances[i]
        balances[j] -= amount
        return self._balance(balances, d, i) - before + 1

    def _invariant(self, balances: list[int]) -> int:
        total, n = sum(balances), len(balances)
        d, ann = total, self.amp * n
        for _ in range(ROUNDS):
            before = d
            if self.round_up:
                # The 2021 pools: P_D is a product that divides, and both divisions round up.
                p = n * balances[0]
                for x in balances[1:]:
                    p = -(-p * x * n // before)
                d = -(-(n * before * before + -(-ann * total * p // AMP_PRECISION)) // (
                    (n + 1) * before + (ann - AMP_PRECISION) * p // AMP_PRECISION
                ))  # fmt: skip
            else:
                p = d
                for x in balances:
                    p = p * d // (x * n)
                d = (ann * total // AMP_PRECISION + p * n) * d // (
                    (ann - AMP_PRECISION) * d // AMP_PRECISION + (n + 1) * p
                )
            if abs(d - before) <= 1:
                return d
        raise InsufficientLiquidity("the invariant does not converge: the contract would revert")

    def _balance(self, balances: list[int], d: int, index: int) -> int:
        n = len(balances)
        ann = self.amp * n
        p = balances[0] * n
        for x in balances[1:]:
            p = p * x * n // d
        total = sum(balances) - balances[index]
        squared = d * d
        c = -(-squared // (ann * p)) * AMP_PRECISION * balances[index]
        b = total + d // ann * AMP_PRECISION
        y = -(-(squared + c) // (d + b))
        for _ in range(ROUNDS):
            before = y
            y = -(-(y * y + c) // (2 * y + b - d))
            if abs(y - before) <= 1:
                return y
        raise InsufficientLiquidity("the balance does not converge: the contract would revert")
