"""Hyperliquid: perpetuals and spot of the chain's own order books.

Source: Hyperliquid API, "WebSocket / Subscriptions", "Timeouts and heartbeats", "Info endpoint", "Tick and lot size",
"Rate limits"; read beside ccxt's hyperliquid. Proof: full refresh, 20 levels a side, every message is the book
(documentation).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.cex.wire_json import BAD, NONE, step
from collectors.venue import (
    BOOK,
    FUNDING,
    MARK_PRICE,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    BookSnapshot,
    Event,
    FundingEvent,
    Limits,
    Listing,
    MalformedFrame,
    MarkPriceEvent,
    OpenInterestEvent,
    Parser,
    Reply,
    RestRequest,
    StreamBook,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import perpetual_symbol, spot_symbol

Millis = Annotated[int, Meta(ge=0, le=1 << 52)]


class _Level(Struct, gc=False):
    px: str
    sz: str


class _Book(Struct, gc=False):
    coin: str
    time: Millis
    levels: tuple[list[_Level], list[_Level]]


class _BookFrame(Struct, gc=False):
    data: _Book


class _Trade(Struct, gc=False):
    coin: str
    side: str
    px: str
    sz: str
    time: Millis
    tid: int


class _Best(Struct, gc=False):
    coin: str
    time: Millis
    bbo: tuple[_Level | None, _Level | None]


class _Ctx(Struct):
    funding: str = ""
    openInterest: str = ""  # noqa: N815
    markPx: str = ""  # noqa: N815
    oraclePx: str = ""  # noqa: N815


class _Context(Struct):
    coin: str
    ctx: _Ctx


class _Subscription(Struct):
    type: str = ""
    coin: str = ""


class _Response(Struct):
    method: str = ""
    subscription: _Subscription | None = None


class _Frame(Struct):
    channel: str
    data: Raw = NONE


class _Token(Struct):
    name: str
    index: int
    szDecimals: int  # noqa: N815


class _Entry(Struct):
    name: str
    szDecimals: int = 0  # noqa: N815
    isDelisted: bool = False  # noqa: N815
    tokens: tuple[int, int] | None = None


class _Meta(Struct):
    universe: list[Raw]
    tokens: list[_Token] | None = None


_decode_book = msgspec.json.Decoder(_BookFrame).decode
_decode_book_data = msgspec.json.Decoder(_Book).decode
_decode_trades = msgspec.json.Decoder(list[_Trade]).decode
_decode_best = msgspec.json.Decoder(_Best).decode
_decode_context = msgspec.json.Decoder(_Context).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_meta = msgspec.json.Decoder(_Meta).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

BOOKS = b'{"channel":"l2Book",'
SIDES = {"B": "BUY", "A": "SELL"}
HOUR_US = 3_600_000_000
PERPETUAL_DECIMALS, SPOT_DECIMALS = 6, 8
"""Prices have at most this many decimals less those of the size (and five significant digits)."""
WRAPPED = {
    "UDZ": "2Z", "UBONK": "BONK", "UBTC": "BTC", "UETH": "ETH", "UFART": "FARTCOIN", "HPENGU": "PENGU", "UPUMP": "PUMP",
    "USOL": "SOL", "UUUSPX": "SPX", "USDT0": "USDT", "XAUT0": "XAUT", "UXPL": "XPL",
}  # fmt: skip
"""Spot tokens that stand for another chain's, by the names that ccxt gives them."""
MIN_NOTIONAL = "10"
REFUSED = re.compile(r'"type":\s*"(\w+)".*?"coin":\s*"([^"]{1,80})"|"coin":\s*"([^"]{1,80})".*?"type":\s*"(\w+)"')
"""What was refused, as the venue repeats it in its message."""


