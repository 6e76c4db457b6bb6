"""Reading venues' JSON without losing a digit: numbers as the text that stood on the wire, times as integers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from collectors.venue import Level
from market.decimals import format_decimal, parse_decimal

BAD = (msgspec.MsgspecError, RecursionError, ValueError, KeyError, IndexError, TypeError, OverflowError)
"""What reading a frame may raise inside an adapter, which makes a MalformedFrame of it. DecimalError, SymbolError and
UnicodeDecodeError are ValueErrors."""

Raw = msgspec.Raw
NONE = Raw(b"")
"""The default of a number that a frame may leave out."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def text(raw: Raw) -> str:
    """The number's text as it stood on the wire, without quotes where it had some; empty for null and NONE.

    Raises UnicodeDecodeError for what is not ASCII.
    """
    found = str(raw, "ascii")
    return "" if found == "null" else found.strip('"')


def levels(pairs: Iterable[tuple[Raw, Raw]]) -> list[Level]:
    """Book levels from JSON numbers."""
    return [(str(price, "ascii"), str(size, "ascii")) for price, size in pairs]


def plain(number: str) -> str:
    """The decimal text without exponent and trailing zeros; raises ValueError for what is no number."""
    return format_decimal(*parse_decimal(number))


def plain_or_none(number: str | None) -> str | None:
    """The same; None where the venue gives none, an empty text or zero."""
    if not number:
        return None
    value = plain(number)
    return None if value == "0" else value


def product(one: str, other: str) -> str:
    """The exact product of two decimal texts."""
    (a, a_exp), (b, b_exp) = parse_decimal(one), parse_decimal(other)
    return format_decimal(a * b, a_exp + b_exp)


def step(decimals: int) -> str:
    """The smallest number with this many decimals: 2 is 0.01. ValueError: not 0 to 18."""
    if not 0 <= decimals <= 18:
        raise ValueError(f"{decimals} decimals")
    return format_decimal(1, -decimals)


def micros(time: datetime) -> int:
    """Microseconds since the epoch; ValueError: it names no zone."""
    if time.tzinfo is None:
        raise ValueError(f"a time without a zone: {time}")
    return (time - EPOCH) // MICROSECOND


def millis_us(number: str) -> int:
    """Microseconds from a text of milliseconds; 0 for an empty one. ValueError: not digits, or no time of ours."""
    if not number:
        return 0
    if len(number) > 16 or not (number.isascii() and number.isdigit()):
        raise ValueError(f"no time in milliseconds: {number[:40]!r}")
    return int(number) * 1000
