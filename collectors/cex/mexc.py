"""MEXC spot v3: Protocol Buffers in the stream, JSON for answers and REST.

Source: MEXC Spot V3 API, "Websocket Market Streams" (Diff.Depth Stream, Trade Streams, Individual Symbol Book Ticker),
"How to properly maintain a local copy of the order book", "Exchange Information", and its websocket-proto definitions;
ccxt's mexc. Proof: fromVersion..toVersion of each update chain onto the REST book and onto each other (documentation).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.protobuf import fields, texts
from collectors.cex.wire_json import BAD, NONE, plain_or_none, step, text
from collectors.cex.wire_values import Id, Millis, asset, readable, shifted
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

CHANNEL, SYMBOL, SEND_TIME, DEPTH, DEALS, BOOK_TICKER = 1, 3, 6, 313, 314, 315
"""Fields of PushDataV3ApiWrapper."""
ASKS, BIDS, FROM_VERSION, TO_VERSION = 1, 2, 4, 5
"""Fields of PublicAggreDepthsV3Api."""
BOOKS, TRADES, TICKERS = (f"spot@public.aggre.{name}.v3.api.pb@100ms@" for name in ("depth", "deals", "bookTicker"))
BOOK_CHANNEL = re.compile(re.escape(BOOKS) + r"([^\s,\[\]]+)")


class _Answer(Struct):
    msg: str
    id: int = -1
    code: int = 0


class _Depth(Struct):
    lastUpdateId: Id  # noqa: N815
    bids: list[Level]
    asks: list[Level]
    timestamp: Millis = 0


class _Symbol(Struct):
    symbol: str
    baseAsset: str  # noqa: N815
    quoteAsset: str  # noqa: N815
    status: Raw
    baseAssetPrecision: Raw  # noqa: N815
    quoteAssetPrecision: Raw  # noqa: N815
    isSpotTradingAllowed: bool = True  # noqa: N815
    baseSizePrecision: str = ""  # noqa: N815
    quoteAmountPrecision: str = ""  # noqa: N815
    makerCommission: Raw = NONE  # noqa: N815
    takerCommission: Raw = NONE  # noqa: N815


class _Info(Struct):
    symbols: list[Raw]


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_depth = msgspec.json.Decoder(_Depth).decode
_decode_info = msgspec.json.Decoder(_Info).decode
_decode_symbol = msgspec.json.Decoder(_Symbol).decode

STATES = {"1": "TRADING", "3": "DELISTED"}


def _version(digits: str) -> int:
    if len(digits) > 18 or not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"no version: {digits[:40]!r}")
    return int(digits)


class MexcSpot(Venue):
    """MEXC spot: whole-depth changes every 100 ms, on REST books of up to 5,000 levels."""

    id = "mexc-spot"
    rest_url = "https://api.mexc.com"
    ws_url = "wss://wbs-api.mexc.com"
    limits = Limits(
        instruments_per_connection=10,  # 30 channels, up to three an instrument
        instruments_per_request=10,
        request_interval_s=0.1,
        connect_interval_s=0.5,
        rest_weight_per_minute=1200,
        heartbeat_s=15,
        max_age_s=86_400,
    )
    offers = frozenset({BOOK, TRADE, TICKER})
    _rule = RangeChain()

    def ws_path(self) -> str:
        return "/ws"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/api/v3/exchangeInfo", 10)]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_info(body).symbols
        except BAD as error:
            raise MalformedFrame(f"{self.id} exchange info: {error}") from error
        return readable(self.id, entries, self._listing)

    def _listing(self, entry: Raw) -> Listing:
        s = _decode_symbol(entry)
        base, quote_asset = asset(s.baseAsset), asset(s.quoteAsset)
        state = STATES.get(text(s.status), "HALTED")
        maker, taker = text(s.makerCommission), text(s.takerCommission)
        return Listing(
            native_id=s.symbol,
            symbol=spot_symbol(base, quote_asset),
            base=base,
            quote=quote_asset,
            kind="SPOT",
            state="HALTED" if state == "TRADING" and not s.isSpotTradingAllowed else state,
            tick_size=step(int(text(s.quoteAssetPrecision))),
            lot_size=step(int(text(s.baseAssetPrecision))),
            min_size=plain_or_none(s.baseSizePrecision),
            min_notional=plain_or_none(s.quoteAmountPrecision),
            maker_fee_bps=shifted(maker, 4) if maker else None,
            taker_fee_bps=shifted(taker, 4) if taker else None,
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v3/depth?symbol={quote(native, safe='')}&limit=5000")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            book = _decode_depth(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} depth of {native}: {error}") from error
        return BookSnapshot(native, book.lastUpdateId, book.bids, book.asks, book.timestamp * 1000)

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("SUBSCRIPTION", natives)]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("UNSUBSCRIPTION", natives)]

    def _request(self, method: str, natives: Sequence[str]) -> bytes:
        kinds = ((BOOK, BOOKS), (TRADE, TRADES), (TICKER, TICKERS))
        params = [name + native for kind, name in kinds if kind in {BOOK, *self.channels} for native in natives]
        return msgspec.json.encode({"method": method, "params": params})

    def heartbeat(self) -> bytes:
        return b'{"method":"PING"}'

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            if frame[:1] == b"{":
                return self._answers(_decode_answer(frame))
            return tuple(self._push(frame))
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error

    @staticmethod
    def _answers(answer: _Answer) -> Sequence[Event]:
        # The answer names the channels, not the request; a refusal puts words around them.
        natives = BOOK_CHANNEL.findall(answer.msg)
        error = answer.msg if answer.code or answer.msg.startswith("Not ") else ""
        if error and not natives:
            return (Reply(error=error),)
        return tuple(Reply(native=native, error=error) for native in natives)

    def _push(self, frame: bytes) -> Iterator[Event]:
        native, at_us, kind, body = "", 0, 0, b""
        for number, value in fields(frame):
            if number == SYMBOL and isinstance(value, bytes):
                native = value.decode()
            elif number == SEND_TIME and isinstance(value, int):
                at_us = value * 1000
            elif number in (DEPTH, DEALS, BOOK_TICKER) and isinstance(value, bytes):
                kind, body = number, value
            elif number == CHANNEL and isinstance(value, bytes):
                native = native or value.decode().rpartition("@")[2]
        if not native or at_us >= 1 << 62:
            raise ValueError("a message of no symbol, or of no time of ours")
        if kind == DEPTH:
            yield self._book(native, body, at_us)
        elif kind == DEALS:
            yield from self._trades(native, body)
        elif kind == BOOK_TICKER:
            k = texts(body)
            yield TickerEvent(native, -1, k[1], k[2], k[3], k[4], at_us)

    @staticmethod
    def _book(native: str, body: bytes, at_us: int) -> BookDelta:
        sides: dict[int, list[Level]] = {ASKS: [], BIDS: []}
        versions = {FROM_VERSION: "", TO_VERSION: ""}
        for number, value in fields(body):
            if number in sides and isinstance(value, bytes):
                level = texts(value)
                sides[number].append((level[1], level[2]))
            elif number in versions and isinstance(value, bytes):
                versions[number] = value.decode()
        first, last = _version(versions[FROM_VERSION]), _version(versions[TO_VERSION])
        return BookDelta(native, first, last, -1, sides[BIDS], sides[ASKS], at_us)

    @staticmethod
    def _trades(native: str, body: bytes) -> Iterator[TradeEvent]:
        for number, value in fields(body):
            if number == 1 and isinstance(value, bytes):
                t = dict(fields(value))
                price, size, side, at_ms = t[1], t[2], t.get(3), t.get(4, 0)
                if not isinstance(price, bytes) or not isinstance(size, bytes) or not isinstance(at_ms, int):
                    raise ValueError("a deal without price, quantity or time")
                taker = {1: "BUY", 2: "SELL"}.get(side, "UNKNOWN") if isinstance(side, int) else "UNKNOWN"
                yield TradeEvent(native, "", taker, price.decode(), size.decode(), min(at_ms, 1 << 52) * 1000)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        mark = BOOKS.partition("@100ms")[0].encode()
        return any(frame[:1] == b"\n" and mark in frame[:80] for frame in frames)
