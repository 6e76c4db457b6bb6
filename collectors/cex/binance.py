"""What Binance's three markets share: the combined stream, its frames, and the form of exchange info and depth.

A market is a subclass (binance_spot, binance_usdm, binance_coinm) that says its paths, limits and how it describes an
instrument.

Source: Binance Spot API "WebSocket Streams", USD-M and COIN-M Futures "Websocket Market Streams".
Proof: ids U..u (spot) or the predecessor's pu (futures) chain every event onto the REST book; the venue's own best bid
and offer agrees at every event (capture).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct, field

from collectors.venue import (
    BOOK,
    TICKER,
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    Level,
    Listing,
    MalformedFrame,
    Reply,
    RestRequest,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.decimals import format_decimal, parse_decimal
from market.instruments import SymbolError

Id = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
Millis = Annotated[int, Meta(ge=0, le=1 << 52)]


class _Depth(Struct, gc=False):
    s: str
    U: Id
    u: Id
    b: list[Level]
    a: list[Level]
    E: Millis = 0
    pu: Id = -1


class _DepthFrame(Struct, gc=False):
    data: _Depth


class _Trade(Struct, gc=False):
    s: str
    p: str
    q: str
    m: bool
    T: Millis
    t: Id = -1
    a: Id = -1
    """Aggregate trades number themselves here."""


class _TradeFrame(Struct, gc=False):
    data: _Trade


class _Ticker(Struct, gc=False):
    s: str
    u: Id
    b: str
    B: str
    a: str
    A: str
    T: Millis = 0


class _TickerFrame(Struct, gc=False):
    data: _Ticker


class _Problem(Struct):
    code: int = 0
    msg: str = ""


class _OtherFrame(Struct):
    stream: str = ""
    id: int | None = None
    error: _Problem | None = None
    code: int | None = None
    msg: str = ""


class _DepthAnswer(Struct):
    lastUpdateId: Id  # noqa: N815
    bids: list[Level]
    asks: list[Level]
    E: Millis = 0


class _Day(Struct):
    symbol: str
    quoteVolume: str = ""  # noqa: N815
    baseVolume: str = ""  # noqa: N815
    """COIN-M has this one instead: coins are what its contracts settle in."""


class _ExchangeInfo(Struct):
    symbols: list[msgspec.Raw]


_decode_depth = msgspec.json.Decoder(_DepthFrame).decode
_decode_trade = msgspec.json.Decoder(_TradeFrame).decode
_decode_ticker = msgspec.json.Decoder(_TickerFrame).decode
_decode_other = msgspec.json.Decoder(_OtherFrame).decode
_decode_answer = msgspec.json.Decoder(_DepthAnswer).decode
_decode_days = msgspec.json.Decoder(list[_Day]).decode
_decode_info = msgspec.json.Decoder(_ExchangeInfo).decode

_AT = ord("@")
_DEPTH, _TRADE, _AGG, _TICKER = b"depth", b"trade", b"aggTrade", b"bookTicker"
BAD = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not what they should be."""


