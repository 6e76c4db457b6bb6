"""Bitvavo: the documentation's own frames, and its chain onto the REST book."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import ALL_CHANNELS, BookDelta, BookSnapshot, Reply, TradeEvent, adapter
from tests.rest_replay import encoded
from tests.venue_replay import Replay

VENUE = adapter("bitvavo")(channels=ALL_CHANNELS)


def book(nonce: int, bids: list[Any] = [], asks: list[Any] = []) -> bytes:  # noqa: B006
    return encoded({"event": "book", "market": "BTC-EUR", "nonce": nonce, "bids": bids, "asks": asks})


def test_frames() -> None:
    assert VENUE.parse(book(438524, [["9209.3", "0.015"], ["9209.2", "0"]], [["9220.2", "0.015"]])) == (
        BookDelta("BTC-EUR", 438524, 438524, -1, [("9209.3", "0.015"), ("9209.2", "0")], [("9220.2", "0.015")]),
    )
    trade = {"event": "trade", "timestamp": 1590779594547, "market": "ETH-EUR", "id": "450c3298-f082-4461-9e2c-a0262cc7cc2e",
             "amount": "0.05026233", "price": "198.46", "side": "buy"}  # fmt: skip
    assert VENUE.parse(encoded(trade)) == (
        TradeEvent("ETH-EUR", "450c3298-f082-4461-9e2c-a0262cc7cc2e", "BUY", "198.46", "0.05026233", 1590779594547000),
    )
    with pytest.raises(MalformedFrame):
        VENUE.parse(encoded({**trade, "side": "both"}))


@pytest.mark.parametrize("event", ["subscribed", "book"])
def test_answers(event: str) -> None:
    taken = {"event": event, "subscriptions": {"book": ["BTC-EUR", "ETH-EUR"], "trades": ["BTC-EUR", "ETH-EUR"]}}
    assert VENUE.parse(encoded(taken)) == (Reply(native="BTC-EUR"), Reply(native="ETH-EUR"))
    refused = {"action": "subscribe", "errorCode": 205, "error": "market parameter is invalid."}
    assert VENUE.parse(encoded(refused)) == (Reply(error="market parameter is invalid."),)
    assert VENUE.parse(encoded({"event": "unsubscribed", "subscriptions": {}})) == ()


def test_instruments() -> None:
    market = {
        "market": "BTC-EUR", "status": "trading", "base": "BTC", "quote": "EUR", "pricePrecision": "0", "tickSize": "1.00",
        "minOrderInBaseAsset": "0.00006100", "minOrderInQuoteAsset": "5.00", "quantityDecimals": "8", "notionalDecimals": "2",
        "orderTypes": ["market", "limit"],
    }  # fmt: skip
    one, two = VENUE.parse_instruments(encoded([market, {**market, "status": "auction", "quantityDecimals": 0}, {}]))
    assert (one.native_id, one.symbol, one.kind, one.tick_size, one.lot_size, one.min_size, one.min_notional, one.state) == (
        "BTC-EUR", "BTC/EUR", "SPOT", "1", "0.00000001", "0.000061", "5", "TRADING",
    )  # fmt: skip
    assert (two.lot_size, two.state) == ("1", "HALTED")


def test_subscriptions() -> None:
    (frame,) = VENUE.subscribe(["BTC-EUR", "ETH-EUR"], 1)
    markets = ["BTC-EUR", "ETH-EUR"]
    assert json.loads(frame) == {
        "action": "subscribe", "channels": [{"name": "book", "markets": markets}, {"name": "trades", "markets": markets}],
    }  # fmt: skip
    (frame,) = adapter("bitvavo")(channels=["book"]).unsubscribe(["BTC-EUR"], 2)
    assert json.loads(frame) == {"action": "unsubscribe", "channels": [{"name": "book", "markets": ["BTC-EUR"]}]}


def test_a_worker_chains_onto_the_rest_book_and_finds_a_hole_and_a_restart() -> None:
    run = Replay("bitvavo", ["BTC-EUR"])
    run.subscribed()
    worker = run.worker("BTC-EUR")
    run.receive(book(20_001, [["1", "1"]]), 1)
    assert run.wanted == [worker]
    run.receive(book(20_002, [["1.5", "2"]]), 2)
    body = b'{"market":"BTC-EUR","nonce":20001,"bids":[["1","3"]],"asks":[["2","1"]]}'
    snapshot = run.venue.parse_snapshot("BTC-EUR", body)
    assert snapshot == BookSnapshot("BTC-EUR", 20_001, [("1", "3")], [("2", "1")])
    worker.on_snapshot(snapshot, 3, worker.epoch)
    assert (worker.state, worker.last_seq) == ("LIVE", 20_002)
    assert run.book("BTC-EUR")[0] == {Decimal(1): Decimal(3), Decimal("1.5"): Decimal(2)}
    run.receive(book(20_002, [["1.5", "9"]]), 4)
    assert worker.state == "LIVE", "what is told twice changes nothing"
    run.receive(book(7), 5)
    assert (worker.state, run.counts.gaps) == ("SYNCING", 1)


def test_a_book_that_nobody_asked_for_is_malformed() -> None:
    with pytest.raises(MalformedFrame, match="asked for the book of ETH-EUR"):
        VENUE.parse_snapshot("ETH-EUR", b'{"market":"BTC-EUR","nonce":1,"bids":[],"asks":[]}')
