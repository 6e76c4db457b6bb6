"""Gemini v2 market data: spot and perpetuals, whole-depth books by changes without numbers.

Source: Gemini WebSocket API, "Market Data Version 2", "Level 2 Data"; REST API "Symbol Details" (all); ccxt's gemini.
Proof: the first message of a subscription is the whole book; nothing numbers the changes, so a lost one shows only in a
crossed book or an audit (capture).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, plain
from collectors.cex.wire_values import Millis, asset, number, readable, unreadable
from collectors.venue import (
    TRADE,
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
    SyncRule,
    TradeEvent,
    Venue,
)
from market.instruments import perpetual_symbol, spot_symbol


class _Frame(Struct, gc=False):
    type: str = ""
    symbol: str = ""
    changes: list[tuple[str, str, str]] | None = None
    trades: Raw = Raw()
    result: str = ""
    reason: str = ""
    message: str = ""


class _Named(Struct):
    type: str = ""
    symbol: str = ""


class _Trade(Struct, gc=False):
    symbol: str
    event_id: int
    timestamp: Millis
    price: str
    quantity: str
    side: str


class _Symbol(Struct):
    symbol: str
    base_currency: str
    quote_currency: str
    tick_size: Raw
    quote_increment: Raw
    status: str
    min_order_size: Raw = Raw(b"0")
    product_type: str = "spot"
    contract_type: str = ""
    contract_price_currency: str | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_trade = msgspec.json.Decoder(_Trade).decode
_decode_symbols = msgspec.json.Decoder(list[Raw]).decode
_decode_symbol = msgspec.json.Decoder(_Symbol).decode

CLOSED = ("closed", "cancel_only")


class Gemini(Venue):
    """Gemini: whole-depth books, trades."""

    id = "gemini"
    rest_url = "https://api.gemini.com"
    ws_url = "wss://api.gemini.com"
    limits = Limits(
        instruments_per_connection=50,
        instruments_per_request=1,  # one unknown symbol refuses a whole list
        request_interval_s=0.05,
        connect_interval_s=2,
        rest_weight_per_minute=100,  # of 120
        reply_timeout_s=0,  # none is sent: the book itself is the answer
    )
    _rule = StreamBook()

    def ws_path(self) -> str:
        return "/v2/marketdata"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/v1/symbols/details/all")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_symbols(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} symbols: {error}") from error
        return readable(self.id, entries, self._listing)

    def _listing(self, entry: Raw) -> Listing:
        s = _decode_symbol(entry)
        base, quote = asset(s.base_currency), asset(s.quote_currency)
        settle = asset(s.contract_price_currency or quote) if s.product_type == "swap" else None
        return Listing(
            native_id=s.symbol.upper(),
            symbol=perpetual_symbol(base, quote, settle) if settle else spot_symbol(base, quote),
            base=base,
            quote=quote,
            settle=settle,
            kind="PERPETUAL" if settle else "SPOT",
            state="HALTED" if s.status in CLOSED else "TRADING",
            inverse=s.contract_type == "inverse",
            tick_size=plain(number(s.quote_increment)),  # what the venue calls tick_size is the lot
            lot_size=plain(number(s.tick_size)),
            min_size=plain(number(s.min_order_size)),
            contract_size="1" if settle else None,
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("subscribe", natives)]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("unsubscribe", natives)]

    @staticmethod
    def _request(verb: str, natives: Sequence[str]) -> bytes:
        return msgspec.json.encode({"type": verb, "subscriptions": [{"name": "l2", "symbols": list(natives)}]})

    def connection(self) -> Parser:
        seen: set[str] = set()

        def parse(frame: bytes) -> Sequence[Event]:
            events = self.parse(frame)
            for event in events:
                if isinstance(event, BookDelta) and event.native not in seen:
                    # A pair that nobody has traded yet may bring no past trades to mark its whole book.
                    seen.add(event.native)
                    return (BookSnapshot(event.native, -1, event.bids, event.asks),)
                if isinstance(event, BookSnapshot):
                    seen.add(event.native)
            return events

        return parse

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_frame(frame)
            if head.type == "trade":
                if TRADE not in self.channels:  # books bring them along unasked
                    return ()
                t = _decode_trade(frame)
                side = {"buy": "BUY", "sell": "SELL"}.get(t.side, "UNKNOWN")
                return (TradeEvent(t.symbol, str(t.event_id), side, t.price, t.quantity, t.timestamp * 1000),)
            if head.type == "l2_updates":
                return (self._book(head),)
        except BAD as error:
            if (native := self._of(frame)) is not None:
                return (unreadable(native, frame, error),)
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        if head.result == "error" or head.type == "error":
            return (Reply(error=f"{head.reason}: {head.message}"),)
        if not head.type and not head.result:
            raise MalformedFrame(f"{self.id} frame: of no type")
        return ()

    @staticmethod
    def _of(frame: bytes) -> str | None:
        """The instrument whose book a frame would change, if only it could be read."""
        try:
            named = _decode_named(frame)
        except BAD:
            return None
        return named.symbol if named.type == "l2_updates" and named.symbol else None

    @staticmethod
    def _book(head: _Frame) -> BookDelta | BookSnapshot:
        bids: list[Level] = []
        asks: list[Level] = []
        sides = {"buy": bids, "sell": asks}
        if head.changes is None or not head.symbol:
            raise ValueError("l2_updates without changes")
        for side, price, size in head.changes:
            sides[side].append((price, size))
        # Only the first message of a subscription brings past trades along, and it is the whole book.
        if bytes(head.trades)[:1] == b"[":
            return BookSnapshot(head.symbol, -1, bids, asks)
        return BookDelta(head.symbol, -1, -1, -1, bids, asks)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(frame.startswith(b'{"type":"l2_updates"') for frame in frames)
