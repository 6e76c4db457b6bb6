"""BitMEX: perpetuals, futures and spot; books by rows that are named by an id.

Source: BitMEX WebSocket API, "Subscriptions", "Response Format" (partial, insert, update, delete), "OrderBookL2"; API
Explorer "Instrument"; cryptofeed's bitmex. Proof: every row names an id that the book holds, else the stream is broken;
the quote table says the top of the book (capture, loosely: it travels beside the book).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal, Inexact, localcontext

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain
from collectors.cex.wire_values import asset, iso_us, known, number, readable, shifted, unreadable
from collectors.venue import (
    BOOK,
    FUNDING,
    LIQUIDATION,
    MARK_PRICE,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    Level,
    Limits,
    LiquidationEvent,
    Listing,
    MalformedFrame,
    MarkPriceEvent,
    OpenInterestEvent,
    Parser,
    Reply,
    RestRequest,
    StreamBook,
    StreamBroken,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import future_symbol, perpetual_symbol, spot_symbol


class _Request(Struct, frozen=True):
    args: list[str] | str = ""


class _Frame(Struct, gc=False):
    table: str = ""
    action: str = ""
    data: Raw = NONE
    filter: dict[str, str] = {}
    success: bool = False
    subscribe: str = ""
    error: str = ""
    info: str = ""
    unsubscribe: str = ""
    request: _Request = _Request()


class _Name(Struct):
    symbol: str


class _Named(Struct):
    table: str
    data: list[_Name]


class _Row(Struct, gc=False):
    symbol: str
    id: int
    side: str
    size: Raw = NONE
    price: Raw = NONE
    timestamp: str = ""


class _Trade(Struct, gc=False):
    symbol: str
    side: str
    size: Raw
    price: Raw
    timestamp: str
    trdMatchID: str = ""  # noqa: N815


class _Quote(Struct, gc=False):
    symbol: str
    timestamp: str
    bidPrice: Raw = NONE  # noqa: N815
    bidSize: Raw = NONE  # noqa: N815
    askPrice: Raw = NONE  # noqa: N815
    askSize: Raw = NONE  # noqa: N815


class _Forced(Struct, gc=False):
    symbol: str
    orderID: str  # noqa: N815
    side: str
    price: Raw
    leavesQty: Raw  # noqa: N815


class _Instrument(Struct, gc=False):
    symbol: str
    timestamp: str | None = None
    markPrice: Raw = NONE  # noqa: N815
    indicativeSettlePrice: Raw = NONE  # noqa: N815
    openInterest: Raw = NONE  # noqa: N815
    fundingRate: Raw = NONE  # noqa: N815
    fundingTimestamp: str | None = None  # noqa: N815
    fundingInterval: str | None = None  # noqa: N815


class _Entry(Struct):
    symbol: str
    state: str
    typ: str
    underlying: str
    quoteCurrency: str  # noqa: N815
    tickSize: Raw  # noqa: N815
    lotSize: Raw  # noqa: N815
    settlCurrency: str | None = None  # noqa: N815
    expiry: str | None = None
    isInverse: bool = False  # noqa: N815
    isQuanto: bool = False  # noqa: N815
    multiplier: Raw = NONE
    underlyingToPositionMultiplier: Raw = NONE  # noqa: N815
    underlyingToSettleMultiplier: Raw = NONE  # noqa: N815
    quoteToSettleMultiplier: Raw = NONE  # noqa: N815
    makerFee: Raw = NONE  # noqa: N815
    takerFee: Raw = NONE  # noqa: N815


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_rows = msgspec.json.Decoder(list[_Row]).decode
_decode_trades = msgspec.json.Decoder(list[_Trade]).decode
_decode_quotes = msgspec.json.Decoder(list[_Quote]).decode
_decode_forced = msgspec.json.Decoder(list[_Forced]).decode
_decode_instruments = msgspec.json.Decoder(list[_Instrument]).decode
_decode_entries = msgspec.json.Decoder(list[Raw]).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode

KINDS = {"FFWCSX": "PERPETUAL", "FFWCSF": "PERPETUAL", "FFCCSX": "FUTURE", "IFXXXP": "SPOT"}
"""What ``typ`` says; everything else is an index or a bet."""
STATES = {"Open": "TRADING", "Settled": "DELISTED", "Unlisted": "DELISTED"}
SMALL_UNITS = {"GWEI": "ETH", "LAMP": "SOL"}
TABLES = {TRADE: "trade", TICKER: "quote", LIQUIDATION: "liquidation"}
SATOSHI = "100000000"
EPOCH_OF_INTERVALS_US = iso_us("2000-01-01T00:00:00Z")
"""Intervals are written as a time on this day."""


def ratio(one: str, other: str) -> str | None:
    """The exact quotient of the two absolute values; None where it has none of reasonable length."""
    with localcontext() as context:
        context.prec, context.traps[Inexact] = 40, True
        try:
            return plain(str(abs(Decimal(one) / Decimal(other))))
        except ArithmeticError:
            return None


def contract_size(e: _Entry) -> str | None:
    """Inverse: its worth in the quote; quanto: settled coin for one unit of price; else: units of the base."""
    if e.isQuanto:
        return ratio(number(e.multiplier), SATOSHI)
    if e.isInverse:
        return ratio(number(e.multiplier), number(e.underlyingToSettleMultiplier))
    if known(e.underlyingToPositionMultiplier):
        return ratio("1", number(e.underlyingToPositionMultiplier))
    return ratio(number(e.multiplier), number(e.quoteToSettleMultiplier))


def _names(frame: bytes) -> list[str]:
    """The instruments whose books a frame would change, if only it could be read."""
    try:
        named = _decode_named(frame)
    except BAD:
        return []
    return sorted({row.symbol for row in named.data}) if named.table == "orderBookL2" else []


class Bitmex(Venue):
    """BitMEX: whole-depth books; sizes are contracts, also of spot pairs (``contract_size`` says of how much)."""

    id = "bitmex"
    rest_url = "https://www.bitmex.com"
    ws_url = "wss://ws.bitmex.com"
    limits = Limits(
        instruments_per_connection=100,
        instruments_per_request=10,
        request_interval_s=1,
        connect_interval_s=5,
        rest_weight_per_minute=25,  # of 30 without a key
        heartbeat_s=5,
    )
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})
    _rule = StreamBook()

    def ws_path(self) -> str:
        return "/realtime"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/api/v1/instrument/active")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_entries(body)
        except BAD as error:
            raise MalformedFrame(f"{self.id} instruments: {error}") from error
        return readable(self.id, entries, self._listing)

    def _listing(self, entry: Raw) -> Listing | None:
        e = _decode_entry(entry)
        kind = KINDS.get(e.typ)
        if kind is None:
            return None
        base, quote = asset(e.underlying), asset(e.quoteCurrency)
        settle = asset(SMALL_UNITS.get((e.settlCurrency or "").upper(), e.settlCurrency or quote))
        expiry_us = iso_us(e.expiry) if e.expiry and kind == "FUTURE" else None
        if kind == "SPOT":
            symbol = spot_symbol(base, quote)
        elif expiry_us is None:
            symbol = perpetual_symbol(base, quote, settle)
        else:
            symbol = future_symbol(base, quote, settle, expiry_us)
        maker, taker = known(e.makerFee), known(e.takerFee)
        return Listing(
            native_id=e.symbol,
            symbol=symbol,
            base=base,
            quote=quote,
            settle=None if kind == "SPOT" else settle,
            kind=kind,
            state=STATES.get(e.state, "HALTED"),
            inverse=e.isInverse,
            tick_size=plain(number(e.tickSize)),
            lot_size=plain(number(e.lotSize)),
            min_size=plain(number(e.lotSize)),
            contract_size=contract_size(e),
            maker_fee_bps=shifted(maker, 4) if maker else None,
            taker_fee_bps=shifted(taker, 4) if taker else None,
            expiry_us=expiry_us,
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("subscribe", natives)]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [self._request("unsubscribe", natives)]

    def _request(self, verb: str, natives: Sequence[str]) -> bytes:
        tables = ["orderBookL2", *(table for kind, table in TABLES.items() if kind in self.channels)]
        if self.channels & {FUNDING, MARK_PRICE, OPEN_INTEREST}:
            tables.append("instrument")
        return msgspec.json.encode({"op": verb, "args": [f"{table}:{name}" for table in tables for name in natives]})

    def heartbeat(self) -> bytes:
        return b"ping"

    def parse(self, frame: bytes) -> Sequence[Event]:
        return _Connection(self)(frame)

    def connection(self) -> Parser:
        return _Connection(self)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(frame.startswith(b'{"table":"orderBookL2') for frame in frames)


class _Connection:
    """One connection: which id is which price and side, and what a perpetual's funding was said to be."""

    def __init__(self, venue: Bitmex) -> None:
        self._name = venue.id
        self._channels = venue.channels
        self._rows: dict[str, dict[int, tuple[str, str]]] = {}
        self._funding: dict[str, FundingEvent] = {}

    def __call__(self, frame: bytes) -> Sequence[Event]:
        if frame == b"pong":
            return ()
        try:
            head = _decode_frame(frame)
            if head.table:
                return tuple(self._table(head))
        except BAD as error:
            if names := _names(frame):
                return tuple(unreadable(name, frame, error) for name in names)
            raise MalformedFrame(f"{self._name} frame: {error}") from error
        if head.error:
            return tuple(self._refused(head))
        if head.subscribe:
            table, _, native = head.subscribe.partition(":")
            return (Reply(native=native),) if table == "orderBookL2" else ()
        if not head.success and not head.info and not head.unsubscribe:
            raise MalformedFrame(f"{self._name} frame: neither a table's nor an answer")
        return ()

    def _refused(self, head: _Frame) -> Iterator[Reply]:
        args = [head.request.args] if isinstance(head.request.args, str) else head.request.args
        natives = {name for table, _, name in (arg.partition(":") for arg in args) if table == "orderBookL2"}
        named = {name for name in natives if name in head.error}
        for native in sorted(named or natives):
            yield Reply(error=head.error, native=native)
        if not natives:
            yield Reply(error=head.error)

    def _table(self, head: _Frame) -> Iterator[Event]:
        if head.table == "orderBookL2":
            yield from self._book(head)
        elif head.table == "instrument":
            for i in _decode_instruments(head.data):
                yield from self._state(i)
        elif head.table == "quote":
            for q in _decode_quotes(head.data):
                sides = (known(q.bidPrice), known(q.bidSize), known(q.askPrice), known(q.askSize))
                if all(sides):
                    yield TickerEvent(q.symbol, -1, *sides, iso_us(q.timestamp))
        elif head.action != "insert":
            return  # a partial of trades or liquidations is what happened before
        elif head.table == "trade":
            for t in _decode_trades(head.data):
                side, at_us = t.side.upper() or "UNKNOWN", iso_us(t.timestamp)
                yield TradeEvent(t.symbol, t.trdMatchID, side, number(t.price), number(t.size), at_us)
        elif head.table == "liquidation":
            for f in _decode_forced(head.data):
                yield LiquidationEvent(f.symbol, f.side.upper(), number(f.price), number(f.leavesQty), f.orderID)

    def _book(self, head: _Frame) -> Iterator[Event]:
        rows = _decode_rows(head.data)
        whole = head.filter.get("symbol") or (rows[0].symbol if rows else "") if head.action == "partial" else ""
        if whole:
            self._rows[whole] = {}
        changes: dict[str, tuple[list[Level], list[Level]]] = {}
        at_us = 0
        for row in rows:
            ids = self._rows.get(row.symbol)
            if ids is None:
                continue  # what comes before the partial is in it
            before = ids.get(row.id)
            price = known(row.price) or (before[0] if before else "")
            if not price or row.side not in ("Buy", "Sell"):
                yield StreamBroken(f"{row.symbol}: a row of id {row.id} that the book does not hold")
                return
            bids, asks = changes.setdefault(row.symbol, ([], []))
            if before and before[1] != row.side:  # an update may turn a level's side
                (bids if before[1] == "Buy" else asks).append((price, "0"))
            size = "0" if head.action == "delete" else number(row.size)
            (bids if row.side == "Buy" else asks).append((price, size))
            if head.action == "delete":
                ids.pop(row.id, None)
            else:
                ids[row.id] = (price, row.side)
            at_us = iso_us(row.timestamp) if row.timestamp and not at_us else at_us
        if whole:
            bids, asks = changes.get(whole, ([], []))
            yield BookSnapshot(whole, -1, bids, asks, at_us)
            return
        for native, (bids, asks) in changes.items():
            yield BookDelta(native, -1, -1, -1, bids, asks, at_us)

    def _state(self, i: _Instrument) -> Iterator[Event]:
        at_us = iso_us(i.timestamp) if i.timestamp else 0
        mark, index, interest, rate = map(known, (i.markPrice, i.indicativeSettlePrice, i.openInterest, i.fundingRate))
        if MARK_PRICE in self._channels and mark:
            yield MarkPriceEvent(i.symbol, mark, index, at_us)
        if OPEN_INTEREST in self._channels and interest:
            yield OpenInterestEvent(i.symbol, interest, "CONTRACT", at_us)
        if FUNDING in self._channels and (rate or i.fundingTimestamp or i.fundingInterval):
            funding = self._funding.setdefault(i.symbol, FundingEvent(i.symbol, ""))
            funding.rate = rate or funding.rate
            if i.fundingInterval:
                funding.interval_us = iso_us(i.fundingInterval) - EPOCH_OF_INTERVALS_US
            if i.fundingTimestamp:
                funding.next_us = iso_us(i.fundingTimestamp)
            if funding.rate:
                yield FundingEvent(i.symbol, funding.rate, funding.interval_us, funding.next_us, at_us)
