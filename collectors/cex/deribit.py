"""Deribit v2: perpetuals, futures, options and spot over JSON-RPC.

Source: Deribit API v2, "book.{instrument_name}.{interval}", "trades.…", "quote.…", "ticker.…",
"/public/get_instruments", "/public/get_order_book", "Connection management"; read beside ccxt's deribit. Proof: each
change names its predecessor, prev_change_id (capture).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.cex.wire_json import BAD, NONE, levels, plain, product, text
from collectors.venue import (
    BOOK,
    FUNDING,
    LIQUIDATION,
    MARK_PRICE,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    Answer,
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
from market.instruments import future_symbol, option_symbol, perpetual_symbol, spot_symbol

Id = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
Millis = Annotated[int, Meta(ge=0, le=1 << 52)]
Row = tuple[str, Raw, Raw]
"""new, change or delete; price; amount."""


class _Book(Struct, gc=False):
    instrument_name: str
    type: str
    change_id: Id
    bids: list[Row]
    asks: list[Row]
    timestamp: Millis = 0
    prev_change_id: Id = -1


class _BookParams(Struct, gc=False):
    data: _Book


class _BookFrame(Struct, gc=False):
    params: _BookParams


class _Trade(Struct, gc=False):
    instrument_name: str
    trade_id: str
    direction: str
    price: Raw
    amount: Raw
    timestamp: Millis
    liquidation: str = ""


class _Ticker(Struct):
    instrument_name: str
    timestamp: Millis = 0
    best_bid_price: Raw = NONE
    best_bid_amount: Raw = NONE
    best_ask_price: Raw = NONE
    best_ask_amount: Raw = NONE
    mark_price: Raw = NONE
    index_price: Raw = NONE
    open_interest: Raw = NONE
    current_funding: Raw = NONE


class _Params(Struct):
    channel: str = ""
    data: Raw = NONE
    type: str = ""


class _Problem(Struct):
    code: int = 0
    message: str = ""
    data: Raw = NONE


class _Frame(Struct):
    jsonrpc: str
    method: str = ""
    params: _Params | None = None
    id: int | None = None
    result: Raw = NONE
    error: _Problem | None = None


class _Entry(Struct):
    instrument_name: str
    kind: str
    base_currency: str
    counter_currency: str
    tick_size: Raw
    min_trade_amount: Raw
    is_active: bool
    settlement_currency: str = ""
    settlement_period: str = ""
    instrument_type: str = ""
    expiration_timestamp: Millis = 0
    strike: Raw = NONE
    option_type: str = ""
    maker_commission: Raw = NONE
    taker_commission: Raw = NONE


class _Answer(Struct):
    result: list[Raw]


class _Whole(Struct):
    change_id: Id
    bids: list[tuple[Raw, Raw]]
    asks: list[tuple[Raw, Raw]]
    timestamp: Millis = 0


class _WholeAnswer(Struct):
    result: _Whole


_decode_book = msgspec.json.Decoder(_BookFrame).decode
_decode_book_data = msgspec.json.Decoder(_Book).decode
_decode_trades = msgspec.json.Decoder(list[_Trade]).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_whole = msgspec.json.Decoder(_WholeAnswer).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

BOOKS = b'"channel":"book.'
SIDES = {"buy": "BUY", "sell": "SELL"}
OPPOSITE = {"BUY": "SELL", "SELL": "BUY", "UNKNOWN": "UNKNOWN"}
INTERVAL = "100ms"
"""The finest one without an account; ``raw`` speaks the same."""
FUNDING_US = 8 * 3_600_000_000
CHAIN = StreamChain()
TEST = b'{"jsonrpc":"2.0","id":0,"method":"public/test","params":{}}'


class Deribit(Venue):
    """Sizes are amounts, not contracts: USD of inverse futures, the base of everything else; so a unit counts 1."""

    id = "deribit"
    rest_url = "https://www.deribit.com"
    ws_url = "wss://www.deribit.com"
    limits = Limits(
        instruments_per_connection=120,
        instruments_per_request=60,  # 500 channels a request
        request_interval_s=0.2,
        connect_interval_s=1,
        rest_weight_per_minute=60,
        heartbeat_s=15,
    )
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/api/v2/public/get_instruments?currency=any")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_answer(body).result
        except BAD as error:
            raise MalformedFrame(f"instruments: {error}") from error
        listings = (self._listing(entry) for entry in entries)
        return [listing for listing in listings if listing is not None]

    def _listing(self, entry: Raw) -> Listing | None:
        try:
            e = _decode_entry(entry)
            base, counter, settle = e.base_currency, e.counter_currency, e.settlement_currency
            expiry_us = e.expiration_timestamp * 1000
            if e.kind == "spot":
                kind, symbol = "SPOT", spot_symbol(base, counter)
            elif e.kind == "option":
                right = "C" if e.option_type == "call" else "P"
                kind, symbol = "OPTION", option_symbol(base, counter, settle, expiry_us, text(e.strike), right)
            elif e.kind != "future":
                return None  # combinations
            elif e.settlement_period == "perpetual":
                kind, symbol = "PERPETUAL", perpetual_symbol(base, counter, settle)
            else:
                kind, symbol = "FUTURE", future_symbol(base, counter, settle, expiry_us)
            lot = plain(text(e.min_trade_amount))
            maker, taker = text(e.maker_commission), text(e.taker_commission)
            return Listing(
                native_id=e.instrument_name,
                symbol=symbol,
                base=base,
                quote=counter,
                kind=kind,
                tick_size=plain(text(e.tick_size)),
                lot_size=lot,
                state="TRADING" if e.is_active else "HALTED",
                settle=None if kind == "SPOT" else settle,
                # An option settles in its base too, but its amount is base.
                inverse=kind in ("PERPETUAL", "FUTURE") and settle == base,
                min_size=lot,
                contract_size=None if kind == "SPOT" else "1",
                maker_fee_bps=product(maker, "10000") if maker else None,
                taker_fee_bps=product(taker, "10000") if taker else None,
                expiry_us=expiry_us if kind in ("FUTURE", "OPTION") else None,
            )
        except BAD:
            return None

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v2/public/get_order_book?depth=10000&instrument_name={quote(native, safe='')}")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: the stream brings its own snapshots."""
        try:
            w = _decode_whole(body).result
            return BookSnapshot(native, w.change_id, levels(w.bids), levels(w.asks), w.timestamp * 1000)
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return CHAIN

    def ws_path(self) -> str:
        return "/ws/api/v2"

    def heartbeat(self) -> bytes:
        return TEST

    def _request(self, method: str, natives: Sequence[str], request_id: int) -> list[bytes]:
        wanted = self.channels
        forms = [f"book.{{}}.{INTERVAL}"]
        if wanted & {TRADE, LIQUIDATION}:
            forms.append(f"trades.{{}}.{INTERVAL}")
        if TICKER in wanted:
            forms.append("quote.{}")
        if wanted & {FUNDING, MARK_PRICE, OPEN_INTEREST}:
            forms.append(f"ticker.{{}}.{INTERVAL}")
        channels = [form.format(native) for form in forms for native in natives]
        request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": {"channels": channels}}
        return [msgspec.json.encode(request)]

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._request("public/subscribe", natives, request_id)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._request("public/unsubscribe", natives, request_id)

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            if BOOKS in frame[:80]:
                return (_book(_decode_book(frame).params.data),)
            f = _decode_frame(frame)
            if f.method == "subscription" and f.params is not None:
                return self._channel(f.params)
            if f.method == "heartbeat":
                return (Answer(TEST),) if f.params is not None and f.params.type == "test_request" else ()
            return _reply(f)
        except BAD as error:
            raise MalformedFrame(f"deribit frame: {error}") from error

    def _channel(self, p: _Params) -> Sequence[Event]:
        match p.channel.partition(".")[0]:
            case "book":
                return (_book(_decode_book_data(p.data)),)
            case "trades":
                return [event for trade in _decode_trades(p.data) for event in self._trade(trade)]
            case "quote":
                t = _decode_ticker(p.data)
                bid, ask = text(t.best_bid_price), text(t.best_ask_price)
                if not bid or not ask:
                    return ()
                bid_size, ask_size = text(t.best_bid_amount), text(t.best_ask_amount)
                return (TickerEvent(t.instrument_name, -1, bid, bid_size, ask, ask_size, t.timestamp * 1000),)
            case "ticker":
                return self._ticker(_decode_ticker(p.data))
        return ()

    def _trade(self, t: _Trade) -> Sequence[Event]:
        events: list[Event] = []
        side, price, size = SIDES.get(t.direction, "UNKNOWN"), text(t.price), text(t.amount)
        if TRADE in self.channels:
            events.append(TradeEvent(t.instrument_name, t.trade_id, side, price, size, t.timestamp * 1000))
        if t.liquidation and LIQUIDATION in self.channels:  # M: the maker was forced, T: the taker, MT: both
            forced = side if "T" in t.liquidation else OPPOSITE[side]
            events.append(LiquidationEvent(t.instrument_name, forced, price, size, t.trade_id, t.timestamp * 1000))
        return events

    def _ticker(self, t: _Ticker) -> Sequence[Event]:
        events: list[Event] = []
        native, ts_us, wanted = t.instrument_name, t.timestamp * 1000, self.channels
        funding, mark, interest = text(t.current_funding), text(t.mark_price), text(t.open_interest)
        if FUNDING in wanted and funding:  # paid continuously, written as of eight hours
            events.append(FundingEvent(native, funding, FUNDING_US, 0, ts_us))
        if MARK_PRICE in wanted and mark:
            events.append(MarkPriceEvent(native, mark, text(t.index_price), ts_us))
        if OPEN_INTEREST in wanted and interest:
            of_base = "_" in native or native.endswith(("-C", "-P"))
            events.append(OpenInterestEvent(native, interest, "BASE" if of_base else "QUOTE", ts_us))
        return events

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(frame.startswith(b'{"jsonrpc":"2.0","method":"subscription"') and BOOKS in frame[:80] for frame in frames)


