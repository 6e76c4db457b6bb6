"""Concentrated liquidity: Uniswap V3 and its forks (PancakeSwap V3, Sushi V3, Aerodrome Slipstream).

Follows UniswapV3Pool.swap with SwapMath, SqrtPriceMath and TickBitmap. Two traps are held by tests: a swap stops at
the end of each bitmap word even where no tick is initialised (skipping those stops changes roundings), and a tick
needs its gross liquidity, because a net of zero does not mean that the tick is gone.

State::

    family          "uniswap_v3"
    token0, token1  addresses
    fee             millionths of what goes in (3000 is 0.3 %); mutable on Slipstream
    tick_spacing
    sqrt_price_x96  √(token1/token0) · 2^96; 0 before initialisation
    tick            the present one
    liquidity       active at the present tick
    ticks           {"-120": {"gross": …, "net": …}, …}: every initialised tick; net is signed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from math import isqrt
from typing import Any, Self, cast

from market.pools.pool import DEFAULT_BPS, PPM, Fields, InsufficientLiquidity, Pool, Segment, State
from market.pools.tick_math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    Q96,
    UINT160_MAX,
    amount0_delta,
    amount1_delta,
    next_price_from_input,
    next_price_from_output,
    sqrt_ratio_at_tick,
    tick_at_sqrt_ratio,
)

UINT128_MAX = (1 << 128) - 1
AMOUNT_MAX = (1 << 255) - 1
GAS_A_TICK = 22_000


@dataclass(slots=True)
class Swap:
    """How a swap would end."""

    amount_in: int
    amount_out: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    crossed: int
    """Initialised ticks crossed."""


class UniswapV3Pool(Pool):
    """Liquidity between ticks. ``ticks`` maps a tick to (gross, net)."""

    family = "uniswap_v3"
    base_gas = 115_000
    __slots__ = ("fee", "liquidity", "sqrt_price_x96", "tick", "tick_spacing", "ticks", "tokens", "words")

    def __init__(
        self,
        token0: str,
        token1: str,
        fee: int,
        tick_spacing: int,
        sqrt_price_x96: int = 0,
        tick: int = 0,
        liquidity: int = 0,
        ticks: Iterable[tuple[int, int, int]] = (),
    ) -> None:
        self.tokens = (token0.lower(), token1.lower())
        self.fee = fee
        self.tick_spacing = tick_spacing
        self.sqrt_price_x96 = sqrt_price_x96
        self.tick = tick
        self.liquidity = liquidity
        self.ticks: dict[int, tuple[int, int]] = {}
        self.words: dict[int, int] = {}
        """Bitmap of initialised ticks: word position → 256 bits, as TickBitmap keeps it."""
        for index, gross, net in ticks:
            self.set_tick(index, gross, net)

    @classmethod
    def from_state(cls, state: State) -> Self:
        f = Fields(state, cls.family)
        pool = cls(*f.pair(), *cls._static(f), *cls._moving(f), cls._ticks(f))
        f.done()
        return pool

    @classmethod
    def _static(cls, f: Fields) -> tuple[int, int]:
        return f.integer("fee", high=PPM), max(1, f.integer("tick_spacing", low=1, high=1 << 15))

    @classmethod
    def _moving(cls, f: Fields) -> tuple[int, int, int]:
        return (
            f.integer("sqrt_price_x96", high=UINT160_MAX),
            f.integer("tick", low=MIN_TICK - 1, high=MAX_TICK),
            f.integer("liquidity", high=UINT128_MAX),
        )

    @classmethod
    def _ticks(cls, f: Fields) -> list[tuple[int, int, int]]:
        out: list[tuple[int, int, int]] = []
        spacing = f.integer("tick_spacing", 1)
        for text, value in f.mapping("ticks").items():
            try:
                index = int(text)
            except ValueError:
                index = MAX_TICK + 1
            if not MIN_TICK <= index <= MAX_TICK or (spacing and index % spacing):
                f.require(False, f"ticks: {text!r} is not a tick of this spacing")
                continue
            if not isinstance(value, Mapping):
                f.require(False, f"ticks[{text}] is not a dictionary of gross and net")
                continue
            one = Fields(cast("Mapping[str, Any]", value), f"tick {text}")
            out.append((index, one.integer("gross", high=UINT128_MAX), one.integer("net", low=-(1 << 127), high=UINT128_MAX)))
            one.done()
        return out

    def to_state(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "token0": self.tokens[0],
            "token1": self.tokens[1],
            "fee": self.fee,
            "tick_spacing": self.tick_spacing,
            "sqrt_price_x96": self.sqrt_price_x96,
            "tick": self.tick,
            "liquidity": self.liquidity,
            "ticks": {str(t): {"gross": g, "net": n} for t, (g, n) in sorted(self.ticks.items())},
        }

    def set_tick(self, index: int, gross: int, net: int) -> None:
        """Set a tick's liquidity absolutely; a gross of 0 clears it and its bit."""
        compressed = index // self.tick_spacing
        word, bit = compressed >> 8, 1 << (compressed & 255)
        if gross:
            self.ticks[index] = (gross, net)
            self.words[word] = self.words.get(word, 0) | bit
        elif self.ticks.pop(index, None) is not None:
            left = self.words.get(word, 0) & ~bit
            if left:
                self.words[word] = left
            else:
                self.words.pop(word, None)

    def swap_fee(self, zero_for_one: bool) -> int:
        """The fee of a swap in this direction, in millionths."""
        del zero_for_one
        return self.fee

    def swap(self, zero_for_one: bool, amount: int, *, exact_in: bool, limit: int = 0) -> Swap:
        """Run a swap without changing the pool; it ends early at the sqrt price ``limit`` (0: the contract's bound)."""
        if not limit:
            limit = MIN_SQRT_RATIO + 1 if zero_for_one else MAX_SQRT_RATIO - 1
        price, tick, liquidity = self.sqrt_price_x96, self.tick, self.liquidity
        if not price:
            raise InsufficientLiquidity("the pool is not initialised")
        if (limit >= price) if zero_for_one else (limit <= price):
            return Swap(0, 0, price, tick, liquidity, 0)
        spacing, words, ticks = self.tick_spacing, self.words, self.ticks
        fee = self.swap_fee(zero_for_one)
        keep = PPM - fee
        remaining, other, crossed = amount, 0, 0
        while remaining and price != limit:
            compressed = tick // spacing
            if zero_for_one:
                word = compressed >> 8
                mask = words.get(word, 0) & ((2 << (compressed & 255)) - 1)
                if not mask and not liquidity:
                    word = max((w for w in words if w < word), default=MIN_TICK)
                    mask = words.get(word, 0)
                upcoming = ((word << 8) + (mask.bit_length() - 1 if mask else 0)) * spacing
            else:
                compressed += 1
                word = compressed >> 8
                mask = words.get(word, 0) >> (compressed & 255)
                if not mask and not liquidity:
                    # Without liquidity a stop at a word's end moves nothing: go to the next tick at once.
                    word = min((w for w in words if w > word), default=MAX_TICK)
                    mask, compressed = words.get(word, 0), word << 8
                upcoming = (
                    (compressed + (mask & -mask).bit_length() - 1) if mask else ((word << 8) + 255)
                ) * spacing
            upcoming = MIN_TICK if upcoming < MIN_TICK else MAX_TICK if upcoming > MAX_TICK else upcoming
            at = sqrt_ratio_at_tick(upcoming)
            target = limit if (at < limit if zero_for_one else at > limit) else at
            if exact_in:
                usable = remaining * keep // PPM
                taken = (
                    amount0_delta(target, price, liquidity, True)
                    if zero_for_one
                    else amount1_delta(price, target, liquidity, True)
                )
                ends = usable < taken
                following = next_price_from_input(price, liquidity, usable, zero_for_one) if ends else target
            else:
                given = (
                    amount1_delta(target, price, liquidity, False)
                    if zero_for_one
                    else amount0_delta(price, target, liquidity, False)
                )
                ends = remaining < given
                following = next_price_from_output(price, liquidity, remaining, zero_for_one) if ends else target
                taken = 0
            reached = following == target
            if zero_for_one:
                if not (reached and exact_in):
                    taken = amount0_delta(following, price, liquidity, True)
                given = amount1_delta(following, price, liquidity, False)
            else:
                if not (reached and exact_in):
                    taken = amount1_delta(price, following, liquidity, True)
                given = amount0_delta(price, following, liquidity, False)
            if exact_in:
                paid = remaining if not reached else taken - (-taken * fee // keep) if keep else taken
                remaining -= paid
                other += given
            else:
                given = min(given, remaining)
                remaining -= given
                other += taken - (-taken * fee // keep)
            price = following
            if price == at:
                if mask:
                    net = ticks[upcoming][1]
                    liquidity += -net if zero_for_one else net
                    crossed += 1
                tick = upcoming - 1 if zero_for_one else upcoming
        if exact_in:
            return Swap(amount - remaining, other, price, tick, liquidity, crossed)
        return Swap(other, amount - remaining, price, tick, liquidity, crossed)

    def after(self, swap: Swap) -> None:
        """Take a swap's end as the pool's state (for simulations; a mirror takes the chain's own events)."""
        self.sqrt_price_x96, self.tick, self.liquidity = swap.sqrt_price_x96, swap.tick, swap.liquidity
        if not self.tick_holds():
            self.tick = tick_at_sqrt_ratio(self.sqrt_price_x96)

    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        if amount_in > AMOUNT_MAX:
            raise InsufficientLiquidity("an amount is below 2^255")
        swap = self.swap(i == 0, amount_in, exact_in=True)
        if swap.amount_in < amount_in:
            raise InsufficientLiquidity(f"the pool takes {swap.amount_in} of {amount_in} and pays {swap.amount_out}")
        return swap.amount_out

    def amount_in(self, i: int, j: int, amount_out: int) -> int:
        swap = self.swap(i == 0, amount_out, exact_in=False)
        if swap.amount_out < amount_out:
            raise InsufficientLiquidity(f"the pool pays {swap.amount_out} of {amount_out}")
        return swap.amount_in

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        squared = self.sqrt_price_x96 * self.sqrt_price_x96
        keep = PPM - self.swap_fee(i == 0)
        return (squared * keep, Q96 * Q96 * PPM) if i == 0 else (Q96 * Q96 * keep, squared * PPM)

    def gas(self, i: int, j: int, amount_in: int) -> int:
        return self.base_gas + GAS_A_TICK * self.swap(i == 0, amount_in, exact_in=True).crossed

    def segments(self, base: int, quote: int, *, buy: bool, bps: Sequence[int] = DEFAULT_BPS) -> list[Segment]:
        price = self.sqrt_price_x96
        if not price:
            return []
        zero_for_one = (base == 0) != buy  # selling token0, or buying token1 with token0
        out: list[Segment] = []
        at, paid, got = self.fork(), 0, 0
        for step in bps:
            root = isqrt((10_000 + step) * 10_000 * PPM * PPM) // 10_000
            limit = price * PPM // root if zero_for_one else price * root // PPM
            limit = max(MIN_SQRT_RATIO + 1, min(MAX_SQRT_RATIO - 1, limit))
            swap = at.swap(zero_for_one, AMOUNT_MAX, exact_in=True, limit=limit)
            # What is paid where nothing is got yet, a few units in a range that is all but empty, belongs to what comes next.
            paid, got = paid + swap.amount_in, got + swap.amount_out
            if paid and got:
                out.append((got, paid) if buy else (paid, got))
                paid = got = 0
            if swap.sqrt_price_x96 == at.sqrt_price_x96:
                continue
            at.after(swap)
        return out

    def tick_holds(self) -> bool:
        """Whether ``tick`` is where the price stands (a price on a tick's edge may belong to the one below)."""
        low = sqrt_ratio_at_tick(max(MIN_TICK, self.tick))
        high = sqrt_ratio_at_tick(min(MAX_TICK, self.tick + 1))
        return low <= self.sqrt_price_x96 <= high

    def fork(self) -> Self:
        """A pool that shares the ticks but has a price of its own, to walk on."""
        return copy(self)
