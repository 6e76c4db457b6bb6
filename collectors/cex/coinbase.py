"""Coinbase Advanced Trade: spot and US futures.

Source: Coinbase Advanced Trade API, "WebSocket Channels", "WebSocket Rate Limits", "List Public Products", "Get
Public Product Book"; read beside ccxt's coinbase. Proof: `sequence_num` counts every message of a connection
(documentation); whole books of any depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import quote as url_quote

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.cex.wire_json import BAD, micros, plain, plain_or_none
from collectors.venue import (
    BOOK,
    FUNDING,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    Level,
    Limits,
    Listing,
    MalformedFrame,
    OpenInterestEvent,
    Parser,
    Poll,
    Reply,
    RestRequest,
    StreamBook,
    StreamBroken,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import future_symbol, perpetual_symbol, spot_symbol

Id = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]


class _Change(Struct, gc=False):
    side: str
    price_level: str
    new_quantity: str


class _BookEvent(Struct, gc=False):
    type: str
    product_id: str
    updates: list[_Change]


class _BookFrame(Struct, gc=False):
    events: list[_BookEvent]
    timestamp: datetime | None = None
    sequence_num: Id = -1


class _Trade(Struct, gc=False):
    product_id: str
    trade_id: str
    price: str
    size: str
    side: str
    time: datetime


class _Ticker(Struct, gc=False):
    product_id: str
    best_bid: str = ""
    best_bid_quantity: str = ""
    best_ask: str = ""
    best_ask_quantity: str = ""


class _Event(Struct):
    type: str = ""
    trades: list[_Trade] = []
    tickers: list[_Ticker] = []
    subscriptions: dict[str, list[str]] = {}


class _Frame(Struct):
    channel: str = ""
    timestamp: datetime | None = None
    sequence_num: Id = -1
    events: Raw = Raw(b"[]")
    type: str = ""
    message: str = ""


class _Perpetual(Struct):
    open_interest: str = ""
    funding_rate: str = ""
    funding_time: datetime | None = None


class _Details(Struct):
    contract_size: str = ""
    contract_root_unit: str = ""
    contract_expiry: datetime | None = None
    contract_expiry_type: str = ""
    funding_interval: str | None = None
    open_interest: str = ""
    funding_rate: str = ""
    funding_time: datetime | None = None
    perpetual_details: _Perpetual | None = None


class _Entry(Struct):
    product_id: str
    product_type: str
    base_increment: str
    quote_currency_id: str
    base_currency_id: str = ""
    price_increment: str = ""
    quote_increment: str = ""
    base_min_size: str = ""
    quote_min_size: str = ""
    display_name: str = ""
    status: str = ""
    alias: str = ""
    is_disabled: bool = False
    trading_disabled: bool = False
    cancel_only: bool = False
    view_only: bool = False
    future_product_details: _Details | None = None


class _Size(Struct):
    price: str
    size: str


class _Whole(Struct):
    bids: list[_Size]
    asks: list[_Size]
    time: datetime | None = None


class _WholeAnswer(Struct):
    pricebook: _Whole


class _Answer(Struct):
    products: list[Raw]


_decode_book = msgspec.json.Decoder(_BookFrame).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_events = msgspec.json.Decoder(list[_Event]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_whole = msgspec.json.Decoder(_WholeAnswer).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

BOOKS = b'"channel":"l2_data"'
TAKERS = {"BUY": "SELL", "SELL": "BUY"}
"""A trade's side is the maker's."""
PRODUCTS = "/api/v3/brokerage/market/products"
RULE = StreamBook()


class Coinbase(Venue):
    """-USDC products that are an alias of -USD share its book, and the stream only says the latter: they are left out."""

    id = "coinbase"
    rest_url = "https://api.coinbase.com"
    ws_url = "wss://advanced-trade-ws.coinbase.com"
    limits = Limits(
        instruments_per_connection=30,  # snapshots of tens of thousands of levels
        instruments_per_request=10,
        request_interval_s=0.2,  # eight a second and address
        connect_interval_s=0.5,
        rest_weight_per_minute=300,
        reply_timeout_s=0,  # an error names no product: a book that stays without a snapshot is asked for again
    )
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, OPEN_INTEREST})

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest(f"{PRODUCTS}?product_type={kind}") for kind in ("SPOT", "FUTURE")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        listings = (_listing(entry) for entry in _entries(body))
        return [listing for listing in listings if listing is not None]

    def polls(self) -> list[Poll]:
        wanted = self.channels & {FUNDING, OPEN_INTEREST}
        return [Poll(RestRequest(f"{PRODUCTS}?product_type=FUTURE"), 60)] if wanted else []

    def parse_poll(self, request: RestRequest, body: bytes) -> Sequence[Event]:
        return [event for entry in _entries(body) for event in self._polled(entry)]

    def _polled(self, entry: Raw) -> Sequence[Event]:
        try:
            e = _decode_entry(entry)
        except BAD:
            return ()
        details = e.future_product_details
        if details is None:
            return ()
        events: list[Event] = []
        inner = details.perpetual_details or _Perpetual()
        rate, time = details.funding_rate or inner.funding_rate, details.funding_time or inner.funding_time
        interval = (details.funding_interval or "").removesuffix("s")
        if FUNDING in self.channels and rate:
            interval_us = int(interval) * 1_000_000 if interval.isascii() and interval.isdigit() and len(interval) < 9 else 0
            next_us = micros(time) if time is not None and time.tzinfo is not None else 0
            events.append(FundingEvent(e.product_id, rate, interval_us, next_us))
        interest = details.open_interest or inner.open_interest
        if OPEN_INTEREST in self.channels and interest:
            events.append(OpenInterestEvent(e.product_id, interest, "CONTRACT"))
        return events

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v3/brokerage/market/product_book?product_id={url_quote(native, safe='')}&limit=500", 3)

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: the stream brings its own snapshots; REST numbers nothing."""
        try:
            w = _decode_whole(body).pricebook
            bids, asks = ([(level.price, level.size) for level in side] for side in (w.bids, w.asks))
            return BookSnapshot(native, -1, bids, asks, micros(w.time) if w.time else 0)
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return RULE

    def _frames(self, kind: str, natives: Sequence[str]) -> list[bytes]:
        channels = ["level2"]
        if TRADE in self.channels:
            channels.append("market_trades")
        if TICKER in self.channels:
            channels.append("ticker")
        return [msgspec.json.encode({"type": kind, "product_ids": list(natives), "channel": name}) for name in channels]

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        # Without its heartbeats a quiet subscription is closed after a minute.
        return [*self._frames("subscribe", natives), b'{"type":"subscribe","channel":"heartbeats"}']

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("unsubscribe", natives)

    def connection(self) -> Parser:
        return _Connection(self)

    def parse(self, frame: bytes) -> Sequence[Event]:
        return self.numbered(frame)[1]

    def numbered(self, frame: bytes) -> tuple[int, Sequence[Event]]:
        """The frame's number on its connection (-1: it has none) and its events."""
        try:
            if BOOKS in frame[:40]:
                return _books(frame)
            f = _decode_frame(frame)
            match f.channel:
                case "l2_data":
                    return _books(frame)
                case "market_trades":
                    return f.sequence_num, [
                        TradeEvent(t.product_id, t.trade_id, TAKERS.get(t.side, "UNKNOWN"), t.price, t.size, micros(t.time))
                        for event in _decode_events(f.events)
                        if event.type != "snapshot"  # the trades of before
                        for t in event.trades
                    ]
                case "ticker":
                    ts_us = micros(f.timestamp) if f.timestamp else 0
                    return f.sequence_num, [
                        TickerEvent(t.product_id, -1, t.best_bid, t.best_bid_quantity, t.best_ask, t.best_ask_quantity, ts_us)
                        for event in _decode_events(f.events)
                        for t in event.tickers
                        if t.best_bid and t.best_ask
                    ]
                case "subscriptions":
                    events = _decode_events(f.events)
                    return f.sequence_num, [
                        Reply(native=native) for event in events for native in event.subscriptions.get("level2", ())
                    ]
                case "":
                    if f.type != "error":
                        raise MalformedFrame("coinbase frame: neither a channel's nor an error")
                    return -1, (Reply(-1, f.message or "error"),)
                case _:
                    return f.sequence_num, ()
        except BAD as error:
            raise MalformedFrame(f"coinbase frame: {error}") from error

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(BOOKS in frame[:40] and b'"sequence_num":' in frame[:200] for frame in frames)


