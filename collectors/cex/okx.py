"""OKX v5, all markets in one: spot, perpetuals, futures, options.

Source: OKX API v5, "WebSocket / Public Channel", "Order book channel", "Get order book", "Connect"; read beside
ccxt's okx. Proof: prevSeqId chain, and the CRC32 of 25 levels wherever the venue sends one (capture; 0 since 2026).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from msgspec import Struct

from collectors.cex.okx_instruments import listing
from collectors.cex.wire_json import BAD, millis_us
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
    SyncRule,
    TextChecksum,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.book import OrderBook

Row = tuple[str, str, str, str]
"""Price, size, a retired field, number of orders."""


class _Arg(Struct):
    channel: str
    instId: str = ""  # noqa: N815


class _Frame(Struct):
    arg: _Arg | None = None
    data: list[msgspec.Raw] | None = None
    action: str = ""
    event: str = ""
    code: str = ""
    msg: str = ""
    id: str = ""


class _Book(Struct, gc=False):
    bids: list[Row]
    asks: list[Row]
    ts: str = ""
    checksum: int = 0
    seqId: int = -1  # noqa: N815
    prevSeqId: int = -1  # noqa: N815


class _BookFrame(Struct, gc=False):
    arg: _Arg
    action: str
    data: list[_Book]


class _Trade(Struct, gc=False):
    instId: str  # noqa: N815
    tradeId: str  # noqa: N815
    px: str
    sz: str
    side: str
    ts: str


class _Public(Struct):
    """The entries of the smaller channels; each channel has its own of these fields."""

    instId: str = ""  # noqa: N815
    ts: str = ""
    bidPx: str = ""  # noqa: N815
    bidSz: str = ""  # noqa: N815
    askPx: str = ""  # noqa: N815
    askSz: str = ""  # noqa: N815
    fundingRate: str = ""  # noqa: N815
    fundingTime: str = ""  # noqa: N815
    nextFundingTime: str = ""  # noqa: N815
    markPx: str = ""  # noqa: N815
    idxPx: str = ""  # noqa: N815
    oi: str = ""


class _ForcedOrder(Struct):
    bkPx: str  # noqa: N815
    sz: str
    side: str
    ts: str


class _Forced(Struct):
    instId: str  # noqa: N815
    details: list[_ForcedOrder]


class _Whole(Struct):
    data: list[_Book]


class _Answer(Struct):
    code: str
    data: list[msgspec.Raw]


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_book = msgspec.json.Decoder(_BookFrame).decode
_decode_one_book = msgspec.json.Decoder(_Book).decode
_decode_trade = msgspec.json.Decoder(_Trade).decode
_decode_public = msgspec.json.Decoder(_Public).decode
_decode_forced = msgspec.json.Decoder(_Forced).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode

BOOKS, INDEX = b'"channel":"books"', b'"channel":"index-tickers"'
SIDES = {"buy": "BUY", "sell": "SELL"}
OPTION_FAMILIES = ("BTC-USD", "ETH-USD")
"""Options are listed by family only."""
REFUSED = re.compile(r"channel:([\w-]+),\s*instId:([^\s,]+)")
"""How the venue names what it refuses, inside its message."""


class OkxBooks(TextChecksum):
    """The venue's texts are only kept where its snapshot is signed: it sends 0 for every book since 2026."""

    _signed = False

    def verify(self, book: OrderBook, event: BookDelta | BookSnapshot) -> bool | None:
        if isinstance(event, BookSnapshot):
            self._signed = bool(event.checksum)
        return super().verify(book, event) if self._signed else None


