"""Bitfinex v2: spot and perpetuals, channels by number.

Source: Bitfinex API v2, "WS Public Books", "Trades", "Status", "Configuration", "WebSocket Checksum", REST "Configs",
"Book", "Liquidations"; read beside ccxt's bitfinex. Proof: the connection numbers every frame (flag SEQ_ALL, capture) and sends a
CRC32 over 25 levels of each book (flag OB_CHECKSUM, documentation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote as url_quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, millis_us, plain_or_none, text
from collectors.cex.wire_values import time_us
from collectors.venue import (
    BOOK,
    FUNDING,
    LIQUIDATION,
    MARK_PRICE,
    OPEN_INTEREST,
    TRADE,
    Answer,
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
    TextBook,
    TradeEvent,
    Venue,
)
from market.book import OrderBook
from market.checksums import INTERLEAVED_DEPTH, interleaved_crc32_of
from market.instruments import perpetual_symbol, spot_symbol


class _Event(Struct):
    event: str
    channel: str = ""
    chanId: int = -1  # noqa: N815
    symbol: str = ""
    key: str = ""
    code: int = 0
    msg: str = ""
    version: int = 0
    status: str = ""


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_rows = msgspec.json.Decoder(list[tuple[Raw, int, Raw]]).decode
_decode_row = msgspec.json.Decoder(tuple[Raw, int, Raw]).decode
_decode_trade = msgspec.json.Decoder(tuple[int, int, Raw, Raw]).decode
_decode_arrays = msgspec.json.Decoder(list[list[Raw]]).decode
_decode_configs = msgspec.json.Decoder(tuple[list[str], list[str], list[Raw], list[Raw], list[tuple[str, str]]]).decode
_decode_info = msgspec.json.Decoder(tuple[str, list[Raw]]).decode

CONF = b'{"event":"conf","flags":196608}'
"""SEQ_ALL 65536 and OB_CHECKSUM 131072."""
CONFIGS = "/v2/conf/pub:list:pair:exchange,pub:list:pair:futures,pub:info:pair,pub:info:pair:futures,pub:map:currency:sym"
LENGTH = "250"
DUPLICATE = 10301
RESTARTS = {20051: "the server is restarted", 20060: "maintenance begins", 20061: "maintenance is over"}
FUNDING_US = 8 * 3_600_000_000
STEP = "0.00000001"
"""Amounts have eight decimals; prices five significant digits and so no fixed tick."""
STATUS_LENGTH = 18
LIQUIDATIONS = "liq:global"
"""One channel for all instruments."""
EVERY_INSTRUMENT = 100_000


class BitfinexBooks(StreamBook):
    """The checksum of 25 levels a side over the wire's own numbers, an ask's amount being negative; one object a book."""

    has_checksum = True

    def __init__(self) -> None:
        self._texts = TextBook()

    def verify(self, book: OrderBook, event: BookDelta | BookSnapshot) -> bool | None:
        self._texts.take(book, event)
        if event.checksum is None:
            return None
        bids, asks = self._texts.best(book, INTERLEAVED_DEPTH)
        return interleaved_crc32_of(bids, [ask.replace(":", ":-") for ask in asks]) == event.checksum

    def reset(self) -> None:
        self._texts.clear()


class Bitfinex(Venue):
    """Names have the venue's t in front: tBTCUSD, tDUSK:USD, tBTCF0:USTF0. Its ticker's sizes are sums, so it is left out."""

    id = "bitfinex"
    rest_url = "https://api-pub.bitfinex.com"
    ws_url = "wss://api-pub.bitfinex.com"
    limits = Limits(
        instruments_per_connection=8,  # 25 channels, up to three an instrument
        instruments_per_request=1,
        request_interval_s=0.1,
        connect_interval_s=3.1,  # 20 a minute
        rest_weight_per_minute=30,
        heartbeat_s=15,
    )
    offers = frozenset({BOOK, TRADE, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION})

    def __init__(self, *, channels: Sequence[str] = (BOOK, TRADE)) -> None:
        super().__init__(channels=channels)
        self.numbers: dict[str, dict[str, int]] = {}
        """By instrument and channel, as its connection was told: a cancellation must name the number."""

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest(CONFIGS)]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            spot, futures, spot_info, futures_info, named = _decode_configs(body)
        except BAD as error:
            raise MalformedFrame(f"configs: {error}") from error
        names, smallest = dict(named), _smallest(spot_info) | _smallest(futures_info)
        listings = [_listing(pair, smallest.get(pair), names) for pair in dict.fromkeys((*spot, *futures))]
        return [listing for listing in listings if listing is not None]

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/v2/book/{url_quote(native, safe=':')}/P0?len=100")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """For audits: the stream brings its own snapshots; REST numbers nothing."""
        try:
            book = _book(native, body, -1)
            if not isinstance(book, BookSnapshot):
                raise ValueError("not a list of levels")
            return book
        except BAD as error:
            raise MalformedFrame(f"book of {native}: {error}") from error

    def rule(self, native: str) -> SyncRule:
        return BitfinexBooks()

    def ws_path(self) -> str:
        return "/ws/2"

    def beside(self) -> Venue | None:
        return BitfinexLiquidations(channels=(LIQUIDATION,)) if LIQUIDATION in self.channels else None

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        wanted: list[dict[str, str]] = []
        for native in natives:
            wanted.append({"channel": "book", "symbol": native, "prec": "P0", "freq": "F0", "len": LENGTH})
            if TRADE in self.channels:
                wanted.append({"channel": "trades", "symbol": native})
            if self.channels & {FUNDING, MARK_PRICE, OPEN_INTEREST} and "F0:" in native:
                wanted.append({"channel": "status", "key": f"deriv:{native}"})
        return [msgspec.json.encode({"event": "subscribe"} | channel) for channel in wanted]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        numbers = [number for native in natives for number in self.numbers.get(native, {}).values()]
        return [msgspec.json.encode({"event": "unsubscribe", "chanId": number}) for number in numbers]

    def parse(self, frame: bytes) -> Sequence[Event]:
        return _Connection(self)(frame)

    def connection(self) -> Parser:
        return _Connection(self)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"event":"subscribed"' in f and b'"chanId":' in f and b'"prec":"' in f for f in frames)


class BitfinexLiquidations(Bitfinex):
    """The one channel of all liquidations, on one connection: subscribed beside each book, each would be told many times."""

    limits = replace(
        Bitfinex.limits,
        instruments_per_connection=EVERY_INSTRUMENT,
        instruments_per_request=EVERY_INSTRUMENT,
        reply_timeout_s=0,  # its answer names no instrument; a refusal breaks the connection off, which has nothing else
    )

    def beside(self) -> Venue | None:
        return None

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return [msgspec.json.encode({"event": "subscribe", "channel": "status", "key": LIQUIDATIONS})]

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return []  # the others' are told by it too


class _Connection:
    """The numbers of one connection's channels, and the count of its frames."""

    def __init__(self, venue: Bitfinex) -> None:
        self._venue = venue
        self._channels: dict[int, tuple[str, str]] = {}
        self._last = -1

    def __call__(self, frame: bytes) -> Sequence[Event]:
        try:
            if frame.startswith(b"{"):
                return self._event(_decode_event(frame))
            return self._array(_decode_array(frame))
        except BAD as error:
            raise MalformedFrame(f"bitfinex frame: {error}") from error

    def _event(self, e: _Event) -> Sequence[Event]:
        native = e.symbol or e.key.removeprefix("deriv:")
        match e.event:
            case "info":
                if e.code in RESTARTS:
                    return (StreamBroken(RESTARTS[e.code]),)
                return (Answer(CONF),) if e.version else ()  # the first frame of all
            case "subscribed":
                self._channels[e.chanId] = (e.channel, native)
                self._venue.numbers.setdefault(native, {})[e.channel] = e.chanId
                return (Reply(native=native),) if e.channel == "book" else ()
            case "unsubscribed":
                channel, native = self._channels.pop(e.chanId, ("", ""))
                if self._venue.numbers.get(native, {}).get(channel) == e.chanId:
                    del self._venue.numbers[native][channel]
                    if not self._venue.numbers[native]:
                        del self._venue.numbers[native]
                return ()
            case "error":
                error = "" if e.code == DUPLICATE else f"{e.code}: {e.msg}"
                if error and e.key == LIQUIDATIONS:
                    return (StreamBroken(f"the liquidations were refused: {error}"),)
                return (Reply(-1, error, native if e.channel == "book" else ""),)
            case "conf":
                return (Reply(-1, "the flags were refused"),) if e.status not in ("", "OK") else ()
        return ()

    def _array(self, parts: list[Raw]) -> Sequence[Event]:
        number, payload = int(text(parts[0])), bytes(parts[1])
        named = payload.startswith(b'"')
        own = 3 if named and payload != b'"hb"' else 2  # what stands before the count
        seq = int(text(parts[own])) if len(parts) > own else -1
        if seq >= 0:
            before, self._last = self._last, max(self._last, seq)
            if seq <= before:
                return ()  # sent again
            if before >= 0 and seq != before + 1:
                return (StreamBroken(f"frame {seq} came after {before}"),)
        channel, native = self._channels.get(number, ("", ""))
        if channel == "book":
            if payload == b'"cs"':
                return (BookDelta(native, seq, seq, -1, [], [], 0, int(text(parts[2]))),)
            return () if named else (_book(native, payload, seq),)
        if channel == "trades":
            return (_trade(native, parts[2]),) if payload == b'"te"' else ()  # "tu" repeats it, a list is the past
        if channel == "status" and not named and native == LIQUIDATIONS:
            return list(_forced(payload))
        if channel == "status" and not named:
            return self._status(native, _decode_array(payload))
        return ()

    def _status(self, native: str, fields: list[Raw]) -> Sequence[Event]:
        if len(fields) < STATUS_LENGTH:
            raise ValueError("a status of a derivative that is too short")
        ts_us, index, due, rate, mark, interest = (text(fields[n]) for n in (0, 3, 7, 11, 14, 17))
        events: list[Event] = []
        wanted, time_us = self._venue.channels, millis_us(ts_us)
        if FUNDING in wanted and rate:
            events.append(FundingEvent(native, rate, FUNDING_US, millis_us(due), time_us))
        if MARK_PRICE in wanted and mark:
            events.append(MarkPriceEvent(native, mark, index, time_us))
        if OPEN_INTEREST in wanted and interest:
            events.append(OpenInterestEvent(native, interest, "BASE", time_us))
        return events