class _Connection:
    """Counts the frames of one connection: every channel's, in one sequence."""

    def __init__(self, venue: Coinbase) -> None:
        self._numbered = venue.numbered
        self._last = -1

    def __call__(self, frame: bytes) -> Sequence[Event]:
        number, events = self._numbered(frame)
        if number < 0:
            return events
        before, expected = self._last, self._last + 1
        if number <= before:
            return ()  # sent again
        self._last = number
        if number != expected and before >= 0:
            return (StreamBroken(f"message {number} came after {before}"),)
        return events


def _books(frame: bytes) -> tuple[int, Sequence[Event]]:
    f = _decode_book(frame)
    events: list[Event] = []
    ts_us, seq = micros(f.timestamp) if f.timestamp else 0, f.sequence_num
    for event in f.events:
        bids: list[Level] = []
        asks: list[Level] = []
        for change in event.updates:
            if change.side == "bid":
                bids.append((change.price_level, change.new_quantity))
            elif change.side == "offer":
                asks.append((change.price_level, change.new_quantity))
            else:
                raise MalformedFrame(f"coinbase frame: a side neither bid nor offer: {change.side[:40]!r}")
        if event.type == "snapshot":
            events.append(BookSnapshot(event.product_id, seq, bids, asks, ts_us))
        elif event.type == "update":
            events.append(BookDelta(event.product_id, seq, seq, -1, bids, asks, ts_us))
        else:
            raise MalformedFrame(f"coinbase frame: a book neither whole nor changed: {event.type[:40]!r}")
    return seq, events


