"""Upbit v1 (Korea): spot, whole books of 30 levels in every message.

Source: Upbit Open API, "WebSocket / Orderbook", "Trade", "WebSocket 사용 및 에러 안내", "List trading pairs", "List
orderbook instruments"; ccxt's upbit (and its pull request 26954: a request replaces the connection's former ones).
Proof: every message is the whole book (documentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain
from collectors.cex.wire_values import Millis, asset, number, readable
from collectors.venue import (
    TRADE,
    BookSnapshot,
    Event,
    Limits,
    Listing,
    MalformedFrame,
    Reply,
    RestRequest,
    StreamBook,
    SyncRule,
    TradeEvent,
    Venue,
)
from market.instruments import spot_symbol


class _Unit(Struct, gc=False):
    ask_price: Raw
    bid_price: Raw
    ask_size: Raw
    bid_size: Raw


class _Problem(Struct):
    name: str = ""
    message: str = ""


class _Frame(Struct, gc=False):
    type: str = ""
    code: str = ""
    timestamp: Millis = 0
    orderbook_units: list[_Unit] = []
    trade_price: Raw = NONE
    trade_volume: Raw = NONE
    trade_timestamp: Millis = 0
    ask_bid: str = ""
    sequential_id: int = 0
    stream_type: str = ""
    status: str = ""
    error: _Problem | None = None


class _Market(Struct):
    market: str
    tick_size: str = ""


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_markets = msgspec.json.Decoder(list[Raw]).decode
_decode_market = msgspec.json.Decoder(_Market).decode

LOT = "0.00000001"
SIDES = {"ASK": "SELL", "BID": "BUY"}
"""The taker's: ASK hit a bid."""


class Upbit(Venue):
    """Upbit: the 30 best levels, whole with each change, and trades."""

    id = "upbit"
    rest_url = "https://api.upbit.com"
    ws_url = "wss://api.upbit.com"
    limits = Limits(
        instruments_per_connection=1,  # a request replaces what its connection was subscribed to before
        instruments_per_request=1,
        request_interval_s=0.25,
        connect_interval_s=0.25,  # five a second
        rest_weight_per_minute=500,  # ten a second
        heartbeat_s=30,
        reply_timeout_s=0,  # none is sent: the book itself is the answer
    )
    _rule = StreamBook()

    def ws_path(self) -> str:
        return "/websocket/v1"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/v1/market/all")]

    def next_instruments_request(self, request: RestRequest, body: bytes) -> RestRequest | None:
        """The pairs' price steps have to be asked for by name."""
        if not request.path.startswith("/v1/market/all"):
            return None
        try:
            names = [_decode_market(entry).market for entry in _decode_markets(body)]
        except BAD as error:
            raise MalformedFrame(f"{self.id} markets: {error}") from error
        return RestRequest("/v1/orderbook/instruments?markets=" + quote(",".join(names), safe=","))

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_markets(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} markets: {error}") from error
        return readable(self.id, entries, self._listing)

    @staticmethod
    def _listing(entry: Raw) -> Listing | None:
        m = _decode_market(entry)
        if not m.tick_size:
            return None  # the list of names, without steps
        quote_asset, base = (asset(part) for part in m.market.split("-"))
        symbol = spot_symbol(base, quote_asset)
        return Listing(m.market, symbol, base, quote_asset, "SPOT", plain(m.tick_size), LOT)

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        request: list[dict[str, object]] = [
            {"ticket": f"venue-mirror-{request_id}"},
            {"type": "orderbook", "codes": list(natives)},
        ]
        if TRADE in self.channels:
            request.append({"type": "trade", "codes": list(natives), "is_only_realtime": True})
        return [msgspec.json.encode(request)]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return []  # there is no such request; a connection without an instrument is closed

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            f = _decode_frame(frame)
            if f.type == "orderbook" and f.code:
                # Units are pairs of a bid and an ask; the shorter side ends in zeros.
                bids = [(number(unit.bid_price), number(unit.bid_size)) for unit in f.orderbook_units]
                asks = [(number(unit.ask_price), number(unit.ask_size)) for unit in f.orderbook_units]
                return (BookSnapshot(f.code, -1, bids, asks, f.timestamp * 1000, refresh=True),)
            if f.type == "trade" and f.code:
                if f.stream_type == "SNAPSHOT":
                    return ()
                texts = number(f.trade_price), number(f.trade_volume)
                side, at_us = SIDES.get(f.ask_bid, "UNKNOWN"), f.trade_timestamp * 1000
                return (TradeEvent(f.code, str(f.sequential_id), side, *texts, at_us),)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        if f.error is not None:
            return (Reply(error=f"{f.error.name}: {f.error.message}"),)
        if not f.type and not f.status:
            raise MalformedFrame(f"{self.id} frame: of no type")
        return ()

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"orderbook_units":[' in frame and b'"code":"' in frame for frame in frames)