class Okx(Venue):
    """Sizes of derivatives are contracts; a name's dashes tell its kind: BTC-USDT, …-SWAP, …-260327, …-260327-50000-C."""

    id = "okx"
    rest_url = "https://www.okx.com"
    ws_url = "wss://ws.okx.com:8443"
    limits = Limits(
        instruments_per_connection=100,
        instruments_per_request=50,  # 480 requests an hour and connection: few and full
        request_interval_s=0.5,
        connect_interval_s=0.5,  # three a second
        rest_weight_per_minute=300,  # 20 in two seconds
        heartbeat_s=20,  # the venue cuts after 30 s of silence
    )
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})

    def instruments_requests(self) -> list[RestRequest]:
        path = "/api/v5/public/instruments?instType="
        kinds = [RestRequest(path + kind) for kind in ("SPOT", "SWAP", "FUTURES")]
        return kinds + [RestRequest(f"{path}OPTION&instFamily={family}") for family in OPTION_FAMILIES]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            answer = _decode_answer(body)
        except BAD as error:
            raise MalformedFrame(f"instruments: {error}") from error
        if answer.code != "0":
            raise MalformedFrame(f"instruments: the venue says {answer.code[:40]}")
        listings = (listing(entry) for entry in answer.data)
        return [one for one in listings if one is not None]

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v5/market/books?instId={quote(native, safe='')}&sz=400")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: the stream brings its own snapshots."""
        try:
            b = _decode_whole(body).data[0]
            return BookSnapshot(native, b.seqId, _levels(b.bids), _levels(b.asks), millis_us(b.ts))
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return OkxBooks()

    def ws_path(self) -> str:
        return "/ws/v5/public"

    def heartbeat(self) -> bytes:
        return b"ping"

    def _args(self, natives: Sequence[str]) -> list[dict[str, str]]:
        args = [{"channel": "books", "instId": native} for native in natives]
        wanted = self.channels
        for native in natives:
            dashes = native.count("-")
            names = [name for channel, name in ((TRADE, "trades"), (TICKER, "bbo-tbt")) if channel in wanted]
            if dashes >= 2:
                names += [name for channel, name in ((MARK_PRICE, "mark-price"), (OPEN_INTEREST, "open-interest"))
                          if channel in wanted]  # fmt: skip
            if FUNDING in wanted and native.endswith("-SWAP"):
                names.append("funding-rate")
            args += [{"channel": name, "instId": native} for name in names]
        return args

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        args = self._args(natives)
        contracts = [native for native in natives if native.count("-") == 2]
        if LIQUIDATION in self.channels:  # for a whole kind at once; asking again changes nothing
            kinds = {"SWAP" if native.endswith("-SWAP") else "FUTURES" for native in contracts}
            args += [{"channel": "liquidation-orders", "instType": kind} for kind in sorted(kinds)]
        if MARK_PRICE in self.channels:
            args += [{"channel": "index-tickers", "instId": name} for name in sorted({_index(n) for n in contracts})]
        return [msgspec.json.encode({"id": str(request_id), "op": "subscribe", "args": args})]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [msgspec.json.encode({"id": str(request_id), "op": "unsubscribe", "args": self._args(natives)})]

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            if BOOKS in frame[:40] and b'"action"' in frame:
                book = _decode_book(frame)
                return [_book_event(book.arg.instId, book.action, one) for one in book.data]
            if frame == b"pong":
                return ()
            return self._parse_other(_decode_frame(frame))
        except BAD as error:
            raise MalformedFrame(f"okx frame: {error}") from error

    def _parse_other(self, f: _Frame) -> Sequence[Event]:
        if f.event:
            return _reply(f)
        if f.arg is None or f.data is None:
            raise MalformedFrame("okx frame: neither data nor an answer")
        native = f.arg.instId
        match f.arg.channel:
            case "books":
                return [_book_event(native, f.action, _decode_one_book(raw)) for raw in f.data]
            case "trades":
                trades = [_decode_trade(raw) for raw in f.data]
                return [
                    TradeEvent(t.instId, t.tradeId, SIDES.get(t.side, "UNKNOWN"), t.px, t.sz, millis_us(t.ts)) for t in trades
                ]
            case "bbo-tbt":
                books = [_decode_one_book(raw) for raw in f.data]
                return [
                    TickerEvent(native, b.seqId, *b.bids[0][:2], *b.asks[0][:2], millis_us(b.ts))
                    for b in books
                    if b.bids and b.asks
                ]
            case "liquidation-orders":
                return [
                    LiquidationEvent(
                        one.instId, "BUY" if d.side == "buy" else "SELL", d.bkPx, d.sz, "", millis_us(d.ts)
                    )
                    for one in map(_decode_forced, f.data)
                    for d in one.details
                ]  # fmt: skip
        found = (_public(f.arg.channel, native, _decode_public(raw)) for raw in f.data)
        return [event for event in found if event is not None]

    def connection(self) -> Parser:
        return _Connection(self)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(frame.startswith(b'{"arg":{"channel":"books","instId":"') for frame in frames)


