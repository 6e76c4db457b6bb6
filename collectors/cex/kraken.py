"""Kraken spot, websocket v2.

Source: Kraken WebSockets v2, "Book (Level 2)", "Trade", "Ticker (Level 1)", "Ping", guide "Book checksum"; REST "Get
Tradable Asset Pairs", "Get Order Book"; read beside ccxt's kraken. Proof: CRC32 of ten levels a side at each message,
books cut to 1,000 levels (the same rule on v1's capture, its frames written as v2's).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote as url_quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, micros, plain, plain_or_none, product, step, text
from collectors.venue import (
    BOOK,
    TICKER,
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    Limits,
    Listing,
    MalformedFrame,
    Reply,
    RestRequest,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.book import BookSide, OrderBook
from market.checksums import KRAKEN_DEPTH, kraken_v2_crc32
from market.decimals import parse_decimal, rescale
from market.instruments import spot_symbol


class _Level(Struct, gc=False):
    price: Raw
    qty: Raw


class _Book(Struct, gc=False):
    symbol: str
    bids: list[_Level]
    asks: list[_Level]
    checksum: int
    timestamp: datetime | None = None


class _BookFrame(Struct, gc=False):
    type: str
    data: list[_Book]


class _Trade(Struct, gc=False):
    symbol: str
    side: str
    price: Raw
    qty: Raw
    trade_id: int
    timestamp: datetime


class _TradeFrame(Struct, gc=False):
    data: list[_Trade]


class _Ticker(Struct, gc=False):
    symbol: str
    bid: Raw
    bid_qty: Raw
    ask: Raw
    ask_qty: Raw
    timestamp: datetime | None = None


class _TickerFrame(Struct, gc=False):
    data: list[_Ticker]


class _Channel(Struct):
    channel: str = ""
    symbol: str = ""


class _Frame(Struct):
    channel: str = ""
    method: str = ""
    success: bool | None = None
    error: str = ""
    symbol: str = ""
    req_id: int = -1
    result: _Channel | None = None


class _Entry(Struct):
    wsname: str
    pair_decimals: int
    lot_decimals: int
    status: str = ""
    tick_size: str = ""
    ordermin: str = ""
    costmin: str = ""
    fees: list[tuple[Raw, Raw]] = []
    fees_maker: list[tuple[Raw, Raw]] = []


class _Whole(Struct):
    bids: list[tuple[str, str, Raw]]
    asks: list[tuple[str, str, Raw]]


class _WholeAnswer(Struct):
    result: dict[str, _Whole]


class _Answer(Struct):
    error: list[str]
    result: dict[str, Raw]


_decode_book = msgspec.json.Decoder(_BookFrame).decode
_decode_trade = msgspec.json.Decoder(_TradeFrame).decode
_decode_ticker = msgspec.json.Decoder(_TickerFrame).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_whole = msgspec.json.Decoder(_WholeAnswer).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

BOOKS = b'"channel":"book"'
SIDES = {"buy": "BUY", "sell": "SELL"}
STATES = {"online": "TRADING", "delisted": "DELISTED"}
"""cancel_only, post_only, limit_only, reduce_only, maintenance and whatever comes: HALTED."""
RENAMED = {"XBT": "BTC", "XDG": "DOGE"}
"""REST still says the old names, websocket v2 the usual ones."""
DEPTH = 1000


class KrakenChecksum(SyncRule):
    """No sequence at all: the CRC32 is the only proof, and the book is cut to what was asked for.

    JSON numbers come with the pair's full precision, so the finest number seen says how the venue writes all of them;
    one object a book. A loss below the tenth level is only seen when it comes up.
    """

    snapshot_from = "stream"
    has_checksum = True
    max_depth = DEPTH

    def __init__(self) -> None:
        self._price_decimals = self._size_decimals = 0

    def verify(self, book: OrderBook, event: BookDelta | BookSnapshot) -> bool | None:
        for levels in (event.bids, event.asks):
            for price, size in levels:
                self._price_decimals = max(self._price_decimals, _decimals(price))
                self._size_decimals = max(self._size_decimals, _decimals(size))
        if event.checksum is None:
            return None
        return kraken_v2_crc32(self._top(book, book.bids), self._top(book, book.asks)) == event.checksum

    def _top(self, book: OrderBook, side: BookSide) -> list[tuple[int, int]]:
        price_exp, size_exp = -self._price_decimals, -self._size_decimals
        return [
            (rescale(price, book.price_exp, price_exp), rescale(size, book.size_exp, size_exp))
            for price, size in side.top(KRAKEN_DEPTH)
        ]

    def reset(self) -> None:
        self._price_decimals = self._size_decimals = 0


class Kraken(Venue):
    """Spot; an instrument's native name is websocket v2's: BTC/USD."""

    id = "kraken"
    rest_url = "https://api.kraken.com"
    ws_url = "wss://ws.kraken.com"
    limits = Limits(
        instruments_per_connection=100,
        instruments_per_request=50,
        request_interval_s=0.1,
        connect_interval_s=5,  # about 150 in ten minutes: 120, and the burst
        connect_burst=20,
        rest_weight_per_minute=60,
        heartbeat_s=30,
    )
    offers = frozenset({BOOK, TRADE, TICKER})

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/0/public/AssetPairs")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            answer = _decode_answer(body)
        except BAD as error:
            raise MalformedFrame(f"asset pairs: {error}") from error
        if answer.error:
            raise MalformedFrame(f"asset pairs: the venue says {answer.error[0][:80]}")
        listings = (self._listing(entry) for entry in answer.result.values())
        return [listing for listing in listings if listing is not None]

    def _listing(self, entry: Raw) -> Listing | None:
        try:
            e = _decode_entry(entry)
            names = e.wsname.split("/")
            base, quote = (RENAMED.get(name, name) for name in names)
            return Listing(
                native_id=f"{base}/{quote}",
                symbol=spot_symbol(base, quote),
                base=base,
                quote=quote,
                kind="SPOT",
                tick_size=plain(e.tick_size) if e.tick_size else step(e.pair_decimals),
                lot_size=step(e.lot_decimals),
                state=STATES.get(e.status, "HALTED"),
                min_size=plain_or_none(e.ordermin),
                min_notional=plain_or_none(e.costmin),
                # Per cent, of the lowest volume.
                maker_fee_bps=product(text(e.fees_maker[0][1]), "100") if e.fees_maker else None,
                taker_fee_bps=product(text(e.fees[0][1]), "100") if e.fees else None,
            )
        except BAD:
            return None

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/0/public/Depth?pair={url_quote(native, safe='/')}&count=500")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: the stream brings its own snapshots; REST numbers nothing."""
        try:
            (w,) = _decode_whole(body).result.values()
            return BookSnapshot(native, -1, [(p, q) for p, q, _ in w.bids], [(p, q) for p, q, _ in w.asks])
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return KrakenChecksum()

    def ws_path(self) -> str:
        return "/v2"

    def heartbeat(self) -> bytes:
        return b'{"method":"ping"}'

    def _frames(self, method: str, natives: Sequence[str], request_id: int) -> list[bytes]:
        names = list(natives)
        channels: list[dict[str, object]] = [{"channel": "book", "symbol": names, "depth": DEPTH}]
        if TRADE in self.channels:
            channels.append({"channel": "trade", "symbol": names, "snapshot": False})
        if TICKER in self.channels:
            channels.append({"channel": "ticker", "symbol": names, "event_trigger": "bbo"})
        frames: list[bytes] = []
        for number, params in enumerate(channels):
            if method == "unsubscribe":
                params = {name: value for name, value in params.items() if name != "snapshot"}
            frame = {"method": method, "params": params} | ({} if number else {"req_id": request_id})
            frames.append(msgspec.json.encode(frame))
        return frames

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("subscribe", natives, request_id)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("unsubscribe", natives, request_id)

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            if BOOKS in frame[:20] and b'"data"' in frame[:60]:
                return _books(_decode_book(frame))
            f = _decode_frame(frame)
            match f.channel:
                case "book":
                    return _books(_decode_book(frame))
                case "trade":
                    return [
                        TradeEvent(
                            t.symbol, str(t.trade_id), SIDES.get(t.side, "UNKNOWN"), text(t.price), text(t.qty),
                            micros(t.timestamp),
                        )
                        for t in _decode_trade(frame).data
                    ]  # fmt: skip
                case "ticker":
                    return [
                        TickerEvent(
                            t.symbol, -1, text(t.bid), text(t.bid_qty), text(t.ask), text(t.ask_qty),
                            micros(t.timestamp) if t.timestamp else 0,
                        )
                        for t in _decode_ticker(frame).data
                        if text(t.bid) and text(t.ask)
                    ]  # fmt: skip
            return _reply(f)
        except BAD as error:
            raise MalformedFrame(f"kraken frame: {error}") from error

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(frame.startswith(b'{"channel":"book","type":"') and b'"checksum":' in frame for frame in frames)


