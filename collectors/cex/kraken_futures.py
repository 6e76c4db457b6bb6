"""Kraken Futures, websocket v1.

Source: Kraken Futures API, "WebSocket feeds: Book, Trade, Ticker, Heartbeat", "Get instruments", "Get orderbook";
read beside ccxt's krakenfutures. Proof: the sequence number of each product grows by one with each book message
(capture).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import quote as url_quote

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.cex.wire_json import BAD, NONE, levels, micros, plain, text
from collectors.venue import (
    BOOK,
    FUNDING,
    LIQUIDATION,
    MARK_PRICE,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    Level,
    Limits,
    LiquidationEvent,
    Listing,
    MalformedFrame,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    RestRequest,
    StreamChain,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.decimals import format_decimal
from market.instruments import future_symbol, perpetual_symbol

Id = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Millis = Annotated[int, Meta(ge=0, le=1 << 52)]


class _Level(Struct, gc=False):
    price: Raw
    qty: Raw


class _Delta(Struct, gc=False):
    product_id: str
    side: str
    seq: Id
    price: Raw
    qty: Raw
    timestamp: Millis = 0


class _Snapshot(Struct, gc=False):
    product_id: str
    seq: Id
    bids: list[_Level]
    asks: list[_Level]
    timestamp: Millis = 0


class _Trade(Struct, gc=False):
    product_id: str
    uid: str
    side: str
    price: Raw
    qty: Raw
    time: Millis
    type: str = ""


class _Ticker(Struct):
    product_id: str
    time: Millis = 0
    bid: Raw = NONE
    bid_size: Raw = NONE
    ask: Raw = NONE
    ask_size: Raw = NONE
    relative_funding_rate: Raw = NONE
    next_funding_rate_time: Millis | None = None
    markPrice: Raw = NONE  # noqa: N815
    index: Raw = NONE
    openInterest: Raw = NONE  # noqa: N815


class _Frame(Struct):
    feed: str = ""
    event: str = ""
    product_ids: list[str] = []
    message: str = ""


class _Entry(Struct):
    symbol: str
    type: str
    tradeable: bool
    tickSize: Raw  # noqa: N815
    contractSize: Raw  # noqa: N815
    contractValueTradePrecision: Annotated[int, Meta(ge=-18, le=18)] = 0  # noqa: N815
    lastTradingTime: datetime | None = None  # noqa: N815
    base: str = ""
    quote: str = ""


class _Whole(Struct):
    bids: list[tuple[Raw, Raw]]
    asks: list[tuple[Raw, Raw]]


class _WholeAnswer(Struct):
    orderBook: _Whole  # noqa: N815


class _Answer(Struct):
    result: str
    instruments: list[Raw]


_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_snapshot = msgspec.json.Decoder(_Snapshot).decode
_decode_trade = msgspec.json.Decoder(_Trade).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_whole = msgspec.json.Decoder(_WholeAnswer).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

DELTA = b'{"feed":"book",'
SIDES = {"buy": "BUY", "sell": "SELL"}
KINDS = ("futures_inverse", "futures_vanilla", "flexible_futures")
RENAMED = {"XBT": "BTC"}
FUNDING_US = 3_600_000_000
"""Funding is exchanged every hour."""
CHAIN = StreamChain()


class KrakenFutures(Venue):
    """Inverse (PI, FI) and multi-collateral (PF, FF) contracts; names are in capitals in the stream."""

    id = "krakenfutures"
    rest_url = "https://futures.kraken.com"
    ws_url = "wss://futures.kraken.com"
    limits = Limits(
        instruments_per_connection=100,
        instruments_per_request=50,
        request_interval_s=0.1,
        connect_interval_s=1,
        rest_weight_per_minute=120,
        heartbeat_s=30,  # the client has to say something within 60 s
        reply_timeout_s=0,  # a refusal names no product: a book that stays without a snapshot is asked for again
    )
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/derivatives/api/v3/instruments")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            answer = _decode_answer(body)
        except BAD as error:
            raise MalformedFrame(f"instruments: {error}") from error
        if answer.result != "success":
            raise MalformedFrame(f"instruments: the venue says {answer.result[:80]}")
        listings = (self._listing(entry) for entry in answer.instruments)
        return [listing for listing in listings if listing is not None]

    def _listing(self, entry: Raw) -> Listing | None:
        try:
            e = _decode_entry(entry)
            if e.type not in KINDS:
                return None  # indices, options
            native = e.symbol.upper()
            base, quote = e.base or native.split("_")[1][:-3], e.quote or native.split("_")[1][-3:]
            base = RENAMED.get(base, base)
            inverse = e.type == "futures_inverse"
            settle = base if inverse else quote
            expiry_us = micros(e.lastTradingTime) if e.lastTradingTime else None
            return Listing(
                native_id=native,
                symbol=(
                    perpetual_symbol(base, quote, settle)
                    if expiry_us is None
                    else future_symbol(base, quote, settle, expiry_us)
                ),
                base=base,
                quote=quote,
                kind="PERPETUAL" if expiry_us is None else "FUTURE",
                tick_size=plain(text(e.tickSize)),
                lot_size=format_decimal(1, -e.contractValueTradePrecision),
                state="TRADING" if e.tradeable else "HALTED",
                settle=settle,
                inverse=inverse,
                contract_size=plain(text(e.contractSize)),
                expiry_us=expiry_us,
            )
        except BAD:
            return None

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/derivatives/api/v3/orderbook?symbol={url_quote(native, safe='')}")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: the stream brings its own snapshots; REST numbers nothing."""
        try:
            w = _decode_whole(body).orderBook
            return BookSnapshot(native, -1, levels(w.bids), levels(w.asks))
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return CHAIN

    def ws_path(self) -> str:
        return "/ws/v1"

    def heartbeat(self) -> bytes:
        return b'{"event":"subscribe","feed":"heartbeat"}'

    def _frames(self, event: str, natives: Sequence[str]) -> list[bytes]:
        feeds = ["book"]
        if self.channels & {TRADE, LIQUIDATION}:
            feeds.append("trade")
        if self.channels & {TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST}:
            feeds.append("ticker")
        return [msgspec.json.encode({"event": event, "feed": feed, "product_ids": list(natives)}) for feed in feeds]

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("subscribe", natives)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("unsubscribe", natives)

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            if frame.startswith(DELTA):
                return (_delta(_decode_delta(frame)),)
            f = _decode_frame(frame)
            if f.event:
                return _reply(f)
            match f.feed:
                case "book":
                    return (_delta(_decode_delta(frame)),)
                case "book_snapshot":
                    s = _decode_snapshot(frame)
                    return (BookSnapshot(s.product_id, s.seq, _levels(s.bids), _levels(s.asks), s.timestamp * 1000),)
                case "trade":
                    return self._trade(_decode_trade(frame))
                case "ticker":
                    return self._ticker(_decode_ticker(frame))
                case "":
                    raise MalformedFrame("krakenfutures frame: neither a feed's nor an answer")
                case _:
                    return ()  # trades of before, heartbeats, what was not asked for
        except BAD as error:
            raise MalformedFrame(f"krakenfutures frame: {error}") from error

    def _trade(self, t: _Trade) -> Sequence[Event]:
        events: list[Event] = []
        side, price, size = SIDES.get(t.side, "UNKNOWN"), text(t.price), text(t.qty)
        if TRADE in self.channels:
            events.append(TradeEvent(t.product_id, t.uid, side, price, size, t.time * 1000))
        if t.type == "liquidation" and LIQUIDATION in self.channels:
            events.append(LiquidationEvent(t.product_id, side, price, size, t.uid, t.time * 1000))
        return events

    def _ticker(self, t: _Ticker) -> Sequence[Event]:
        events: list[Event] = []
        native, ts_us, wanted = t.product_id, t.time * 1000, self.channels
        bid, ask, rate, mark, interest = (
            text(raw) for raw in (t.bid, t.ask, t.relative_funding_rate, t.markPrice, t.openInterest)
        )
        if TICKER in wanted and bid and ask:
            events.append(TickerEvent(native, -1, bid, text(t.bid_size), ask, text(t.ask_size), ts_us))
        if FUNDING in wanted and rate:  # of one hour; funding_rate is an amount of money
            events.append(FundingEvent(native, rate, FUNDING_US, (t.next_funding_rate_time or 0) * 1000, ts_us))
        if MARK_PRICE in wanted and mark:
            events.append(MarkPriceEvent(native, mark, text(t.index), ts_us))
        if OPEN_INTEREST in wanted and interest:
            events.append(OpenInterestEvent(native, interest, "CONTRACT", ts_us))
        return events

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(frame.startswith((DELTA, b'{"feed":"book_snapshot",')) and b'"product_id":"' in frame for frame in frames)


def _levels(found: list[_Level]) -> list[Level]:
    return [(str(level.price, "ascii"), str(level.qty, "ascii")) for level in found]


def _delta(d: _Delta) -> BookDelta:
    level = [(str(d.price, "ascii"), str(d.qty, "ascii"))]
    if d.side == "buy":
        return BookDelta(d.product_id, d.seq, d.seq, d.seq - 1, level, [], d.timestamp * 1000)
    if d.side == "sell":
        return BookDelta(d.product_id, d.seq, d.seq, d.seq - 1, [], level, d.timestamp * 1000)
    raise MalformedFrame(f"krakenfutures frame: a side neither buy nor sell: {d.side[:40]!r}")


def _reply(f: _Frame) -> Sequence[Event]:
    if f.event == "subscribed" and f.feed == "book":
        return [Reply(native=native) for native in f.product_ids]
    if f.event in ("error", "alert") and "lready subscribed" not in f.message:
        return (Reply(-1, f.message or f.event),)
    return ()
