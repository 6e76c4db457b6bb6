"""Fees as exact integers: a rate is a mantissa at FEE_EXP, a fee is rounded against us."""

from __future__ import annotations

from market.decimals import parse_decimal, rescale

FEE_EXP = -8
"""A rate of 1 (all of the notional) is 100,000,000: a thousandth of a basis point is the finest step but one."""
ONE = 10**-FEE_EXP
BPS = ONE // 10_000
"""One basis point as a rate."""


def rate_from_bps(text: str) -> int:
    """The rate of a decimal text in basis points: ``7.5`` is 75,000. Negative: a rebate.

    Raises DecimalError for what is no number or finer than FEE_EXP can say.
    """
    mantissa, exponent = parse_decimal(text)
    return rescale(mantissa, exponent - 4, FEE_EXP)


def fee_of(notional: int, rate: int) -> int:
    """The fee on a notional, in the notional's own exponent, rounded up (a rebate is rounded down)."""
    return -(-notional * rate // ONE)


def cost(notional: int, rate: int) -> int:
    """What a purchase takes: notional and fee, rounded up."""
    return notional + fee_of(notional, rate)


def proceeds(notional: int, rate: int) -> int:
    """What a sale brings: notional less the fee, rounded down."""
    return notional - fee_of(notional, rate)
