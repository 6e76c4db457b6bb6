"""Instrument names: ccxt's unified symbols, built and read in one place.

===========  ===============================  =====================================
kind         form                             example
===========  ===============================  =====================================
SPOT         BASE/QUOTE                       ``BTC/USDT``
PERPETUAL    BASE/QUOTE:SETTLE                ``BTC/USDT:USDT``
FUTURE       BASE/QUOTE:SETTLE-YYMMDD         ``BTC/USD:BTC-260327``
OPTION       …-YYMMDD-STRIKE-C or -P          ``BTC/USD:BTC-260327-50000-C``
===========  ===============================  =====================================
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from market.decimals import DecimalError, format_decimal, parse_decimal

InstrumentKind = Literal["SPOT", "PERPETUAL", "FUTURE", "OPTION"]

MAX_ASSET_LENGTH = 64
RESERVED = frozenset("/:|")
"""Signs that separate the parts of a symbol or of a record's key, and so cannot stand in an asset's name."""


class SymbolError(ValueError):
    """The text is not a unified symbol, or the parts do not make one; the message says which part and why."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """The parts of a unified symbol. ``str(symbol)`` is its text, ``parse_symbol`` the inverse.

    Raises SymbolError when the parts do not belong together (an expiry without a settlement asset, …).
    """

    base: str
    quote: str
    settle: str | None = None
    expiry: date | None = None
    strike: str | None = None
    """Strike price as a plain decimal text without trailing zeros."""
    right: Literal["C", "P"] | None = None
    """Call or put."""

    def __post_init__(self) -> None:
        _asset("base", self.base)
        _asset("quote", self.quote)
        if self.settle is not None:
            _asset("settle", self.settle)
            if "-" in self.settle:
                raise SymbolError(f"settle asset {self.settle!r} must not contain '-': it starts the expiry")
        elif self.expiry is not None:
            raise SymbolError(f"{self.base}/{self.quote}: an expiry needs a settlement asset")
        if (self.strike is None) != (self.right is None):
            raise SymbolError(f"{self.base}/{self.quote}: an option needs both a strike and a right (C or P)")
        if self.strike is not None:
            if self.expiry is None:
                raise SymbolError(f"{self.base}/{self.quote}: an option needs an expiry")
            if self.right not in ("C", "P"):
                raise SymbolError(f"{self.base}/{self.quote}: the right is C or P, not {self.right!r}")
            if _strike(self.strike) != self.strike:
                raise SymbolError(f"strike {self.strike!r} is not plain: write {_strike(self.strike)!r}")
        if self.expiry is not None and not 2000 <= self.expiry.year <= 2099:
            raise SymbolError(f"expiry {self.expiry} is outside of what YYMMDD can say (2000 to 2099)")

    @property
    def kind(self) -> InstrumentKind:
        """What is traded, as the Instrument record names it."""
        if self.settle is None:
            return "SPOT"
        if self.expiry is None:
            return "PERPETUAL"
        return "FUTURE" if self.strike is None else "OPTION"

    @property
    def inverse(self) -> bool:
        """True when it settles in its base asset: sizes are contracts worth an amount of the quote."""
        return self.settle is not None and self.settle == self.base

    def __str__(self) -> str:
        text = f"{self.base}/{self.quote}"
        if self.settle is not None:
            text += f":{self.settle}"
        if self.expiry is not None:
            text += f"-{self.expiry:%y%m%d}"
        if self.strike is not None:
            text += f"-{self.strike}-{self.right}"
        return text


def parse_symbol(text: str) -> Symbol:
    """Read a unified symbol; raises SymbolError saying what is wrong and which form would be right."""
    pair, colon, contract = text.partition(":")
    base, slash, quote = pair.partition("/")
    if not slash:
        raise SymbolError(f"{text!r} is not a unified symbol: write BASE/QUOTE, e.g. BTC/USDT or BTC/USDT:USDT")
    if not colon:
        return Symbol(base, quote)
    settle, *rest = contract.split("-")
    if len(rest) not in (0, 1, 3):
        raise SymbolError(
            f"{text!r}: after the settlement asset come nothing, -YYMMDD, or -YYMMDD-STRIKE-C (or -P), not -{'-'.join(rest)}"
        )
    expiry = _expiry(text, rest[0]) if rest else None
    if len(rest) < 3:
        return Symbol(base, quote, settle, expiry)
    if rest[2] not in ("C", "P"):
        raise SymbolError(f"{text!r}: an option ends in C or P, not {rest[2]!r}")
    return Symbol(base, quote, settle, expiry, rest[1], "C" if rest[2] == "C" else "P")


def spot_symbol(base: str, quote: str) -> str:
    """``BTC/USDT``."""
    return str(Symbol(base, quote))


def perpetual_symbol(base: str, quote: str, settle: str) -> str:
    """``BTC/USDT:USDT``."""
    return str(Symbol(base, quote, settle))


def future_symbol(base: str, quote: str, settle: str, expiry_us: int) -> str:
    """``BTC/USD:BTC-260327``; the date is the UTC day of ``expiry_us``, microseconds since the epoch."""
    return str(Symbol(base, quote, settle, _day(expiry_us)))


def option_symbol(base: str, quote: str, settle: str, expiry_us: int, strike: str, right: Literal["C", "P"]) -> str:
    """``BTC/USD:BTC-260327-50000-C``; ``strike`` is any exact decimal text."""
    return str(Symbol(base, quote, settle, _day(expiry_us), _strike(strike), right))


def _asset(part: str, name: str) -> None:
    if not name:
        raise SymbolError(f"the {part} asset is empty")
    if len(name) > MAX_ASSET_LENGTH:
        raise SymbolError(f"the {part} asset is longer than {MAX_ASSET_LENGTH} signs: {name[:20]!r}…")
    # Real venues list assets named in Chinese or with a $, so only what would break a symbol or a key is refused.
    if not name.isprintable() or any(c.isspace() or c in RESERVED for c in name):
        raise SymbolError(f"the {part} asset {name!r} contains a space, a control sign or one of / : |")


def _expiry(text: str, digits: str) -> date:
    if len(digits) != 6 or not (digits.isascii() and digits.isdigit()):
        raise SymbolError(f"{text!r}: the expiry is six digits YYMMDD, not {digits!r}")
    try:
        return date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:]))
    except ValueError as error:
        raise SymbolError(f"{text!r}: {digits} is no date: {error}") from None


def _strike(text: str) -> str:
    try:
        mantissa, exponent = parse_decimal(text)
    except DecimalError as error:
        raise SymbolError(f"the strike is no price: {error}") from None
    if mantissa <= 0:
        raise SymbolError(f"the strike must be above 0, not {text}")
    return format_decimal(mantissa, exponent)


def _day(expiry_us: int) -> date:
    try:
        return datetime.fromtimestamp(expiry_us // 1_000_000, UTC).date()
    except (OverflowError, OSError, ValueError) as error:
        raise SymbolError(f"expiry_us {expiry_us} is no time in microseconds: {error}") from None
