"""Crypto.com: its frames as documented, and its chain in a worker."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import (
    ALL_CHANNELS,
    Answer,
    BookDelta,
    BookSnapshot,
    FundingEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    TickerEvent,
    TradeEvent,
    Venue,
    adapter,
)
from tests.rest_replay import encoded
from tests.venue_replay import Replay


@pytest.fixture
def cryptocom() -> Venue:
    return adapter("cryptocom")(channels=ALL_CHANNELS)


def push(channel: str, native: str, *data: Any, request_id: int = -1) -> bytes:
    result = {"instrument_name": native, "subscription": f"{channel}.{native}", "channel": channel, "data": data}
    return encoded({"id": request_id, "method": "subscribe", "code": 0, "result": result})


def whole(seq: int) -> dict[str, Any]:
    return {"bids": [["122.21", "0.74041", "4"]], "asks": [["122.290", "0.00002", "1"]], "t": 1648123943803, "u": seq, "cs": 5}


def change(seq: int, prev: int, bids: Any = (), asks: Any = ()) -> dict[str, Any]:
    return {"update": {"bids": bids, "asks": asks}, "t": 1704484068898, "tt": 1704484068892, "u": seq, "pu": prev, "cs": -7}


def test_books(cryptocom: Venue) -> None:
    book = BookSnapshot("LTC_USDT", 754560122, [("122.21", "0.74041")], [("122.290", "0.00002")], 1648123943803000)
    assert cryptocom.parse(push("book", "LTC_USDT", whole(754560122))) == [book]
    assert cryptocom.parse(push("book", "LTC_USDT", whole(754560122), request_id=4)) == [Reply(4), book]
    assert cryptocom.parse(push("book.update", "LTC_USDT", change(9, 7, [["43737.46", "0.14096", "1"]]))) == [
        BookDelta("LTC_USDT", 9, 9, 7, [("43737.46", "0.14096")], [], 1704484068898000)
    ]
    with pytest.raises(MalformedFrame):
        cryptocom.parse(push("book.update", "LTC_USDT", whole(9)))


def test_everything_else(cryptocom: Venue) -> None:
    trade = {"dataTime": 1648122434405, "d": "2358394540212355488", "s": "SELL", "p": 42980.85, "q": 0.002325, "t": 1648122434404,
             "i": "BTC_USDT"}  # fmt: skip
    assert cryptocom.parse(push("trade", "BTC_USDT", trade)) == [
        TradeEvent("BTC_USDT", "2358394540212355488", "SELL", "42980.85", "0.002325", 1648122434404000)
    ]
    day = {"a": "2335.25", "b": "2335.10", "bs": "5.4000", "k": "2335.16", "ks": "1.9970", "i": "ETHUSD-PERP",
           "oi": "161646.3614", "t": 1726069647560}  # fmt: skip
    assert cryptocom.parse(push("ticker", "ETHUSD-PERP", day)) == [
        TickerEvent("ETHUSD-PERP", -1, "2335.10", "5.4000", "2335.16", "1.9970", 1726069647560000),
        OpenInterestEvent("ETHUSD-PERP", "161646.3614", "CONTRACT", 1726069647560000),
    ]
    assert cryptocom.parse(push("ticker", "ETH_USD", {**day, "i": "ETH_USD", "b": None})) == []
    assert cryptocom.parse(push("mark", "BTCUSD-PERP", {"v": "50776.73000", "t": 1613547318000})) == [
        MarkPriceEvent("BTCUSD-PERP", "50776.73000", "", 1613547318000000)
    ]
    assert cryptocom.parse(push("funding", "BTCUSD-PERP", {"v": "-0.00001884", "t": 1613547318000})) == [
        FundingEvent("BTCUSD-PERP", "-0.00001884", 3_600_000_000, 0, 1613547318000000)
    ]


def test_answers(cryptocom: Venue) -> None:
    assert cryptocom.parse(b'{"id":1587523073344,"method":"public/heartbeat","code":0}') == (
        Answer(b'{"id":1587523073344,"method":"public/respond-heartbeat"}'),
    )
    assert cryptocom.parse(b'{"id":5,"method":"subscribe","code":0}') == [Reply(5)]
    assert cryptocom.parse(b'{"id":5,"method":"subscribe","code":40004,"message":"Unknown symbol"}') == [
        Reply(5, "40004: Unknown symbol")
    ]


def test_a_subscription_asks_derivatives_for_what_only_they_have(cryptocom: Venue) -> None:
    frame = json.loads(cryptocom.subscribe(["BTC_USDT", "BTCUSD-PERP", "BTCUSD-261225"], 3)[0])
    assert frame["params"]["channels"] == [
        "book.BTC_USDT.50", "trade.BTC_USDT", "ticker.BTC_USDT",
        "book.BTCUSD-PERP.50", "trade.BTCUSD-PERP", "ticker.BTCUSD-PERP", "mark.BTCUSD-PERP", "funding.BTCUSD-PERP",
        "book.BTCUSD-261225.50", "trade.BTCUSD-261225", "ticker.BTCUSD-261225", "mark.BTCUSD-261225",
    ]  # fmt: skip
    assert frame["params"]["book_subscription_type"] == "SNAPSHOT_AND_UPDATE"


PAIR = {"symbol": "BTC_USDT", "inst_type": "CCY_PAIR", "base_ccy": "BTC", "quote_ccy": "USDT", "price_tick_size": "0.01",
        "qty_tick_size": "0.00001", "tradable": True, "expiry_timestamp_ms": 0}  # fmt: skip
WARRANT = {**PAIR, "symbol": "BTCUSD-261225-CW30000", "inst_type": "WARRANT", "quote_ccy": "USD", "put_call": "CALL",
           "strike": "30000", "contract_size": "0.0001", "expiry_timestamp_ms": 1798185600000, "tradable": False}  # fmt: skip
FUTURE = {**WARRANT, "symbol": "BTCUSD-261225", "inst_type": "FUTURE", "contract_size": "1"}
SWAP = {**FUTURE, "symbol": "BTCUSD-PERP", "inst_type": "PERPETUAL_SWAP", "expiry_timestamp_ms": 0}


def test_instruments(cryptocom: Venue) -> None:
    entries = [PAIR, WARRANT, FUTURE, SWAP, {**PAIR, "inst_type": "NEW"}, {}]
    found = cryptocom.parse_instruments(encoded({"code": 0, "result": {"data": entries}}))
    assert [(o.symbol, o.kind, o.contract_size, o.state) for o in found] == [
        ("BTC/USDT", "SPOT", None, "TRADING"),
        ("BTC/USD:USD-261225-30000-C", "OPTION", "0.0001", "HALTED"),
        ("BTC/USD:USD-261225", "FUTURE", "1", "HALTED"),
        ("BTC/USD:USD", "PERPETUAL", "1", "HALTED"),
    ]


def test_a_worker_follows_the_chain_and_keeps_fifty_levels() -> None:
    run = Replay("cryptocom", ["X"])
    run.subscribed()
    worker = run.worker("X")
    run.receive(push("book", "X", whole(10)), 1)
    run.receive(push("book.update", "X", change(15, 10, [[f"{price}", "1", "1"] for price in range(1, 80)])), 2)
    assert (worker.state, worker.last_seq, len(run.book("X")[0])) == ("LIVE", 15, 50)
    assert min(run.book("X")[0]) == Decimal(31), "122.21 and the best 49 of 1 to 79"
    run.receive(push("book.update", "X", change(15, 15)), 3)  # nothing happened for five seconds
    run.receive(push("book.update", "X", change(20, 15, asks=[["122.290", "0", "0"]])), 4)
    assert (worker.last_seq, run.book("X")[1], run.counts.gaps) == (20, {}, 0)
    run.receive(push("book.update", "X", change(30, 21)), 5)
    assert (worker.state, run.counts.gaps) == ("SYNCING", 1)
    run.receive(push("book", "X", whole(31)), 6)
    assert worker.state == "LIVE"
