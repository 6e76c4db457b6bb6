"""Bybit v5: golden events of its three markets, its chain, instruments over pages, and a real capture of best prices."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import (
    ALL_CHANNELS,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    TickerEvent,
    TradeEvent,
    adapter,
)
from simulator.capture_file import read_capture
from tests.venue_replay import Replay, events_of

MARKETS = ("bybit-spot", "bybit-linear", "bybit-inverse")
BTC = "BTCUSDT"


def encode(frame: Any) -> bytes:
    return json.dumps(frame, separators=(",", ":")).encode()


def book(kind: str, u: int, bids: Any = (), asks: Any = (), depth: int = 1000) -> bytes:
    data = {"s": BTC, "b": bids, "a": asks, "u": u, "seq": 7961638724}
    return encode({"topic": f"orderbook.{depth}.{BTC}", "type": kind, "ts": 1672304484978, "data": data, "cts": 1672304484976})


TS = 1672304484976000


@pytest.mark.parametrize("market", MARKETS)
def test_books_and_best_prices(market: str) -> None:
    frames = [
        book("snapshot", 18521288, [["16493.50", "0.006"]], [["16611.00", "0.029"]]),
        book("delta", 18521289, [["16493.50", "0"]], [["16611.00", "1.5"]]),
        book("snapshot", 5, [["1", "2"]], [["3", "4"]], depth=1),
        book("snapshot", 6, [], [["3", "4"]], depth=1),
    ]
    assert events_of(market, frames) == [
        BookSnapshot(BTC, 18521288, [("16493.50", "0.006")], [("16611.00", "0.029")], TS),
        BookDelta(BTC, 18521289, 18521289, 18521288, [("16493.50", "0")], [("16611.00", "1.5")], TS),
        TickerEvent(BTC, 5, "1", "2", "3", "4", TS),
    ]
    loose = json.dumps(dict(reversed(json.loads(frames[1]).items())), indent=1).encode()
    assert events_of(market, [loose]) == events_of(market, frames[1:2])


TRADES = {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1672304486868, "data": [
    {"T": 1672304486865, "s": BTC, "S": "Buy", "v": "0.001", "p": "16578.50", "L": "PlusTick",
     "i": "20f43950-d8dd-5b31-9112-a178eb6023af", "BT": False}]}  # fmt: skip
TICKER = {"topic": "tickers.BTCUSDT", "type": "snapshot", "cs": 24987956059, "ts": 1673272861686, "data": {
    "symbol": BTC, "tickDirection": "PlusTick", "lastPrice": "17216.00", "markPrice": "17217.33", "indexPrice": "17227.36",
    "openInterest": "68744.761", "nextFundingTime": "1673280000000", "fundingRate": "-0.000212", "fundingIntervalHour": "8",
    "bid1Price": "17215.50", "bid1Size": "84.489", "ask1Price": "17216.00", "ask1Size": "83.020"}}  # fmt: skip
FORCED = {"topic": "allLiquidation.ROSEUSDT", "type": "snapshot", "ts": 1739502303204, "data": [
    {"T": 1739502302929, "s": "ROSEUSDT", "S": "Sell", "v": "20000", "p": "0.04499"}]}  # fmt: skip


def test_golden_events() -> None:
    assert events_of("bybit-linear", [encode(TRADES)]) == [
        TradeEvent(BTC, "20f43950-d8dd-5b31-9112-a178eb6023af", "BUY", "16578.50", "0.001", 1672304486865000)
    ]
    ts_us = 1673272861686000
    assert events_of("bybit-linear", [encode(TICKER)]) == [
        FundingEvent(BTC, "-0.000212", 28_800_000_000, 1673280000000000, ts_us),
        MarkPriceEvent(BTC, "17217.33", "17227.36", ts_us),
        OpenInterestEvent(BTC, "68744.761", "BASE", ts_us),
    ]
    assert events_of("bybit-inverse", [encode(TICKER)])[-1] == OpenInterestEvent(BTC, "68744.761", "QUOTE", ts_us)
    assert events_of("bybit-linear", [encode(FORCED)]) == [
        LiquidationEvent("ROSEUSDT", "BUY", "0.04499", "20000", "", 1739502302929000)
    ]


def test_a_partial_ticker_says_what_it_says_and_a_funding_rate_is_kept_whole() -> None:
    parse = adapter("bybit-linear")(channels=ALL_CHANNELS).connection()
    parse(encode(TICKER))
    later = {**TICKER, "type": "delta", "ts": 1673280000100, "data": {"symbol": BTC, "nextFundingTime": "1673308800000"}}
    assert parse(encode(later)) == [
        FundingEvent(BTC, "-0.000212", 28_800_000_000, 1673308800000000, 1673280000100000)
    ]
    prices = {**TICKER, "type": "delta", "data": {"symbol": BTC, "bid1Price": "1", "bid1Size": "2"}}
    assert parse(encode(prices)) == []
    index = {**TICKER, "type": "delta", "data": {"symbol": BTC, "indexPrice": "17000.5"}}
    assert parse(encode(index)) == [MarkPriceEvent(BTC, "", "17000.5", 1673272861686000)]
    assert adapter("bybit-linear")(channels=ALL_CHANNELS).connection()(encode(later)) == [], "a rate is never invented"


def test_answers() -> None:
    def parse(frame: Any) -> list[Event]:
        return events_of("bybit-spot", [encode(frame)])

    ok = {"success": True, "ret_msg": "subscribe", "conn_id": "2324d924", "req_id": "7", "op": "subscribe"}
    assert parse(ok) == [Reply(7)]
    assert parse({**ok, "req_id": ""}) == []
    assert parse({**ok, "op": "ping", "ret_msg": "pong"}) == []
    assert parse({**ok, "op": "unsubscribe"}) == []
    refused = {**ok, "success": False, "ret_msg": "error:handler not found,topic:orderbook.1000.FOO"}
    assert parse(refused) == [Reply(7, "error:handler not found,topic:orderbook.1000.FOO")]
    assert parse({**refused, "ret_msg": "error:already subscribed,topic:orderbook.1000.BTCUSDT"}) == [Reply(7)]


@pytest.mark.parametrize("market", MARKETS)
def test_frames_stay_inside_the_venues_limits(market: str) -> None:
    venue = adapter(market)(channels=ALL_CHANNELS)
    full = [f"1000000COIN{i:04}USDT" for i in range(venue.limits.instruments_per_connection)]
    batch = full[: venue.limits.instruments_per_request]
    first, *others = [json.loads(frame) for frame in venue.subscribe(batch, 9)]
    assert first == {"op": "subscribe", "req_id": "9", "args": [f"orderbook.1000.{native}" for native in batch]}
    assert all("req_id" not in other for other in others)
    assert {topic.rpartition(".")[0] for other in others for topic in other["args"]} == (
        {"publicTrade", "orderbook.1"} if market == "bybit-spot" else {"publicTrade", "orderbook.1", "tickers", "allLiquidation"}
    )
    if market == "bybit-spot":
        assert all(len(frame["args"]) <= 10 for frame in (first, *others))
    assert sum(len(topic) for frame in venue.subscribe(full, 1) for topic in json.loads(frame)["args"]) <= 21_000


LINEAR: dict[str, Any] = {
    "symbol": BTC, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "BTC", "quoteCoin": "USDT",
    "launchTime": "1585526400000", "deliveryTime": "0", "priceScale": "2",
    "priceFilter": {"minPrice": "0.50", "maxPrice": "999999.00", "tickSize": "0.50"},
    "lotSizeFilter": {"maxOrderQty": "100.000", "minOrderQty": "0.001", "qtyStep": "0.001", "minNotionalValue": "5"},
    "fundingInterval": 480, "settleCoin": "USDT",
}  # fmt: skip
SPOT: dict[str, Any] = {
    "symbol": BTC, "baseCoin": "BTC", "quoteCoin": "USDT", "innovation": "0", "status": "Trading",
    "lotSizeFilter": {"basePrecision": "0.000001", "quotePrecision": "0.00000001", "minOrderQty": "0.00004", "minOrderAmt": "1"},
    "priceFilter": {"tickSize": "0.01"},
}  # fmt: skip


def answer(*entries: Any, cursor: str = "") -> bytes:
    return encode({"retCode": 0, "retMsg": "OK", "result": {"category": "linear", "list": entries, "nextPageCursor": cursor}})


def test_instruments() -> None:
    future = {**LINEAR, "symbol": "BTC-27MAR26", "contractType": "LinearFutures", "deliveryTime": "1774598400000",
              "quoteCoin": "USDC", "settleCoin": "USDC", "status": "Delivering"}  # fmt: skip
    perpetual, dated = adapter("bybit-linear")().parse_instruments(answer(LINEAR, None, {}, {**LINEAR, "baseCoin": ""}, future))
    assert (perpetual.symbol, perpetual.kind, perpetual.tick_size, perpetual.lot_size, perpetual.min_notional) == (
        "BTC/USDT:USDT", "PERPETUAL", "0.5", "0.001", "5"
    )  # fmt: skip
    assert (dated.symbol, dated.kind, dated.expiry_us, dated.state) == (
        "BTC/USDC:USDC-260327", "FUTURE", 1774598400000000, "HALTED"
    )  # fmt: skip
    (spot,) = adapter("bybit-spot")().parse_instruments(answer(SPOT))
    assert (spot.symbol, spot.kind, spot.lot_size, spot.min_notional, spot.contract_size) == (
        "BTC/USDT", "SPOT", "0.000001", "1", None
    )  # fmt: skip
    coin = {**LINEAR, "symbol": "BTCUSD", "contractType": "InversePerpetual", "quoteCoin": "USD", "settleCoin": "BTC"}
    (inverse,) = adapter("bybit-inverse")().parse_instruments(answer(coin))
    assert (inverse.symbol, inverse.inverse, inverse.contract_size) == ("BTC/USD:BTC", True, "1")


def test_instruments_go_over_pages() -> None:
    venue = adapter("bybit-linear")()
    (first,) = venue.instruments_requests()
    second = venue.next_instruments_request(first, answer(LINEAR, cursor="first%3DBTC%26last%3DETH"))
    assert second is not None
    assert second.path == first.path + "&cursor=first%3DBTC%26last%3DETH"
    assert venue.next_instruments_request(second, answer(LINEAR)) is None
    with pytest.raises(MalformedFrame, match="10001"):
        venue.parse_instruments(b'{"retCode":10001,"retMsg":"params error","result":{}}')


def test_a_lost_delta_is_a_gap_and_a_snapshot_starts_a_new_epoch() -> None:
    replay = Replay("bybit-linear", [BTC])
    worker = replay.worker(BTC)
    replay.receive(book("snapshot", 10, [["1", "5"]], [["2", "5"]]), 1)
    replay.receive(book("delta", 11, [["1.5", "4"]]), 2)
    replay.receive(book("delta", 11, [["1.5", "4"]]), 3)
    assert (worker.state, worker.index, replay.counts.duplicates) == ("LIVE", 1, 1)
    epoch = worker.epoch
    replay.receive(book("snapshot", 1, [["1", "7"]], [["2", "7"]]), 4)
    assert (worker.state, worker.last_seq) == ("LIVE", 1), "u = 1: the service was restarted"
    assert worker.epoch > epoch
    replay.receive(book("delta", 3, [["1", "8"]]), 5)
    assert (worker.state, replay.counts.gaps, replay.wanted) == ("SYNCING", 1, [worker])
    replay.receive(book("delta", 4, [["1", "9"]]), 6)
    replay.receive(book("snapshot", 5, [["1", "6"]], [["2", "6"]]), 7)
    assert worker.state == "LIVE"
    assert replay.book(BTC) == ({Decimal(1): Decimal(6)}, {Decimal(2): Decimal(6)})


def test_a_real_capture_of_best_prices(captures: Path) -> None:
    path = captures / "bybit_v5_linear_l1_20250613.txt.gz"
    frames = [line.data for line in read_capture([path]) if line.kind == "frame"]
    assert [market for market in MARKETS if adapter(market).sniff(frames)] == ["bybit-linear"]
    said = [json.loads(frame) for frame in frames]
    books = [frame for frame in said if frame.get("topic", "").startswith("orderbook.1.")]
    tickers = [event for event in events_of("bybit-linear", frames) if isinstance(event, TickerEvent)]
    assert len(frames) == 202
    assert [(t.native, t.seq, [t.bid_price, t.bid_size], [t.ask_price, t.ask_size], t.ts_venue_us) for t in tickers] == [
        (f["data"]["s"], f["data"]["u"], *f["data"]["b"], *f["data"]["a"], f["cts"] * 1000) for f in books
    ]
