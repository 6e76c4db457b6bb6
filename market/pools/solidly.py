"""Solidly's two curves: Aerodrome and Velodrome V2 pools, volatile (x·y = k) and stable (x³y + y³x = k).

Follows Pool.getAmountOut of Aerodrome (Velodrome V2 has the same code). The fee comes off what goes in, and is the
factory's: it can change, so it is part of the state. The contract has no exact-out call; amount_in finds the least
input that pays at least the amount.

State::

    family                "solidly"
    token0, token1        addresses
    reserve0, reserve1    smallest units
    decimals0, decimals1  10^decimals of each token, as the contract keeps them (1000000 for USDC)
    stable                1 stable, 0 volatile
    fee                   ten-thousandths of what goes in
"""

from __future__ import annotations

from typing import Any, Self

from market.pools.pool import UINT256_MAX, Fields, InsufficientLiquidity, Pool, State

E18 = 10**18
ROUNDS = 255


class SolidlyPool(Pool):
    """A pair of either curve."""

    family = "solidly"
    base_gas = 120_000
    __slots__ = ("decimals0", "decimals1", "fee", "reserve0", "reserve1", "stable", "tokens")

    def __init__(
        self, token0: str, token1: str, reserve0: int, reserve1: int, decimals0: int, decimals1: int, stable: bool, fee: int
    ) -> None:
        self.tokens = (token0.lower(), token1.lower())
        self.reserve0 = reserve0
        self.reserve1 = reserve1
        self.decimals0 = decimals0
        self.decimals1 = decimals1
        self.stable = stable
        self.fee = fee

    @classmethod
    def from_state(cls, state: State) -> Self:
        f = Fields(state, cls.family)
        pool = cls(
            *f.pair(),
            f.integer("reserve0"),
            f.integer("reserve1"),
            max(1, f.integer("decimals0", low=1)),
            max(1, f.integer("decimals1", low=1)),
            bool(f.integer("stable", high=1)),
            f.integer("fee", high=9999),
        )
        f.done()
        return pool

    def to_state(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "token0": self.tokens[0],
            "token1": self.tokens[1],
            "reserve0": self.reserve0,
            "reserve1": self.reserve1,
            "decimals0": self.decimals0,
            "decimals1": self.decimals1,
            "stable": int(self.stable),
            "fee": self.fee,
        }

    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        if not self.reserve0 or not self.reserve1:
            raise InsufficientLiquidity("the pool is empty")
        if amount_in * 10_000 > UINT256_MAX:
            raise InsufficientLiquidity("the contract's own products would overflow")
        amount = amount_in - amount_in * self.fee // 10_000
        if not self.stable:
            x, y = (self.reserve0, self.reserve1) if i == 0 else (self.reserve1, self.reserve0)
            return _word(amount * y) // (x + amount)
        xy = self._k(self.reserve0, self.reserve1)
        x, y = self._scaled(i)
        scale_in, scale_out = (self.decimals0, self.decimals1) if i == 0 else (self.decimals1, self.decimals0)
        bought = y - self._get_y(_word(amount * E18) // scale_in + x, xy, y)
        if bought < 0:
            raise InsufficientLiquidity("so little buys nothing: the contract would revert")
        return bought * scale_out // E18

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        keep = 10_000 - self.fee
        if not self.stable:
            x, y = (self.reserve0, self.reserve1) if i == 0 else (self.reserve1, self.reserve0)
            return y * keep, x * 10_000
        x, y = self._scaled(i)
        scale_in, scale_out = (self.decimals0, self.decimals1) if i == 0 else (self.decimals1, self.decimals0)
        # dy/dx of x³y + y³x = k, in tokens scaled to 18 decimals; then back to smallest units.
        slope_num, slope_den = y * (3 * x * x + y * y), x * (x * x + 3 * y * y)
        return slope_num * keep * scale_out, slope_den * 10_000 * scale_in

    def _depth_of(self, index: int) -> int:
        return self.reserve0 if index == 0 else self.reserve1

    def _scaled(self, i: int) -> tuple[int, int]:
        x, y = self.reserve0 * E18 // self.decimals0, self.reserve1 * E18 // self.decimals1
        return (x, y) if i == 0 else (y, x)

    def _k(self, x: int, y: int) -> int:
        return curve(x * E18 // self.decimals0, y * E18 // self.decimals1)

    def _get_y(self, x0: int, xy: int, y: int) -> int:
        for _ in range(ROUNDS):
            k = curve(x0, y)
            slope = _slope(x0, y)
            if not slope:
                raise InsufficientLiquidity("the curve is flat here: the contract would revert")
            if k < xy:
                dy = _word((xy - k) * E18) // slope
                if not dy:
                    if k == xy:
                        return y
                    # The contract scales by the decimals a second time here; kept, because its answer is the truth.
                    if self._k(x0, y + 1) > xy:
                        return y + 1
                    dy = 1
                y += dy
            else:
                dy = _word((k - xy) * E18) // slope
                if not dy:
                    if k == xy or (y and curve(x0, y - 1) < xy):
                        return y
                    dy = 1
                y -= dy
                if y < 0:
                    raise InsufficientLiquidity("the curve's search left its range: the contract would revert")
        raise InsufficientLiquidity("the curve's search does not end: the contract would revert")


def curve(x: int, y: int) -> int:
    """x³y + y³x of amounts with 18 decimals, rounded as the contract rounds."""
    return _word(_word(x * y) // E18 * (_word(x * x) // E18 + _word(y * y) // E18)) // E18


def _slope(x0: int, y: int) -> int:
    return _word(3 * x0 * (_word(y * y) // E18)) // E18 + _word(_word(x0 * x0) // E18 * x0) // E18


def _word(product: int) -> int:
    """The product, if the contract's 256 bits hold it."""
    if product > UINT256_MAX:
        raise InsufficientLiquidity("the contract's own products would overflow")
    return product
