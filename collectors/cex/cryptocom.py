"""Crypto.com Exchange v1: spot, perpetuals, futures and warrants in one.

Source: Crypto.com Exchange API v1, "book.{instrument_name}.{depth}" (SNAPSHOT_AND_UPDATE), "trade", "ticker", "mark",
"funding", "public/get-instruments", "Heartbeat"; ccxt's cryptocom. Proof: ``pu`` names the update before, from the
snapshot in the stream on (documentation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain
from collectors.cex.wire_values import Id, Millis, asset, known, number, readable
from collectors.venue import (
    BOOK,
    FUNDING,
    MARK_PRICE,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    Answer,
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
    StreamChain,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import future_symbol, option_symbol, perpetual_symbol, spot_symbol

DEPTH = 50
HOUR_US = 3_600_000_000

_Rows = list[tuple[Raw, Raw, Raw]]
"""Price, size, number of orders."""


class _Result(Struct, gc=False):
    channel: str = ""
    instrument_name: str = ""
    data: Raw = NONE


class _Frame(Struct, gc=False):
    method: str
    id: int = -1
    code: int = 0
    message: str = ""
    result: _Result | None = None


class _Sides(Struct, gc=False):
    bids: _Rows = []
    asks: _Rows = []


class _Book(Struct, gc=False):
    u: Id
    pu: Id = -1
    t: Millis = 0
    bids: _Rows = []
    asks: _Rows = []
    update: _Sides | None = None


class _Trade(Struct, gc=False):
    d: str
    s: str
    p: Raw
    q: Raw
    t: Millis
    i: str


class _Ticker(Struct, gc=False):
    i: str
    t: Millis
    b: Raw = NONE
    bs: Raw = NONE
    k: Raw = NONE
    ks: Raw = NONE
    oi: Raw = NONE


class _Value(Struct, gc=False):
    v: Raw
    t: Millis


class _Instrument(Struct):
    symbol: str
    inst_type: str
    base_ccy: str
    quote_ccy: str
    price_tick_size: str
    qty_tick_size: str
    tradable: bool
    expiry_timestamp_ms: Millis = 0
    contract_size: str | None = None
    put_call: str = ""
    strike: str = ""


class _List(Struct):
    data: list[Raw]


class _Answer(Struct):
    result: _List


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_books = msgspec.json.Decoder(list[_Book]).decode
_decode_trades = msgspec.json.Decoder(list[_Trade]).decode
_decode_tickers = msgspec.json.Decoder(list[_Ticker]).decode
_decode_values = msgspec.json.Decoder(list[_Value]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_instrument = msgspec.json.Decoder(_Instrument).decode

KINDS = {"CCY_PAIR": "SPOT", "PERPETUAL_SWAP": "PERPETUAL", "FUTURE": "FUTURE", "WARRANT": "OPTION"}


def _levels(rows: _Rows) -> list[Level]:
    return [(number(price), number(size)) for price, size, _ in rows]


class BestLevels(StreamChain):
    """The chain of ``pu`` over the best 50 levels; what falls out of them is cut, whether or not a delete comes."""

    max_depth = DEPTH


class CryptoCom(Venue):
    """Crypto.com Exchange: books of 50 levels as they change, every 100 ms."""

    id = "cryptocom"
    rest_url = "https://api.crypto.com"
    ws_url = "wss://stream.crypto.com"
    limits = Limits(
        instruments_per_connection=80,  # 400 channels, up to five an instrument
        instruments_per_request=20,
        request_interval_s=0.1,
        connect_interval_s=1,
        rest_weight_per_minute=600,
        heartbeat_s=30,
    )
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST})
    _rule = BestLevels()

    def ws_path(self) -> str:
        return "/exchange/v1/market"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/exchange/v1/public/get-instruments")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_answer(body).result.data
        except BAD as error:
            raise MalformedFrame(f"{self.id} instruments: {error}") from error
        return readable(self.id, entries, self._listing)

    def _listing(self, entry: Raw) -> Listing | None:
        i = _decode_instrument(entry)
        kind = KINDS.get(i.inst_type)
        if kind is None:
            return None
        base, quote = asset(i.base_ccy), asset(i.quote_ccy)
        expiry_us = i.expiry_timestamp_ms * 1000 or None
        if kind == "SPOT":
            symbol = spot_symbol(base, quote)
        elif kind == "PERPETUAL":
            symbol = perpetual_symbol(base, quote, quote)
        elif kind == "FUTURE":
            symbol = future_symbol(base, quote, quote, expiry_us or 0)
        else:
            symbol = option_symbol(base, quote, quote, expiry_us or 0, i.strike, "C" if i.put_call == "CALL" else "P")
        return Listing(
            native_id=i.symbol,
            symbol=symbol,
            base=base,
            quote=quote,
            settle=None if kind == "SPOT" else quote,
            kind=kind,
            state="TRADING" if i.tradable else "HALTED",
            tick_size=plain(i.price_tick_size),
            lot_size=plain(i.qty_tick_size),
            min_size=plain(i.qty_tick_size),
            contract_size=plain(i.contract_size) if i.contract_size and kind != "SPOT" else None,
            expiry_us=expiry_us,
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def channels_of(self, native: str) -> list[str]:
        """The channels of one instrument; those of derivatives would be refused for a pair."""
        names = [f"book.{native}.{DEPTH}"]
        if TRADE in self.channels:
            names.append(f"trade.{native}")
        if self.channels & {TICKER, OPEN_INTEREST}:
            names.append(f"ticker.{native}")
        if MARK_PRICE in self.channels and "-" in native:
            names.append(f"mark.{native}")
        if FUNDING in self.channels and native.endswith("-PERP"):
            names.append(f"funding.{native}")
        return names

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        params = {"book_subscription_type": "SNAPSHOT_AND_UPDATE", "book_update_frequency": 100}
        return [self._request("subscribe", natives, request_id, params)]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("unsubscribe", natives, request_id, {})]

    def _request(self, method: str, natives: Sequence[str], request_id: int, more: dict[str, str | int]) -> bytes:
        channels = [name for native in natives for name in self.channels_of(native)]
        return msgspec.json.encode({"id": request_id, "method": method, "params": {"channels": channels, **more}})

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_frame(frame)
            if head.method == "public/heartbeat":
                return (Answer(msgspec.json.encode({"id": head.id, "method": "public/respond-heartbeat"})),)
            # The answer to a subscription may already carry the first book.
            events: list[Event] = [Reply(head.id)] if head.id > 0 and not head.code else []
            if head.code:
                events.append(Reply(head.id, f"{head.code}: {head.message}"))
            elif head.result is not None:
                events += self._update(head.result)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        return events

    def _update(self, r: _Result) -> Iterator[Event]:
        if r.channel == "book":
            for b in _decode_books(r.data):
                yield BookSnapshot(r.instrument_name, b.u, _levels(b.bids), _levels(b.asks), b.t * 1000)
        elif r.channel == "book.update":
            for b in _decode_books(r.data):
                if b.update is None:
                    raise ValueError("a book.update without update")
                bids, asks = _levels(b.update.bids), _levels(b.update.asks)
                yield BookDelta(r.instrument_name, b.u, b.u, b.pu, bids, asks, b.t * 1000)
        elif r.channel == "trade":
            for t in _decode_trades(r.data):
                yield TradeEvent(t.i, t.d, t.s.upper(), number(t.p), number(t.q), t.t * 1000)
        elif r.channel == "ticker":
            for k in _decode_tickers(r.data):
                bid, bid_size, ask, ask_size = map(known, (k.b, k.bs, k.k, k.ks))
                if TICKER in self.channels and bid and bid_size and ask and ask_size:
                    yield TickerEvent(k.i, -1, bid, bid_size, ask, ask_size, k.t * 1000)
                if OPEN_INTEREST in self.channels and "-" in k.i and (interest := known(k.oi)):
                    yield OpenInterestEvent(k.i, interest, "CONTRACT", k.t * 1000)
        elif r.channel == "mark":
            for v in _decode_values(r.data):
                yield MarkPriceEvent(r.instrument_name, number(v.v), "", v.t * 1000)
        elif r.channel == "funding":
            for v in _decode_values(r.data):
                yield FundingEvent(r.instrument_name, number(v.v), HOUR_US, 0, v.t * 1000)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"subscription":"book.' in frame and b'"instrument_name":"' in frame for frame in frames)
