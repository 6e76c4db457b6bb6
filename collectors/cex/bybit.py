"""Bybit v5: spot, linear and inverse, one protocol on three addresses.

Source: Bybit API v5, "Websocket Stream / Public / Orderbook, Trade, Ticker, All Liquidation", "Connect", "Get
Instruments Info", "Get Orderbook"; read beside ccxt's bybit. Proof: update ids `u` without a hole, 1,000 levels; u =
1 is a new snapshot (documentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct, field

from collectors.cex.wire_json import BAD, millis_us, plain, plain_or_none
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
    Parser,
    Reply,
    RestRequest,
    StreamChain,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import future_symbol, perpetual_symbol, spot_symbol

Id = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Millis = Annotated[int, Meta(ge=0, le=1 << 52)]


class _Book(Struct, gc=False):
    s: str
    b: list[Level]
    a: list[Level]
    u: Id


class _Whole(Struct):
    result: _Book
    time: Millis = 0


class _BookFrame(Struct, gc=False):
    type: Literal["snapshot", "delta"]
    data: _Book
    ts: Millis = 0
    cts: Millis = 0


class _Trade(Struct, gc=False):
    s: str
    S: str
    v: str
    p: str
    i: str
    T: Millis


class _Ticker(Struct):
    """After the first of a connection, only what changed."""

    symbol: str
    markPrice: str = ""  # noqa: N815
    indexPrice: str = ""  # noqa: N815
    openInterest: str = ""  # noqa: N815
    fundingRate: str = ""  # noqa: N815
    nextFundingTime: str = ""  # noqa: N815
    fundingIntervalHour: str = ""  # noqa: N815


class _Forced(Struct):
    s: str
    S: str
    v: str
    p: str
    T: Millis


class _Frame(Struct):
    topic: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    ts: Millis = 0
    op: str = ""
    success: bool | None = None
    ret_msg: str = ""
    req_id: str = ""


class _Lot(Struct):
    basePrecision: str = ""  # noqa: N815
    qtyStep: str = ""  # noqa: N815
    minOrderQty: str = ""  # noqa: N815
    minOrderAmt: str = ""  # noqa: N815
    minNotionalValue: str = ""  # noqa: N815


class _Price(Struct):
    tickSize: str  # noqa: N815


class _Entry(Struct):
    symbol: str
    baseCoin: str  # noqa: N815
    quoteCoin: str  # noqa: N815
    status: str
    lotSizeFilter: _Lot  # noqa: N815
    priceFilter: _Price  # noqa: N815
    contractType: str = ""  # noqa: N815
    settleCoin: str = ""  # noqa: N815
    deliveryTime: str = ""  # noqa: N815


class _Result(Struct):
    entries: list[msgspec.Raw] = field(name="list")
    nextPageCursor: str = ""  # noqa: N815


class _Answer(Struct):
    retCode: int  # noqa: N815
    result: msgspec.Raw
    retMsg: str = ""  # noqa: N815


_decode_book = msgspec.json.Decoder(_BookFrame).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_trades = msgspec.json.Decoder(list[_Trade]).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_forced = msgspec.json.Decoder(list[_Forced]).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_result = msgspec.json.Decoder(_Result).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

DEPTH = 1000
DEEP = f'"topic":"orderbook.{DEPTH}.'.encode()
STATES = {"Trading": "TRADING", "Closed": "DELISTED"}
"""PreLaunch, Settling, Delivering and whatever comes: HALTED."""
SIDES = {"Buy": "BUY", "Sell": "SELL"}
HOUR_US = 3_600_000_000
CHAIN = StreamChain()


class BybitVenue(Venue):
    """What the three have in common; ids of a book are contiguous, so each delta's predecessor is u - 1."""

    rest_url = "https://api.bybit.com"
    ws_url = "wss://stream.bybit.com"
    category: ClassVar[str]
    open_interest_unit: ClassVar[str] = "BASE"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest(f"/v5/market/instruments-info?category={self.category}&limit=1000")]

    def next_instruments_request(self, request: RestRequest, body: bytes) -> RestRequest | None:
        cursor = self._page(body).nextPageCursor
        return RestRequest(f"{self.instruments_requests()[0].path}&cursor={cursor}") if cursor else None

    def _page(self, body: bytes) -> _Result:
        try:
            answer = _decode_answer(body)
            if answer.retCode != 0:
                raise ValueError(f"the venue says {answer.retCode}: {answer.retMsg[:80]}")
            return _decode_result(answer.result)
        except BAD as error:
            raise MalformedFrame(f"instruments info: {error}") from error

    def parse_instruments(self, body: bytes) -> list[Listing]:
        listings = (self._listing(entry) for entry in self._page(body).entries)
        return [listing for listing in listings if listing is not None]

    def _listing(self, entry: msgspec.Raw) -> Listing | None:
        try:
            e = _decode_entry(entry)
            lot = e.lotSizeFilter
            kind, settle, expiry_us = "SPOT", None, None
            if self.category == "spot":
                symbol = spot_symbol(e.baseCoin, e.quoteCoin)
            else:
                settle = e.settleCoin
                if e.contractType.endswith("Perpetual"):  # a perpetual's deliveryTime is when it is delisted
                    kind, symbol = "PERPETUAL", perpetual_symbol(e.baseCoin, e.quoteCoin, settle)
                else:
                    expiry_us = millis_us(e.deliveryTime)
                    kind, symbol = "FUTURE", future_symbol(e.baseCoin, e.quoteCoin, settle, expiry_us)
            return Listing(
                native_id=e.symbol,
                symbol=symbol,
                base=e.baseCoin,
                quote=e.quoteCoin,
                kind=kind,
                tick_size=plain(e.priceFilter.tickSize),
                lot_size=plain(lot.basePrecision or lot.qtyStep),
                state=STATES.get(e.status, "HALTED"),
                settle=settle,
                inverse=self.category == "inverse",
                min_size=plain_or_none(lot.minOrderQty),
                min_notional=plain_or_none(lot.minOrderAmt or lot.minNotionalValue),
                contract_size=None if settle is None else "1",  # of the base; inverse: 1 USD
                expiry_us=expiry_us,
            )
        except BAD:
            return None

    def snapshot_request(self, native: str) -> RestRequest:
        most = 200 if self.category == "spot" else 500
        return RestRequest(f"/v5/market/orderbook?category={self.category}&symbol={quote(native, safe='')}&limit={most}")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: its u is that of the stream with 1,000 levels."""
        try:
            w = _decode_whole(body)
            return BookSnapshot(native, w.result.u, w.result.b, w.result.a, w.time * 1000)
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return CHAIN

    def ws_path(self) -> str:
        return f"/v5/public/{self.category}"

    def heartbeat(self) -> bytes:
        return b'{"op":"ping"}'

    def _topics(self, natives: Sequence[str]) -> list[list[str]]:
        wanted = self.channels
        kinds = [f"orderbook.{DEPTH}"]
        if TRADE in wanted:
            kinds.append("publicTrade")
        if TICKER in wanted:
            kinds.append("orderbook.1")  # the tickers' deltas leave out the side that did not change
        if wanted & {FUNDING, MARK_PRICE, OPEN_INTEREST}:
            kinds.append("tickers")
        if LIQUIDATION in wanted:
            kinds.append("allLiquidation")
        return [[f"{kind}.{native}" for native in natives] for kind in kinds]

    def _frames(self, op: str, natives: Sequence[str], request_id: int) -> list[bytes]:
        books, *others = self._topics(natives)
        frames = [msgspec.json.encode({"op": op, "req_id": str(request_id), "args": books})]
        return frames + [msgspec.json.encode({"op": op, "args": topics}) for topics in others]

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("subscribe", natives, request_id)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("unsubscribe", natives, request_id)

    def connection(self) -> Parser:
        known: dict[str, FundingEvent] = {}
        return lambda frame: self._parse(frame, known)

    def parse(self, frame: bytes) -> Sequence[Event]:
        return self._parse(frame, {})

    def _parse(self, frame: bytes, known: dict[str, FundingEvent]) -> Sequence[Event]:
        try:
            if DEEP in frame[:50]:
                return (_book_event(_decode_book(frame)),)
            f = _decode_frame(frame)
            channel = f.topic.partition(".")[0]
            match channel:
                case "orderbook":
                    return self._book(f.topic, frame)
                case "publicTrade":
                    return [
                        TradeEvent(t.s, t.i, SIDES.get(t.S, "UNKNOWN"), t.p, t.v, t.T * 1000) for t in _decode_trades(f.data)
                    ]
                case "tickers":
                    return self._ticker(_decode_ticker(f.data), f.ts * 1000, known)
                case "allLiquidation":
                    # S is the position's side: a long one is closed by selling.
                    return [
                        LiquidationEvent(d.s, "SELL" if d.S == "Buy" else "BUY", d.p, d.v, "", d.T * 1000)
                        for d in _decode_forced(f.data)
                    ]
            return _reply(f)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error

    def _book(self, topic: str, frame: bytes) -> Sequence[Event]:
        f = _decode_book(frame)
        if not topic.startswith("orderbook.1."):
            return (_book_event(f),)
        d = f.data
        if f.type != "snapshot" or not d.b or not d.a:
            return ()
        return (TickerEvent(d.s, d.u, *d.b[0], *d.a[0], (f.cts or f.ts) * 1000),)

    def _ticker(self, t: _Ticker, ts_us: int, known: dict[str, FundingEvent]) -> Sequence[Event]:
        events: list[Event] = []
        if FUNDING in self.channels and (t.fundingRate or t.nextFundingTime):
            before = known.get(t.symbol)
            rate = t.fundingRate or (before.rate if before else "")
            interval_us = int(t.fundingIntervalHour) * HOUR_US if t.fundingIntervalHour.isdigit() else 0
            due_us = millis_us(t.nextFundingTime)
            if rate:
                event = FundingEvent(
                    t.symbol, rate, interval_us or (before.interval_us if before else 0),
                    due_us or (before.next_us if before else 0), ts_us,
                )  # fmt: skip
                known[t.symbol] = event
                events.append(event)
        if MARK_PRICE in self.channels and (t.markPrice or t.indexPrice):
            events.append(MarkPriceEvent(t.symbol, t.markPrice, t.indexPrice, ts_us))
        if OPEN_INTEREST in self.channels and t.openInterest:
            events.append(OpenInterestEvent(t.symbol, t.openInterest, self.open_interest_unit, ts_us))
        return events

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        for frame in frames:
            if b'"topic":"orderbook.' in frame and b'"data":{"s":"' in frame:
                return cls.category == ("inverse" if b'USD","b":' in frame else "linear")
            if b'"retCode":0' in frame and b'"category":"' in frame:
                return f'"category":"{cls.category}"'.encode() in frame
        return False


def _book_event(f: _BookFrame) -> Event:
    d, ts_us = f.data, (f.cts or f.ts) * 1000
    if f.type == "snapshot":
        return BookSnapshot(d.s, d.u, d.b, d.a, ts_us)
    return BookDelta(d.s, d.u, d.u, d.u - 1, d.b, d.a, ts_us)


def _reply(f: _Frame) -> Sequence[Event]:
    if f.topic:
        return ()
    if f.success is None:
        raise MalformedFrame("bybit frame: neither a topic's nor an answer")
    request_id = int(f.req_id) if f.req_id.isascii() and f.req_id.isdigit() and len(f.req_id) < 10 else -1
    if not f.success and "already subscribed" not in f.ret_msg:
        return (Reply(request_id, f.ret_msg or "refused"),)
    return (Reply(request_id),) if f.op == "subscribe" and request_id >= 0 else ()


class BybitSpot(BybitVenue):
    """Spot: ten topics a request."""

    id = "bybit-spot"
    offers = frozenset({BOOK, TRADE, TICKER})
    limits = Limits(
        instruments_per_connection=150,
        instruments_per_request=10,
        request_interval_s=0.1,
        connect_interval_s=0.7,  # 500 in five minutes: 429, and the burst
        connect_burst=60,
        rest_weight_per_minute=4000,  # of 600 in five seconds
        heartbeat_s=20,
    )
    category = "spot"


class BybitLinear(BybitVenue):
    """USDT and USDC perpetuals and futures; sizes are of the base."""

    id = "bybit-linear"
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})
    limits = Limits(
        instruments_per_connection=120,  # all topics of a connection together: 21,000 signs
        instruments_per_request=60,
        request_interval_s=0.1,
        connect_interval_s=0.7,
        connect_burst=60,
        rest_weight_per_minute=4000,
        heartbeat_s=20,
    )
    category = "linear"


class BybitInverse(BybitLinear):
    """Coin-margined; sizes are USD."""

    id = "bybit-inverse"
    category = "inverse"
    open_interest_unit = "QUOTE"
