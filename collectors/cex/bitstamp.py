"""Bitstamp v2: spot and perpetuals, books by changes that carry only their time.

Source: Bitstamp WebSocket API v2, "Live full order book", "Live ticker", "Requesting reconnect"; HTTP API "Order book",
"Markets"; ccxt's bitstamp. Proof: microtimestamp grows; the REST book must be younger than the stream's first change
(capture). The venue numbers nothing, so a lost message shows only in an audit or a crossed book.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, plain_or_none, step
from collectors.cex.wire_values import asset, readable, unreadable
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
    StreamBroken,
    SyncRule,
    TradeEvent,
    Venue,
    Verdict,
)
from market.instruments import perpetual_symbol, spot_symbol

BOOKS, TRADES = "diff_order_book_", "live_trades_"
TIMELESS = 1 << 62
"""The time of a change that cannot be read: never too old, so that the book finds it and begins anew."""


class _Frame(Struct, gc=False):
    event: str
    channel: str = ""
    data: Raw = Raw(b"{}")


class _Book(Struct, gc=False):
    microtimestamp: str
    bids: list[Level]
    asks: list[Level]


class _Trade(Struct, gc=False):
    id: int
    amount_str: str
    price_str: str
    type: int
    microtimestamp: str


class _Problem(Struct):
    message: str = ""


class _Market(Struct):
    market_symbol: str
    base_currency: str
    counter_currency: str
    base_decimals: int
    counter_decimals: int
    trading: str
    market_type: str = "SPOT"
    minimum_order_value: str | None = None
    minimum_order_amount: str | None = None
    contract_size: str | None = None


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_book = msgspec.json.Decoder(_Book).decode
_decode_trade = msgspec.json.Decoder(_Trade).decode
_decode_problem = msgspec.json.Decoder(_Problem).decode
_decode_markets = msgspec.json.Decoder(list[Raw]).decode
_decode_market = msgspec.json.Decoder(_Market).decode


def _time(digits: str) -> int:
    if len(digits) > 18 or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"no microtimestamp: {digits[:40]!r}")
    return int(digits)


class TimeOrder(SyncRule):
    """Events carry a time, no number. A book may start once the stream is known to reach back before it.

    Source: Bitstamp WebSocket API v2, "Live full order book": where the snapshot is older than the first buffered
    message, fetch another one; drop what is not younger than the snapshot. One object a book.
    """

    def __init__(self) -> None:
        self._covered = -1

    def bridges(self, snapshot_seq: int, delta: BookDelta) -> Verdict:
        if delta.last_seq <= snapshot_seq:
            self._covered = snapshot_seq
            return Verdict.STALE
        return Verdict.APPLY if delta.last_seq == TIMELESS or self._covered == snapshot_seq else Verdict.GAP

    def follows(self, last_seq: int, delta: BookDelta) -> Verdict:
        # Two messages may carry one time; an older one is out of order, and nobody knows what it overwrites.
        return Verdict.APPLY if delta.last_seq >= last_seq else Verdict.GAP


class Bitstamp(Venue):
    """Bitstamp: whole-depth books, trades."""

    id = "bitstamp"
    rest_url = "https://www.bitstamp.net"
    ws_url = "wss://ws.bitstamp.net"
    limits = Limits(
        instruments_per_connection=50,
        instruments_per_request=10,
        request_interval_s=0.05,
        connect_interval_s=1,
        rest_weight_per_minute=600,  # of 1,000: 10,000 in ten minutes
        heartbeat_s=30,
    )

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/api/v2/markets/")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_markets(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} markets: {error}") from error
        return readable(self.id, entries, self._listing)

    def _listing(self, entry: Raw) -> Listing:
        m = _decode_market(entry)
        base, quote_asset = asset(m.base_currency), asset(m.counter_currency)
        perpetual = m.market_type == "PERPETUAL"
        if not perpetual and m.market_type != "SPOT":
            raise ValueError(f"a kind of market that is unknown: {m.market_type}")
        return Listing(
            native_id=m.market_symbol,
            symbol=perpetual_symbol(base, quote_asset, quote_asset) if perpetual else spot_symbol(base, quote_asset),
            base=base,
            quote=quote_asset,
            settle=quote_asset if perpetual else None,
            kind="PERPETUAL" if perpetual else "SPOT",
            state="TRADING" if m.trading == "Enabled" else "HALTED",
            tick_size=step(m.counter_decimals),
            lot_size=step(m.base_decimals),
            min_size=plain_or_none(m.minimum_order_amount),
            min_notional=plain_or_none(m.minimum_order_value),
            contract_size=plain_or_none(m.contract_size),
        )

    def rule(self, native: str) -> SyncRule:
        return TimeOrder()

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v2/order_book/{quote(native, safe='')}/?group=1")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            book = _decode_book(body)
            time_us = _time(book.microtimestamp)
        except BAD as error:
            raise MalformedFrame(f"{self.id} order book of {native}: {error}") from error
        return BookSnapshot(native, time_us, book.bids, book.asks, time_us)

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("bts:subscribe", natives)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("bts:unsubscribe", natives)

    def _requests(self, event: str, natives: Sequence[str]) -> list[bytes]:
        kinds = [BOOKS, TRADES] if TRADE in self.channels else [BOOKS]
        channels = [kind + native for kind in kinds for native in natives]
        return [msgspec.json.encode({"event": event, "data": {"channel": channel}}) for channel in channels]

    def heartbeat(self) -> bytes:
        return b'{"event":"bts:heartbeat"}'

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_frame(frame)
            if head.event == "data" and head.channel.startswith(BOOKS):
                return (self._change(head, frame),)
            if head.event == "trade" and head.channel.startswith(TRADES):
                t = _decode_trade(head.data)
                native, side = head.channel.removeprefix(TRADES), "SELL" if t.type else "BUY"
                return (TradeEvent(native, str(t.id), side, t.price_str, t.amount_str, _time(t.microtimestamp)),)
            if head.event == "bts:subscription_succeeded":
                return (Reply(native=head.channel.removeprefix(BOOKS)),) if head.channel.startswith(BOOKS) else ()
            if head.event == "bts:error":
                problem = _decode_problem(head.data).message or "refused"
                return (Reply(error=f"{head.channel}: {problem}", native=head.channel.removeprefix(BOOKS)),)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        if head.event == "bts:request_reconnect":
            return (StreamBroken("the venue asks to connect anew"),)
        return ()

    @staticmethod
    def _change(head: _Frame, frame: bytes) -> BookDelta:
        native = head.channel.removeprefix(BOOKS)
        try:
            d = _decode_book(head.data)
            at_us = _time(d.microtimestamp)
        except BAD as error:
            return unreadable(native, frame, error, TIMELESS)
        return BookDelta(native, at_us, at_us, -1, d.bids, d.asks, at_us)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"diff_order_book_' in frame and b'"microtimestamp"' in frame for frame in frames)
