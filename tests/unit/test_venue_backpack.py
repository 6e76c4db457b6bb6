"""Backpack: the documentation's own frames, and its chain onto the REST book."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import (
    ALL_CHANNELS,
    MARK_PRICE,
    BookDelta,
    BookSnapshot,
    FundingEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    TickerEvent,
    TradeEvent,
    adapter,
)
from tests.rest_replay import encoded
from tests.venue_replay import Replay

AT = 1694687965940999
VENUE = adapter("backpack")(channels=ALL_CHANNELS)


def pushed(stream: str, **data: Any) -> bytes:
    return encoded({"stream": stream, "data": data})


def depth(first: int, last: int, bids: list[Any] = [], asks: list[Any] = []) -> bytes:  # noqa: B006
    return pushed("depth.SOL_USDC", e="depth", E=AT + 1, s="SOL_USDC", a=asks, b=bids, U=first, u=last, T=AT)


def test_frames() -> None:
    bids, asks = [["18.67", "0.832"], ["18.68", "0.000"]], [["18.70", "0.000"]]
    assert VENUE.parse(depth(94978271, 94978272, bids, asks)) == (
        BookDelta("SOL_USDC", 94978271, 94978272, -1, [("18.67", "0.832"), ("18.68", "0.000")], [("18.70", "0.000")], AT),
    )
    trade = {"e": "trade", "E": 1694688638091000, "s": "SOL_USDC", "p": "18.68", "q": "0.122", "b": "111063114377265150",
             "a": "111063114585735170", "t": 12345, "T": 1694688638089000, "m": True}  # fmt: skip
    assert VENUE.parse(pushed("trade.SOL_USDC", **trade)) == (
        TradeEvent("SOL_USDC", "12345", "SELL", "18.68", "0.122", 1694688638089000),
    )
    ticker = {"s": "SOL_USDC", "a": "18.70", "A": "1.000", "b": "18.67", "B": "2.000", "u": "111063070525358080", "T": str(AT)}
    assert VENUE.parse(pushed("bookTicker.SOL_USDC", **ticker)) == (
        TickerEvent("SOL_USDC", 111063070525358080, "18.67", "2.000", "18.70", "1.000", AT),
    )
    interest = {"e": "openInterest", "E": AT, "s": "SOL_USDC_PERP", "o": "100"}
    assert VENUE.parse(pushed("openInterest.SOL_USDC_PERP", **interest)) == (
        OpenInterestEvent("SOL_USDC_PERP", "100", "CONTRACT", AT),
    )
    assert VENUE.parse(encoded({"id": None, "error": {"code": 4006, "message": "Invalid stream"}})) == (
        Reply(error="Invalid stream"),
    )
    assert VENUE.parse(encoded({"id": 1, "result": None})) == ()


@pytest.mark.parametrize("next_funding", [1694687965941, 1694687965941000])
def test_the_next_funding_is_told_in_either_unit(next_funding: int) -> None:
    mark = {"e": "markPrice", "E": AT, "s": "SOL_USDC_PERP", "p": "18.70", "f": "-0.0000125", "i": "19.70", "n": next_funding}
    assert VENUE.parse(pushed("markPrice.SOL_USDC_PERP", **mark)) == [
        MarkPriceEvent("SOL_USDC_PERP", "18.70", "19.70", AT),
        FundingEvent("SOL_USDC_PERP", "-0.0000125", 0, 1694687965941000, AT),
    ]
    only = adapter("backpack")(channels=[MARK_PRICE])
    assert only.parse(pushed("markPrice.SOL_USDC_PERP", **mark)) == [MarkPriceEvent("SOL_USDC_PERP", "18.70", "19.70", AT)]


def test_instruments() -> None:
    filters = {"price": {"minPrice": "0.01", "maxPrice": None, "tickSize": "0.01"},
               "quantity": {"minQuantity": "0.01", "maxQuantity": None, "stepSize": "0.010"}}  # fmt: skip
    spot = {"symbol": "SOL_USDC", "baseSymbol": "SOL", "quoteSymbol": "USDC", "marketType": "SPOT", "filters": filters,
            "fundingInterval": 28800000, "orderBookState": "Open"}  # fmt: skip
    perpetual = {**spot, "symbol": "SOL_USDC_PERP", "marketType": "PERP", "orderBookState": "CancelOnly"}
    one, two = VENUE.parse_instruments(encoded([spot, perpetual, {**spot, "marketType": "RFQ"}, {}]))
    assert (one.native_id, one.symbol, one.kind, one.tick_size, one.lot_size, one.min_size, one.state, one.contract_size) == (
        "SOL_USDC", "SOL/USDC", "SPOT", "0.01", "0.01", "0.01", "TRADING", None,
    )  # fmt: skip
    assert (two.symbol, two.kind, two.settle, two.state, two.contract_size) == (
        "SOL/USDC:USDC", "PERPETUAL", "USDC", "HALTED", "1",
    )  # fmt: skip
    with pytest.raises(MalformedFrame, match="none can be read"):
        VENUE.parse_instruments(b"[{}]")


def test_subscriptions() -> None:
    (frame,) = VENUE.subscribe(["SOL_USDC", "SOL_USDC_PERP"], 1)
    assert json.loads(frame) == {"method": "SUBSCRIBE", "params": [
        "depth.SOL_USDC", "trade.SOL_USDC", "bookTicker.SOL_USDC",
        "depth.SOL_USDC_PERP", "trade.SOL_USDC_PERP", "bookTicker.SOL_USDC_PERP",
        "markPrice.SOL_USDC_PERP", "openInterest.SOL_USDC_PERP",
    ]}  # fmt: skip
    (frame,) = adapter("backpack")(channels=["book"]).unsubscribe(["SOL_USDC_PERP"], 2)
    assert json.loads(frame) == {"method": "UNSUBSCRIBE", "params": ["depth.SOL_USDC_PERP"]}


def test_a_worker_chains_onto_the_rest_book() -> None:
    run = Replay("backpack", ["SOL_USDC"])
    run.subscribed()
    worker = run.worker("SOL_USDC")
    run.receive(depth(95, 100, [["1", "1"]]), 1)
    assert run.wanted == [worker]
    run.receive(depth(101, 105, [["1.5", "2"]]), 2)
    body = b'{"asks":[["2","1"]],"bids":[["1","3"]],"lastUpdateId":"102","timestamp":1735689600000000}'
    snapshot = run.venue.parse_snapshot("SOL_USDC", body)
    assert snapshot == BookSnapshot("SOL_USDC", 102, [("1", "3")], [("2", "1")], 1735689600000000)
    worker.on_snapshot(snapshot, 3, worker.epoch)
    assert (worker.state, worker.last_seq) == ("LIVE", 105)
    assert run.book("SOL_USDC")[0] == {Decimal(1): Decimal(3), Decimal("1.5"): Decimal(2)}
    run.receive(depth(106, 106), 4)
    run.receive(depth(108, 110), 5)
    assert (worker.state, run.counts.gaps) == ("SYNCING", 1)


@pytest.mark.parametrize("number", ["x", "99999999999999999999", ""])
def test_a_snapshot_without_a_number_is_malformed(number: str) -> None:
    with pytest.raises(MalformedFrame):
        VENUE.parse_snapshot("SOL_USDC", encoded({"asks": [], "bids": [], "lastUpdateId": number}))
