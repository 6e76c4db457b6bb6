"""HTX (Huobi) spot: gzipped frames; 150 levels beside trades and tickers, 400 on a socket of their own, or whole books.

Source: HTX Spot API, "Websocket Market Data" (Market by Price incremental, Market Depth, Trade Detail, BBO), "Get all
Supported Trading Symbol", announcements of the MBP feed (150 levels for all pairs, other depths on /feed); ccxt's htx.
Proof: prevSeqNum chain (htx-spot, htx-spot-deep: documentation); whole books (htx-spot-whole: capture).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

import msgspec
from msgspec import Raw, Struct, field

from collectors.cex.wire_json import BAD, plain, step
from collectors.cex.wire_values import Id, Millis, asset, number, numbers, readable
from collectors.venue import (
    BOOK,
    TICKER,
    TRADE,
    Answer,
    BookDelta,
    BookSnapshot,
    Event,
    Level,
    Limits,
    Listing,
    MalformedFrame,
    Parser,
    Reply,
    RestRequest,
    StreamBook,
    StreamChain,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import spot_symbol

FRAME_MAX = 32 * 1024 * 1024
"""Bytes after inflating: more is no frame but an attack on memory."""
WAITING_MAX = 1000
"""Deltas of one book that wait for its snapshot."""


class Frame(Struct, gc=False):
    """Every frame: a channel's, an answer, or a ping."""

    ch: str = ""
    rep: str = ""
    ts: Millis = 0
    tick: Raw = Raw(b"null")
    data: Raw = Raw(b"null")
    ping: int | None = None
    id: int | str | None = None
    status: str = ""
    subbed: str = ""
    error: str = field(default="", name="err-msg")


class _Levels(Struct, gc=False):
    bids: list[tuple[Raw, Raw]]
    asks: list[tuple[Raw, Raw]]
    version: Id = -1


class _Change(Struct, gc=False):
    seqNum: Id  # noqa: N815
    prevSeqNum: Id = -1  # noqa: N815
    # The side on which nothing changed may also be told as a blank object.
    bids: list[tuple[Raw, Raw]] | dict[str, Raw] | None = None
    asks: list[tuple[Raw, Raw]] | dict[str, Raw] | None = None


class Trade(Struct, gc=False):
    """One trade of any HTX market; ``id`` has more digits than 64 bits hold."""

    id: Raw
    price: Raw
    amount: Raw
    direction: str
    ts: Millis
    tradeId: int | None = None  # noqa: N815


class _Trades(Struct, gc=False):
    data: list[Trade]


class _Ticker(Struct, gc=False):
    seqId: Id  # noqa: N815
    bid: Raw
    bidSize: Raw  # noqa: N815
    ask: Raw
    askSize: Raw  # noqa: N815
    quoteTime: Millis = 0  # noqa: N815


class Entries(Struct):
    """A REST answer's list."""

    data: list[Raw]
    ts: Millis = 0


class _Symbol(Struct, rename="kebab"):
    symbol: str
    base_currency: str
    quote_currency: str
    price_precision: int
    amount_precision: int
    state: str
    limit_order_min_order_amt: Raw = Raw(b"0")
    min_order_value: Raw = Raw(b"0")


decode_frame = msgspec.json.Decoder(Frame).decode
decode_entries = msgspec.json.Decoder(Entries).decode
decode_trades = msgspec.json.Decoder(_Trades).decode
_decode_levels = msgspec.json.Decoder(_Levels).decode
_decode_change = msgspec.json.Decoder(_Change).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_symbol = msgspec.json.Decoder(_Symbol).decode

STATES = {"online": "TRADING", "offline": "DELISTED"}


def inflated(frame: bytes) -> bytes:
    """The JSON of a frame, gzipped or plain (a recorder may have inflated it). MalformedFrame: not gzip, or endless."""
    if frame[:2] != b"\x1f\x8b":
        return frame
    inflater = zlib.decompressobj(wbits=31)
    try:
        out = inflater.decompress(frame, FRAME_MAX)
    except zlib.error as error:
        raise MalformedFrame(f"a frame that cannot be inflated: {error}") from error
    if not inflater.eof:
        raise MalformedFrame("a gzipped frame that is cut off, or too long")
    return out


