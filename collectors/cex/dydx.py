"""dYdX v4, through its indexer: perpetuals in USDC; the connection numbers its messages, the book may cross.

Source: dYdX documentation, "Indexer / WebSocket" (v4_orderbook, v4_trades), "How to uncross the orderbook", "HTTP / Get
perpetual markets"; ccxt's dydx.
Proof: message_id counts every message of a connection, and each must arrive (documentation; a capture of v3 renamed).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain
from collectors.cex.wire_values import Id, asset, iso_us, readable, unreadable
from collectors.venue import (
    BOOK,
    FUNDING,
    LIQUIDATION,
    MARK_PRICE,
    OPEN_INTEREST,
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
    Parser,
    Poll,
    Reply,
    RestRequest,
    StreamBook,
    StreamBroken,
    SyncRule,
    TradeEvent,
    Venue,
)
from market.book import BookSide
from market.decimals import format_decimal, parse_decimal, to_mantissa
from market.instruments import perpetual_symbol

WAITING_MAX = 1000
"""Changes of one book that wait for its snapshot, which may arrive behind them."""
LATE_MAX = 500
"""Messages after which one that was overtaken counts as lost; answers to subscriptions do come late."""
PRICE_EXP = -18
HOUR_US = 3_600_000_000


class _Frame(Struct, gc=False):
    type: str
    message_id: Id = -1
    channel: str = ""
    id: str = ""
    contents: Raw = NONE
    message: str = ""


class _Row(Struct, gc=False):
    price: str
    size: str


class _Whole(Struct, gc=False):
    bids: list[_Row] = []
    asks: list[_Row] = []


class _Change(Struct, gc=False):
    bids: list[Level] = []
    asks: list[Level] = []


class _Trade(Struct, gc=False):
    side: str
    size: str
    price: str
    createdAt: str  # noqa: N815
    id: str = ""
    type: str = ""


class _Trades(Struct, gc=False):
    trades: list[_Trade]


class _Market(Struct):
    ticker: str
    status: str
    tickSize: str  # noqa: N815
    stepSize: str  # noqa: N815
    oraclePrice: str | None = None  # noqa: N815
    nextFundingRate: str | None = None  # noqa: N815
    openInterest: str | None = None  # noqa: N815


class _Markets(Struct):
    markets: dict[str, Raw]


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_change = msgspec.json.Decoder(_Change).decode
_decode_trades = msgspec.json.Decoder(_Trades).decode
_decode_markets = msgspec.json.Decoder(_Markets).decode
_decode_market = msgspec.json.Decoder(_Market).decode

STATES = {"ACTIVE": "TRADING", "FINAL_SETTLEMENT": "DELISTED"}
BOOKS, TRADES = "v4_orderbook", "v4_trades"


class Dydx(Venue):
    """dYdX: whole-depth books of the indexer, uncrossed as the venue says to."""

    id = "dydx"
    rest_url = "https://indexer.dydx.trade"
    ws_url = "wss://indexer.dydx.trade"
    limits = Limits(
        instruments_per_connection=32,
        instruments_per_request=16,
        request_interval_s=0.5,  # two a second
        connect_interval_s=1,
        rest_weight_per_minute=500,
        reply_timeout_s=0,  # a refusal names no market; a book's first message is its confirmation
    )
    offers = frozenset({BOOK, TRADE, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})
    _rule = StreamBook()

    def ws_path(self) -> str:
        return "/v4/ws"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/v4/perpetualMarkets")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        return readable(self.id, self._markets(body), self._listing)

    def _markets(self, body: bytes) -> list[Raw]:
        try:
            return list(_decode_markets(body).markets.values())
        except BAD as error:
            raise MalformedFrame(f"{self.id} markets: {error}") from error

    @staticmethod
    def _listing(entry: Raw) -> Listing:
        m = _decode_market(entry)
        base = asset(m.ticker.rpartition("-")[0])
        return Listing(
            native_id=m.ticker,
            symbol=perpetual_symbol(base, "USDC", "USDC"),
            base=base,
            quote="USDC",
            settle="USDC",
            kind="PERPETUAL",
            state=STATES.get(m.status, "HALTED"),
            tick_size=plain(m.tickSize),
            lot_size=plain(m.stepSize),
            min_size=plain(m.stepSize),
            contract_size="1",
        )

    def polls(self) -> list[Poll]:
        wanted = self.channels & {FUNDING, MARK_PRICE, OPEN_INTEREST}
        return [Poll(self.instruments_requests()[0], 30)] if wanted else []

    def parse_poll(self, request: RestRequest, body: bytes) -> Sequence[Event]:
        events: list[Event] = []
        for entry in self._markets(body):
            try:
                m = _decode_market(entry)
            except BAD as error:
                raise MalformedFrame(f"{self.id} markets: {error}") from error
            if FUNDING in self.channels and m.nextFundingRate:
                events.append(FundingEvent(m.ticker, m.nextFundingRate, HOUR_US))
            if MARK_PRICE in self.channels and m.oraclePrice:
                events.append(MarkPriceEvent(m.ticker, m.oraclePrice, m.oraclePrice))  # margins go by the oracle
            if OPEN_INTEREST in self.channels and m.openInterest:
                events.append(OpenInterestEvent(m.ticker, m.openInterest, "BASE"))
        return events

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("subscribe", natives)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("unsubscribe", natives)

    def _requests(self, verb: str, natives: Sequence[str]) -> list[bytes]:
        channels = [BOOKS, TRADES] if self.channels & {TRADE, LIQUIDATION} else [BOOKS]
        return [
            msgspec.json.encode({"type": verb, "channel": channel, "id": native})
            for channel in channels
            for native in natives
        ]

    def parse(self, frame: bytes) -> Sequence[Event]:
        return _Connection(self)(frame)

    def connection(self) -> Parser:
        return _Connection(self)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"channel":"v4_orderbook"' in frame and b'"message_id":' in frame for frame in frames)


class _Book:
    """One book's prices, each with the id of the message that last set it."""

    def __init__(self) -> None:
        self.bids, self.asks = BookSide(1), BookSide(-1)

    def set(self, change: _Change, message_id: int) -> None:
        """Note who set these levels last."""
        for side, rows in ((self.bids, change.bids), (self.asks, change.asks)):
            for price, size in rows:
                # Any size but zero: what is kept here is only which message is the younger one.
                side.set(to_mantissa(price, PRICE_EXP), message_id + 1 if parse_decimal(size)[0] else 0)

    def uncross(self, change: _Change) -> None:
        """Add to the change the ends of those levels that younger ones of the other side cross."""
        while (bid := self.bids.best()) and (ask := self.asks.best()) and bid[0] >= ask[0] and bid[1] != ask[1]:
            side, rows, price = (self.bids, change.bids, bid[0]) if bid[1] < ask[1] else (self.asks, change.asks, ask[0])
            side.set(price, 0)
            rows.append((format_decimal(price, PRICE_EXP), "0"))


