"""KuCoin: spot, twice, and what spot and futures share.

Source: KuCoin API, "Market Data / Orderbook - Increment", "Orderbook - Level50", "Match", "Ticker", "Get Public Token", "Get
All Symbols"; read beside ccxt's kucoin. Proof: [sequenceStart, sequenceEnd] chains onto the REST snapshot (capture);
whole books of 50 levels where no key is at hand (documentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar
from urllib.parse import quote as url_quote

import msgspec
from msgspec import Meta, Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain, plain_or_none, product, text
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
    StreamBook,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import spot_symbol

Id = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Millis = Annotated[int, Meta(ge=0, le=1 << 52)]


class Frame(Struct):
    """The envelope of every frame."""

    type: str
    topic: str = ""
    subject: str = ""
    data: Raw = NONE
    id: str | int = ""
    code: str | int = ""


class Answer(Struct):
    """The envelope of every REST answer."""

    code: str
    data: Raw
    msg: str = ""


class _Changes(Struct, gc=False):
    bids: list[tuple[str, str, str]]
    asks: list[tuple[str, str, str]]


class _Update(Struct, gc=False):
    sequenceStart: Id  # noqa: N815
    sequenceEnd: Id  # noqa: N815
    symbol: str
    changes: _Changes
    time: Millis = 0


class _UpdateFrame(Struct, gc=False):
    data: _Update


class _Whole(Struct, gc=False):
    bids: list[Level]
    asks: list[Level]
    timestamp: Millis = 0
    time: Millis = 0
    sequence: str = ""


class _Match(Struct, gc=False):
    symbol: str
    tradeId: str  # noqa: N815
    side: str
    price: str
    size: str
    time: str


class _Ticker(Struct, gc=False):
    bestBid: str  # noqa: N815
    bestBidSize: str  # noqa: N815
    bestAsk: str  # noqa: N815
    bestAskSize: str  # noqa: N815
    sequence: str = ""
    time: Millis = 0


class _Server(Struct):
    endpoint: str


class _Token(Struct):
    token: str
    instanceServers: list[_Server]  # noqa: N815


class _Entry(Struct):
    symbol: str
    baseCurrency: str  # noqa: N815
    quoteCurrency: str  # noqa: N815
    baseIncrement: str  # noqa: N815
    priceIncrement: str  # noqa: N815
    enableTrading: bool  # noqa: N815
    baseMinSize: str = ""  # noqa: N815
    minFunds: str | None = None  # noqa: N815
    makerFeeCoefficient: str = ""  # noqa: N815
    takerFeeCoefficient: str = ""  # noqa: N815


decode_frame = msgspec.json.Decoder(Frame).decode
_decode_envelope = msgspec.json.Decoder(Answer).decode
_decode_update = msgspec.json.Decoder(_UpdateFrame).decode
_decode_update_data = msgspec.json.Decoder(_Update).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_match = msgspec.json.Decoder(_Match).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_token = msgspec.json.Decoder(_Token).decode
_decode_entries = msgspec.json.Decoder(list[Raw]).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

L2UPDATE = b'"subject":"trade.l2update"'
SIDES = {"buy": "BUY", "sell": "SELL"}
RENAMED = {"XBT": "BTC"}
BASIC_FEE_BPS = "10"
"""Of the lowest level; a symbol's coefficients multiply it."""


def answer(body: bytes, what: str) -> Raw:
    """What is inside a REST answer; raises MalformedFrame, also for the venue's own refusal."""
    try:
        envelope = _decode_envelope(body)
    except BAD as error:
        raise MalformedFrame(f"{what}: {error}") from error
    if envelope.code != "200000":
        raise MalformedFrame(f"{what}: the venue says {envelope.code[:40]}: {envelope.msg[:80]}")
    return envelope.data


def entries(body: bytes) -> list[Raw]:
    """The list inside a REST answer; raises MalformedFrame."""
    try:
        return _decode_entries(answer(body, "instruments"))
    except BAD as error:
        raise MalformedFrame(f"instruments: {error}") from error


def nanos_us(number: str) -> int:
    """Microseconds from a text of nanoseconds (19 digits) or milliseconds (13); ValueError for what is neither."""
    if not number or number == "0":
        return 0
    if len(number) not in (13, 16, 19) or not (number.isascii() and number.isdigit()):
        raise ValueError(f"no time: {number[:40]!r}")
    return int(number[:16].ljust(16, "0"))


def sequence(number: str) -> int:
    """A sequence number written as text; ValueError for what is none."""
    if not number or len(number) > 18 or not (number.isascii() and number.isdigit()):
        raise ValueError(f"no sequence number: {number[:40]!r}")
    return int(number)


