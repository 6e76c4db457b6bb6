"""Bitget v2: spot and three kinds of futures on one address, told apart by `instType`.

Source: Bitget API v2, "Depth Channel", "Trading Channel", "Ticker Channel", "Get Symbol Info", "Get Contract Config",
"Get Orderbook Depth", "Get Merge Market Depth", "Websocket Intro"; read beside ccxt's bitget. Proof: CRC32 of 25
levels over the venue's texts (v1's capture: the same frames and rule); with unified accounts the predecessor `pseq`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar
from urllib.parse import quote as url_quote

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.cex.wire_json import BAD, NONE, millis_us, plain, plain_or_none, product, step, text
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
    Reply,
    RestRequest,
    SyncRule,
    TextChecksum,
    TickerEvent,
    TradeEvent,
    Venue,
    Verdict,
)
from market.decimals import format_decimal, parse_decimal
from market.instruments import future_symbol, perpetual_symbol, spot_symbol

CrcOrNone = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 32) - 1)] | None
SEQ_MAX = (1 << 63) - 1


class _Arg(Struct):
    channel: str
    instId: str = ""  # noqa: N815


class _Book(Struct, gc=False):
    bids: list[Level]
    asks: list[Level]
    ts: str = ""
    checksum: CrcOrNone = None
    seq: Raw = NONE
    pseq: Raw = NONE


class _Whole(Struct):
    bids: list[tuple[Raw, Raw]]
    asks: list[tuple[Raw, Raw]]
    """Texts of spot, numbers of futures."""
    ts: str = ""


class _WholeAnswer(Struct):
    data: _Whole


class _BookFrame(Struct, gc=False):
    action: str
    arg: _Arg
    data: list[_Book]


class _Trade(Struct, gc=False):
    ts: str
    price: str
    size: str
    side: str
    tradeId: str  # noqa: N815


class _Ticker(Struct):
    ts: str = ""
    bidPr: str = ""  # noqa: N815
    bidSz: str = ""  # noqa: N815
    askPr: str = ""  # noqa: N815
    askSz: str = ""  # noqa: N815
    fundingRate: str = ""  # noqa: N815
    nextFundingTime: str = ""  # noqa: N815
    markPrice: str = ""  # noqa: N815
    indexPrice: str = ""  # noqa: N815
    holdingAmount: str = ""  # noqa: N815


class _Frame(Struct):
    arg: _Arg | None = None
    action: str = ""
    data: Raw = NONE
    event: str = ""
    code: Raw = NONE
    msg: str = ""


class _Entry(Struct):
    symbol: str
    baseCoin: str  # noqa: N815
    quoteCoin: str  # noqa: N815
    status: str = ""
    symbolStatus: str = ""  # noqa: N815
    symbolType: str = ""  # noqa: N815
    pricePrecision: str = ""  # noqa: N815
    quantityPrecision: str = ""  # noqa: N815
    minTradeAmount: str = ""  # noqa: N815
    minTradeNum: str = ""  # noqa: N815
    minTradeUSDT: str = ""  # noqa: N815
    pricePlace: str = ""  # noqa: N815
    priceEndStep: str = ""  # noqa: N815
    sizeMultiplier: str = ""  # noqa: N815
    deliveryTime: str = ""  # noqa: N815
    supportMarginCoins: list[str] = []  # noqa: N815
    makerFeeRate: str = ""  # noqa: N815
    takerFeeRate: str = ""  # noqa: N815


class _Answer(Struct):
    code: str
    data: list[Raw]
    msg: str = ""


_decode_book = msgspec.json.Decoder(_BookFrame).decode
_decode_books = msgspec.json.Decoder(list[_Book]).decode
_decode_trades = msgspec.json.Decoder(list[_Trade]).decode
_decode_tickers = msgspec.json.Decoder(list[_Ticker]).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_whole = msgspec.json.Decoder(_WholeAnswer).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

BOOKS = b'"channel":"books"'
SIDES = {"buy": "BUY", "sell": "SELL"}
STATES = {"online": "TRADING", "normal": "TRADING", "off": "DELISTED"}
"""offline, halt, gray, listed, maintain, limit_open, restrictedAPI and whatever comes: HALTED."""


class BitgetBooks(TextChecksum):
    """The checksum proves the book; `seq` only grows. Where the venue names the predecessor too, it must fit."""

    def follows(self, last_seq: int, delta: BookDelta) -> Verdict:
        if delta.prev_seq >= 0:
            return super().follows(last_seq, delta)
        return Verdict.STALE if 0 <= delta.last_seq <= last_seq else Verdict.APPLY


class BitgetVenue(Venue):
    """What the markets have in common. Sizes of futures are of the base, with coins as margin too."""

    rest_url = "https://api.bitget.com"
    ws_url = "wss://ws.bitget.com"
    limits = Limits(
        instruments_per_connection=50,  # fewer than 50 channels are recommended, 1,000 allowed
        instruments_per_request=40,  # 4,096 bytes a request
        request_interval_s=0.15,  # ten a second
        connect_interval_s=0.5,
        rest_weight_per_minute=600,
        heartbeat_s=25,  # the venue cuts after two minutes without a ping
    )
    category: ClassVar[str]
    aliases: ClassVar[frozenset[str]]
    """How the venue's frames name this market."""

    def instruments_requests(self) -> list[RestRequest]:
        if self.category == "SPOT":
            return [RestRequest("/api/v2/spot/public/symbols")]
        return [RestRequest(f"/api/v2/mix/market/contracts?productType={self.category}")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            answer = _decode_answer(body)
        except BAD as error:
            raise MalformedFrame(f"symbols: {error}") from error
        if answer.code != "00000":
            raise MalformedFrame(f"symbols: the venue says {answer.code[:40]}: {answer.msg[:80]}")
        listings = (_listing(entry) for entry in answer.data)
        return [listing for listing in listings if listing is not None]

    def snapshot_request(self, native: str) -> RestRequest:
        symbol = url_quote(native, safe="")
        if self.category == "SPOT":
            return RestRequest(f"/api/v2/spot/market/orderbook?symbol={symbol}&type=step0&limit=150")
        return RestRequest(f"/api/v2/mix/market/merge-depth?productType={self.category}&symbol={symbol}&limit=max")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: the stream brings its own snapshots; REST numbers nothing."""
        try:
            w = _decode_whole(body).data
            bids, asks = ([(text(price), text(size)) for price, size in side] for side in (w.bids, w.asks))
            return BookSnapshot(native, -1, bids, asks, millis_us(w.ts))
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return BitgetBooks()

    def ws_path(self) -> str:
        return "/v2/ws/public"

    def heartbeat(self) -> bytes:
        return b"ping"

    def _frames(self, op: str, natives: Sequence[str]) -> list[bytes]:
        channels = ["books"]
        if TRADE in self.channels:
            channels.append("trade")
        if self.channels & {TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST}:
            channels.append("ticker")
        return [
            msgspec.json.encode(
                {"op": op, "args": [{"instType": self.category, "channel": c, "instId": native} for native in natives]}
            )
            for c in channels
        ]

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("subscribe", natives)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("unsubscribe", natives)

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            if BOOKS in frame[:75] and b'"data"' in frame:
                f = _decode_book(frame)
                return [_book(f.arg.instId, f.action, book) for book in f.data]
            return () if frame == b"pong" else self._parse_other(_decode_frame(frame))
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error

    def _parse_other(self, f: _Frame) -> Sequence[Event]:
        if f.event or text(f.code):
            return _reply(f)
        if f.arg is None or not bytes(f.data):
            raise MalformedFrame(f"{self.id} frame: neither data nor an answer")
        native = f.arg.instId
        match f.arg.channel:
            case "books":
                return [_book(native, f.action, book) for book in _decode_books(f.data)]
            case "trade":
                if f.action == "snapshot":  # the trades of before
                    return ()
                return [
                    TradeEvent(native, t.tradeId, SIDES.get(t.side, "UNKNOWN"), t.price, t.size, millis_us(t.ts))
                    for t in reversed(_decode_trades(f.data))
                ]
            case "ticker":
                return [event for t in _decode_tickers(f.data) for event in self._ticker(native, t)]
        return ()

    def _ticker(self, native: str, t: _Ticker) -> Sequence[Event]:
        events: list[Event] = []
        ts_us, wanted = millis_us(t.ts), self.channels
        if TICKER in wanted and t.bidPr and t.askPr:
            events.append(TickerEvent(native, -1, t.bidPr, t.bidSz, t.askPr, t.askSz, ts_us))
        if FUNDING in wanted and t.fundingRate:
            events.append(FundingEvent(native, t.fundingRate, 0, millis_us(t.nextFundingTime), ts_us))
        if MARK_PRICE in wanted and t.markPrice:
            events.append(MarkPriceEvent(native, t.markPrice, t.indexPrice, ts_us))
        if OPEN_INTEREST in wanted and t.holdingAmount:
            events.append(OpenInterestEvent(native, t.holdingAmount, "BASE", ts_us))
        return events

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        for frame in frames:
            if frame.startswith(b'{"action":"') and BOOKS in frame[:75]:
                kind = frame.partition(b'"instType":"')[2].partition(b'"')[0]
                return kind.decode("ascii", "replace").upper() in cls.aliases
        return False


def _seq(raw: Raw) -> int:
    """A number, with or without quotes; -1 where there is none."""
    found = text(raw)
    if not found or len(found) > 19 or not found.isascii() or not found.isdigit():
        return -1
    return min(int(found), SEQ_MAX)


def _book(native: str, action: str, b: _Book) -> Event:
    seq, ts_us = _seq(b.seq), millis_us(b.ts)
    if action == "snapshot":
        return BookSnapshot(native, seq, b.bids, b.asks, ts_us, b.checksum)
    if action != "update":
        raise MalformedFrame(f"bitget frame: a book neither whole nor changed: {action[:40]!r}")
    return BookDelta(native, seq, seq, _seq(b.pseq) or -1, b.bids, b.asks, ts_us, b.checksum)


def _reply(f: _Frame) -> Sequence[Event]:
    books = f.arg is not None and f.arg.channel == "books"
    native = f.arg.instId if f.arg is not None and books else ""
    if f.event == "error" or (not f.event and text(f.code) not in ("", "0")):
        return (Reply(-1, f"{text(f.code)}: {f.msg}", native),)
    return (Reply(native=native),) if f.event == "subscribe" and native else ()


def _listing(entry: Raw) -> Listing | None:
    try:
        e = _decode_entry(entry)
        base, quote, settle, expiry_us = e.baseCoin, e.quoteCoin, None, None
        if not e.symbolType:
            kind, symbol = "SPOT", spot_symbol(base, quote)
            tick, lot = step(int(e.pricePrecision)), step(int(e.quantityPrecision))
        else:
            coins = e.supportMarginCoins
            settle = base if base in coins else quote if quote in coins else coins[0]
            if e.symbolType == "perpetual":
                kind, symbol = "PERPETUAL", perpetual_symbol(base, quote, settle)
            else:
                expiry_us = millis_us(e.deliveryTime)
                kind, symbol = "FUTURE", future_symbol(base, quote, settle, expiry_us)
            mantissa, exponent = parse_decimal(e.priceEndStep)
            tick, lot = format_decimal(mantissa, exponent - int(e.pricePlace)), plain(e.sizeMultiplier)
        return Listing(
            native_id=e.symbol,
            symbol=symbol,
            base=base,
            quote=quote,
            kind=kind,
            tick_size=tick,
            lot_size=lot,
            state=STATES.get(e.status or e.symbolStatus, "HALTED"),
            settle=settle,
            inverse=False,  # sizes are of the base, whatever the margin
            min_size=plain_or_none(e.minTradeAmount or e.minTradeNum),
            min_notional=plain_or_none(e.minTradeUSDT) if quote == "USDT" else None,
            contract_size=None if settle is None else "1",
            maker_fee_bps=product(e.makerFeeRate, "10000") if e.makerFeeRate else None,
            taker_fee_bps=product(e.takerFeeRate, "10000") if e.takerFeeRate else None,
            expiry_us=expiry_us,
        )
    except BAD:
        return None


class BitgetSpot(BitgetVenue):
    """Spot."""

    id = "bitget-spot"
    offers = frozenset({BOOK, TRADE, TICKER})
    category = "SPOT"
    aliases = frozenset({"SPOT", "SP"})


class BitgetUsdt(BitgetVenue):
    """USDT perpetuals."""

    id = "bitget-usdt"
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST})
    category = "USDT-FUTURES"
    aliases = frozenset({"USDT-FUTURES"})


class BitgetUsdc(BitgetUsdt):
    """USDC perpetuals."""

    id = "bitget-usdc"
    category = "USDC-FUTURES"
    aliases = frozenset({"USDC-FUTURES"})


class BitgetCoin(BitgetUsdt):
    """Perpetuals and futures with coins as margin."""

    id = "bitget-coin"
    category = "COIN-FUTURES"
    aliases = frozenset({"COIN-FUTURES"})