class _Connection:
    """One connection: its count of messages, and the books' younger and older levels."""

    def __init__(self, venue: Dydx) -> None:
        self._name, self._channels = venue.id, venue.channels
        self._next = -1
        self._late: dict[int, int] = {}
        """Overtaken messages, each with the id at which it counts as lost."""
        self._books: dict[str, _Book] = {}
        self._waiting: dict[str, deque[tuple[int, _Change]]] = {}

    def __call__(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_frame(frame)
            lost = self._count(head.message_id)
            if lost >= 0:
                return (StreamBroken(f"message {lost} of the connection is missing"),)
            if head.channel == BOOKS and head.id and head.type != "unsubscribed":
                return self._read(head, frame)
            if head.type in ("subscribed", "unsubscribed", "channel_data", "channel_batch_data"):
                return tuple(self._message(head))
        except BAD as error:
            raise MalformedFrame(f"{self._name} frame: {error}") from error
        return (Reply(error=head.message),) if head.type == "error" else ()

    def _read(self, head: _Frame, frame: bytes) -> Sequence[Event]:
        try:
            return tuple(self._message(head))
        except BAD as error:
            self._books.pop(head.id, None)
            return (unreadable(head.id, frame, error),)

    def _count(self, message_id: int) -> int:
        """Note the message; the id of one that is lost, or -1."""
        if message_id < 0:
            return -1
        if self._next < 0 or message_id == self._next:
            self._next = message_id + 1
        elif message_id > self._next:
            if message_id - self._next > LATE_MAX:
                return self._next
            self._late.update((overtaken, message_id + LATE_MAX) for overtaken in range(self._next, message_id))
            self._next = message_id + 1
        else:
            self._late.pop(message_id, None)
        oldest = next(iter(self._late), -1)
        return oldest if oldest >= 0 and self._late[oldest] < self._next else -1

    def _message(self, head: _Frame) -> Iterator[Event]:
        if head.type == "unsubscribed":
            self._books.pop(head.id, None)
        elif head.channel == BOOKS and head.type == "subscribed":
            yield from self._whole(head)
        elif head.type != "subscribed":  # a subscription's first trades are past ones
            batch = msgspec.json.decode(head.contents, type=list[Raw]) if "batch" in head.type else [head.contents]
            for contents in batch:
                if head.channel == BOOKS:
                    yield from self._change(head, contents)
                elif head.channel == TRADES:
                    yield from self._trades(head.id, contents)

    def _whole(self, head: _Frame) -> Iterator[Event]:
        whole = _decode_whole(head.contents)
        levels = _Change([(row.price, row.size) for row in whole.bids], [(row.price, row.size) for row in whole.asks])
        book = self._books[head.id] = _Book()
        book.set(levels, head.message_id)
        yield BookSnapshot(head.id, -1, levels.bids, levels.asks)
        for message_id, change in self._waiting.pop(head.id, ()):
            if message_id > head.message_id:
                yield self._apply(book, head.id, change, message_id)

    def _change(self, head: _Frame, contents: Raw) -> Iterator[Event]:
        change = _decode_change(contents)
        if (book := self._books.get(head.id)) is not None:
            yield self._apply(book, head.id, change, head.message_id)
            return
        waiting = self._waiting.setdefault(head.id, deque(maxlen=WAITING_MAX))
        waiting.append((head.message_id, change))

    @staticmethod
    def _apply(book: _Book, native: str, change: _Change, message_id: int) -> BookDelta:
        book.set(change, message_id)
        book.uncross(change)
        return BookDelta(native, -1, -1, -1, change.bids, change.asks)

    def _trades(self, native: str, contents: Raw) -> Iterator[Event]:
        for t in _decode_trades(contents).trades:
            side, at_us = t.side.upper(), iso_us(t.createdAt)
            if TRADE in self._channels:
                yield TradeEvent(native, t.id, side, t.price, t.size, at_us)
            if LIQUIDATION in self._channels and t.type == "LIQUIDATED":
                yield LiquidationEvent(native, side, t.price, t.size, t.id, at_us)
