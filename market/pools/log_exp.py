"""Balancer's LogExpMath and FixedPoint: powers with 18 decimals, rounded exactly as the contracts round.

Divisions of signed numbers truncate towards zero, as the EVM's do.
"""

from __future__ import annotations

from market.pools.pool import InsufficientLiquidity

ONE = 10**18
E20 = 10**20
E36 = 10**36
MAX_EXPONENT = 130 * ONE
MIN_EXPONENT = -41 * ONE
MILD_BOUND = (1 << 254) // E20
POW_ERROR = 10_000

LARGE = (
    (128 * ONE, 38877084059945950922200000000000000000000000000000000000),
    (64 * ONE, 6235149080811616882910000000),
)
"""(x, e^x) without decimals."""
SMALL = (
    (32 * E20, 7896296018268069516100000000000000),
    (16 * E20, 888611052050787263676000000),
    (8 * E20, 298095798704172827474000),
    (4 * E20, 5459815003314423907810),
    (2 * E20, 738905609893065022723),
    (1 * E20, 271828182845904523536),
    (E20 // 2, 164872127070012814685),
    (E20 // 4, 128402541668774148407),
    (E20 // 8, 113314845306682631683),
    (E20 // 16, 106449445891785942956),
)
"""(x, e^x) with 20 decimals; exp uses all but the last two."""


def quotient(a: int, b: int) -> int:
    """a / b towards zero."""
    return a // b if (a >= 0) == (b > 0) else -(-a // b)


def exp(x: int) -> int:
    """e^x, 18 decimals."""
    if not MIN_EXPONENT <= x <= MAX_EXPONENT:
        raise InsufficientLiquidity("the exponent is beyond what the contract computes")
    if x < 0:
        return ONE * ONE // exp(-x)
    first = 1
    for step, value in LARGE:
        if x >= step:
            x -= step
            first = value
            break
    x *= 100
    product = E20
    for step, value in SMALL[:-2]:
        if x >= step:
            x -= step
            product = product * value // E20
    term = x
    series = E20 + term
    for n in range(2, 13):
        term = term * x // E20 // n
        series += term
    return product * series // E20 * first // 100


def ln(a: int) -> int:
    """The natural logarithm, 18 decimals (the contract's _ln)."""
    if a < ONE:
        return -ln(ONE * ONE // a)
    total = 0
    for step, value in LARGE:
        if a >= value * ONE:
            a //= value
            total += step
    total *= 100
    a *= 100
    for step, value in SMALL:
        if a >= value:
            a = a * E20 // value
            total += step
    z = (a - E20) * E20 // (a + E20)
    squared = z * z // E20
    series = term = z
    for n in (3, 5, 7, 9, 11):
        term = term * squared // E20
        series += term // n
    return (total + 2 * series) // 100


def ln_36(x: int) -> int:
    """The natural logarithm near one, 36 decimals (the contract's _ln_36)."""
    x *= ONE
    z = quotient((x - E36) * E36, x + E36)
    squared = quotient(z * z, E36)
    series = term = z
    for n in (3, 5, 7, 9, 11, 13, 15):
        term = quotient(term * squared, E36)
        series += quotient(term, n)
    return series * 2


def power(x: int, y: int) -> int:
    """x^y, both with 18 decimals (LogExpMath.pow)."""
    if y == 0:
        return ONE
    if x == 0:
        return 0
    if x >> 255 or y >= MILD_BOUND:
        raise InsufficientLiquidity("the power is beyond what the contract computes")
    if ONE - ONE // 10 < x < ONE + ONE // 10:
        near = ln_36(x)
        whole = quotient(near, ONE)
        product = whole * y + quotient((near - whole * ONE) * y, ONE)
    else:
        product = ln(x) * y
    return exp(quotient(product, ONE))


def mul_down(a: int, b: int) -> int:
    """a·b rounded down."""
    return a * b // ONE


def mul_up(a: int, b: int) -> int:
    """a·b rounded up."""
    return -(-a * b // ONE)


def div_down(a: int, b: int) -> int:
    """a/b rounded down."""
    return a * ONE // b


def div_up(a: int, b: int) -> int:
    """a/b rounded up."""
    return -(-a * ONE // b)


def power_up(x: int, y: int, shortcuts: bool) -> int:
    """x^y, never below the true value. ``shortcuts``: later contracts multiply for exponents of 1, 2 and 4."""
    if shortcuts:
        if y == ONE:
            return x
        if y in (2 * ONE, 4 * ONE):
            square = mul_up(x, x)
            return square if y == 2 * ONE else mul_up(square, square)
    raw = power(x, y)
    return raw + mul_up(raw, POW_ERROR) + 1
