"""Values that each venue writes in its own way, as the records want them: times, rates, signs, asset names, lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated

from msgspec import Meta, Raw

from collectors.cex.wire_json import BAD, micros, text
from collectors.venue import BookDelta, Level, Listing, MalformedFrame
from market.decimals import format_decimal, parse_decimal, rescale

Id = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
Millis = Annotated[int, Meta(ge=0, le=1 << 52)]
Micros = Annotated[int, Meta(ge=0, le=1 << 62)]
Nanos = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]

FIRST = frozenset("0123456789-")
"""How a JSON number begins."""
ALIASES = {"XBT": "BTC", "BCHSV": "BSV"}


def number(raw: Raw) -> str:
    """The digits of a JSON number, or of a text that holds one. ValueError: it is neither."""
    digits = str(raw, "ascii")
    if digits[:1] in FIRST:
        return digits
    digits = text(raw)
    if digits[:1] not in FIRST:
        raise ValueError(f"not a number: {digits[:40]!r}")
    return digits


def known(raw: Raw) -> str:
    """The same, or an empty text where the venue says null or nothing. ValueError: it says something else."""
    return number(raw) if text(raw) else ""


def numbers(rows: Iterable[tuple[Raw, Raw]]) -> list[Level]:
    """Levels of JSON numbers, quoted or not. ValueError: one is no number."""
    return [(number(price), number(size)) for price, size in rows]


def shifted(digits: str, places: int) -> str:
    """digits × 10^places as plain text: a fraction's basis points with 4, a percentage's with 2. Raises ValueError."""
    mantissa, exponent = parse_decimal(digits)
    return format_decimal(mantissa, exponent + places)


def signed(digits: str) -> tuple[str, str]:
    """(BUY or SELL, size) of a size whose sign is the side: below zero sells."""
    return ("SELL", digits[1:]) if digits[:1] == "-" else ("BUY", digits)


def time_us(digits: str, unit_exp: int) -> int:
    """Microseconds from a decimal text in units of 10^unit_exp of them (3: ms, 6: s), fractions cut. Raises ValueError."""
    mantissa, exponent = parse_decimal(digits)
    exponent += unit_exp
    value = rescale(mantissa, exponent, 0) if exponent >= 0 else mantissa // 10**-exponent
    if not 0 <= value < 1 << 62:
        raise ValueError(f"no time: {digits[:40]!r}")
    return value


def iso_us(stamp: str) -> int:
    """Microseconds since the epoch of an ISO 8601 time with its zone. Raises ValueError."""
    return micros(datetime.fromisoformat(stamp))


def asset(code: str) -> str:
    """The asset's name as unified symbols write it: upper case, XBT as BTC."""
    upper = code.upper()
    return ALIASES.get(upper, upper)


def readable(venue: str, entries: Iterable[Raw], read: Callable[[Raw], Listing | None]) -> list[Listing]:
    """The listings of those entries that can be read (None: not of this market). MalformedFrame: there is none to read."""
    out: list[Listing] = []
    seen = 0
    for entry in entries:
        try:
            listing = read(entry)
        except BAD:
            continue
        seen += 1
        if listing is not None:
            out.append(listing)
    if not seen:
        raise MalformedFrame(f"{venue} instruments: none can be read")
    return out


def unreadable(native: str, frame: bytes, error: Exception, seq: int = -1) -> BookDelta:
    """A change of this book that could not be read, for venues that number nothing: lost, it would never be missed.

    Its price is no number, so the worker writes it to the dead letters and synchronises this book alone anew. ``seq``
    is one that the book's rule applies.
    """
    return BookDelta(native, seq, seq, -1, [(f"{error}: {frame[:2000]!r}", "")], [])