def _books(f: _BookFrame) -> Sequence[Event]:
    events: list[Event] = []
    for b in f.data:
        bids = [(str(level.price, "ascii"), str(level.qty, "ascii")) for level in b.bids]
        asks = [(str(level.price, "ascii"), str(level.qty, "ascii")) for level in b.asks]
        ts_us = micros(b.timestamp) if b.timestamp else 0
        if f.type == "snapshot":
            events.append(BookSnapshot(b.symbol, -1, bids, asks, ts_us, b.checksum))
        elif f.type == "update":
            events.append(BookDelta(b.symbol, -1, -1, -1, bids, asks, ts_us, b.checksum))
        else:
            raise MalformedFrame(f"kraken frame: a book neither whole nor changed: {f.type[:40]!r}")
    return events


def _reply(f: _Frame) -> Sequence[Event]:
    if f.channel:
        return ()  # heartbeat, status, what was not asked for
    if not f.method and not f.error:
        raise MalformedFrame("kraken frame: neither a channel's nor an answer")
    if f.method == "subscribe" or (f.error and f.method != "unsubscribe"):
        if f.error or f.success is False:
            # The books' request carries the id; another channel's refusal is only worth a line in the log.
            return (Reply(f.req_id, f.error or "refused", f.symbol if f.req_id >= 0 else ""),)
        if f.result is not None and f.result.channel == "book":
            return (Reply(native=f.result.symbol),)
    return ()


def _decimals(number: str) -> int:
    """Digits behind the point, as the number is written."""
    if "e" in number or "E" in number:
        return -parse_decimal(number)[1]
    return len(number) - 1 - point if (point := number.find(".")) >= 0 else 0
