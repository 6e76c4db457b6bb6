"""Phemex: scaled integers and texts, the repeated book as a proof, and a real stream held against an independent book."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from collectors.venue import (
    ALL_CHANNELS,
    BookDelta,
    BookSnapshot,
    FundingEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    TradeEvent,
    Venue,
    adapter,
)
from simulator.capture_file import CaptureLine
from tests.rest_replay import encoded, lines_of, play
from tests.venue_replay import Levels, Replay


@pytest.fixture
def phemex() -> Venue:
    return adapter("phemex")(channels=ALL_CHANNELS)


def book(native: str, kind: str, seq: int, bids: Any = (), asks: Any = (), key: str = "book") -> bytes:
    body = {key: {"asks": asks, "bids": bids}, "depth": 0, "sequence": seq, "symbol": native, "type": kind}
    return encoded({**body, "timestamp": 1625342242371258681})


def test_scaled_books(phemex: Venue) -> None:
    at = 1625342242371258
    assert phemex.parse(book("XTZUSD", "incremental", 5, asks=[[30190, 30]])) == (
        BookDelta("XTZUSD", 5, 5, -1, [], [("3.019", "30")], at),
    )
    assert phemex.parse(book("sGRTUSDT", "snapshot", 5, bids=[[67546000, 258478000000], [1, 0]])) == (
        BookSnapshot("sGRTUSDT", 5, [("0.67546", "2584.78"), ("0.00000001", "0")], [], at, refresh=True),
    )
    assert phemex.parse(book("BTCUSDT", "incremental", 6, [["23787.80", "1.836"]], key="orderbook_p")) == (
        BookDelta("BTCUSDT", 6, 6, -1, [("23787.80", "1.836")], [], at),
    )


def test_trades_after_the_subscription(phemex: Venue) -> None:
    trade = {"sequence": 1, "symbol": "YFIUSD", "trades": [[1625342240710279103, "Buy", 329915000, 40]], "type": "incremental"}
    assert phemex.parse(encoded(trade)) == (TradeEvent("YFIUSD", "", "BUY", "32991.5", "40", 1625342240710279),)
    assert phemex.parse(encoded({**trade, "type": "snapshot"})) == ()
    texts = {"sequence": 1, "symbol": "BTCUSDT", "trades_p": [[1677094244729433000, "Sell", "23800.4", "2.455"]],
             "type": "incremental"}  # fmt: skip
    assert phemex.parse(encoded(texts)) == (TradeEvent("BTCUSDT", "", "SELL", "23800.4", "2.455", 1677094244729433),)


def test_statistics(phemex: Venue) -> None:
    day = {"fundingRate": -10000, "indexPrice": 442621, "markPrice": 442659, "openInterest": 744183, "symbol": "LTCUSD"}
    at = 1592845585373374
    assert phemex.parse(encoded({"market24h": day, "timestamp": 1592845585373374500})) == (
        MarkPriceEvent("LTCUSD", "44.2659", "44.2621", at),
        FundingEvent("LTCUSD", "-0.0001", ts_venue_us=at),
        OpenInterestEvent("LTCUSD", "744183", "CONTRACT", at),
    )
    row = ["STXUSDT", "0.64649", "0.8628", "0.61215", "0.71737", "4519387", "3210827.98166", "697635", "0.71720205", "0.7173",
           "0.0001", "0.0001"]  # fmt: skip
    pack = {"data": [row], "method": "perp_market24h_pack_p.update", "timestamp": "1592845585373374500", "type": "incremental"}
    assert phemex.parse(encoded(pack)) == (
        MarkPriceEvent("STXUSDT", "0.7173", "0.71720205", at),
        FundingEvent("STXUSDT", "0.0001", ts_venue_us=at),
        OpenInterestEvent("STXUSDT", "697635", "BASE", at),
    )


def test_answers_and_subscriptions(phemex: Venue) -> None:
    assert phemex.parse(b'{"error":null,"id":3,"result":{"status":"success"}}') == (Reply(3),)
    assert phemex.parse(b'{"error":null,"id":0,"result":"pong"}') == ()
    (refused,) = phemex.parse(b'{"error":{"code":6001,"message":"invalid argument"},"id":3,"result":null}')
    assert refused == Reply(3, "6001: invalid argument")

    def methods(native: str) -> list[tuple[str, list[Any], int]]:
        return [(f["method"], f["params"], f["id"]) for f in map(json.loads, phemex.subscribe([native], 9))]

    assert methods("BTCUSDT") == [
        ("orderbook_p.subscribe", ["BTCUSDT", True, 0], 9), ("trade_p.subscribe", ["BTCUSDT"], 0),
        ("perp_market24h_pack_p.subscribe", [], 0),
    ]  # fmt: skip
    assert [name for name, _, _ in methods("BTCUSD")] == ["orderbook.subscribe", "trade.subscribe", "market24h.subscribe"]
    assert [name for name, _, _ in methods("sBTCUSDT")] == ["orderbook.subscribe", "trade.subscribe"]


def test_a_repeated_book_proves_the_mirrors() -> None:
    run = Replay("phemex", ["XTZUSD"])
    run.subscribed()
    worker = run.worker("XTZUSD")
    run.receive(book("XTZUSD", "snapshot", 10, [[100, 1]], [[200, 1]]), 1)
    run.receive(book("XTZUSD", "incremental", 12, [[101, 1]]), 2)
    epoch = worker.epoch
    run.receive(book("XTZUSD", "snapshot", 12, [[101, 1], [100, 1]], [[200, 1]]), 3)
    assert (worker.state, worker.epoch, worker.index, run.counts.checksum_bad) == ("LIVE", epoch, 1, 0)
    run.receive(book("XTZUSD", "incremental", 15, [[102, 1]]), 4)
    run.receive(book("XTZUSD", "snapshot", 15, [[102, 1], [101, 1]], [[200, 1]]), 5)  # something ended 100 unseen
    assert (worker.state, run.counts.checksum_bad, run.counts.gaps, run.wanted) == ("SYNCING", 1, 1, [worker])
    run.receive(book("XTZUSD", "snapshot", 15, [[102, 1], [101, 1]], [[200, 1]]), 6)
    assert (worker.state, run.counts.resyncs) == ("LIVE", 1)


PRODUCTS = [
    {"symbol": "BTCUSD", "type": "Perpetual", "settleCurrency": "BTC", "quoteCurrency": "USD", "contractSize": "1 USD",
     "lotSize": 1, "tickSize": 0.5, "priceScale": 4, "baseCurrency": "BTC", "status": "Listed"},
    {"symbol": "sBTCUSDT", "type": "Spot", "quoteCurrency": "USDT", "priceScale": 8, "baseCurrency": "BTC",
     "baseTickSize": "0.000001 BTC", "baseTickSizeEv": 100, "quoteTickSize": "0.01 USDT", "minOrderValue": "1,000 USDT",
     "status": "Delisted"},
    {"symbol": "XYZUSD", "type": "Perpetual", "settleCurrency": "XYZ", "quoteCurrency": "USD", "contractSize": "1 USD",
     "lotSize": 1, "tickSize": 0.5, "priceScale": 6, "baseCurrency": "XYZ", "status": "Listed"},
]  # fmt: skip
HEDGED = {"symbol": "1000SHIBUSDT", "type": "PerpetualV2", "settleCurrency": "USDT", "quoteCurrency": "USDT",
          "contractSize": "1.0", "qtyStepSize": "10", "tickSize": "0.0001", "priceScale": 0,
          "contractUnderlyingAssets": "1000 SHIB", "status": "Listed",
          "minOrderValueRv": "1"}  # fmt: skip


def test_instruments(phemex: Venue) -> None:
    answer = {"code": 0, "data": {"products": PRODUCTS, "perpProductsV2": [HEDGED, {}]}}
    coin, spot, hedged = phemex.parse_instruments(encoded(answer))
    assert (coin.symbol, coin.inverse, coin.tick_size, coin.contract_size) == ("BTC/USD:BTC", True, "0.5", "1")
    assert (spot.symbol, spot.tick_size, spot.lot_size, spot.min_notional, spot.state) == (
        "BTC/USDT", "0.01", "0.000001", "1000", "DELISTED",
    )  # fmt: skip
    assert (hedged.symbol, hedged.lot_size, hedged.min_notional, hedged.contract_size) == ("1000SHIB/USDT:USDT", "10", "1", "1")


@pytest.fixture(scope="module")
def lines(captures: Path) -> list[CaptureLine]:
    return lines_of([captures / "phemex_20210703.txt.gz"])


def test_a_real_stream_gives_the_venues_books_and_its_repeats_agree(lines: list[CaptureLine]) -> None:
    assert adapter("phemex").sniff([line.data for line in lines])
    run = play("phemex", lines)
    books: dict[str, tuple[Levels, Levels]] = {}
    last: dict[str, int] = {}
    changes, repeats = 0, 0
    for line in lines:
        frame = json.loads(line.data)
        if "book" not in frame:
            continue
        native, seq = frame["symbol"], frame["sequence"]
        price_unit, size_unit = (Decimal("1e-8"), Decimal("1e-8")) if native[0] == "s" else (Decimal("1e-4"), Decimal(1))
        sides: tuple[Levels, Levels] = ({}, {}) if frame["type"] == "snapshot" else books[native]
        for side, name in zip(sides, ("bids", "asks"), strict=True):
            side.update((price * price_unit, size * size_unit) for price, size in frame["book"][name])
            for price in [price for price, size in side.items() if not size]:
                del side[price]
        if frame["type"] == "snapshot" and native in books:
            assert seq == last[native]
            assert sides == books[native]
            repeats += 1
        else:
            changes += 1
            assert seq > last.get(native, -1)
        books[native], last[native] = sides, seq
    assert (len(books), repeats, changes) == (10, 3, 1334)
    assert run.pipeline.states() == {"LIVE": 10}
    assert run.counts.book_events == changes
    assert (run.counts.gaps, run.counts.checksum_bad, run.counts.duplicates, run.counts.dead_letters) == (0, 0, 0, 0)
    rebuilt = run.rebuilt()
    for native, truth in books.items():
        assert run.book(native) == rebuilt[native] == truth


def test_a_lost_change_of_a_real_stream_is_found_at_the_next_repeat(lines: list[CaptureLine]) -> None:
    own = [n for n, line in enumerate(lines) if b'"symbol":"sGRTUSDT"' in line.data and line.data.startswith(b'{"book"')]
    repeat = next(n for n in own[1:] if b'"type":"snapshot"' in lines[n].data)
    lost = own[own.index(repeat) - 2]
    run = play("phemex", [*lines[:lost], *lines[lost + 1 : repeat + 1]])
    assert (run.counts.checksum_bad, run.worker("sGRTUSDT").state) == (1, "SYNCING")
