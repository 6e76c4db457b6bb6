"""HTX perpetual and dated futures: settled in USDT, or inverse in their coin.

Source: HTX USDT-M Futures and Coin-M Swaps API, "Subscribe Incremental Market Depth Data", "Subscribe Trade Detail
Data", "Subscribe BBO", "Query Swap Info", "Query A Batch of Funding Rate", "Get Swap Open Interest Information"; ccxt's
htx. Proof: ``version`` grows by one, the whole book first in the stream (documentation).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from msgspec import Raw, Struct

from collectors.cex.htx import Frame, HtxVenue, Trade, decode_entries, decode_trades, inflated, native_of
from collectors.cex.htx_forced import Notices
from collectors.cex.wire_json import BAD, plain, product
from collectors.cex.wire_values import Id, asset, number, numbers, time_us
from collectors.venue import (
    BOOK,
    FUNDING,
    LIQUIDATION,
    OPEN_INTEREST,
    TICKER,
    TRADE,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    Listing,
    MalformedFrame,
    OpenInterestEvent,
    Poll,
    RestRequest,
    StreamChain,
    SyncRule,
    TickerEvent,
    TradeEvent,
    Venue,
)
from market.instruments import future_symbol, perpetual_symbol


class _Depth(Struct, gc=False):
    version: Id
    event: str
    bids: list[tuple[Raw, Raw]] = []
    asks: list[tuple[Raw, Raw]] = []
    ts: Raw = Raw(b"0")


class _Ticker(Struct, gc=False):
    bid: tuple[Raw, Raw]
    ask: tuple[Raw, Raw]
    version: Raw = Raw(b"-1")
    ts: Raw = Raw(b"0")


class _Contract(Struct):
    contract_code: str
    symbol: str
    contract_size: Raw
    price_tick: Raw
    contract_status: int
    delivery_time: str = ""
    pair: str = ""


class _Funding(Struct):
    contract_code: str
    funding_rate: str | None = None
    funding_time: str | None = None
    next_funding_time: str | None = None


class _Interest(Struct):
    contract_code: str
    volume: Raw


_decode_depth = msgspec.json.Decoder(_Depth).decode
_decode_ticker = msgspec.json.Decoder(_Ticker).decode
_decode_contract = msgspec.json.Decoder(_Contract).decode
_decode_funding = msgspec.json.Decoder(_Funding).decode
_decode_interest = msgspec.json.Decoder(_Interest).decode

STATES = {0: "DELISTED", 1: "TRADING"}
BOTH_SIDES = "0.5"
"""The venue counts every contract twice, once for the buyer and once for the seller."""


class HtxLinear(HtxVenue):
    """HTX futures in USDT: books of 150 levels, whole at first, then numbered changes; sizes are contracts."""

    id = "htx-linear"
    rest_url = "https://api.hbdm.com"
    ws_url = "wss://api.hbdm.com"
    offers = frozenset({BOOK, TRADE, TICKER, FUNDING, OPEN_INTEREST, LIQUIDATION})
    product: ClassVar[str] = "linear-swap"
    _rule = StreamChain()

    def ws_path(self) -> str:
        return f"/{self.product}-ws"

    def beside(self) -> Venue | None:
        return HtxLinearNotices(channels=(LIQUIDATION,)) if LIQUIDATION in self.channels else None

    def path(self, name: str) -> str:
        """A public call's path."""
        return f"/{self.product}-api/v1/{name}"

    def instruments_requests(self) -> list[RestRequest]:
        return [RestRequest(self.path("swap_contract_info") + "?business_type=all")]

    def listing(self, entry: Raw) -> Listing | None:
        c = _decode_contract(entry)
        base, quote = (asset(part) for part in (c.pair or c.contract_code).split("-")[:2])
        settle = base if self.product == "swap" else quote
        expiry_us = time_us(c.delivery_time, 3) if c.delivery_time else None
        return Listing(
            native_id=c.contract_code,
            symbol=(
                perpetual_symbol(base, quote, settle)
                if expiry_us is None
                else future_symbol(base, quote, settle, expiry_us)
            ),
            base=base,
            quote=quote,
            settle=settle,
            kind="PERPETUAL" if expiry_us is None else "FUTURE",
            state=STATES.get(c.contract_status, "HALTED"),
            inverse=settle == base,
            tick_size=plain(number(c.price_tick)),
            lot_size="1",
            min_size="1",
            contract_size=plain(number(c.contract_size)),
            expiry_us=expiry_us,
        )

    def rule(self, native: str) -> SyncRule:
        return self._rule

    def channels_of(self, native: str) -> list[str]:
        kinds = ((TRADE, "trade.detail"), (TICKER, "bbo"))
        names = ["depth.size_150.high_freq", *(name for kind, name in kinds if kind in self.channels)]
        return [f"market.{native}.{name}" for name in names]

    def request(self, verb: str, channel: str, request_id: str) -> bytes:
        frame = {verb: channel, "id": request_id}
        if channel.endswith(".high_freq"):
            frame["data_type"] = "incremental"
        return msgspec.json.encode(frame)

    def update(self, head: Frame) -> Sequence[Event]:
        native = native_of(head.ch)
        if head.ch.endswith(".high_freq"):
            d = _decode_depth(head.tick)
            ts_us = time_us(number(d.ts), 3)
            if d.event == "snapshot":
                return (BookSnapshot(native, d.version, numbers(d.bids), numbers(d.asks), ts_us),)
            return (BookDelta(native, d.version, d.version, d.version - 1, numbers(d.bids), numbers(d.asks), ts_us),)
        if head.ch.endswith(".trade.detail"):
            return tuple(self._trade(native, t) for t in decode_trades(head.tick).data)
        if head.ch.endswith(".bbo"):
            k = _decode_ticker(head.tick)
            bid, ask = numbers((k.bid, k.ask))
            return (TickerEvent(native, int(number(k.version)), *bid, *ask, time_us(number(k.ts), 3)),)
        return ()

    def _trade(self, native: str, t: Trade) -> TradeEvent:
        size = product(number(t.amount), BOTH_SIDES)
        return TradeEvent(native, number(t.id), t.direction.upper(), number(t.price), size, t.ts * 1000)

    def polls(self) -> list[Poll]:
        kinds = ((FUNDING, "swap_batch_funding_rate"), (OPEN_INTEREST, "swap_open_interest"))
        return [Poll(RestRequest(self.path(name)), 60) for kind, name in kinds if kind in self.channels]

    def parse_poll(self, request: RestRequest, body: bytes) -> Sequence[Event]:
        try:
            answer = decode_entries(body)
            ts_us = answer.ts * 1000
            if request.path.endswith("swap_open_interest"):
                found = [_decode_interest(entry) for entry in answer.data]
                return [
                    OpenInterestEvent(i.contract_code, product(number(i.volume), BOTH_SIDES), "CONTRACT", ts_us)
                    for i in found
                ]
            rates = [_decode_funding(entry) for entry in answer.data]
            return [self._funding(r, r.funding_rate, ts_us) for r in rates if r.funding_rate]
        except BAD as error:
            raise MalformedFrame(f"{self.id} {request.path}: {error}") from error

    def _funding(self, r: _Funding, rate: str, ts_us: int) -> FundingEvent:
        due_us = time_us(r.funding_time, 3) if r.funding_time else 0
        after_us = time_us(r.next_funding_time, 3) if r.next_funding_time else 0
        # The current rate is paid at funding_time; the one behind it tells the interval.
        return FundingEvent(r.contract_code, rate, max(0, after_us - due_us) if due_us else 0, due_us, ts_us)

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        for frame in frames:
            try:
                text = inflated(frame)
            except MalformedFrame:
                continue
            channel = text[:100].partition(b'"ch":"market.')[2].partition(b'"')[0]
            if b".high_freq" in channel:
                return cls.product == ("swap" if channel.startswith(b"USD.", channel.find(b"-") + 1) else "linear-swap")
        return False


class HtxInverse(HtxLinear):
    """HTX perpetuals in their coin: a contract is worth an amount of dollars."""

    id = "htx-inverse"
    offers = HtxLinear.offers - {LIQUIDATION}  # the venue took this notice off its list for coins' swaps
    product = "swap"


class HtxLinearNotices(Notices, HtxLinear):
    """What HTX says of futures in USDT on its socket of notices."""

    def ws_path(self) -> str:
        return f"/{self.product}-notification"

    def beside(self) -> Venue | None:
        return None