def _entries(body: bytes) -> list[Raw]:
    try:
        return _decode_answer(body).products
    except BAD as error:
        raise MalformedFrame(f"products: {error}") from error


def _listing(entry: Raw) -> Listing | None:
    try:
        e = _decode_entry(entry)
        if e.alias:
            return None
        quote, details, expiry_us, settle = e.quote_currency_id, e.future_product_details, None, None
        if e.product_type == "SPOT":
            base = e.base_currency_id
            kind, symbol = "SPOT", spot_symbol(base, quote)
        elif details is not None:
            base, settle = details.contract_root_unit, quote
            # US perpetual-style futures are listed with an expiry years ahead.
            endless = details.contract_expiry_type == "PERPETUAL" or details.funding_interval or e.display_name.endswith("PERP")
            if endless or details.contract_expiry is None:
                kind, symbol = "PERPETUAL", perpetual_symbol(base, quote, settle)
            else:
                expiry_us = micros(details.contract_expiry)
                kind, symbol = "FUTURE", future_symbol(base, quote, settle, expiry_us)
        else:
            return None
        stopped = e.is_disabled or e.trading_disabled or e.cancel_only or e.view_only or e.status not in ("", "online")
        return Listing(
            native_id=e.product_id,
            symbol=symbol,
            base=base,
            quote=quote,
            kind=kind,
            tick_size=plain(e.price_increment or e.quote_increment),
            lot_size=plain(e.base_increment),
            state="DELISTED" if e.status == "delisted" else "HALTED" if stopped else "TRADING",
            settle=settle,
            min_size=plain_or_none(e.base_min_size),
            min_notional=plain_or_none(e.quote_min_size),
            contract_size=plain(details.contract_size) if details is not None else None,
            expiry_us=expiry_us,
        )
    except BAD:
        return None
