"""Ticks and square-root prices as Uniswap V3 and V4 compute them: TickMath and SqrtPriceMath, exact.

A sqrt price is √(token1/token0) in units of 2^-96; tick t stands for √(1.0001^t).
"""

from __future__ import annotations

from functools import lru_cache
from math import log

MIN_TICK = -887272
MAX_TICK = 887272
MIN_SQRT_RATIO = 4295128739
MAX_SQRT_RATIO = 1461446703485210103287273052203988822378723970342
Q96 = 1 << 96
UINT160_MAX = (1 << 160) - 1
UINT256_MAX = (1 << 256) - 1
LOG_Q96, LOG_STEP = log(Q96), log(1.0001)

FACTORS = (
    0xFFFCB933BD6FAD37AA2D162D1A594001, 0xFFF97272373D413259A46990580E213A, 0xFFF2E50F5F656932EF12357CF3C7FDCC,
    0xFFE5CACA7E10E4E61C3624EAA0941CD0, 0xFFCB9843D60F6159C9DB58835C926644, 0xFF973B41FA98C081472E6896DFB254C0,
    0xFF2EA16466C96A3843EC78B326B52861, 0xFE5DEE046A99A2A811C461F1969C3053, 0xFCBE86C7900A88AEDCFFC83B479AA3A4,
    0xF987A7253AC413176F2B074CF7815E54, 0xF3392B0822B70005940C7A398E4B70F3, 0xE7159475A2C29B7443B29C7FA6E889D9,
    0xD097F3BDFD2022B8845AD8F792AA5825, 0xA9F746462D870FDF8A65DC1F90E061E5, 0x70D869A156D2A1B890BB3DF62BAF32F7,
    0x31BE135F97D08FD981231505542FCFA6, 0x9AA508B5B7A84E1C677DE54F3E99BC9, 0x5D6AF8DEDB81196699C329225EE604,
    0x2216E584F5FA1EA926041BEDFE98, 0x48A170391F7DC42444E8FA2,
)  # fmt: skip
"""√(1.0001^-(2^n)) in units of 2^-128, as in TickMath.getSqrtRatioAtTick; the first stands for bit 0."""


@lru_cache(maxsize=1 << 17)
def sqrt_ratio_at_tick(tick: int) -> int:
    """TickMath.getSqrtRatioAtTick: rounded up to 96 fractional bits. Raises ValueError beyond MIN_TICK … MAX_TICK."""
    size = abs(tick)
    if size > MAX_TICK:
        raise ValueError(f"tick {tick} is outside of ±{MAX_TICK}")
    ratio = 1 << 128
    bit = 0
    while size:
        if size & 1:
            ratio = ratio * FACTORS[bit] >> 128
        size >>= 1
        bit += 1
    if tick > 0:
        ratio = ((1 << 256) - 1) // ratio
    return (ratio >> 32) + (1 if ratio & 0xFFFFFFFF else 0)


def tick_at_sqrt_ratio(sqrt_price: int) -> int:
    """The greatest tick whose ratio is at most ``sqrt_price`` (TickMath.getTickAtSqrtRatio)."""
    if not MIN_SQRT_RATIO <= sqrt_price < MAX_SQRT_RATIO:
        raise ValueError(f"sqrt price {sqrt_price} is outside of {MIN_SQRT_RATIO} … {MAX_SQRT_RATIO}")
    # A logarithm only says where to look first; which tick it is, the exact ratios decide.
    tick = max(MIN_TICK, min(MAX_TICK - 1, int(2 * (log(sqrt_price) - LOG_Q96) / LOG_STEP)))
    while sqrt_ratio_at_tick(tick) > sqrt_price:
        tick -= 1
    while sqrt_ratio_at_tick(tick + 1) <= sqrt_price:
        tick += 1
    return tick


def amount0_delta(a: int, b: int, liquidity: int, up: bool) -> int:
    """SqrtPriceMath.getAmount0Delta: token0 between two sqrt prices; the two roundings are the contract's."""
    if a > b:
        a, b = b, a
    product = (liquidity << 96) * (b - a)
    if up:
        first = -(-product // b)
        return -(-first // a)
    return product // b // a


def amount1_delta(a: int, b: int, liquidity: int, up: bool) -> int:
    """SqrtPriceMath.getAmount1Delta: token1 between two sqrt prices."""
    product = liquidity * (b - a if b > a else a - b)
    return -(-product >> 96) if up else product >> 96


def next_price_from_input(price: int, liquidity: int, amount: int, zero_for_one: bool) -> int:
    """SqrtPriceMath.getNextSqrtPriceFromInput: where ``amount`` in (fee taken off) moves the price."""
    if zero_for_one:
        if not amount:
            return price
        numerator = liquidity << 96
        product = amount * price
        if product > UINT256_MAX or numerator + product > UINT256_MAX:  # where the contract's own product would overflow
            return -(-numerator // (numerator // price + amount))
        return -(-numerator * price // (numerator + product))
    return price + (amount << 96) // liquidity


def next_price_from_output(price: int, liquidity: int, amount: int, zero_for_one: bool) -> int:
    """SqrtPriceMath.getNextSqrtPriceFromOutput: where ``amount`` out moves the price; the liquidity must hold it."""
    if zero_for_one:
        moved = -(-(amount << 96) // liquidity)
        return price - moved
    numerator = liquidity << 96
    return -(-numerator * price // (numerator - amount * price))
