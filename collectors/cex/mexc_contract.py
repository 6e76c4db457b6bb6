"""MEXC contracts v1: perpetuals, linear and inverse, in JSON numbers.

Source: MEXC Contract API v1, "WebSocket API / Public channels" (depth, deal, ticker, funding rate), "How to calculate
the incremental depth", "Get the contract information", "Get the contract's depth information"; ccxt's mexc.
Proof: ``version`` (``begin``..``end`` where several travel together) chains onto the REST book's (documentation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from collectors.cex.wire_json import BAD, NONE, plain, text
from collectors.cex.wire_values import Id, Millis, asset, known, number, readable, shifted
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
    RangeChain,
    Reply,
    RestRequest,
    SyncRule,
    TradeEvent,
    Venue,
)
from market.instruments import perpetual_symbol

_Rows = list[tuple[Raw, Raw, Raw]]
"""Price, contracts, number of orders."""


class _Frame(Struct, gc=False):
    channel: str
    symbol: str = ""
    data: Raw = NONE
    ts: Millis = 0


class _Depth(Struct, gc=False):
    version: Id
    bids: _Rows = []
    asks: _Rows = []
    begin: Id = -1
    timestamp: Millis = 0


class _Deal(Struct, gc=False):
    p: Raw
    v: Raw
    T: int
    t: Millis
    i: Raw = NONE


class _Ticker(Struct, gc=False):
    symbol: str
    fairPrice: Raw = NONE  # noqa: N815
    indexPrice: Raw = NONE  # noqa: N815
    holdVol: Raw = NONE  # noqa: N815
    timestamp: Millis = 0


class _Funding(Struct, gc=False):
    symbol: str
    rate: Raw = NONE
    fundingRate: Raw = NONE  # noqa: N815
    nextSettleTime: Millis = 0  # noqa: N815


class _Answer(Struct):
    data: _Depth


class _Contract(Struct):
    symbol: str
    baseCoin: str  # noqa: N815
    quoteCoin: str  # noqa: N815
    settleCoin: str  # noqa: N815
    contractSize: Raw  # noqa: N815
    priceUnit: Raw  # noqa: N815
    volUnit: Raw  # noqa: N815
    minVol: Raw  # noqa: N815
    state: int
    makerFeeRate: Raw = NONE  # noqa: N815
    takerFeeRate: Raw = NONE  # noqa: N815


class _Contracts(Struct):
    data: list[Raw]


_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_depth = msgspec.json.Decoder(_Depth).decode
_decode_deals = msgspec.json.Decoder(_Deal | list[_Deal]).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_funding = msgspec.json.Decoder(_Funding).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_contracts = msgspec.json.Decoder(_Contracts).decode
_decode_contract = msgspec.json.Decoder(_Contract).decode

STATES = {0: "TRADING", 2: "DELISTED", 3: "DELISTED"}
"""1 delivery, 4 pause: HALTED."""


def _levels(rows: _Rows) -> list[Level]:
    return [(number(price), number(size)) for price, size, _ in rows]


class MexcContract(Venue):
    """MEXC perpetuals: whole-depth changes; sizes are contracts."""

    id = "mexc-contract"
    rest_url = "https://contract.mexc.com"
    ws_url = "wss://contract.mexc.com"
    limits = Limits(
        instruments_per_connection=50,
        instruments_per_request=1,
        request_interval_s=0.05,
        connect_interval_s=0.5,
        rest_weight_per_minute=500,
        heartbeat_s=15,
        reply_timeout_s=0,  # its answers name neither request nor instrument
    )
    offers = frozenset({BOOK, TRADE, FUNDING, MARK_PRICE, OPEN_INTEREST})
    _rule = RangeChain()

    def ws_path(self) -> str:
        return "/edge"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest("/api/v1/contract/detail")]

    def parse_instruments(self, body: bytes) -> list[Listing]:
        try:
            entries = _decode_contracts(body).data
        except BAD as error:
            raise MalformedFrame(f"{self.id} contracts: {error}") from error
        return readable(self.id, entries, self._listing)

    def _listing(self, entry: Raw) -> Listing:
        c = _decode_contract(entry)
        base, quote_asset, settle = asset(c.baseCoin), asset(c.quoteCoin), asset(c.settleCoin)
        maker, taker = known(c.makerFeeRate), known(c.takerFeeRate)
        return Listing(
            native_id=c.symbol,
            symbol=perpetual_symbol(base, quote_asset, settle),
            base=base,
            quote=quote_asset,
            settle=settle,
            kind="PERPETUAL",
            state=STATES.get(c.state, "HALTED"),
            inverse=settle == base,
            tick_size=plain(number(c.priceUnit)),
            lot_size=plain(number(c.volUnit)),
            min_size=plain(number(c.minVol)),
            contract_size=plain(number(c.contractSize)),
            maker_fee_bps=shifted(maker, 4) if maker else None,
            taker_fee_bps=shifted(taker, 4) if taker else None,
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def snapshot_request(self, native: str) -> RestRequest:
        return RestRequest(f"/api/v1/contract/depth/{quote(native, safe='')}?limit=1000")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        try:
            book = _decode_answer(body).data
            return BookSnapshot(native, book.version, _levels(book.bids), _levels(book.asks), book.timestamp * 1000)
        except BAD as error:
            raise MalformedFrame(f"{self.id} depth of {native}: {error}") from error

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("sub", natives)

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        return self._requests("unsub", natives)

    def _requests(self, verb: str, natives: Sequence[str]) -> list[bytes]:
        names = ["depth"]
        if TRADE in self.channels:
            names.append("deal")
        if self.channels & {MARK_PRICE, OPEN_INTEREST}:
            names.append("ticker")
        if FUNDING in self.channels:
            names.append("funding.rate")
        frames: list[bytes] = []
        for name in names:
            more = {"compress": False} if name == "depth" and verb == "sub" else {}
            frames += [
                msgspec.json.encode({"method": f"{verb}.{name}", "param": {"symbol": native, **more}})
                for native in natives
            ]
        return frames

    def heartbeat(self) -> bytes:
        return b'{"method":"ping"}'

    def parse(self, frame: bytes) -> Sequence[Event]:
        try:
            head = _decode_frame(frame)
            if head.channel.startswith("push."):
                return tuple(self._push(head))
            if head.channel == "rs.error":
                return (Reply(error=text(head.data)),)
        except BAD as error:
            raise MalformedFrame(f"{self.id} frame: {error}") from error
        return ()

    def _push(self, head: _Frame) -> Iterator[Event]:
        at_us = head.ts * 1000
        if head.channel == "push.depth":
            d = _decode_depth(head.data)
            first = d.version if d.begin < 0 else d.begin
            yield BookDelta(head.symbol, first, d.version, -1, _levels(d.bids), _levels(d.asks), at_us)
        elif head.channel == "push.deal":
            found = _decode_deals(head.data)
            for t in found if isinstance(found, list) else (found,):
                side = {1: "BUY", 2: "SELL"}.get(t.T, "UNKNOWN")
                yield TradeEvent(head.symbol, text(t.i), side, number(t.p), number(t.v), t.t * 1000)
        elif head.channel == "push.ticker":
            k = _decode_ticker(head.data)
            mark, index, interest = map(known, (k.fairPrice, k.indexPrice, k.holdVol))
            at_us = k.timestamp * 1000 or at_us
            if MARK_PRICE in self.channels and (mark or index):
                yield MarkPriceEvent(k.symbol, mark, index, at_us)
            if OPEN_INTEREST in self.channels and interest:
                yield OpenInterestEvent(k.symbol, interest, "CONTRACT", at_us)
        elif head.channel == "push.funding.rate":
            f = _decode_funding(head.data)
            if rate := known(f.rate) or known(f.fundingRate):
                yield FundingEvent(f.symbol, rate, 0, f.nextSettleTime * 1000, at_us)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        return any(b'"channel":"push.depth"' in frame and b'"version":' in frame for frame in frames)
