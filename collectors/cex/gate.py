"""Gate API v4, spot and futures: their common frames, and spot.

Source: Gate "Spot WebSocket v4" (order_book_update, trades, book_ticker), "APIv4: List all currency pairs", "Retrieve
order book"; ccxt's gate. Proof: ids U..u of each update chain onto the REST book's id and onto each other (capture).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, plain_or_none, step
from collectors.cex.wire_values import Id, Millis, asset, number, readable, shifted, time_us
from collectors.venue import (
    BOOK,
    TICKER,
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    Level,
    Limits,
    Listing,
    MalformedFrame,
    RangeChain,
    Reply,
    RestRequest,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import spot_symbol


class _Problem(Struct):
    code: int = 0
    message: str = ""


class Frame(Struct, gc=False):
    """What every frame has around its ``result``."""

    channel: str
    event: str = ""
    result: Raw = Raw(b"null")
    error: _Problem | None = None
    id: int | None = None
    time_ms: Millis = 0


class Depth(Struct, gc=False):
    """order_book_update of the spot market."""

    s: str
    U: Id
    u: Id
    b: list[Level] = []
    a: list[Level] = []
    t: Millis = 0


class BookTicker(Struct, gc=False):
    """book_ticker; futures write sizes as numbers."""

    s: str
    u: Id
    b: str
    B: Raw
    a: str
    A: Raw
    t: Millis = 0


class _Trade(Struct, gc=False):
    id: int
    currency_pair: str
    side: str
    amount: str
    price: str
    create_time_ms: str = "0"


class _Answer(Struct):
    id: Id
    bids: list[Level]
    asks: list[Level]
    update: Millis = 0


class _Pair(Struct):
    id: str
    base: str
    quote: str
    precision: int
    amount_precision: int
    trade_status: str = ""
    fee: str | None = None
    min_base_amount: str | None = None
    min_quote_amount: str | None = None


decode_frame = msgspec.json.Decoder(Frame).decode
decode_entries = msgspec.json.Decoder(list[Raw]).decode
_decode_depth = msgspec.json.Decoder(Depth).decode
_decode_ticker = msgspec.json.Decoder(BookTicker).decode
_decode_trades = msgspec.json.Decoder(_Trade | list[_Trade]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_pair = msgspec.json.Decoder(_Pair).decode

ANY_TIME = 123456
"""The ``time`` of a request: the documentation's own; only signed channels compare it with the clock."""


class GateVenue(Venue):
    """Frames, replies and lists as both products write them."""

    rest_url = "https://api.gateio.ws"
    limits = Limits(
        instruments_per_connection=100,
        instruments_per_request=1,  # books are subscribed one by one, and one unknown pair refuses a whole list
        request_interval_s=0.05,
        connect_interval_s=1,
        rest_weight_per_minute=1000,  # 200 in ten seconds for each endpoint
    )
    prefix: ClassVar[str]
    """Of the channels' names: spot, futures."""

    def request(self, channel: str, event: str, payload: list[str], request_id: int | None = None) -> bytes:
        """One frame; the id is left out where its answer does not matter."""
        frame = {"time": ANY_TIME, "channel": f"{self.prefix}.{channel}", "event": event, "payload": payload}
        return msgspec.json.encode(frame if request_id is None else {"id": request_id, **frame})

    def book_payload(self, native: str) -> tuple[str, list[str]]:
        """(channel, payload) of one book's subscription."""
        return "order_book_update", [native, "100ms"]

    def others(self) -> list[str]:
        """The channels beside the book."""
        kinds = ((TRADE, "trades"), (TICKER, "book_ticker"))
        return [name for kind, name in kinds if kind in self.channels]

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("subscribe", natives, request_id)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("unsubscribe", natives, request_id)

    def _requests(self, event: str, natives: Sequence[str], request_id: int) -> list[bytes]:
        books = [self.book_payload(native) for native in natives]
        frames = [self.request(channel, event, payload, request_id) for channel, payload in books]
        return frames + [self.request(name, event, list(natives)) for name in self.others()]

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = decode_frame(frame)
            if head.event in ("update", "all") and head.error is None:
                return self.update(head)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        if head.event in ("subscribe", "unsubscribe") or head.error is not None:
            problem = f"{head.error.code}: {head.error.message}" if head.error is not None else ""
            return (Reply(-1 if head.id is None else head.id, problem),) if problem or head.id is not None else ()
        return ()

    def update(self, head: Frame) -> Sequence[Event]:
        """The events of one update; may raise BAD."""
        raise NotImplementedError

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = decode_entries(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} instruments: {error}") from error
        return readable(self.id, entries, self.listing)

    def listing(self, entry: Raw) -> Listing:
        """One instrument; may raise BAD."""
        raise NotImplementedError

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        mark = f'"channel":"{cls.prefix}.'.encode()
        return any(mark in frame[:200] and b'"result"' in frame for frame in frames)


def ticker(result: Raw) -> TickerEvent:
    """A book_ticker's event; may raise BAD."""
    k = _decode_ticker(result)
    return TickerEvent(k.s, k.u, k.b, number(k.B), k.a, number(k.A), k.t * 1000)


class GateSpot(GateVenue):
    """Gate spot: updates every 100 ms over the whole depth, chained onto a REST book of up to 1,000 levels."""

    id = "gate-spot"
    ws_url = "wss://api.gateio.ws"
    offers = frozenset({BOOK, TRADE, TICKER})
    prefix = "spot"
    _rule = RangeChain()

    def ws_path(self) -> str:
        return "/ws/v4/"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/api/v4/spot/currency_pairs")]

    def listing(self, entry: Raw) -> Listing:
        p = _decode_pair(entry)
        base, quote_asset = asset(p.base), asset(p.quote)
        return Listing(
            native_id=p.id,
            symbol=spot_symbol(base, quote_asset),
            base=base,
            quote=quote_asset,
            kind="SPOT",
            state="HALTED" if p.trade_status in ("untradable", "") else "TRADING",
            tick_size=step(p.precision),
            lot_size=step(p.amount_precision),
            min_size=plain_or_none(p.min_base_amount),
            min_notional=plain_or_none(p.min_quote_amount),
            taker_fee_bps=shifted(p.fee, 2) if p.fee else None,
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v4/spot/order_book?currency_pair={quote(native, safe='')}&limit=1000&with_id=true")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            book = _decode_answer(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} order book of {native}: {error}") from error
        return BookSnapshot(native, book.id, book.bids, book.asks, book.update * 1000)

    def update(self, head: Frame) -> Sequence[Event]:
        if head.channel == "spot.order_book_update":
            d = _decode_depth(head.result)
            return (BookDelta(d.s, d.U, d.u, -1, d.b, d.a, d.t * 1000),)
        if head.channel == "spot.book_ticker":
            return (ticker(head.result),)
        if head.channel == "spot.trades":
            found = _decode_trades(head.result)
            return tuple(
                TradeEvent(t.currency_pair, str(t.id), t.side.upper(), t.price, t.amount, time_us(t.create_time_ms, 3))
                for t in (found if isinstance(found, list) else (found,))
            )
        return ()