def request_number(echo: int | str | None) -> int:
    """The number of a request as its answer repeats it; -1: it was none of ours."""
    text = str(echo)
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 18 else -1


def native_of(channel: str) -> str:
    """``btcusdt`` of ``market.btcusdt.mbp.400``; ValueError: no channel of an instrument."""
    parts = channel.split(".")
    if len(parts) < 3 or parts[0] != "market":
        raise ValueError(f"no channel of an instrument: {channel[:60]!r}")
    return parts[1]


class HtxVenue(Venue):
    """What all HTX sockets share: gzip, pings, one channel a request, the answers to it."""

    limits = Limits(
        instruments_per_connection=60,
        instruments_per_request=1,
        request_interval_s=0.12,
        connect_interval_s=1,
        rest_weight_per_minute=300,
    )

    def channels_of(self, native: str) -> list[str]:
        """The channels to subscribe, the book's first."""
        raise NotImplementedError

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("sub", natives, request_id)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("unsub", natives, request_id)

    def _requests(self, verb: str, natives: Sequence[str], request_id: int) -> list[bytes]:
        frames: list[bytes] = []
        for native in natives:
            first, *others = self.channels_of(native)
            frames.append(self.request(verb, first, str(request_id)))
            frames += [self.request(verb, channel, channel) for channel in others]
        return frames

    def request(self, verb: str, channel: str, request_id: str) -> bytes:
        """One frame."""
        return msgspec.json.encode({verb: channel, "id": request_id})

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = decode_frame(inflated(frame))
            if head.ch:
                return self.update(head)
            if head.rep and head.status == "ok":
                return self.replied(head)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        if head.ping is not None:
            return (Answer(msgspec.json.encode({"pong": head.ping})),)
        if not head.status:
            raise MalformedFrame(f"{self.id} frame: neither a channel's nor an answer")
        request_id = request_number(head.id)
        if head.status != "ok":
            return (Reply(request_id, f"{head.id}: {head.error or head.status}"),)
        return (Reply(request_id),) if request_id >= 0 else ()

    def update(self, head: Frame) -> Sequence[Event]:
        """The events of a channel's frame; may raise BAD."""
        raise NotImplementedError

    def replied(self, head: Frame) -> Sequence[Event]:
        """The events of the answer to a ``req``; may raise BAD."""
        return ()

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = decode_entries(body).data
        except BAD as error:
            raise MalformedFrame(f"{self.id} instruments: {error}") from error
        return readable(self.id, entries, self.listing)

    def listing(self, entry: Raw) -> Listing | None:
        """One instrument; may raise BAD."""
        raise NotImplementedError


def _side(rows: list[tuple[Raw, Raw]] | dict[str, Raw] | None) -> list[Level]:
    if isinstance(rows, dict):
        if rows:
            raise ValueError("a side of a book that is no list")
        return []
    return numbers(rows or ())


