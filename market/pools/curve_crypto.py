"""Curve's CryptoSwap (two tokens) and Tricrypto2 (three): concentrated around a price scale that the pool moves.

Follows get_dy and CurveMath's newton_y of the first generation. The NG generation solves a cubic in closed form with
other roundings; its pools are not this family. D, price_scale and the fees are state: the contract moves them at
each exchange, so take them anew at each block. A pool whose ``future_A_gamma_time`` is not zero finds D anew in each
quote instead of taking the stored one: ``newton_d`` says it. There is no exact-out call.

State::

    family       "curve_crypto"
    tokens       addresses; two or three
    balances     smallest units
    precisions   10^(18 - decimals) of each token
    price_scale  of the second (and third) token in the first, 18 decimals
    d            the invariant: as stored, or as newton_d finds it
    a, gamma     as A() and gamma() say
    mid_fee, out_fee   in 10^-10
    fee_gamma    18 decimals
"""

from __future__ import annotations

from typing import Any, Self

from market.pools.pool import Fields, InsufficientLiquidity, Pool, State

E18 = 10**18
A_MULTIPLIER = 10_000
ROUNDS = 255


class CurveCryptoPool(Pool):
    """Two or three tokens around a moving price."""

    family = "curve_crypto"
    base_gas = 250_000

    def __init__(self, tokens: tuple[str, ...], balances: list[int], precisions: list[int], price_scale: list[int],
                 d: int, a: int, gamma: int, mid_fee: int, out_fee: int, fee_gamma: int) -> None:  # fmt: skip
        self.tokens = tokens
        self.balances = balances
        self.precisions = precisions
        self.price_scale = price_scale
        self.d = d
        self.a = a
        self.gamma = gamma
        self.mid_fee = mid_fee
        self.out_fee = out_fee
        self.fee_gamma = fee_gamma

    @classmethod
    def from_state(cls, state: State) -> Self:
        f = Fields(state, cls.family)
        tokens = f.texts("tokens")
        n = len(tokens)
        pool = cls(
            tokens, f.integers("balances", n), f.integers("precisions", n, low=1),
            f.integers("price_scale", max(0, n - 1), low=1), f.integer("d", low=1), f.integer("a", low=1),
            f.integer("gamma", low=1), f.integer("mid_fee", high=10**10), f.integer("out_fee", high=10**10),
            f.integer("fee_gamma"),
        )  # fmt: skip
        f.require(n in (2, 3), f"{n} tokens; a pool has 2 or 3")
        f.done()
        return pool

    def to_state(self) -> dict[str, Any]:
        names = (
            "balances", "precisions", "price_scale", "d", "a", "gamma", "mid_fee", "out_fee", "fee_gamma",
        )  # fmt: skip
        return {"family": self.family, "tokens": list(self.tokens)} | {name: getattr(self, name) for name in names}

    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        balances = list(self.balances)
        balances[i] += amount_in
        xp = self._scaled(balances)
        y = newton_y(self.a, self.gamma, xp, self.d, j)
        bought = xp[j] - y - 1
        if bought < 0:
            raise InsufficientLiquidity("so little buys nothing: the contract would revert")
        xp[j] = y
        bought = self._unscaled(bought, j)
        return bought - self.fee(xp) * bought // 10**10

    def fee(self, xp: list[int]) -> int:
        """The fee in 10^-10 at these scaled balances: mid_fee in balance, out_fee far from it."""
        n = len(xp)
        if n == 2:
            total = xp[0] + xp[1]
            share = E18 * n**n * xp[0] // total * xp[1] // total
        else:
            total, share = sum(xp), E18
            for x in xp:
                share = share * n * x // total
        if n == 2 or self.fee_gamma > 0:
            share = self.fee_gamma * E18 // (self.fee_gamma + E18 - share)
        return (self.mid_fee * share + self.out_fee * (E18 - share)) // E18

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        # The curve's slope has no short exact form: a trade of a millionth of the balance stands for a small one.
        probe = max(1, self.balances[i] // 1_000_000)
        return self.amount_out(i, j, probe), probe

    def _depth_of(self, index: int) -> int:
        return self.balances[index]

    def _scaled(self, balances: list[int]) -> list[int]:
        out = [balances[0] * self.precisions[0]]
        for k, scale in enumerate(self.price_scale, 1):
            if len(balances) == 2:
                out.append(balances[k] * (scale * self.precisions[k]) // E18)
            else:
                out.append(balances[k] * scale * self.precisions[k] // E18)
        return out

    def _unscaled(self, amount: int, j: int) -> int:
        if j == 0:
            return amount // self.precisions[0]
        if len(self.balances) == 2:
            return amount * E18 // (self.price_scale[0] * self.precisions[1])
        return amount * E18 // self.price_scale[j - 1] // self.precisions[j]


def newton_y(ann: int, gamma: int, x: list[int], d: int, i: int) -> int:
    """The balance of token i that keeps the invariant D at the other balances (CurveMath.newton_y).

    Raises InsufficientLiquidity outside of the range that the contract accepts.
    """
    n = len(x)
    k0_i = E18
    if not 10**17 <= d <= 10**33:
        raise InsufficientLiquidity("so small or large a pool: the contract would revert")
    if n == 2:
        other = x[1 - i]
        y = d**2 // (other * n**2) if other else 0
        k0_i = E18 * n * other // d
        total = other
        if not 10**16 * n - 1 < k0_i < 10**20 * n + 1:
            raise InsufficientLiquidity("unsafe balances: the contract would revert")
        limit = max(other // 10**14, d // 10**14, 100)
    else:
        ordered = sorted((v for k, v in enumerate(x) if k != i), reverse=True)
        y, total = d // n, 0
        limit = max(ordered[0] // 10**14, d // 10**14, 100)
        for value in reversed(ordered):
            if not value:
                raise InsufficientLiquidity("a balance is zero: the contract would revert")
            y = y * d // (value * n)
            total += value
        for value in ordered:
            k0_i = k0_i * value * n // d
    for _ in range(ROUNDS):
        before = y
        k0 = k0_i * y * n // d
        s = total + y
        g = gamma + E18
        g = g - k0 + 1 if g > k0 else k0 - g + 1
        mul1 = E18 * d // gamma * g // gamma * g * A_MULTIPLIER // ann
        mul2 = E18 + 2 * E18 * k0 // g
        yfprime, dyfprime = E18 * y + s * mul2 + mul1, d * mul2
        if yfprime < dyfprime or not y or not k0:
            y = before // 2
            if not y:
                raise InsufficientLiquidity("the curve's search left its range: the contract would revert")
            continue
        yfprime -= dyfprime
        fprime = yfprime // y
        if not fprime:
            raise InsufficientLiquidity("the curve is flat here: the contract would revert")
        minus = mul1 // fprime
        plus = (yfprime + E18 * d) // fprime + minus * E18 // k0
        minus += E18 * s // fprime
        y = before // 2 if plus < minus else plus - minus
        if abs(y - before) < max(limit, y // 10**14):
            if not 10**16 - 1 < y * E18 // d < 10**20 + 1:
                raise InsufficientLiquidity("unsafe balances: the contract would revert")
            return y
    raise InsufficientLiquidity("the curve's search does not end: the contract would revert")


def newton_d(ann: int, gamma: int, unsorted: list[int]) -> int:
    """The invariant D of two scaled balances (newton_D of CurveCryptoSwap2, which each A and gamma ramp switches on).

    Raises InsufficientLiquidity outside of the range that the contract accepts.
    """
    x = sorted(unsorted, reverse=True)
    n = len(x)
    if n != 2:
        raise InsufficientLiquidity("D of three tokens is not found here: the contracts do it in other ways")
    if not 10**9 <= x[0] <= 10**33 or x[1] * E18 // x[0] < 10**14:
        raise InsufficientLiquidity("unsafe balances: the contract would revert")
    d, total = n * _geometric_mean(x), sum(x)
    for _ in range(ROUNDS):
        before = d
        k0 = E18 * n**2 * x[0] // d * x[1] // d
        g = gamma + E18
        g = g - k0 + 1 if g > k0 else k0 - g + 1
        mul1 = E18 * d // gamma * g // gamma * g * A_MULTIPLIER // ann
        mul2 = 2 * E18 * n * k0 // g
        slope = total + total * mul2 // E18 + mul1 * n // k0 - mul2 * d // E18
        plus, minus = d * (slope + total) // slope, d * d // slope
        step = d * (mul1 // slope) // E18
        if k0 < E18:
            minus += step * (E18 - k0) // k0
        else:
            minus -= step * (k0 - E18) // k0
        d = plus - minus if plus > minus else (minus - plus) // 2
        if abs(d - before) * 10**14 < max(10**16, d):
            if not all(10**16 - 1 < value * E18 // d < 10**20 + 1 for value in x):
                raise InsufficientLiquidity("unsafe balances: the contract would revert")
            return d
    raise InsufficientLiquidity("D does not converge: the contract would revert")


def _geometric_mean(x: list[int]) -> int:
    """Of two, the greater first, as the contract's search finds it."""
    d = x[0]
    for _ in range(ROUNDS):
        before = d
        d = (d + x[0] * x[1] // d) // 2
        difference = abs(d - before)
        if difference <= 1 or difference * E18 < d:
            return d
    raise InsufficientLiquidity("the mean does not converge: the contract would revert")
