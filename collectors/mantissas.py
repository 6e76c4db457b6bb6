"""Decimal texts to exact integers, fast: prices recur, so each text is read once and remembered."""

from __future__ import annotations

from functools import cache

from market.decimals import LONG_MAX, DecimalError, parse_decimal, rescale, strip_zeros

REMEMBERED = 1 << 15
"""Texts that one exponent remembers: about 5 MB. All instruments with the same exponent share them."""

MAX_SCALE = 18
"""Decimals that 64 bits can carry at all; a finer number is refused, never rounded."""

POWERS = [10**n for n in range(MAX_SCALE + 1)]
ZEROS = ["0" * n for n in range(MAX_SCALE + 1)]
"""Venues that pad: as many zeros as they write behind the last digit that counts."""


class FinerExponent(DecimalError):
    """The text has digits below the exponent; ``exponent`` is the one that it needs."""

    def __init__(self, text: str, exponent: int) -> None:
        super().__init__(f"{text!r} needs a finer exponent: {exponent}")
        self.exponent = exponent


class Mantissas(dict[str, int]):
    """``mantissas[text]`` is the integer m with m × 10^exponent equal to the text, exactly.

    Raises FinerExponent when the text has more digits than the exponent holds, DecimalError when it is negative, no
    number, or does not fit 64 bits. Bounded: it forgets everything when it remembers REMEMBERED texts.
    """

    __slots__ = ("decimals", "exponent")

    def __init__(self, exponent: int) -> None:
        self.exponent = exponent
        self.decimals = -exponent

    def __missing__(self, text: str) -> int:
        # The plain cases of read(), without the call: most texts that are new are sizes, and plain.
        whole, _, fraction = text.partition(".")
        missing = self.decimals - len(fraction)
        if -MAX_SCALE <= missing < 0 and fraction.endswith(ZEROS[-missing]):
            digits, missing = whole + fraction[:missing], 0
        else:
            digits = whole + fraction
        if missing >= 0 and whole and len(digits) + missing <= MAX_SCALE and digits.isascii() and digits.isdigit():
            value = int(digits) * POWERS[missing] if missing else int(digits)
        else:
            value = self.read(text)
        if len(self) >= REMEMBERED:
            self.clear()
        self[text] = value
        return value

    def read(self, text: str) -> int:
        """The same without remembering."""
        whole, _, fraction = text.partition(".")
        missing = self.decimals - len(fraction)
        if missing == 0:
            digits = whole + fraction
        elif missing > 0:
            digits = whole + fraction + "0" * missing
        else:
            digits = whole + fraction[:missing]
            if fraction[missing:].strip("0"):
                return self._read_slowly(text)
        # int() alone would also take blanks, underscores, signs and digits of other scripts. An empty text must not
        # become the zeros that were just added to it: a size of zero deletes a level.
        if whole and len(digits) <= MAX_SCALE and digits.isascii() and digits.isdigit():
            return int(digits)
        return self._read_slowly(text)

    def _read_slowly(self, text: str) -> int:
        mantissa, exponent = strip_zeros(*parse_decimal(text))
        if mantissa < 0:
            raise DecimalError(f"a price or size below zero: {text[:60]!r}")
        if exponent < -MAX_SCALE:
            raise DecimalError(f"more than {MAX_SCALE} decimals: {text[:60]!r}")
        if exponent < self.exponent:
            raise FinerExponent(text, exponent)
        mantissa = rescale(mantissa, exponent, self.exponent)
        if mantissa > LONG_MAX:
            raise DecimalError(f"does not fit 64 bits at exponent {self.exponent}: {text[:60]!r}")
        return mantissa


@cache
def price_mantissas(exponent: int) -> Mantissas:
    """The process's shared memory of prices with this exponent."""
    return Mantissas(exponent)


@cache
def size_mantissas(exponent: int) -> Mantissas:
    """The same for sizes, apart from prices: they recur less and would push them out."""
    return Mantissas(exponent)


def step_exponent(step: str) -> int:
    """The coarsest exponent (0 or below) that holds multiples of a tick or lot; 0 for a text that says none."""
    try:
        return max(-MAX_SCALE, strip_zeros(*parse_decimal(step))[1])
    except DecimalError:
        return 0