class HtxSpotWhole(HtxVenue):
    """HTX spot by whole books of 150 levels, once a second: nothing to chain, every message is the truth."""

    id = "htx-spot-whole"
    rest_url = "https://api.huobi.pro"
    ws_url = "wss://api.huobi.pro"
    offers = frozenset({BOOK, TRADE, TICKER})
    _rule: ClassVar[SyncRule] = StreamBook()
    book_channel: ClassVar[str] = "depth.step0"

    def ws_path(self) -> str:
        return "/ws"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/v1/common/symbols")]

    def listing(self, entry: Raw) -> Listing | None:
        s = _decode_symbol(entry)
        base, quote = asset(s.base_currency), asset(s.quote_currency)
        return Listing(
            native_id=s.symbol,
            symbol=spot_symbol(base, quote),
            base=base,
            quote=quote,
            kind="SPOT",
            state=STATES.get(s.state, "HALTED"),
            tick_size=step(s.price_precision),
            lot_size=step(s.amount_precision),
            min_size=plain(number(s.limit_order_min_order_amt)),
            min_notional=plain(number(s.min_order_value)),
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def channels_of(self, native: str) -> list[str]:
        kinds = ((TRADE, "trade.detail"), (TICKER, "bbo"))
        names = [self.book_channel, *(name for kind, name in kinds if kind in self.channels)]
        return [f"market.{native}.{name}" for name in names]

    def update(self, head: Frame) -> Sequence[Event]:
        native = native_of(head.ch)
        if head.ch.endswith(self.book_channel):
            return (self.book(native, head),)
        if head.ch.endswith(".trade.detail"):
            return tuple(self._trade(native, t) for t in decode_trades(head.tick).data)
        if head.ch.endswith(".bbo"):
            k = _decode_ticker(head.tick)
            bid, ask = (number(k.bid), number(k.bidSize)), (number(k.ask), number(k.askSize))
            return (TickerEvent(native, k.seqId, *bid, *ask, (k.quoteTime or head.ts) * 1000),)
        return ()

    def book(self, native: str, head: Frame) -> BookSnapshot | BookDelta:
        """The event of the book's channel; may raise BAD."""
        d = _decode_levels(head.tick)
        return BookSnapshot(native, d.version, numbers(d.bids), numbers(d.asks), head.ts * 1000, refresh=True)

    def _trade(self, native: str, t: Trade) -> TradeEvent:
        trade_id = number(t.id) if t.tradeId is None else str(t.tradeId)
        return TradeEvent(native, trade_id, t.direction.upper(), number(t.price), number(t.amount), t.ts * 1000)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        mark = f".{cls.book_channel}\"".encode()
        for frame in frames:
            try:
                text = inflated(frame)
            except MalformedFrame:
                continue
            if text.startswith(b'{"ch":"market.') and mark in text[:80]:
                return True
        return False


class HtxSpot(HtxSpotWhole):
    """HTX spot: 150 levels every 100 ms, chained by prevSeqNum, with trades and the best bid and offer beside them."""

    id = "htx-spot"
    _rule = StreamChain()
    book_channel = "mbp.150"

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        # The book itself has to be asked for; subscribed first, so that no change lies between the two.
        asked = [self.request("req", self.channels_of(native)[0], native) for native in natives]
        return super().subscribe(natives, request_id) + asked

    def book(self, native: str, head: Frame) -> BookSnapshot | BookDelta:
        d = _decode_change(head.tick)
        return BookDelta(native, d.seqNum, d.seqNum, d.prevSeqNum, _side(d.bids), _side(d.asks), head.ts * 1000)

    def replied(self, head: Frame) -> Sequence[Event]:
        d = _decode_change(head.data)
        return (BookSnapshot(native_of(head.rep), d.seqNum, _side(d.bids), _side(d.asks), head.ts * 1000),)

    def connection(self) -> Parser:
        return _Feed(self)


class HtxSpotDeep(HtxSpot):
    """HTX spot's feed of deeper books: 400 levels; nothing else travels on its socket."""

    id = "htx-spot-deep"
    offers = frozenset({BOOK})
    book_channel = "mbp.400"

    def ws_path(self) -> str:
        return "/feed"


class _Feed:
    """One connection of books: changes that arrive between a subscription and its book are given right after it."""

    def __init__(self, venue: HtxSpot) -> None:
        self._venue = venue
        self._waiting: dict[str, deque[Event]] = {}

    def __call__(self, frame: bytes) -> Sequence[Event]:
        events = self._venue.parse(frame)
        if len(events) != 1:
            return events
        event = events[0]
        if isinstance(event, BookDelta):
            if (waiting := self._waiting.get(event.native)) is None:
                return events
            waiting.append(event)
            return ()
        if isinstance(event, BookSnapshot):
            return (event, *self._waiting.pop(event.native, ()))
        if isinstance(event, Reply) and (channel := decode_frame(inflated(frame)).subbed):
            try:
                self._waiting[native_of(channel)] = deque(maxlen=WAITING_MAX)
            except ValueError as error:
                raise MalformedFrame(f"htx frame: {error}") from error
        return events