def _book(native: str, payload: bytes, seq: int) -> Event:
    whole = payload.startswith(b"[[") or payload == b"[]"
    bids: list[Level] = []
    asks: list[Level] = []
    for price, count, amount in _decode_rows(payload) if whole else (_decode_row(payload),):
        size = str(amount, "ascii")
        side = asks if size.startswith("-") else bids
        side.append((str(price, "ascii"), size.removeprefix("-") if count else "0"))
    if whole:
        return BookSnapshot(native, seq, bids, asks)
    return BookDelta(native, seq, seq, -1, bids, asks)


def _trade(native: str, raw: Raw) -> TradeEvent:
    trade_id, ts_ms, amount, price = _decode_trade(raw)
    size = text(amount)
    side = "SELL" if size.startswith("-") else "BUY"
    return TradeEvent(native, str(trade_id), side, text(price), size.removeprefix("-"), millis_us(str(ts_ms)))


def _forced(payload: bytes) -> Iterator[LiquidationEvent]:
    """Each liquidation as it begins, with the position's number, its whole amount and the price of liquidation.

    Its executions, which tell the same amount again, are left out.
    """
    for row in _decode_arrays(payload) if payload.startswith(b"[[") or payload == b"[]" else [_decode_array(payload)]:
        kind, position, ts_ms, native, amount, executed, price = (text(row[n]) for n in (0, 1, 2, 4, 5, 8, 11))
        if kind != "pos" or executed not in ("0", "1") or not native:
            raise ValueError(f"no liquidation: {kind[:20]!r} of {native[:40]!r}")
        if executed == "1":
            continue
        if not amount or not price:
            raise ValueError(f"a liquidation of {native[:40]!r} without amount or price")
        # A long position has an amount above zero, and is closed by selling.
        side = "BUY" if amount.startswith("-") else "SELL"
        yield LiquidationEvent(native, side, price, amount.removeprefix("-"), position, time_us(ts_ms, 3))


def _smallest(info: list[Raw]) -> dict[str, str]:
    """The smallest order by pair."""
    found: dict[str, str] = {}
    for entry in info:
        try:
            pair, fields = _decode_info(entry)
            found[pair] = text(fields[3])
        except BAD:
            continue
    return found


def _listing(pair: str, smallest: str | None, names: dict[str, str]) -> Listing | None:
    try:
        one, colon, other = pair.partition(":")
        if not colon:
            one, other = pair[:3], pair[3:]
        futures = one.endswith("F0")
        base, quote = (names.get(a, a).upper() for a in (one.removesuffix("F0"), other.removesuffix("F0")))
        return Listing(
            native_id=f"t{pair}",
            symbol=perpetual_symbol(base, quote, quote) if futures else spot_symbol(base, quote),
            base=base,
            quote=quote,
            kind="PERPETUAL" if futures else "SPOT",
            tick_size=STEP,
            lot_size=STEP,
            settle=quote if futures else None,
            min_size=plain_or_none(smallest),
            contract_size="1" if futures else None,
        )
    except BAD:
        return None