class BinanceVenue(Venue):
    """The part of the protocol that does not depend on the market."""

    offers = frozenset({BOOK, TRADE, TICKER})
    prefix: ClassVar[str]
    """Of every REST path: /api/v3, /fapi/v1, /dapi/v1."""
    route: ClassVar[str] = "/stream"
    """Path of the combined stream."""
    depth_stream: ClassVar[str]
    depth_limit: ClassVar[int]
    depth_weight: ClassVar[int]
    info_weight: ClassVar[int]
    sync_rule: ClassVar[SyncRule]
    chain: ClassVar[Literal["U", "pu", "ps"]]
    """The field by which a depth frame tells this market from the other two."""

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest(f"{self.prefix}/exchangeInfo", self.info_weight)]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_info(body).symbols
        except BAD as error:
            raise MalformedFrame(f"exchange info: {error}") from error
        listings = (self._listing(entry) for entry in entries)
        return [listing for listing in listings if listing is not None]

    def _listing(self, entry: msgspec.Raw) -> Listing | None:
        try:
            return self.listing(bytes(entry))
        except (*BAD, SymbolError, ValueError):
            return None

    def listing(self, entry: bytes) -> Listing:
        """One entry of exchange info's ``symbols``; may raise msgspec's errors, SymbolError and ValueError."""
        raise NotImplementedError

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"{self.prefix}/depth?symbol={quote(native)}&limit={self.depth_limit}", self.depth_weight)

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            answer = _decode_answer(body)
        except BAD as error:
            raise MalformedFrame(f"depth of {native}: {error}") from error
        return BookSnapshot(native, answer.lastUpdateId, answer.bids, answer.asks, answer.E * 1000)

    def rule(self, native: str) -> SyncRule:
        return self.sync_rule

    def volumes_requests(self) -> list[RestRequest]:
        return [RestRequest(f"{self.prefix}/ticker/24hr", 80)]

    def parse_volumes(self, body: bytes) -> dict[str, str]:
        try:
            return {day.symbol: day.quoteVolume or day.baseVolume for day in _decode_days(body)}
        except BAD as error:
            raise MalformedFrame(f"24-hour statistics: {error}") from error

    def ws_path(self) -> str:
        return self.route

    def kinds(self) -> list[str]:
        """The streams of an instrument, as their names say it behind the '@'."""
        kinds = [self.depth_stream]
        if TRADE in self.channels:
            kinds.append("trade")
        if TICKER in self.channels:
            kinds.append("bookTicker")
        return kinds

    def streams(self, natives: Sequence[str]) -> list[str]:
        """The stream names of these instruments."""
        kinds = self.kinds()
        return [f"{native.lower()}@{kind}" for native in natives for kind in kinds]

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [msgspec.json.encode({"method": "SUBSCRIBE", "params": self.streams(natives), "id": request_id})]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [msgspec.json.encode({"method": "UNSUBSCRIBE", "params": self.streams(natives), "id": request_id})]

    def parse(self, frame: bytes) -> Sequence[Event]:
        # The stream's name stands first, so one look behind its '@' names the type and the frame is decoded once.
        # Spot tickers carry no "e": the name is all there is. Another order of keys takes the slow way below.
        at = frame.find(_AT, 11, 75) + 1
        try:
            if frame.startswith(_DEPTH, at):
                d = _decode_depth(frame).data
                return (BookDelta(d.s, d.U, d.u, d.pu, d.b, d.a, d.E * 1000),)
            if frame.startswith(_TICKER, at):
                k = _decode_ticker(frame).data
                return (TickerEvent(k.s, k.u, k.b, k.B, k.a, k.A, k.T * 1000),)
            if frame.startswith(_TRADE, at) or frame.startswith(_AGG, at):
                return (self._trade(_decode_trade(frame).data),)
            return self._parse_other(frame)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error

    def _trade(self, t: _Trade) -> TradeEvent:
        trade_id = t.t if t.t >= 0 else t.a
        return TradeEvent(t.s, str(trade_id), "SELL" if t.m else "BUY", t.p, t.q, t.T * 1000)

    def _parse_other(self, frame: bytes) -> Sequence[Event]:
        other = _decode_other(frame)
        if other.stream:
            kind = other.stream.partition("@")[2]
            if kind.startswith("depth"):
                d = _decode_depth(frame).data
                return (BookDelta(d.s, d.U, d.u, d.pu, d.b, d.a, d.E * 1000),)
            if kind in ("trade", "aggTrade"):
                return (self._trade(_decode_trade(frame).data),)
            if kind == "bookTicker":
                k = _decode_ticker(frame).data
                return (TickerEvent(k.s, k.u, k.b, k.B, k.a, k.A, k.T * 1000),)
            return self.parse_more(kind, frame)
        if other.error is not None or other.code is not None:
            problem = other.error or _Problem(other.code or 0, other.msg)
            return (Reply(-1 if other.id is None else other.id, f"{problem.code}: {problem.msg}"),)
        if other.id is not None:
            return (Reply(other.id),)
        raise MalformedFrame(f"{self.id} frame: neither a stream's nor an answer")

    def parse_more(self, kind: str, frame: bytes) -> Sequence[Event]:
        """The events of a stream that only this market has; may raise BAD."""
        raise MalformedFrame(f"{self.id} frame: nothing was subscribed as {kind[:80]!r}")

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        for frame in frames:
            if frame.startswith(b'{"stream":"') and b"@depth" in frame[:75] and b'"depthUpdate"' in frame:
                own = "ps" if b'"ps":' in frame else "pu" if b'"pu":' in frame else "U"
                return own == cls.chain
        return False


class Filter(Struct):
    """One entry of an instrument's ``filters``; only what we read."""

    filterType: str = ""  # noqa: N815
    tickSize: str = "0"  # noqa: N815
    stepSize: str = "0"  # noqa: N815
    minQty: str | None = None  # noqa: N815
    minNotional: str | None = None  # noqa: N815
    notional: str | None = None


class Entry(Struct):
    """One entry of exchange info's ``symbols``, as any of the three markets writes it."""

    symbol: str
    baseAsset: str  # noqa: N815
    quoteAsset: str  # noqa: N815
    filters: list[Filter]
    status: str = ""
    contractStatus: str = ""  # noqa: N815
    contractType: str = ""  # noqa: N815
    marginAsset: str | None = None  # noqa: N815
    contractSize: int | None = None  # noqa: N815
    deliveryDate: Millis = field(default=0)  # noqa: N815

    def filter(self, kind: str) -> Filter:
        """The filter of this type, or an empty one."""
        return next((f for f in self.filters if f.filterType == kind), Filter())


decode_entry = msgspec.json.Decoder(Entry).decode


def plain(text: str) -> str:
    """The decimal text without trailing zeros; raises ValueError for what is no number."""
    return format_decimal(*parse_decimal(text))
