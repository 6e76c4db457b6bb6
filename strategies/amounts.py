"""Decimal texts of a configuration as integers at an exponent that is only known later."""

from __future__ import annotations

from market.decimals import parse_decimal


def at_exp(text: str, exponent: int) -> int:
    """The amount at this exponent, rounded down: a limit is never widened. Raises DecimalError."""
    mantissa, own = parse_decimal(text)
    return shift_down(mantissa, own, exponent)


def shift_down(mantissa: int, own: int, exponent: int) -> int:
    """The same amount at another exponent, rounded down where digits do not fit."""
    return mantissa * 10 ** (own - exponent) if own >= exponent else mantissa // 10 ** (exponent - own)


def shift_up(mantissa: int, own: int, exponent: int) -> int:
    """The same, rounded up."""
    return -shift_down(-mantissa, own, exponent)
