"""Kraken Futures: golden events, instruments, and a real capture through real workers."""

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
from tests.venue_replay import Levels, Replay

XBT = "PI_XBTUSD"


def parse(frame: str | dict[str, Any], channels: Any = ALL_CHANNELS) -> list[Event]:
    text = frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":"))
    return list(adapter("krakenfutures")(channels=channels).parse(text.encode()))


SNAPSHOT = (
    '{"feed":"book_snapshot","product_id":"PI_XBTUSD","timestamp":1612269825817,"seq":326072249,"tickSize":null,'
    '"bids":[{"price":34892.5,"qty":6385},{"price":34892,"qty":10924.0}],"asks":[{"price":34911.5,"qty":20598}]}'
)
DELTA = '{"feed":"book","product_id":"PI_XBTUSD","side":"sell","seq":326072250,"price":1e-5,"qty":0.0,"timestamp":1612269953629}'
TICKER = (
    '{"time":1680811086487,"product_id":"PI_XBTUSD","funding_rate":7.792297e-12,"funding_rate_prediction":-4.2671095e-11,'
    '"relative_funding_rate":2.18013888889e-7,"next_funding_rate_time":1680811200000,"feed":"ticker","bid":28060,"ask":28070,'
    '"bid_size":2844,"ask_size":1902,"leverage":"50x","index":28062.14,"suspended":false,"tag":"perpetual",'
    '"openInterest":28875946,"markPrice":28064.92082724592,"maturityTime":0,"post_only":false}'
)
TRADE = {"feed": "trade", "product_id": XBT, "uid": "05af78ac-a774-478c-a50c-8b9c234e071e", "side": "sell", "type": "fill",
         "seq": 653355, "time": 1612266317519, "qty": 15000, "price": 34969.5}  # fmt: skip


def test_golden_events() -> None:
    assert parse(SNAPSHOT) == [
        BookSnapshot(XBT, 326072249, [("34892.5", "6385"), ("34892", "10924.0")], [("34911.5", "20598")], 1612269825817000)
    ]
    delta = BookDelta(XBT, 326072250, 326072250, 326072249, [], [("1e-5", "0.0")], 1612269953629000)
    assert parse(DELTA) == [delta]
    assert parse(json.loads(DELTA) | {"price": 2.5, "qty": 1}) == [
        BookDelta(XBT, 326072250, 326072250, 326072249, [], [("2.5", "1")], 1612269953629000)
    ]
    ts_us = 1680811086487000
    assert parse(TICKER) == [
        TickerEvent(XBT, -1, "28060", "2844", "28070", "1902", ts_us),
        FundingEvent(XBT, "2.18013888889e-7", 3_600_000_000, 1680811200000000, ts_us),
        MarkPriceEvent(XBT, "28064.92082724592", "28062.14", ts_us),
        OpenInterestEvent(XBT, "28875946", "CONTRACT", ts_us),
    ]
    trade = TradeEvent(XBT, "05af78ac-a774-478c-a50c-8b9c234e071e", "SELL", "34969.5", "15000", 1612266317519000)
    assert parse(TRADE) == [trade]
    forced = {**TRADE, "type": "liquidation"}
    assert parse(forced) == [
        trade, LiquidationEvent(XBT, "SELL", "34969.5", "15000", trade.trade_id, 1612266317519000)
    ]  # fmt: skip
    assert parse(forced, ["book", "trade"]) == [trade]
    assert parse(TICKER, ["book", "ticker"]) == [TickerEvent(XBT, -1, "28060", "2844", "28070", "1902", ts_us)]


def test_a_side_of_its_own_is_malformed() -> None:
    with pytest.raises(MalformedFrame, match="neither buy nor sell"):
        parse(DELTA.replace("sell", "both"))


def test_answers() -> None:
    both = {"event": "subscribed", "feed": "book", "product_ids": [XBT, "FI_X"]}
    assert parse(both) == [Reply(native=XBT), Reply(native="FI_X")]
    assert parse({"event": "subscribed", "feed": "trade", "product_ids": [XBT]}) == []
    assert parse({"event": "info", "version": 1}) == []
    assert parse({"event": "error", "message": "Invalid product id"}) == [Reply(-1, "Invalid product id")]
    assert parse({"event": "alert", "message": "Already subscribed to feed, re-requesting"}) == []
    assert parse({"feed": "heartbeat", "time": 1534262350627}) == []
    assert parse({"feed": "trade_snapshot", "product_id": XBT, "trades": [TRADE]}) == [], "what was before"


