"""Exact scaled decimals: a number is an integer mantissa and a power-of-ten exponent, never a float."""

from __future__ import annotations

from collections.abc import Sequence

MAX_DIGITS = 38
"""Digits that a wire number may have, before or after scaling. More is refused: it would be an attack on memory."""

EXPONENT_MIN = -36
"""The finest step of a book's prices and sizes: a cheap token is worth 10^-18 of a dear one, and less."""

LONG_MAX = (1 << 63) - 1
"""Largest mantissa that an Avro long carries."""


class DecimalError(ValueError):
    """The text is not a plain decimal number, or it does not fit the exponent or 64 bits."""


def parse_decimal(text: str) -> tuple[int, int]:
    """Read a decimal text exactly.

    Takes ``58710.20``, ``-3``, ``1e-8``, ``0``; gives (mantissa, exponent) with value = mantissa × 10^exponent.
    The exponent is 0 or negative and counts the digits written after the point, so ``58710.20`` is (5871020, -2).
    Raises DecimalError for anything else, NaN and infinities included.
    """
    body, exponent = text, 0
    if "e" in body or "E" in body:
        body, _, exp_text = body.replace("E", "e").partition("e")
        digits = exp_text[1:] if exp_text[:1] in ("+", "-") else exp_text
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 3:
            raise DecimalError(f"not a decimal number: {text[:60]!r}")
        exponent = int(exp_text)
    whole, point, fraction = body.partition(".")
    negative = whole[:1] == "-"
    digits = (whole[1:] if whole[:1] in ("-", "+") else whole) + fraction
    if not digits or not (digits.isascii() and digits.isdigit()) or (point and not whole.strip("+-") and not fraction):
        raise DecimalError(f"not a decimal number: {text[:60]!r}")
    if len(digits) > MAX_DIGITS or abs(exponent) > MAX_DIGITS:
        raise DecimalError(f"more than {MAX_DIGITS} digits: {text[:60]!r}")
    mantissa = -int(digits) if negative else int(digits)
    exponent -= len(fraction)
    if exponent > 0:
        mantissa *= 10**exponent
        exponent = 0
    return mantissa, exponent


def to_mantissa(text: str, exponent: int) -> int:
    """The integer m with m × 10^exponent equal to the text, exactly.

    Raises DecimalError when the text needs a finer exponent (see finer_exponent) or is not a number.
    """
    mantissa, own = parse_decimal(text)
    return rescale(mantissa, own, exponent)


def rescale(mantissa: int, from_exponent: int, to_exponent: int) -> int:
    """Express a mantissa in another exponent, exactly; raises DecimalError where digits would be lost."""
    shift = from_exponent - to_exponent
    if shift >= 0:
        return mantissa * 10**shift
    value, rest = divmod(mantissa, 10**-shift)
    if rest:
        raise DecimalError(f"{mantissa}e{from_exponent} needs a finer exponent than {to_exponent}")
    return value


def fit_long(mantissas: Sequence[int], exponent: int) -> tuple[list[int], int]:
    """Amounts of one exponent with as few digits as they need; those that 64 bits cannot hold lose their last digits.

    Rounded towards zero, all alike: a record of what is held for a person or a cap, never what is summed.
    """
    values = list(mantissas)
    while any(values) and exponent < 0 and not any(v % 10 for v in values):
        values, exponent = [v // 10 for v in values], exponent + 1
    while any(abs(v) > LONG_MAX for v in values):
        values, exponent = [v // 10 if v >= 0 else -(-v // 10) for v in values], exponent + 1
    return (values, exponent) if any(values) else (values, 0)


def strip_zeros(mantissa: int, exponent: int) -> tuple[int, int]:
    """The same value with the coarsest exponent that is not above 0."""
    while exponent < 0 and mantissa % 10 == 0:
        mantissa //= 10
        exponent += 1
    return mantissa, exponent


def format_decimal(mantissa: int, exponent: int, *, strip: bool = True) -> str:
    """Plain decimal text without an exponent; ``strip`` drops trailing zeros after the point."""
    if exponent >= 0:
        return str(mantissa * 10**exponent)
    sign = "-" if mantissa < 0 else ""
    digits = str(abs(mantissa)).rjust(1 - exponent, "0")
    whole, fraction = digits[:exponent], digits[exponent:]
    if strip:
        fraction = fraction.rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"