class KucoinVenue(Venue):
    """The websocket's address comes from a call; topics hold many symbols."""

    limits = Limits(
        instruments_per_connection=90,  # 400 topics
        instruments_per_request=45,  # 100 topics
        request_interval_s=0.2,  # 100 in ten seconds
        connect_interval_s=1,
        rest_weight_per_minute=600,
        heartbeat_s=18,
    )
    topics: ClassVar[dict[str, str]]
    """By channel; the book's first."""

    def endpoint_request(self) -> RestRequest:
        return RestRequest("/api/v1/bullet-public", method="POST")

    def parse_endpoint(self, body: bytes) -> str:
        try:
            token = _decode_token(answer(body, "public token"))
            return f"{token.instanceServers[0].endpoint}?token={url_quote(token.token, safe='')}"
        except BAD as error:
            raise MalformedFrame(f"public token: {error}") from error

    def heartbeat(self) -> bytes:
        return b'{"id":"0","type":"ping"}'

    def _frames(self, kind: str, natives: Sequence[str], request_id: int) -> list[bytes]:
        wanted = dict.fromkeys(topic for channel, topic in self.topics.items() if channel == BOOK or channel in self.channels)
        return [
            msgspec.json.encode({
                # Only the books' request carries the id: the others' answers are nobody's.
                "id": str(request_id) if not number else f"{request_id}-{number}",
                "type": kind, "topic": f"{topic}:{','.join(natives)}", "privateChannel": False, "response": True,
            })
            for number, topic in enumerate(wanted)
        ]  # fmt: skip

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("subscribe", natives, request_id)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._frames("unsubscribe", natives, request_id)

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            if L2UPDATE in frame:
                return (_update(_decode_update(frame).data),)
            f = decode_frame(frame)
            if f.type == "message":
                return self.message(f)
            return _reply(f)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error

    def message(self, f: Frame) -> Sequence[Event]:
        """The events of a topic's frame; may raise what BAD names."""
        raise NotImplementedError


def _reply(f: Frame) -> Sequence[Event]:
    if f.type not in ("ack", "error"):
        return ()  # welcome, pong
    number = str(f.id)
    request_id = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else -1
    if f.type == "error":
        return (Reply(request_id, f"{f.code}: {text(f.data)}"),)
    return (Reply(request_id),) if request_id >= 0 else ()


def _levels(changes: list[tuple[str, str, str]]) -> list[Level]:
    if len(changes) > 1:  # an event may span the snapshot: absolute sizes in their order lead to the same end
        changes = sorted(changes, key=lambda change: sequence(change[2]))
    return [(price, size) for price, size, _ in changes if price != "0"]  # a price of 0 only moves the sequence


def _update(u: _Update) -> BookDelta:
    bids, asks = _levels(u.changes.bids), _levels(u.changes.asks)
    return BookDelta(u.symbol, u.sequenceStart, u.sequenceEnd, -1, bids, asks, u.time * 1000)


class KucoinSpot(KucoinVenue):
    """Spot without a key: whole books of 50 levels, ten times a second."""

    id = "kucoin-spot"
    rest_url = "https://api.kucoin.com"
    ws_url = "wss://ws-api-spot.kucoin.com"
    offers = frozenset({BOOK, TRADE, TICKER})
    topics: ClassVar[dict[str, str]] = {
        BOOK: "/spotMarket/level2Depth50", TRADE: "/market/match", TICKER: "/market/ticker"
    }  # fmt: skip
    _rule: ClassVar[SyncRule] = StreamBook()

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/api/v2/symbols", 4)]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        listings = (_listing(entry) for entry in entries(body))
        return [listing for listing in listings if listing is not None]

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v1/market/orderbook/level2_100?symbol={url_quote(native, safe='')}", 4)

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: whole books carry no number that its sequence could be compared with."""
        try:
            w = _decode_whole(answer(body, f"book of {native}"))
            return BookSnapshot(native, -1, w.bids, w.asks, w.time * 1000)
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def message(self, f: Frame) -> Sequence[Event]:
        native = f.topic.rpartition(":")[2]
        match f.subject:
            case "trade.l2update":
                return (_update(_decode_update_data(f.data)),)
            case "level2":
                w = _decode_whole(f.data)
                return (BookSnapshot(native, -1, w.bids, w.asks, w.timestamp * 1000, refresh=True),)
            case "trade.l3match":
                m = _decode_match(f.data)
                return (TradeEvent(m.symbol, m.tradeId, SIDES.get(m.side, "UNKNOWN"), m.price, m.size, nanos_us(m.time)),)
            case "trade.ticker":
                t = _decode_ticker(f.data)
                seq = sequence(t.sequence) if t.sequence else -1
                return (TickerEvent(native, seq, t.bestBid, t.bestBidSize, t.bestAsk, t.bestAskSize, t.time * 1000),)
        return ()


class KucoinSpotFull(KucoinSpot):
    """Spot in full depth: increments on a REST snapshot, which the venue only gives to a key (or a relay that has one)."""

    id = "kucoin-spot-full"
    topics: ClassVar[dict[str, str]] = {**KucoinSpot.topics, BOOK: "/market/level2"}
    _rule: ClassVar[SyncRule] = RangeChain()

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v3/market/orderbook/level2?symbol={url_quote(native, safe='')}", 3)

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            w = _decode_whole(answer(body, f"book of {native}"))
            return BookSnapshot(native, sequence(w.sequence), w.bids, w.asks, w.time * 1000)
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(L2UPDATE in frame and b'"sequenceStart":' in frame for frame in frames)


def _listing(entry: Raw) -> Listing | None:
    try:
        e = _decode_entry(entry)
        base, quote = RENAMED.get(e.baseCurrency, e.baseCurrency), e.quoteCurrency
        return Listing(
            native_id=e.symbol,
            symbol=spot_symbol(base, quote),
            base=base,
            quote=quote,
            kind="SPOT",
            tick_size=plain(e.priceIncrement),
            lot_size=plain(e.baseIncrement),
            state="TRADING" if e.enableTrading else "HALTED",
            min_size=plain_or_none(e.baseMinSize),
            min_notional=plain_or_none(e.minFunds),
            maker_fee_bps=product(e.makerFeeCoefficient, BASIC_FEE_BPS) if e.makerFeeCoefficient else None,
            taker_fee_bps=product(e.takerFeeCoefficient, BASIC_FEE_BPS) if e.takerFeeCoefficient else None,
        )
    except BAD:
        return None
