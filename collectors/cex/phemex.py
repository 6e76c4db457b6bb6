"""Phemex: spot, coin-margined perpetuals (scaled integers) and hedged perpetuals in USDT (decimal texts).

Source: Phemex API docs, "Public Spot API", "Public Contract API", "Public Hedged Perpetual API": "Subscribe full
orderbook", "Subscribe Trade", "Subscribe 24 Hours Ticker", "Query product information"; ccxt's phemex. Proof: sequence
grows, and about every minute the venue repeats the whole book at the sequence of its last change (capture).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain, plain_or_none, text
from collectors.cex.wire_values import Id, Nanos, asset, known, number, readable, shifted
from collectors.venue import (
    BOOK,
    FUNDING,
    MARK_PRICE,
    OPEN_INTEREST,
    TRADE,
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
    Parser,
    Reply,
    RestRequest,
    StreamBook,
    SyncRule,
    TradeEvent,
    Venue,
    Verdict,
)
from market.book import OrderBook
from market.decimals import format_decimal
from market.instruments import perpetual_symbol, spot_symbol

SPOT_SCALE, CONTRACT_SCALE, RATE_SCALE = 8, 4, 8
"""Decimals that scaled integers hide. A product of another scale is left out, as its frames could not be read."""


class _Scaled(Struct, gc=False):
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


class _Texts(Struct, gc=False):
    bids: list[Level]
    asks: list[Level]


class _Statistics(Struct, gc=False):
    symbol: str
    markPrice: int  # noqa: N815
    indexPrice: int  # noqa: N815
    fundingRate: int  # noqa: N815
    openInterest: int  # noqa: N815


class _Problem(Struct):
    code: int = 0
    message: str = ""


class _Frame(Struct, gc=False):
    symbol: str = ""
    type: str = ""
    sequence: Id = -1
    timestamp: Raw = NONE
    book: _Scaled | None = None
    orderbook_p: _Texts | None = None
    trades: list[tuple[Nanos, str, int, int]] | None = None
    trades_p: list[tuple[Nanos, str, str, str]] | None = None
    market24h: _Statistics | None = None
    method: str = ""
    fields: list[str] = []
    data: Raw = NONE
    id: int | None = None
    error: _Problem | None = None
    result: Raw = NONE


class _Products(Struct):
    products: list[Raw]
    perpProductsV2: list[Raw] = []  # noqa: N815


class _Answer(Struct):
    data: _Products


class _Product(Struct):
    symbol: str
    type: str
    quoteCurrency: str  # noqa: N815
    status: str
    baseCurrency: str = ""  # noqa: N815
    contractUnderlyingAssets: str = ""  # noqa: N815
    settleCurrency: str = ""  # noqa: N815
    contractSize: str = ""  # noqa: N815
    priceScale: int = 0  # noqa: N815
    tickSize: Raw = NONE  # noqa: N815
    lotSize: Raw = NONE  # noqa: N815
    qtyStepSize: Raw = NONE  # noqa: N815
    baseTickSize: str = ""  # noqa: N815
    baseTickSizeEv: int = 0  # noqa: N815
    quoteTickSize: str = ""  # noqa: N815
    minOrderValue: str = ""  # noqa: N815
    minOrderValueRv: str = ""  # noqa: N815


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_rows = msgspec.json.Decoder(list[list[Raw]]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_product = msgspec.json.Decoder(_Product).decode

PACK = ("symbol", "openRp", "highRp", "lowRp", "lastRp", "volumeRq", "turnoverRv", "openInterestRv", "indexRp", "markRp",
        "fundingRateRr", "predFundingRateRr")  # fmt: skip
"""The columns of a pack of statistics, where a frame does not name them."""


def hedged(native: str) -> bool:
    """Whether this is a perpetual of the newer kind: neither spot (s…) nor coin-margined (…USD)."""
    return not native.startswith("s") and not native.endswith("USD")


def scales(native: str) -> tuple[int, int]:
    """Decimals of a scaled price and of a scaled size; contracts are whole."""
    return (SPOT_SCALE, SPOT_SCALE) if native.startswith("s") else (CONTRACT_SCALE, 0)


def _levels(rows: list[tuple[int, int]], native: str) -> list[Level]:
    price_scale, size_scale = scales(native)
    return [(format_decimal(price, -price_scale), format_decimal(size, -size_scale)) for price, size in rows]


def _amount(words: str) -> str:
    """``0.000001`` of ``0.000001 BTC``."""
    return plain(words.partition(" ")[0].replace(",", ""))


SAME = 0
"""Stands where a checksum would: this whole book is at the sequence of the last change, so it must not differ."""


class Repeated(StreamBook):
    """Sequence numbers grow, by any step, so a missing one does not show until the venue repeats the book.

    Source: Phemex API docs, "Subscribe full orderbook": snapshots every 60 seconds, for self-verification.
    """

    has_checksum = True

    def bridges(self, snapshot_seq: int, delta: BookDelta) -> Verdict:
        return self.follows(snapshot_seq, delta)

    def follows(self, last_seq: int, delta: BookDelta) -> Verdict:
        return Verdict.APPLY if delta.last_seq > last_seq else Verdict.STALE

    def verify(self, book: OrderBook, event: BookDelta | BookSnapshot) -> bool | None:
        # A repeated book becomes a delta only where it differs from the mirror's.
        return False if isinstance(event, BookDelta) and event.checksum == SAME else None


class Phemex(Venue):
    """Phemex: whole-depth books, repeated by the venue every minute."""

    id = "phemex"
    rest_url = "https://api.phemex.com"
    ws_url = "wss://ws.phemex.com"
    limits = Limits(
        instruments_per_connection=9,  # 20 subscriptions: a book and trades for each, two statistics
        instruments_per_request=1,
        request_interval_s=0.06,  # 20 a second
        connect_interval_s=1,
        rest_weight_per_minute=100,
        heartbeat_s=10,
    )
    offers = frozenset({BOOK, TRADE, FUNDING, MARK_PRICE, OPEN_INTEREST})

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/public/products", 5)]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            data = _decode_answer(body).data
        except BAD as error:
            raise MalformedFrame(f"{self.id} products: {error}") from error
        return readable(self.id, [*data.products, *data.perpProductsV2], self._listing)

    def _listing(self, entry: Raw) -> Listing | None:
        p = _decode_product(entry)
        quote = asset(p.quoteCurrency)
        state = "TRADING" if p.status == "Listed" else "DELISTED" if p.status == "Delisted" else "HALTED"
        if p.type == "Spot":
            lot = _amount(p.baseTickSize)
            if p.priceScale != SPOT_SCALE or shifted(lot, SPOT_SCALE) != str(p.baseTickSizeEv):
                return None
            base = asset(p.baseCurrency)
            return Listing(
                p.symbol, spot_symbol(base, quote), base, quote, "SPOT", _amount(p.quoteTickSize), lot, state,
                min_notional=plain_or_none(_amount(p.minOrderValue)) if p.minOrderValue else None,
            )  # fmt: skip
        if not p.type.startswith("Perpetual") or (not hedged(p.symbol) and p.priceScale != CONTRACT_SCALE):
            return None
        base = asset((p.baseCurrency or p.contractUnderlyingAssets).replace(" ", ""))
        settle = asset(p.settleCurrency)
        lot = plain(number(p.qtyStepSize if hedged(p.symbol) else p.lotSize))
        return Listing(
            native_id=p.symbol,
            symbol=perpetual_symbol(base, quote, settle),
            base=base,
            quote=quote,
            settle=settle,
            kind="PERPETUAL",
            state=state,
            inverse=settle == base,
            tick_size=plain(number(p.tickSize)),
            lot_size=lot,
            min_notional=plain_or_none(p.minOrderValueRv),
            contract_size="1" if hedged(p.symbol) else _amount(p.contractSize),
        )

    def rule(self, native: str) -> SyncRule:
        return Repeated()

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        frames: list[bytes] = []
        for native in natives:
            kind = "_p" if hedged(native) else ""
            # Depth 0 is the whole book, which comes with the longer pause (true) only.
            frames.append(self._request(f"orderbook{kind}.subscribe", [native, True, 0], request_id))
            if TRADE in self.channels:
                frames.append(self._request(f"trade{kind}.subscribe", [native], 0))
        if self.channels & {FUNDING, MARK_PRICE, OPEN_INTEREST}:
            names = {"perp_market24h_pack_p" if hedged(n) else "market24h" for n in natives if not n.startswith("s")}
            frames += [self._request(f"{name}.subscribe", [], 0) for name in sorted(names)]
        return frames

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        # The venue's cancellation takes no symbol: it would end every book of the connection. A new subscription
        # brings the whole book again, which is all that a renewal needs.
        return []

    @staticmethod
    def _request(method: str, params: list[str | bool | int], request_id: int) -> bytes:
        return msgspec.json.encode({"id": request_id, "method": method, "params": params})

    def heartbeat(self) -> bytes:
        return b'{"id":0,"method":"server.ping","params":[]}'

    def connection(self) -> Parser:
        last: dict[str, int] = {}

        def parse(frame: bytes) -> Sequence[Event]:
            events = self.parse(frame)
            for event in events:
                if isinstance(event, BookDelta):
                    last[event.native] = event.last_seq
                elif isinstance(event, BookSnapshot) and 0 <= event.last_seq == last.get(event.native):
                    event.last_seq, event.checksum = -1, SAME  # a number would make it old news
            return events

        return parse

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_frame(frame)
            at_us = int(text(head.timestamp) or "0") // 1000
            if head.book is not None and head.symbol:
                bids, asks = _levels(head.book.bids, head.symbol), _levels(head.book.asks, head.symbol)
                return (self._book(head, bids, asks, at_us),)
            if head.orderbook_p is not None and head.symbol:
                return (self._book(head, head.orderbook_p.bids, head.orderbook_p.asks, at_us),)
            if head.trades is not None or head.trades_p is not None:
                return tuple(self._trades(head))
            if head.market24h is not None:
                return tuple(self._statistics(head.market24h, at_us))
            if head.method == "perp_market24h_pack_p.update":
                return tuple(self._pack(head, at_us))
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        if head.error is not None:
            return (Reply(head.id or -1, f"{head.error.code}: {head.error.message}"),)
        if head.id is None and not head.symbol and not head.method:
            raise MalformedFrame(f"{self.id} frame: neither a book's nor an answer")
        return (Reply(head.id),) if head.id else ()

    @staticmethod
    def _book(head: _Frame, bids: list[Level], asks: list[Level], at_us: int) -> BookDelta | BookSnapshot:
        if head.type == "snapshot":
            return BookSnapshot(head.symbol, head.sequence, bids, asks, at_us, refresh=True)
        if head.type != "incremental":
            raise ValueError(f"a book of type {head.type[:40]!r}")
        return BookDelta(head.symbol, head.sequence, head.sequence, -1, bids, asks, at_us)

    @staticmethod
    def _trades(head: _Frame) -> Iterator[Event]:
        if head.type != "incremental":
            return  # what happened before the subscription
        price_scale, size_scale = scales(head.symbol)
        for at_ns, side, price, size in head.trades or ():
            texts = format_decimal(price, -price_scale), format_decimal(size, -size_scale)
            yield TradeEvent(head.symbol, "", side.upper(), *texts, at_ns // 1000)
        for at_ns, side, price, size in head.trades_p or ():
            yield TradeEvent(head.symbol, "", side.upper(), price, size, at_ns // 1000)

    def _statistics(self, k: _Statistics, at_us: int) -> Iterator[Event]:
        mark, index = (format_decimal(price, -CONTRACT_SCALE) for price in (k.markPrice, k.indexPrice))
        rate = format_decimal(k.fundingRate, -RATE_SCALE)
        yield from self._derivative(k.symbol, mark, index, rate, str(k.openInterest), "CONTRACT", at_us)

    def _pack(self, head: _Frame, at_us: int) -> Iterator[Event]:
        names = head.fields or PACK
        for values in _decode_rows(head.data):
            row = dict(zip(names, values, strict=False))
            mark, index, rate, interest = (
                known(row[name]) for name in ("markRp", "indexRp", "fundingRateRr", "openInterestRv")
            )
            yield from self._derivative(text(row["symbol"]), mark, index, rate, interest, "BASE", at_us)

    def _derivative(
        self, native: str, mark: str, index: str, rate: str, interest: str, unit: str, at_us: int
    ) -> Iterator[Event]:
        if MARK_PRICE in self.channels and (mark or index):
            yield MarkPriceEvent(native, mark, index, at_us)
        if FUNDING in self.channels and rate:
            yield FundingEvent(native, rate, ts_venue_us=at_us)
        if OPEN_INTEREST in self.channels and interest:
            yield OpenInterestEvent(native, interest, unit, at_us)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        marks = (b'{"book":{"asks":', b'"orderbook_p":{"asks":')
        return any(b'"sequence":' in frame and any(mark in frame for mark in marks) for frame in frames)
