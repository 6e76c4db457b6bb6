"""On what terms an instrument trades: steps, minimums, contract and fees, as exact integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from market.decimals import format_decimal, parse_decimal, rescale, strip_zeros
from market.fees import rate_from_bps


class TermsError(ValueError):
    """The instrument's record does not say what is needed to trade it; the text says what."""


@dataclass(frozen=True, slots=True)
class Terms:
    """One instrument's terms. Prices are mantissas at ``price_exp``, sizes at ``size_exp``, fees at fees.FEE_EXP.

    A fee of None means that nobody said: whoever needs it must refuse, not guess.
    """

    venue: str
    symbol: str
    base: str
    quote: str
    settle: str | None
    kind: str
    trading: bool
    inverse: bool
    price_exp: int
    size_exp: int
    tick: int
    lot: int
    min_size: int
    min_notional: int
    """At price_exp + size_exp + contract_exp."""
    contract: int
    contract_exp: int
    """One unit of size is contract × 10^contract_exp of the base (of the quote where inverse); 1 × 10^0 on spot."""
    maker_fee: int | None
    taker_fee: int | None

    @property
    def key(self) -> str:
        """``venue|symbol``."""
        return f"{self.venue}|{self.symbol}"

    @property
    def money(self) -> str:
        """The asset that prices, profits and fees are counted in."""
        return self.quote

    @property
    def notional_exp(self) -> int:
        """The exponent of price × size × contract."""
        return self.price_exp + self.size_exp + self.contract_exp

    def notional(self, price: int, size: int) -> int:
        """Value in quote at notional_exp, exactly; of an inverse contract its face value, whatever the price.

        An inverse size is worth contract × size of the quote; it is expressed at the same exponent.
        """
        if self.inverse:
            return size * self.contract * 10**-self.price_exp
        return price * size * self.contract

    def price_down(self, price: int) -> int:
        """The highest tick at or below."""
        return price // self.tick * self.tick

    def price_up(self, price: int) -> int:
        """The lowest tick at or above."""
        return -(-price // self.tick) * self.tick

    def size_down(self, size: int) -> int:
        """The largest number of lots inside."""
        return size // self.lot * self.lot

    def tradable(self, price: int, size: int) -> str:
        """Why the venue would refuse this order; empty when it would not."""
        if not self.trading:
            return "the instrument is not trading"
        if price <= 0 or price % self.tick:
            return f"price {format_decimal(price, self.price_exp)} is no multiple of the tick {self.tick}e{self.price_exp}"
        if size <= 0 or size % self.lot:
            return f"size {format_decimal(size, self.size_exp)} is no multiple of the lot {self.lot}e{self.size_exp}"
        if size < self.min_size:
            return f"size {format_decimal(size, self.size_exp)} is below the minimum"
        if self.notional(price, size) < self.min_notional:
            return "the order's value is below the minimum"
        return ""


def terms_of(record: Mapping[str, Any], fees: tuple[int | None, int | None] = (None, None)) -> Terms:
    """The terms of an Instrument record. ``fees``: (maker, taker) rates of one's own tier, which win over the venue's.

    Raises TermsError, also for a number that cannot be read.
    """
    try:
        tick, price_exp = strip_zeros(*parse_decimal(record["tick_size"]))
        lot, size_exp = strip_zeros(*parse_decimal(record["lot_size"]))
        contract, contract_exp = strip_zeros(*parse_decimal(record.get("contract_size") or "1"))
        if tick <= 0 or lot <= 0 or contract <= 0:
            raise TermsError(f"{record['symbol']}: tick, lot and contract must be above 0")
        notional_exp = price_exp + size_exp + contract_exp
        maker, taker = fees
        return Terms(
            venue=record["venue"], symbol=record["symbol"], base=record["base"], quote=record["quote"],
            settle=record.get("settle"), kind=record["kind"], trading=record["state"] == "TRADING",
            inverse=bool(record.get("inverse")), price_exp=price_exp, size_exp=size_exp, tick=tick, lot=lot,
            min_size=_at_least(record.get("min_size"), size_exp),
            min_notional=_at_least(record.get("min_notional"), notional_exp),
            contract=contract, contract_exp=contract_exp,
            maker_fee=maker if maker is not None else _fee(record.get("maker_fee_bps")),
            taker_fee=taker if taker is not None else _fee(record.get("taker_fee_bps")),
        )  # fmt: skip
    except TermsError:
        raise
    except (ValueError, KeyError) as error:
        raise TermsError(f"{record.get('symbol')}: {type(error).__name__}: {error}") from error


def _at_least(text: str | None, exponent: int) -> int:
    """A minimum in another exponent: digits that do not fit are rounded up."""
    if not text:
        return 0
    mantissa, own = parse_decimal(text)
    return mantissa * 10 ** (own - exponent) if own >= exponent else -(-mantissa // 10 ** (exponent - own))


def _fee(bps: str | None) -> int | None:
    return None if bps is None else rate_from_bps(bps)


def common(values: tuple[tuple[int, int], tuple[int, int]]) -> tuple[int, int, int]:
    """Two (mantissa, exponent) at one exponent: (first, second, exponent), exactly."""
    (a, ae), (b, be) = values
    exponent = min(ae, be)
    return rescale(a, ae, exponent), rescale(b, be, exponent), exponent
