"""Gate API v4 futures: perpetuals settled in USDT or BTC, and dated contracts.

Source: Gate "Futures WebSocket v4" (obu, order_book_update, trades, book_ticker, tickers, public_liquidates), "Delivery
WebSocket v4", "APIv4: List all futures contracts"; ccxt's gate (the header). Proof: ids U..u chain onto the full book in
the stream (obu) or onto the REST book's id (documentation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.gate import Frame, GateVenue, decode_entries, ticker
from collectors.cex.wire_json import BAD, plain, text
from collectors.cex.wire_values import Id, Millis, asset, number, numbers, signed, time_us
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
    LiquidationEvent,
    Listing,
    MalformedFrame,
    MarkPriceEvent,
    OpenInterestEvent,
    Poll,
    RangeChain,
    RestRequest,
    StreamChain,
    SyncRule,
    TradeEvent,
)
from market.instruments import future_symbol, perpetual_symbol


class _Row(Struct, gc=False):
    p: Raw
    s: Raw


class _Depth(Struct, gc=False):
    s: str
    u: Id
    U: Id
    b: list[_Row] = []
    a: list[_Row] = []
    t: Millis = 0


class _Streamed(Struct, gc=False):
    s: str
    u: Id
    U: Id = -1
    b: list[tuple[Raw, Raw]] = []
    a: list[tuple[Raw, Raw]] = []
    t: Millis = 0
    full: bool = False


class _Trade(Struct, gc=False):
    id: int
    contract: str
    size: Raw
    price: str
    create_time: Millis = 0
    create_time_ms: Millis = 0


class _Liquidation(Struct, gc=False):
    contract: str
    size: Raw
    price: Raw
    time_ms: Millis = 0


class _Stats(Struct, gc=False):
    contract: str
    mark_price: str = ""
    index_price: str = ""
    total_size: Raw = Raw(b'""')


class _Answer(Struct):
    id: Id
    bids: list[_Row]
    asks: list[_Row]
    update: Raw = Raw(b"0")


class _Contract(Struct):
    name: str
    order_price_round: str
    quanto_multiplier: str = "0"
    status: str = "trading"
    in_delisting: bool = False
    order_size_min: Raw = Raw(b"1")
    enable_decimal: bool = False
    expire_time: int | None = None
    funding_rate: str = ""
    funding_interval: Millis = 0
    funding_next_apply: Raw = Raw(b"0")


_decode_depth = msgspec.json.Decoder(_Depth).decode
_decode_streamed = msgspec.json.Decoder(_Streamed).decode
_decode_trades = msgspec.json.Decoder(list[_Trade]).decode
_decode_liquidations = msgspec.json.Decoder(list[_Liquidation]).decode
_decode_stats = msgspec.json.Decoder(list[_Stats]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_contract = msgspec.json.Decoder(_Contract).decode

STATES = {"trading": "TRADING", "delisted": "DELISTED", "delivered": "DELISTED"}


def _rows(rows: list[_Row]) -> list[tuple[str, str]]:
    return [(number(row.p), number(row.s)) for row in rows]


class GateFutures(GateVenue):
    """Gate perpetuals in USDT: the 400 best levels, kept by the venue, whole in the stream at first (obu)."""

    id = "gate-futures"
    ws_url = "wss://fx-ws.gateio.ws"
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})
    headers: ClassVar[Mapping[str, str]] = {"X-Gate-Size-Decimal": "1"}
    """Without it, sizes of contracts that trade in fractions arrive cut to whole ones."""
    prefix = "futures"
    product: ClassVar[str] = "futures"
    settle: ClassVar[str] = "usdt"
    _rule: ClassVar[SyncRule] = StreamChain()

    def ws_path(self) -> str:
        return f"/v4/ws/{self.settle}"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest(f"/api/v4/{self.product}/{self.settle}/contracts")]

    def listing(self, entry: Raw) -> Listing:
        c = _decode_contract(entry)
        base, quote_asset = (asset(part) for part in c.name.split("_")[:2])
        settle = asset(self.settle)
        expiry_us = None if c.expire_time is None else c.expire_time * 1_000_000
        least = plain(number(c.order_size_min))
        fractional = c.enable_decimal and "." in least
        size = plain(c.quanto_multiplier)
        return Listing(
            native_id=c.name,
            symbol=(
                perpetual_symbol(base, quote_asset, settle)
                if expiry_us is None
                else future_symbol(base, quote_asset, settle, expiry_us)
            ),
            base=base,
            quote=quote_asset,
            settle=settle,
            kind="PERPETUAL" if expiry_us is None else "FUTURE",
            state=STATES.get(c.status, "HALTED"),
            inverse=settle == base,
            tick_size=plain(c.order_price_round),
            lot_size=least if fractional else "1",
            min_size=least,
            contract_size="1" if size == "0" else size,  # BTC_USD: one dollar, written as 0
            expiry_us=expiry_us,
        )

    def book_payload(self, native: str) -> tuple[str, list[str]]:
        return "obu", [f"ob.{native}.400"]

    def others(self) -> list[str]:
        names = super().others()
        if self.channels & {MARK_PRICE, OPEN_INTEREST}:
            names.append("tickers")
        if LIQUIDATION in self.channels:
            names.append("public_liquidates")
        return names

    def polls(self) -> list[Poll]:
        # The stream's funding rate comes without interval and next time.
        return [Poll(self.instruments_requests()[0], 60)] if FUNDING in self.channels else []

    def parse_poll(self, request: RestRequest, body: bytes) -> Sequence[Event]:
        events: list[Event] = []
        try:
            for entry in decode_entries(body):
                c = _decode_contract(entry)
                if c.funding_rate:
                    next_us = time_us(number(c.funding_next_apply), 6)
                    events.append(FundingEvent(c.name, c.funding_rate, c.funding_interval * 1_000_000, next_us))
        except BAD as error:
            raise MalformedFrame(f"{self.id} contracts: {error}") from error
        return events

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def update(self, head: Frame) -> Sequence[Event]:
        name = head.channel.partition(".")[2]
        if name == "obu":
            d = _decode_streamed(head.result)
            native = d.s.partition(".")[2].rpartition(".")[0]
            if d.full:
                return (BookSnapshot(native, d.u, numbers(d.b), numbers(d.a), d.t * 1000),)
            return (BookDelta(native, d.U, d.u, d.U - 1, numbers(d.b), numbers(d.a), d.t * 1000),)
        if name == "order_book_update":
            d = _decode_depth(head.result)
            return (BookDelta(d.s, d.U, d.u, -1, _rows(d.b), _rows(d.a), d.t * 1000),)
        if name == "book_ticker":
            return (ticker(head.result),)
        if name == "trades":
            return tuple(self._trade(t) for t in _decode_trades(head.result))
        if name == "tickers":
            return self._stats(_decode_stats(head.result), head.time_ms * 1000)
        if name == "public_liquidates":
            events: list[Event] = []
            for f in _decode_liquidations(head.result):
                side, size = signed(number(f.size))
                events.append(LiquidationEvent(f.contract, side, number(f.price), size, "", f.time_ms * 1000))
            return events
        return ()

    def _trade(self, t: _Trade) -> TradeEvent:
        side, size = signed(number(t.size))
        ts_us = t.create_time_ms * 1000 or t.create_time * 1_000_000
        return TradeEvent(t.contract, str(t.id), side, t.price, size, ts_us)

    def _stats(self, stats: list[_Stats], ts_us: int) -> list[Event]:
        events: list[Event] = []
        for k in stats:
            if MARK_PRICE in self.channels and (k.mark_price or k.index_price):
                events.append(MarkPriceEvent(k.contract, k.mark_price, k.index_price, ts_us))
            if OPEN_INTEREST in self.channels and text(k.total_size):
                events.append(OpenInterestEvent(k.contract, number(k.total_size), "CONTRACT", ts_us))
        return events

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return super().sniff(frames) and any(b'"ob.' in frame and b"futures.obu" in frame for frame in frames)


class _GateBridged(GateFutures):
    """The products without obu: updates over the best 100 levels, chained onto a REST book."""

    _rule = RangeChain()

    def book_payload(self, native: str) -> tuple[str, list[str]]:
        return "order_book_update", [native, "100ms", "100"]

    def snapshot_request(self, native: str) -> RestRequest:
        contract = quote(native, safe="")
        path = f"/api/v4/{self.product}/{self.settle}/order_book?contract={contract}&limit=100&with_id=true"
        return RestRequest(path)

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            book = _decode_answer(body)
            return BookSnapshot(native, book.id, _rows(book.bids), _rows(book.asks), time_us(number(book.update), 6))
        except BAD as error:
            raise MalformedFrame(f"{self.id} order book of {native}: {error}") from error

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return super(GateFutures, cls).sniff(frames) and any(cls.owns(frame) for frame in frames)

    @classmethod
    def owns(cls, frame: bytes) -> bool:
        """Whether a frame of the stream names a contract of this product."""
        return b'.order_book_update"' in frame and b'"U":' in frame and b'_USD"' in frame


class GateFuturesBtc(_GateBridged):
    """Gate perpetuals in BTC: inverse, a contract is one dollar."""

    id = "gate-futures-btc"
    settle = "btc"


class GateDelivery(_GateBridged):
    """Gate dated futures in USDT."""

    id = "gate-delivery"
    product = "delivery"
    offers = frozenset({BOOK, TRADE, TICKER, MARK_PRICE, OPEN_INTEREST})

    def ws_path(self) -> str:
        return f"/v4/ws/delivery/{self.settle}"

    @classmethod
    def owns(cls, frame: bytes) -> bool:
        return b'.order_book_update"' in frame and b'"U":' in frame and b'_USDT_20' in frame
