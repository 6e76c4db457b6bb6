"""What Binance's two futures markets add: liquidations, which it pushes, of each instrument the latest of a second; and mark
price, index price, funding and open interest, which are asked for, the last of one instrument after another.

Source: Binance USDⓈ-M and COIN-M Futures, "Liquidation Order Streams", "Mark Price" (premiumIndex), "Get Funding Rate Info"
(fundingInfo: only symbols whose interval is not the usual eight hours), "Open Interest".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from collectors.cex.binance import BAD, BinanceVenue, Millis
from collectors.venue import (
    BOOK,
    FUNDING,
    LIQUIDATION,
    MARK_PRICE,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    Event,
    FundingEvent,
    LiquidationEvent,
    MalformedFrame,
    MarkPriceEvent,
    OpenInterestEvent,
    Poll,
    RestRequest,
    Round,
)

HOUR_US = 3_600_000_000
USUAL_INTERVAL_US = 8 * HOUR_US
PREMIUM_EVERY_S, INTERVALS_EVERY_S, INTEREST_EVERY_S = 5.0, 3600.0, 60.0
FORCED = "forceOrder"


class _Order(Struct, gc=False):
    s: str
    S: Literal["BUY", "SELL"]
    p: str
    q: str
    T: Millis = 0


class _Forced(Struct, gc=False):
    o: _Order


class _ForcedFrame(Struct, gc=False):
    data: _Forced


class _Premium(Struct):
    symbol: str
    markPrice: str  # noqa: N815
    indexPrice: str = ""  # noqa: N815
    lastFundingRate: str = ""  # noqa: N815
    nextFundingTime: Millis = 0  # noqa: N815
    time: Millis = 0


class _Interval(Struct):
    symbol: str
    fundingIntervalHours: int  # noqa: N815


class _Interest(Struct):
    symbol: str
    openInterest: str  # noqa: N815
    time: Millis = 0


_decode_forced = msgspec.json.Decoder(_ForcedFrame).decode
_decode_premiums = msgspec.json.Decoder(list[_Premium]).decode
_decode_intervals = msgspec.json.Decoder(list[_Interval]).decode
_decode_interest = msgspec.json.Decoder(_Interest).decode


class BinanceFutures(BinanceVenue):
    """The part that both futures markets share."""

    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})
    interest_unit: ClassVar[str] = "BASE"

    def __init__(self, *, channels: Collection[str] = (BOOK, TRADE)) -> None:
        super().__init__(channels=channels)
        self._intervals: dict[str, int] = {}
        """Of symbols with another one than the usual, by the last answer."""

    def parse_more(self, kind: str, frame: bytes) -> Sequence[Event]:
        if kind != FORCED:
            return super().parse_more(kind, frame)
        # The order as it was placed: its limit is the bankruptcy price, its quantity the whole position's.
        o = _decode_forced(frame).data.o
        return (LiquidationEvent(o.s, o.S, o.p, o.q, "", o.T * 1000),)

    def polls(self) -> list[Poll]:
        if not self.channels & {FUNDING, MARK_PRICE}:
            return []
        return [
            Poll(RestRequest(f"{self.prefix}/fundingInfo"), INTERVALS_EVERY_S),
            Poll(RestRequest(f"{self.prefix}/premiumIndex", 10), PREMIUM_EVERY_S),
        ]

    def rounds(self) -> list[Round]:
        if OPEN_INTEREST not in self.channels:
            return []
        path = f"{self.prefix}/openInterest?symbol="
        return [Round(lambda native: RestRequest(path + quote(native)), INTEREST_EVERY_S)]

    def parse_poll(self, request: RestRequest, body: bytes) -> Sequence[Event]:
        try:
            if "/openInterest?" in request.path:
                i = _decode_interest(body)
                return (OpenInterestEvent(i.symbol, i.openInterest, self.interest_unit, i.time * 1000),)
            if request.path.endswith("/fundingInfo"):
                self._intervals = {one.symbol: one.fundingIntervalHours * HOUR_US for one in _decode_intervals(body)}
                return ()
            return list(self._premiums(_decode_premiums(body)))
        except BAD as error:
            raise MalformedFrame(f"{request.path}: {error}") from error

    def _premiums(self, premiums: list[_Premium]) -> Iterator[Event]:
        for one in premiums:
            if MARK_PRICE in self.channels:
                yield MarkPriceEvent(one.symbol, one.markPrice, one.indexPrice, one.time * 1000)
            # Dated futures have none: an empty text, and no next time.
            if FUNDING in self.channels and one.lastFundingRate and one.nextFundingTime:
                interval_us = self._intervals.get(one.symbol, USUAL_INTERVAL_US)
                yield FundingEvent(
                    one.symbol, one.lastFundingRate, interval_us, one.nextFundingTime * 1000, one.time * 1000
                )
