"""Poloniex v2 spot: books that begin in the stream and name their predecessor.

Source: Poloniex Spot API, "Public Channels / Book Level 2", "Trades", "Heartbeats", "Symbol Information"; ccxt's
poloniex.
Proof: lastId names the id before, from the snapshot on (capture).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain_or_none, step
from collectors.cex.wire_values import Id, Millis, asset, readable
from collectors.venue import (
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    Level,
    Limits,
    Listing,
    MalformedFrame,
    Reply,
    RestRequest,
    StreamChain,
    SyncRule,
    TradeEvent,
    Venue,
)
from market.instruments import spot_symbol


class _Frame(Struct, gc=False):
    channel: str = ""
    action: str = ""
    data: Raw = NONE
    event: str = ""
    message: str = ""
    symbols: list[str] = []


class _Book(Struct, gc=False):
    symbol: str
    bids: list[Level]
    asks: list[Level]
    id: Id
    lastId: Id = -1  # noqa: N815
    createTime: Millis = 0  # noqa: N815


class _Trade(Struct, gc=False):
    symbol: str
    quantity: str
    takerSide: str  # noqa: N815
    price: str
    id: str
    createTime: Millis = 0  # noqa: N815


class _Limit(Struct):
    priceScale: int  # noqa: N815
    quantityScale: int  # noqa: N815
    minQuantity: str = ""  # noqa: N815
    minAmount: str = ""  # noqa: N815


class _Market(Struct):
    symbol: str
    baseCurrencyName: str  # noqa: N815
    quoteCurrencyName: str  # noqa: N815
    state: str
    symbolTradeLimit: _Limit  # noqa: N815


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_books = msgspec.json.Decoder(list[_Book]).decode
_decode_trades = msgspec.json.Decoder(list[_Trade]).decode
_decode_markets = msgspec.json.Decoder(list[Raw]).decode
_decode_market = msgspec.json.Decoder(_Market).decode

BOOKS = "book_lv2"


class Poloniex(Venue):
    """Poloniex spot: the 20 best levels as they change, and trades."""

    id = "poloniex"
    rest_url = "https://api.poloniex.com"
    ws_url = "wss://ws.poloniex.com"
    limits = Limits(
        instruments_per_connection=200,
        instruments_per_request=1,  # a refusal does not say which symbol it means
        request_interval_s=0.02,
        connect_interval_s=0.5,
        rest_weight_per_minute=600,
        heartbeat_s=20,
        reply_timeout_s=0,  # a book's first message is its confirmation
    )
    _rule = StreamChain()

    def ws_path(self) -> str:
        return "/ws/public"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/markets")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_markets(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} markets: {error}") from error
        return readable(self.id, entries, self._listing)

    @staticmethod
    def _listing(entry: Raw) -> Listing:
        m = _decode_market(entry)
        base, quote = asset(m.baseCurrencyName), asset(m.quoteCurrencyName)
        return Listing(
            native_id=m.symbol,
            symbol=spot_symbol(base, quote),
            base=base,
            quote=quote,
            kind="SPOT",
            state="TRADING" if m.state == "NORMAL" else "HALTED",
            tick_size=step(m.symbolTradeLimit.priceScale),
            lot_size=step(m.symbolTradeLimit.quantityScale),
            min_size=plain_or_none(m.symbolTradeLimit.minQuantity),
            min_notional=plain_or_none(m.symbolTradeLimit.minAmount),
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("subscribe", natives)]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("unsubscribe", natives)]

    def _request(self, event: str, natives: Sequence[str]) -> bytes:
        channels = [BOOKS, "trades"] if TRADE in self.channels else [BOOKS]
        return msgspec.json.encode({"event": event, "channel": channels, "symbols": list(natives)})

    def heartbeat(self) -> bytes:
        return b'{"event":"ping"}'

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_frame(frame)
            if not head.event:
                return tuple(self._data(head))
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        if head.event == "error":
            return (Reply(error=head.message or "error"),)
        if head.event == "subscribe" and head.channel == BOOKS:
            return tuple(Reply(native=native) for native in head.symbols)
        return ()

    @staticmethod
    def _data(head: _Frame) -> Iterator[Event]:
        if head.channel == BOOKS:
            for b in _decode_books(head.data):
                if head.action == "snapshot":
                    yield BookSnapshot(b.symbol, b.id, b.bids, b.asks, b.createTime * 1000)
                elif head.action == "update":
                    yield BookDelta(b.symbol, b.id, b.id, b.lastId, b.bids, b.asks, b.createTime * 1000)
                else:
                    raise ValueError(f"a book's action {head.action[:40]!r}")
        elif head.channel == "trades":
            for t in _decode_trades(head.data):
                yield TradeEvent(t.symbol, t.id, t.takerSide.upper(), t.price, t.quantity, t.createTime * 1000)
        elif not head.channel:
            raise ValueError("neither a channel's nor an answer")

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"channel":"book_lv2"' in frame and b'"lastId":' in frame for frame in frames)
