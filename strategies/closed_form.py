"""The best size of a trade through constant-product pools, in closed form and exact integers.

A hop with reserves a (in) and b (out) and fee factor g = gn/gd gives ``out = gn·b·x / (gd·a + gn·x)``. Composed, n hops
are one: ``y(x) = E·x / (D + C·x)``, starting with E = D = 1, C = 0; a hop does, with the old E,
``C ← C·a + gn·E``, ``E ← E·gn·b``, ``D ← D·a`` (a already times gd). The cycle pays iff E > D; the best input is
``x* = (√(E·D) − D) / C``, the profit then ``(√E − √D)² / C``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, isqrt


@dataclass(frozen=True, slots=True)
class Pool:
    """A hop through a constant-product pool: reserves in the direction of the trade, fee factor gn/gd (997/1000)."""

    reserve_in: int
    reserve_out: int
    gn: int = 997
    gd: int = 1000

    def out(self, amount: int) -> int:
        """What a swap of ``amount`` gives, rounded down as the contract does."""
        paid = amount * self.gn
        return paid * self.reserve_out // (self.reserve_in * self.gd + paid)


def compose(pools: Sequence[Pool]) -> tuple[int, int, int]:
    """(E, D, C) of the hops one after another, without a common divisor."""
    e, d, c = 1, 1, 0
    for pool in pools:
        a = pool.reserve_in * pool.gd
        c, e, d = c * a + pool.gn * e, e * pool.gn * pool.reserve_out, d * a
    shared = gcd(e, d, c)
    return e // shared, d // shared, c // shared


def best_input(pools: Sequence[Pool]) -> int:
    """The best amount to put in, rounded down to a unit; 0 where the cycle does not pay."""
    e, d, c = compose(pools)
    return max(0, (isqrt(e * d) - d) // c) if e > d else 0


def output(pools: Sequence[Pool], amount: int) -> int:
    """What comes out at the end, rounded down at each hop as on chain."""
    for pool in pools:
        amount = pool.out(amount)
    return amount


def best_cycle(pools: Sequence[Pool]) -> tuple[int, int]:
    """(amount in, profit) in whole units, with the floors of each hop; (0, 0) where nothing is gained.

    The floors move the best input by some units, so the neighbours of the closed form are tried.
    """
    centre = best_input(pools)
    best = (0, 0)
    for amount in {max(0, centre + step) for step in range(-2, 3)}:
        profit = output(pools, amount) - amount
        if profit > best[1] or (profit == best[1] and profit > 0 and amount < best[0]):
            best = (amount, profit)
    return best


def best_against_price(pool: Pool, price_num: int, price_den: int) -> tuple[int, int]:
    """(amount in, amount out) of the best swap into a pool whose output sells outside at price_num/price_den.

    ``x* = (√(g·x·y·m) − x) / g`` with g = gn/gd, m the price in units of input for a unit of output; (0, 0) where it
    does not pay.
    """
    x, y, gn, gd = pool.reserve_in, pool.reserve_out, pool.gn, pool.gd
    # g·x·y·m = (gn·x·y·num) / (gd·den); the root is taken over a common square.
    root = isqrt(gn * x * y * price_num * gd * price_den) * gd
    numerator = root - x * gd * gd * price_den
    amount = max(0, numerator // (gn * gd * price_den))
    return (amount, pool.out(amount)) if amount else (0, 0)