class _Connection:
    """What comes for many instruments at once, or for their index, is said of this connection's own contracts only."""

    def __init__(self, venue: Okx) -> None:
        self._parse = venue.parse
        self._own: set[str] = set()
        self._of_index: dict[str, list[str]] = {}

    def __call__(self, frame: bytes) -> Sequence[Event]:
        if INDEX in frame[:45]:
            return self._indices(frame)
        events = self._parse(frame)
        for event in events:
            if isinstance(event, BookSnapshot) and event.native not in self._own:
                self._own.add(event.native)
                if event.native.count("-") == 2:
                    self._of_index.setdefault(_index(event.native), []).append(event.native)
        if events and isinstance(events[0], LiquidationEvent):
            return [event for event in events if isinstance(event, LiquidationEvent) and event.native in self._own]
        return events

    def _indices(self, frame: bytes) -> Sequence[Event]:
        try:
            ticks = [_decode_public(raw) for raw in _decode_frame(frame).data or ()]
            return [
                MarkPriceEvent(native, "", tick.idxPx, millis_us(tick.ts))
                for tick in ticks
                if tick.idxPx
                for native in self._of_index.get(tick.instId, ())
            ]
        except BAD as error:
            raise MalformedFrame(f"okx frame: {error}") from error


def _index(native: str) -> str:
    """The index below a contract: BTC-USD of BTC-USD-SWAP and BTC-USD_UM-SWAP."""
    return "-".join(native.split("-")[:2]).partition("_")[0]


def _levels(rows: list[Row]) -> list[Level]:
    return [(price, size) for price, size, _, _ in rows]


def _book_event(native: str, action: str, b: _Book) -> Event:
    bids, asks = _levels(b.bids), _levels(b.asks)
    if action == "snapshot":
        return BookSnapshot(native, b.seqId, bids, asks, millis_us(b.ts), b.checksum or None)
    if action != "update":
        raise MalformedFrame(f"okx frame: a book neither whole nor changed: {action[:40]!r}")
    first = b.prevSeqId + 1 if 0 <= b.prevSeqId < b.seqId else b.seqId
    return BookDelta(native, first, b.seqId, b.prevSeqId, bids, asks, millis_us(b.ts), b.checksum or None)


def _public(channel: str, native: str, p: _Public) -> Event | None:
    native, ts_us = p.instId or native, millis_us(p.ts)
    if channel == "tickers":
        if not (p.bidPx and p.askPx):
            return None
        return TickerEvent(native, -1, p.bidPx, p.bidSz, p.askPx, p.askSz, ts_us)
    if channel == "funding-rate":
        # fundingTime is the next payment, nextFundingTime the one behind it.
        due_us, after_us = millis_us(p.fundingTime), millis_us(p.nextFundingTime)
        return FundingEvent(native, p.fundingRate, max(0, after_us - due_us) if due_us else 0, due_us, ts_us)
    if channel == "mark-price":
        return MarkPriceEvent(native, p.markPx, "", ts_us)
    if channel == "open-interest":
        return OpenInterestEvent(native, p.oi, "CONTRACT", ts_us)
    return None


def _reply(f: _Frame) -> Sequence[Event]:
    if f.event == "subscribe":
        return (Reply(native=f.arg.instId),) if f.arg is not None and f.arg.channel == "books" else ()
    if f.event != "error":
        return ()
    problem = f"{f.code}: {f.msg}"
    if (named := REFUSED.search(f.msg)) is not None:
        # A refused book refuses its instrument; another channel's refusal is only worth a line in the log.
        return (Reply(-1, problem, named[2] if named[1] == "books" else ""),)
    return (Reply(int(f.id) if f.id.isascii() and f.id.isdigit() and len(f.id) < 10 else -1, problem),)