def _levels(rows: list[Row]) -> list[Level]:
    return [(str(price, "ascii"), "0" if action == "delete" else str(size, "ascii")) for action, price, size in rows]


def _book(b: _Book) -> Event:
    bids, asks, ts_us = _levels(b.bids), _levels(b.asks), b.timestamp * 1000
    if b.type == "snapshot":
        return BookSnapshot(b.instrument_name, b.change_id, bids, asks, ts_us)
    if b.type != "change":
        raise MalformedFrame(f"deribit frame: a book neither whole nor changed: {b.type[:40]!r}")
    first = b.prev_change_id + 1 if 0 <= b.prev_change_id < b.change_id else b.change_id
    return BookDelta(b.instrument_name, first, b.change_id, b.prev_change_id, bids, asks, ts_us)


def _reply(f: _Frame) -> Sequence[Event]:
    if f.error is not None:
        return (Reply(-1 if f.id is None else f.id, f"{f.error.code}: {f.error.message} {text(f.error.data)}".strip()),)
    if f.id is None:
        raise MalformedFrame("deribit frame: neither a channel's nor an answer")
    if not bytes(f.result).startswith(b"["):
        return ()  # to a test
    # Channels that do not exist are left out of the list in silence.
    return (Reply(f.id, "" if bytes(f.result) != b"[]" else "none of these channels exists"),)