def test_subscriptions() -> None:
    def feeds(*channels: str) -> list[str]:
        return [json.loads(f)["feed"] for f in adapter("krakenfutures")(channels=channels).subscribe([XBT], 1)]

    assert feeds("book") == ["book"]
    assert feeds("book", "liquidation") == ["book", "trade"]
    assert feeds(*ALL_CHANNELS) == ["book", "trade", "ticker"]


def test_instruments() -> None:
    inverse = {"symbol": "PI_XBTUSD", "type": "futures_inverse", "tickSize": 0.5, "contractSize": 1, "tradeable": True,
               "contractValueTradePrecision": 0, "base": "BTC", "quote": "USD"}  # fmt: skip
    entries = [
        inverse,
        {"symbol": "PF_SHIBUSD", "type": "flexible_futures", "tickSize": 1e-8, "contractSize": 1, "tradeable": False,
         "contractValueTradePrecision": -3, "base": "SHIB", "quote": "USD"},
        {"symbol": "fi_xbtusd_260327", "type": "futures_inverse", "lastTradingTime": "2026-03-27T15:00:00.000Z",
         "tickSize": 0.5, "contractSize": 1, "tradeable": True},
        {"symbol": "in_xbtusd", "type": "spot index", "tradeable": False},
        {**inverse, "contractValueTradePrecision": 500},
        None,
    ]  # fmt: skip
    body = json.dumps({"result": "success", "instruments": entries, "serverTime": "2018-07-19T11:32:39.433Z"}).encode()
    first, second, third = adapter("krakenfutures")().parse_instruments(body)
    assert (first.symbol, first.kind, first.inverse, first.tick_size, first.lot_size, first.contract_size) == (
        "BTC/USD:BTC", "PERPETUAL", True, "0.5", "1", "1"
    )  # fmt: skip
    assert (second.symbol, second.tick_size, second.lot_size, second.state) == ("SHIB/USD:USD", "0.00000001", "1000", "HALTED")
    assert (third.native_id, third.symbol, third.kind, third.expiry_us) == (
        "FI_XBTUSD_260327", "BTC/USD:BTC-260327", "FUTURE", 1774623600000000
    )  # fmt: skip


def test_a_real_capture_has_no_hole_and_its_books_are_exact(captures: Path) -> None:
    path = captures / "krakenfutures_v1_20210722.txt.gz"
    frames = [line.data for line in read_capture([path]) if line.kind == "frame"]
    assert adapter("krakenfutures").sniff(frames)
    truth: dict[str, tuple[Levels, Levels]] = {}
    said = [json.loads(frame, parse_float=Decimal, parse_int=Decimal) for frame in frames]
    natives = {one["product_id"] for one in said if one.get("feed") == "book_snapshot"}
    replay = Replay("krakenfutures", natives)
    updates = trades = 0
    for number, (frame, one) in enumerate(zip(frames, said, strict=True)):
        replay.receive(frame, number)
        if one.get("feed") == "book_snapshot":
            truth[one["product_id"]] = (
                {level["price"]: level["qty"] for level in one["bids"]}, {level["price"]: level["qty"] for level in one["asks"]}
            )  # fmt: skip
        elif one.get("feed") == "book" and "seq" in one:
            updates += 1
            side = truth[one["product_id"]][one["side"] == "sell"]
            side[one["price"]] = one["qty"]
            if not one["qty"]:
                del side[one["price"]]
        trades += one.get("feed") == "trade" and "uid" in one
    counts = replay.counts
    assert (updates, counts.book_events, trades) == (7014, 7014 + 10, counts.trades)
    assert (counts.gaps, counts.duplicates, counts.crossed, counts.dead_letters, counts.internal_errors) == (0, 0, 0, 0, 0)
    rebuilt = replay.rebuilt()
    for native in natives:
        assert replay.worker(native).state == "LIVE"
        assert replay.book(native) == truth[native] == rebuilt[native]


def test_one_lost_message_is_a_gap_of_its_product_alone(captures: Path) -> None:
    path = captures / "krakenfutures_v1_20210722.txt.gz"
    frames = [line.data for line in read_capture([path]) if line.kind == "frame"]
    lost = next(n for n, frame in enumerate(frames) if n > 3000 and frame.startswith(b'{"feed":"book","product_id":"PI_'))
    native = json.loads(frames[lost])["product_id"]
    replay = Replay("krakenfutures", {json.loads(f)["product_id"] for f in frames if b"book_snapshot" in f[:30]})
    for number, frame in enumerate(frames):
        if number != lost:
            replay.receive(frame, number)
    assert replay.counts.gaps == 1
    assert replay.wanted == [replay.worker(native)]
    assert {n for n, worker in replay.pipeline.workers.items() if worker.state != "LIVE"} == {native}
