"""Constant product with a fee on what goes in: Uniswap V2 and its forks (PancakeSwap V2, Sushi, …).

Follows UniswapV2Library.getAmountOut and getAmountIn. The fee is a fraction, because forks differ: Uniswap and Sushi
3/1000, PancakeSwap V2 25/10000.

State::

    family    "uniswap_v2"
    token0, token1       addresses
    reserve0, reserve1   smallest units, below 2^112
    fee_num, fee_den     the fee as a fraction; default 3 / 1000
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, Self

from market.pools.pool import DEFAULT_BPS, Fields, InsufficientLiquidity, Pool, Segment, State

RESERVE_MAX = (1 << 112) - 1


class UniswapV2Pool(Pool):
    """x·y = k. Reserves are the last Sync's, never sums of deltas."""

    family = "uniswap_v2"
    base_gas = 90_000
    __slots__ = ("fee_den", "fee_num", "reserve0", "reserve1", "tokens")

    def __init__(
        self, token0: str, token1: str, reserve0: int, reserve1: int, fee_num: int = 3, fee_den: int = 1000
    ) -> None:
        self.tokens = (token0.lower(), token1.lower())
        self.reserve0 = reserve0
        self.reserve1 = reserve1
        self.fee_num = fee_num
        self.fee_den = fee_den

    @classmethod
    def from_state(cls, state: State) -> Self:
        f = Fields(state, cls.family)
        fee_den = f.integer("fee_den", 1000, low=1)
        pool = cls(
            *f.pair(),
            f.integer("reserve0", high=RESERVE_MAX),
            f.integer("reserve1", high=RESERVE_MAX),
            f.integer("fee_num", 3, high=fee_den - 1),
            fee_den,
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
            "fee_num": self.fee_num,
            "fee_den": self.fee_den,
        }

    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        x, y = (self.reserve0, self.reserve1) if i == 0 else (self.reserve1, self.reserve0)
        if not x or not y:
            raise InsufficientLiquidity("the pool is empty")
        if x + amount_in > RESERVE_MAX:
            raise InsufficientLiquidity(f"a reserve stays below 2^112: at most {RESERVE_MAX - x} can go in")
        taken = amount_in * (self.fee_den - self.fee_num)
        return taken * y // (x * self.fee_den + taken)

    def amount_in(self, i: int, j: int, amount_out: int) -> int:
        x, y = (self.reserve0, self.reserve1) if i == 0 else (self.reserve1, self.reserve0)
        if amount_out >= y or not x:
            raise InsufficientLiquidity(f"the pool holds {y}, so that {amount_out} cannot be bought")
        amount = x * amount_out * self.fee_den // ((y - amount_out) * (self.fee_den - self.fee_num)) + 1
        if x + amount > RESERVE_MAX:
            raise InsufficientLiquidity(f"a reserve stays below 2^112: at most {RESERVE_MAX - x} can go in")
        return amount

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        x, y = (self.reserve0, self.reserve1) if i == 0 else (self.reserve1, self.reserve0)
        return y * (self.fee_den - self.fee_num), x * self.fee_den

    def segments(self, base: int, quote: int, *, buy: bool, bps: Sequence[int] = DEFAULT_BPS) -> list[Segment]:
        x = self.reserve0 if base == 0 else self.reserve1
        out: list[Segment] = []
        size = value = 0
        for step in bps:
            # The price is quote/base, and base² ∝ 1/price: a move by step changes the reserve by a square root.
            root = isqrt((10_000 + step) * 10_000)
            total = x - x * 10_000 // root if buy else x * root // 10_000 - x
            if not buy:
                total = total * self.fee_den // (self.fee_den - self.fee_num)
            if total <= size:
                continue
            try:
                worth = self.amount_in(quote, base, total) if buy else self.amount_out(base, quote, total)
            except InsufficientLiquidity:
                break
            if worth > value:
                out.append((total - size, worth - value))
                size, value = total, worth
        return out