class Hyperliquid(Venue):
    """Names are a perpetual's coin (BTC, kPEPE) or a spot pair's (PURR/USDC, @107); sizes are of the base."""

    id = "hyperliquid"
    rest_url = "https://api.hyperliquid.xyz"
    ws_url = "wss://api.hyperliquid.xyz"
    limits = Limits(
        instruments_per_connection=200,  # 1,000 subscriptions and ten connections an address
        instruments_per_request=1,
        request_interval_s=0.04,  # 2,000 messages a minute
        connect_interval_s=2,  # 30 a minute
        rest_weight_per_minute=600,  # of 1,200
        heartbeat_s=30,  # the venue cuts after 60 s of silence
    )
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST})
    _rule = StreamBook()

    def __init__(self, *, channels: Collection[str] = (BOOK, TRADE)) -> None:
        super().__init__(channels=channels)
        self._newest: dict[str, tuple[int, set[str]]] = {}
        """By coin: the time of its newest trades and their ids. A subscription begins with trades of before, and says not
        so; over a reconnection they would be published twice."""

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/info", 20, "POST", b'{"type":"meta"}'), RestRequest("/info", 20, "POST", b'{"type":"spotMeta"}')]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            meta = _decode_meta(body)
        except BAD as error:
            raise MalformedFrame(f"meta: {error}") from error
        tokens = None if meta.tokens is None else {token.index: token for token in meta.tokens}
        listings = (_perpetual(entry) if tokens is None else _spot(entry, tokens) for entry in meta.universe)
        return [listing for listing in listings if listing is not None]

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest("/info", 2, "POST", msgspec.json.encode({"type": "l2Book", "coin": native}))

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: the stream brings its own snapshots; REST numbers nothing."""
        try:
            return _book(_decode_book_data(body))
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def ws_path(self) -> str:
        return "/ws"

    def heartbeat(self) -> bytes:
        return b'{"method":"ping"}'

    def _frames(self, method: str, natives: Sequence[str]) -> list[bytes]:
        wanted = self.channels
        kinds = ["l2Book"]
        if TRADE in wanted:
            kinds.append("trades")
        if TICKER in wanted:
            kinds.append("bbo")
        if wanted & {FUNDING, MARK_PRICE, OPEN_INTEREST}:
            kinds.append("activeAssetCtx")
        return [
            msgspec.json.encode({"method": method, "subscription": {"type": kind, "coin": native}})
            for native in natives
            for kind in kinds
        ]

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("subscribe", natives)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("unsubscribe", natives)

    def connection(self) -> Parser:
        return lambda frame: self._unseen(self.parse(frame))

    def _unseen(self, events: Sequence[Event]) -> Sequence[Event]:
        """Without the trades that were said before; a frame holds trades of one coin, whose blocks follow each other."""
        trades = [event for event in events if isinstance(event, TradeEvent)]
        if not trades:
            return events
        before, ids = self._newest.get(trades[0].native, (-1, set[str]()))
        fresh = [t for t in trades if t.ts_venue_us > before or (t.ts_venue_us == before and t.trade_id not in ids)]
        if fresh:
            newest = max(t.ts_venue_us for t in fresh)
            known = ids if newest == before else set[str]()
            self._newest[trades[0].native] = (newest, known | {t.trade_id for t in fresh if t.ts_venue_us == newest})
        return fresh

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            if frame.startswith(BOOKS):
                return (_book(_decode_book(frame).data),)
            f = _decode_frame(frame)
            match f.channel:
                case "l2Book":
                    return (_book(_decode_book_data(f.data)),)
                case "trades":
                    return [
                        TradeEvent(t.coin, str(t.tid), SIDES.get(t.side, "UNKNOWN"), t.px, t.sz, t.time * 1000)
                        for t in _decode_trades(f.data)
                    ]
                case "bbo":
                    best = _decode_best(f.data)
                    bid, ask = best.bbo
                    if bid is None or ask is None:
                        return ()
                    return (TickerEvent(best.coin, -1, bid.px, bid.sz, ask.px, ask.sz, best.time * 1000),)
                case "activeAssetCtx" | "activeSpotAssetCtx":
                    return self._context(_decode_context(f.data))
                case "subscriptionResponse":
                    r = _decode_response(f.data)
                    if r.method == "subscribe" and r.subscription is not None and r.subscription.type == "l2Book":
                        return (Reply(native=r.subscription.coin),)
                    return ()
                case "error":
                    return _refusal(_decode_text(f.data))
                case _:
                    return ()  # pong, what was not asked for
        except BAD as error:
            raise MalformedFrame(f"hyperliquid frame: {error}") from error

    def _context(self, c: _Context) -> Sequence[Event]:
        events: list[Event] = []
        native, ctx, wanted = c.coin, c.ctx, self.channels
        if FUNDING in wanted and ctx.funding:
            events.append(FundingEvent(native, ctx.funding, HOUR_US))
        if MARK_PRICE in wanted and ctx.markPx:
            events.append(MarkPriceEvent(native, ctx.markPx, ctx.oraclePx))
        if OPEN_INTEREST in wanted and ctx.openInterest:
            events.append(OpenInterestEvent(native, ctx.openInterest, "BASE"))
        return events

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(frame.startswith(BOOKS) and b'"levels":' in frame for frame in frames)


def _book(b: _Book) -> BookSnapshot:
    bids, asks = ([(level.px, level.sz) for level in side] for side in b.levels)
    return BookSnapshot(b.coin, -1, bids, asks, b.time * 1000, refresh=True)


def _refusal(message: str) -> Sequence[Event]:
    found = REFUSED.search(message)
    kind, coin = ("", "") if found is None else (found[1] or found[4], found[2] or found[3])
    error = "" if message.startswith("Already subscribed") else message
    if kind == "l2Book":
        return (Reply(-1, error, coin),)
    return (Reply(-1, error),) if error else ()


def _perpetual(entry: Raw) -> Listing | None:
    try:
        e = _decode_entry(entry)
        base = e.name.upper()
        return Listing(
            native_id=e.name,
            symbol=perpetual_symbol(base, "USDC", "USDC"),
            base=base,
            quote="USDC",
            kind="PERPETUAL",
            tick_size=step(PERPETUAL_DECIMALS - e.szDecimals),
            lot_size=step(e.szDecimals),
            state="DELISTED" if e.isDelisted else "TRADING",
            settle="USDC",
            min_notional=MIN_NOTIONAL,
            contract_size="1",
        )
    except BAD:
        return None


def _spot(entry: Raw, tokens: dict[int, _Token]) -> Listing | None:
    try:
        e = _decode_entry(entry)
        if e.tokens is None:
            return None
        base, quote = (tokens[index] for index in e.tokens)
        names = [WRAPPED.get(token.name, token.name) for token in (base, quote)]
        return Listing(
            native_id=e.name,
            symbol=spot_symbol(*names),
            base=names[0],
            quote=names[1],
            kind="SPOT",
            tick_size=step(SPOT_DECIMALS - base.szDecimals),
            lot_size=step(base.szDecimals),
            min_notional=MIN_NOTIONAL,
        )
    except BAD:
        return None
