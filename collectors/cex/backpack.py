"""Backpack: spot and perpetuals of one address.

Source: Backpack Exchange API, "Streams / Public" (depth, trade, book ticker, mark price, open interest), "Get depth", "Get
markets"; ccxt's backpack. Proof: ids U..u chain every event onto the REST book and onto each other (documentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain, plain_or_none, text
from collectors.cex.wire_values import Id, asset, known, number, readable, time_us
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
    Limits,
    Listing,
    MalformedFrame,
    MarkPriceEvent,
    OpenInterestEvent,
    RangeChain,
    Reply,
    RestRequest,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import perpetual_symbol, spot_symbol


class _Head(Struct, gc=False):
    stream: str = ""
    data: Raw = NONE
    error: Raw = NONE


class _Depth(Struct, gc=False):
    s: str
    a: list[Level]
    b: list[Level]
    U: Id
    u: Id
    T: Raw = NONE
    """Microseconds, like every time here; a number or a text of digits."""


class _Trade(Struct, gc=False):
    s: str
    p: str
    q: str
    t: Raw
    m: bool
    T: Raw = NONE


class _Ticker(Struct, gc=False):
    s: str
    a: str
    A: str
    b: str
    B: str
    u: Raw
    T: Raw = NONE


class _Mark(Struct, gc=False):
    s: str
    p: Raw = NONE
    f: Raw = NONE
    i: Raw = NONE
    n: Raw = NONE
    E: Raw = NONE


class _Interest(Struct, gc=False):
    s: str
    o: Raw
    E: Raw = NONE


class _Problem(Struct):
    message: str = "refused"


class _Book(Struct):
    asks: list[Level]
    bids: list[Level]
    lastUpdateId: Raw  # noqa: N815
    timestamp: Raw = NONE


class _Price(Struct):
    tickSize: str  # noqa: N815


class _Quantity(Struct):
    stepSize: str  # noqa: N815
    minQuantity: str | None = None  # noqa: N815


class _Filters(Struct):
    price: _Price
    quantity: _Quantity


class _Market(Struct):
    symbol: str
    baseSymbol: str  # noqa: N815
    quoteSymbol: str  # noqa: N815
    marketType: str  # noqa: N815
    orderBookState: str  # noqa: N815
    filters: _Filters


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_depth = msgspec.json.Decoder(_Depth).decode
_decode_trade = msgspec.json.Decoder(_Trade).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_mark = msgspec.json.Decoder(_Mark).decode
_decode_interest = msgspec.json.Decoder(_Interest).decode
_decode_problem = msgspec.json.Decoder(_Problem).decode
_decode_book = msgspec.json.Decoder(_Book).decode
_decode_markets = msgspec.json.Decoder(list[Raw]).decode
_decode_market = msgspec.json.Decoder(_Market).decode

MILLISECONDS_END = 10**14
"""A time below it is in milliseconds: the next funding has been told in both units."""


def _time(raw: Raw) -> int:
    digits = known(raw)
    return time_us(digits, 0) if digits else 0


def _id(raw: Raw) -> int:
    return msgspec.convert(int(number(raw)), Id)


class Backpack(Venue):
    """Books of the whole depth; sizes are of the base asset, of perpetuals too."""

    id = "backpack"
    rest_url = "https://api.backpack.exchange"
    ws_url = "wss://ws.backpack.exchange"
    limits = Limits(
        instruments_per_connection=50,
        instruments_per_request=10,
        request_interval_s=0.1,
        connect_interval_s=0.5,
        rest_weight_per_minute=600,  # ccxt asks up to twenty times a second; the documentation names no limit
        heartbeat_s=30,
        reply_timeout_s=0,  # an answer to a subscription is not documented, only a refusal's
    )
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST})
    _rule = RangeChain()

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/api/v1/markets")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_markets(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} markets: {error}") from error
        return readable(self.id, entries, self._listing)

    def _listing(self, entry: Raw) -> Listing | None:
        m = _decode_market(entry)
        if m.marketType not in ("SPOT", "PERP"):
            return None  # requests for quotes and predictions: no order book of an instrument
        base, quote_asset, perpetual = asset(m.baseSymbol), asset(m.quoteSymbol), m.marketType == "PERP"
        return Listing(
            native_id=m.symbol,
            symbol=perpetual_symbol(base, quote_asset, quote_asset) if perpetual else spot_symbol(base, quote_asset),
            base=base,
            quote=quote_asset,
            settle=quote_asset if perpetual else None,
            kind="PERPETUAL" if perpetual else "SPOT",
            state="TRADING" if m.orderBookState == "Open" else "HALTED",
            tick_size=plain(m.filters.price.tickSize),
            lot_size=plain(m.filters.quantity.stepSize),
            min_size=plain_or_none(m.filters.quantity.minQuantity),
            contract_size="1" if perpetual else None,
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v1/depth?symbol={quote(native, safe='')}&limit=1000")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            book = _decode_book(body)
            return BookSnapshot(native, _id(book.lastUpdateId), book.bids, book.asks, _time(book.timestamp))
        except BAD as error:
            raise MalformedFrame(f"{self.id} depth of {native}: {error}") from error

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("SUBSCRIBE", natives)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("UNSUBSCRIBE", natives)

    def _requests(self, method: str, natives: Sequence[str]) -> list[bytes]:
        names = ["depth"]
        if TRADE in self.channels:
            names.append("trade")
        if TICKER in self.channels:
            names.append("bookTicker")
        streams = [f"{name}.{native}" for native in natives for name in names]
        for native in natives:
            if native.endswith("_PERP"):
                if self.channels & {MARK_PRICE, FUNDING}:
                    streams.append(f"markPrice.{native}")
                if OPEN_INTEREST in self.channels:
                    streams.append(f"openInterest.{native}")
        return [msgspec.json.encode({"method": method, "params": streams})]

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_head(frame)
            match head.stream.partition(".")[0]:
                case "depth":
                    d = _decode_depth(head.data)
                    return (BookDelta(d.s, d.U, d.u, -1, d.b, d.a, _time(d.T)),)
                case "trade":
                    t = _decode_trade(head.data)
                    return (TradeEvent(t.s, number(t.t), "SELL" if t.m else "BUY", t.p, t.q, _time(t.T)),)
                case "bookTicker":
                    k = _decode_ticker(head.data)
                    return (TickerEvent(k.s, _id(k.u), k.b, k.B, k.a, k.A, _time(k.T)),)
                case "markPrice":
                    return self._mark(_decode_mark(head.data))
                case "openInterest":
                    i = _decode_interest(head.data)
                    return (OpenInterestEvent(i.s, number(i.o), "CONTRACT", _time(i.E)),)
            if text(head.error):
                return (Reply(error=_decode_problem(head.error).message),)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        return ()

    def _mark(self, m: _Mark) -> Sequence[Event]:
        events: list[Event] = []
        mark, rate, index, at_us, next_us = known(m.p), known(m.f), known(m.i), _time(m.E), _time(m.n)
        if MARK_PRICE in self.channels and (mark or index):
            events.append(MarkPriceEvent(m.s, mark, index, at_us))
        if FUNDING in self.channels and rate:
            events.append(FundingEvent(m.s, rate, 0, next_us if next_us >= MILLISECONDS_END else next_us * 1000, at_us))
        return events

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"stream":"depth.' in frame and b'"U":' in frame for frame in frames)
