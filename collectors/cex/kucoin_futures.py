"""KuCoin Futures: perpetuals and futures, linear and inverse.

Source: KuCoin API, Futures "Orderbook - Increment", "Get Full OrderBook", "Match", "Ticker V2", "Instrument", "Get All
Symbols"; read beside ccxt's kucoin. Proof: `sequence` grows by one with each change and joins the REST snapshot (documentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar
from urllib.parse import quote as url_quote

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.cex.kucoin import RENAMED, SIDES, Frame, KucoinVenue, answer, entries, nanos_us
from collectors.cex.wire_json import BAD, NONE, plain, product, text
from collectors.venue import (
    BOOK,
    FUNDING,
    MARK_PRICE,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    Level,
    Listing,
    MalformedFrame,
    MarkPriceEvent,
    OpenInterestEvent,
    Poll,
    RangeChain,
    RestRequest,
    SyncRule,
    TickerEvent,
    TradeEvent,
)
from market.instruments import future_symbol, perpetual_symbol

Id = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Millis = Annotated[int, Meta(ge=0, le=1 << 52)]


class _Change(Struct, gc=False):
    sequence: Id
    change: str
    """price,side,size"""
    timestamp: Millis = 0


class _Whole(Struct):
    sequence: Id
    bids: list[tuple[Raw, Raw]]
    asks: list[tuple[Raw, Raw]]
    ts: Raw = NONE


class _Match(Struct, gc=False):
    symbol: str
    tradeId: str  # noqa: N815
    side: str
    price: Raw
    size: Raw
    ts: Raw


class _Ticker(Struct, gc=False):
    symbol: str
    bestBidPrice: Raw  # noqa: N815
    bestBidSize: Raw  # noqa: N815
    bestAskPrice: Raw  # noqa: N815
    bestAskSize: Raw  # noqa: N815
    sequence: Id = 0
    ts: Raw = NONE


class _Mark(Struct):
    markPrice: Raw  # noqa: N815
    indexPrice: Raw = NONE  # noqa: N815
    timestamp: Millis = 0


class _Entry(Struct):
    symbol: str
    baseCurrency: str  # noqa: N815
    quoteCurrency: str  # noqa: N815
    settleCurrency: str  # noqa: N815
    tickSize: Raw  # noqa: N815
    lotSize: Raw  # noqa: N815
    multiplier: Raw
    isInverse: bool  # noqa: N815
    status: str
    expireDate: Millis | None = None  # noqa: N815
    makerFeeRate: Raw = NONE  # noqa: N815
    takerFeeRate: Raw = NONE  # noqa: N815
    fundingFeeRate: Raw = NONE  # noqa: N815
    fundingRateGranularity: Millis | None = None  # noqa: N815
    nextFundingRateDateTime: Millis | None = None  # noqa: N815
    openInterest: Raw = NONE  # noqa: N815


_decode_change = msgspec.json.Decoder(_Change).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_match = msgspec.json.Decoder(_Match).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_mark = msgspec.json.Decoder(_Mark).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

CONTRACTS = RestRequest("/api/v1/contracts/active", 3)
STATES = {"Open": "TRADING", "Closed": "DELISTED"}
"""Init, BeingSettled, Settled, Paused, CancelOnly and whatever comes: HALTED."""
CHAIN = RangeChain()


class KucoinFutures(KucoinVenue):
    """Sizes are contracts; each frame changes one level."""

    id = "kucoin-futures"
    rest_url = "https://api-futures.kucoin.com"
    ws_url = "wss://ws-api-futures.kucoin.com"
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST})
    topics: ClassVar[dict[str, str]] = {
        BOOK: "/contractMarket/level2", TRADE: "/contractMarket/execution", TICKER: "/contractMarket/tickerV2",
        MARK_PRICE: "/contract/instrument",
    }  # fmt: skip

    def instruments_requests(self) -> list[RestRequest]:
        return [CONTRACTS]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        listings = (_listing(entry) for entry in entries(body))
        return [listing for listing in listings if listing is not None]

    def rule(self, native: str) -> SyncRule:
        return CHAIN

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v1/level2/snapshot?symbol={url_quote(native, safe='')}", 3)

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            w = _decode_whole(answer(body, f"book of {native}"))
            return BookSnapshot(native, w.sequence, _levels(w.bids), _levels(w.asks), nanos_us(text(w.ts)))
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def polls(self) -> list[Poll]:
        return [Poll(CONTRACTS, 60)] if self.channels & {FUNDING, OPEN_INTEREST} else []

    def parse_poll(self, request: RestRequest, body: bytes) -> Sequence[Event]:
        return [event for entry in entries(body) for event in self._polled(entry)]

    def _polled(self, entry: Raw) -> Sequence[Event]:
        try:
            e = _decode_entry(entry)
            events: list[Event] = []
            rate, interest = text(e.fundingFeeRate), text(e.openInterest)
            if FUNDING in self.channels and rate:
                interval_us, next_us = (e.fundingRateGranularity or 0) * 1000, (e.nextFundingRateDateTime or 0) * 1000
                events.append(FundingEvent(e.symbol, rate, interval_us, next_us))
            if OPEN_INTEREST in self.channels and interest:
                events.append(OpenInterestEvent(e.symbol, interest, "CONTRACT"))
            return events
        except BAD:
            return ()

    def message(self, f: Frame) -> Sequence[Event]:
        native = f.topic.rpartition(":")[2]
        match f.subject:
            case "level2":
                return (_delta(native, _decode_change(f.data)),)
            case "match":
                m = _decode_match(f.data)
                side, ts_us = SIDES.get(m.side, "UNKNOWN"), nanos_us(text(m.ts))
                return (TradeEvent(m.symbol, m.tradeId, side, text(m.price), text(m.size), ts_us),)
            case "tickerV2":
                t = _decode_ticker(f.data)
                bid, bid_size, ask, ask_size = (
                    text(raw) for raw in (t.bestBidPrice, t.bestBidSize, t.bestAskPrice, t.bestAskSize)
                )
                if not bid or not ask:
                    return ()
                return (TickerEvent(t.symbol, t.sequence, bid, bid_size, ask, ask_size, nanos_us(text(t.ts))),)
            case "mark.index.price":
                p = _decode_mark(f.data)
                return (MarkPriceEvent(native, text(p.markPrice), text(p.indexPrice), p.timestamp * 1000),)
        return ()

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"/contractMarket/level2:' in frame and b'"change":"' in frame for frame in frames)


def _delta(native: str, c: _Change) -> BookDelta:
    price, side, size = c.change.split(",")
    level: list[Level] = [(price, size)] if price != "0" else []
    if side not in SIDES:
        raise ValueError(f"a side neither buy nor sell: {side[:40]!r}")
    bids, asks = (level, []) if side == "buy" else ([], level)
    return BookDelta(native, c.sequence, c.sequence, -1, bids, asks, c.timestamp * 1000)


def _levels(pairs: list[tuple[Raw, Raw]]) -> list[Level]:
    return [(text(price), text(size)) for price, size in pairs]


def _listing(entry: Raw) -> Listing | None:
    try:
        e = _decode_entry(entry)
        base, quote, settle = (RENAMED.get(name, name) for name in (e.baseCurrency, e.quoteCurrency, e.settleCurrency))
        expiry_us = e.expireDate * 1000 if e.expireDate else None
        lot = plain(text(e.lotSize))
        maker, taker = text(e.makerFeeRate), text(e.takerFeeRate)
        return Listing(
            native_id=e.symbol,
            symbol=(
                perpetual_symbol(base, quote, settle) if expiry_us is None else future_symbol(base, quote, settle, expiry_us)
            ),
            base=base,
            quote=quote,
            kind="PERPETUAL" if expiry_us is None else "FUTURE",
            tick_size=plain(text(e.tickSize)),
            lot_size=lot,
            state=STATES.get(e.status, "HALTED"),
            settle=settle,
            inverse=e.isInverse,
            min_size=lot,
            contract_size=plain(text(e.multiplier)).removeprefix("-"),  # negative for inverse ones
            maker_fee_bps=product(maker, "10000") if maker else None,
            taker_fee_bps=product(taker, "10000") if taker else None,
            expiry_us=expiry_us,
        )
    except BAD:
        return None
