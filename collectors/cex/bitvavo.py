"""Bitvavo: spot against the euro and stablecoins.

Source: Bitvavo API, "Manage local order book", "Book subscription", "Trades subscription", "Get markets", "Get order
book", "Frequently asked questions"; read beside ccxt's bitvavo. Proof: the nonce of each book grows by one with every
event, from the REST book on (documentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote as url_quote

import msgspec
from msgspec import Struct

from collectors.cex.wire_json import BAD, plain, plain_or_none, step
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
    RangeChain,
    Reply,
    RestRequest,
    SyncRule,
    TradeEvent,
    Venue,
    Verdict,
)
from market.instruments import spot_symbol


class _Frame(Struct, gc=False):
    event: str = ""
    action: str = ""
    error: str = ""
    subscriptions: dict[str, list[str]] = {}


class _Book(Struct, gc=False):
    market: str
    nonce: Id
    bids: list[Level]
    asks: list[Level]


class _Trade(Struct, gc=False):
    market: str
    id: str
    amount: str
    price: str
    side: str
    timestamp: Millis = 0


class _Market(Struct):
    market: str
    status: str
    base: str
    quote: str
    tickSize: str  # noqa: N815
    quantityDecimals: int  # noqa: N815
    minOrderInBaseAsset: str | None = None  # noqa: N815
    minOrderInQuoteAsset: str | None = None  # noqa: N815


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_book = msgspec.json.Decoder(_Book).decode
_decode_trade = msgspec.json.Decoder(_Trade).decode
_decode_markets = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_market = msgspec.json.Decoder(_Market, strict=False).decode
"""Not strict: a number of decimals has come as a number and as a text."""

SIDES = {"buy": "BUY", "sell": "SELL"}
RESTART = 10_000
"""A nonce that falls by more was begun anew."""


class NonceChain(RangeChain):
    """The nonce grows by one, and begins anew when the matching engine does: then nothing would ever follow again."""

    def follows(self, last_seq: int, delta: BookDelta) -> Verdict:
        return Verdict.GAP if last_seq - delta.last_seq > RESTART else super().follows(last_seq, delta)


class Bitvavo(Venue):
    """Books of any depth, from the 1,000 best levels on; and trades."""

    id = "bitvavo"
    rest_url = "https://api.bitvavo.com/v2"
    ws_url = "wss://ws.bitvavo.com"
    limits = Limits(
        instruments_per_connection=100,
        instruments_per_request=1,  # a refusal does not say which market it means
        request_interval_s=0.05,
        connect_interval_s=0.5,
        rest_weight_per_minute=800,  # 1,000 for each address; who exceeds it is banned
    )
    _rule = NonceChain()

    def ws_path(self) -> str:
        return "/v2/"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/markets")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_markets(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} markets: {error}") from error
        return readable(self.id, entries, self._listing)

    @staticmethod
    def _listing(entry: msgspec.Raw) -> Listing:
        m = _decode_market(entry)
        base, quote = asset(m.base), asset(m.quote)
        return Listing(
            native_id=m.market,
            symbol=spot_symbol(base, quote),
            base=base,
            quote=quote,
            kind="SPOT",
            state="TRADING" if m.status == "trading" else "HALTED",
            tick_size=plain(m.tickSize),
            lot_size=step(m.quantityDecimals),
            min_size=plain_or_none(m.minOrderInBaseAsset),
            min_notional=plain_or_none(m.minOrderInQuoteAsset),
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/{url_quote(native, safe='')}/book")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            book = _decode_book(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} book of {native}: {error}") from error
        if book.market != native:
            raise MalformedFrame(f"{self.id}: asked for the book of {native}, got that of {book.market[:40]!r}")
        return BookSnapshot(native, book.nonce, book.bids, book.asks)

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("subscribe", natives)]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("unsubscribe", natives)]

    def _request(self, action: str, natives: Sequence[str]) -> bytes:
        names = ["book", "trades"] if TRADE in self.channels else ["book"]
        return msgspec.json.encode({"action": action, "channels": [{"name": n, "markets": list(natives)} for n in names]})

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_frame(frame)
            if head.subscriptions:  # an answer: it names all that is subscribed, not only what is new
                return tuple(Reply(native=native) for native in head.subscriptions.get("book", ()))
            if head.event == "book":
                b = _decode_book(frame)
                return (BookDelta(b.market, b.nonce, b.nonce, -1, b.bids, b.asks),)
            if head.event == "trade":
                t = _decode_trade(frame)
                return (TradeEvent(t.market, t.id, SIDES[t.side], t.price, t.amount, t.timestamp * 1000),)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        return (Reply(error=head.error),) if head.error else ()

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"event":"book"' in frame and b'"nonce":' in frame for frame in frames)
