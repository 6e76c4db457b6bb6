"""Poloniex v2: its frames, and a real stream held against its own chain and an independent book."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import ALL_CHANNELS, BookDelta, BookSnapshot, Reply, TradeEvent, Venue, adapter
from simulator.capture_file import CaptureLine
from tests.rest_replay import encoded, lines_of, play
from tests.venue_replay import Levels


@pytest.fixture
def poloniex() -> Venue:
    return adapter("poloniex")(channels=ALL_CHANNELS)


BOOK = {"symbol": "BCH_USDT", "createTime": 1661123525446, "asks": [], "bids": [["119.620", "1"]], "lastId": 1090009,
        "id": 1090010, "ts": 1661123525457}  # fmt: skip


def test_frames(poloniex: Venue) -> None:
    at = 1661123525446000
    frame = {"channel": "book_lv2", "data": [BOOK], "action": "update"}
    assert poloniex.parse(encoded(frame)) == (BookDelta("BCH_USDT", 1090010, 1090010, 1090009, [("119.620", "1")], [], at),)
    assert poloniex.parse(encoded({**frame, "action": "snapshot"})) == (
        BookSnapshot("BCH_USDT", 1090010, [("119.620", "1")], [], at),
    )
    with pytest.raises(MalformedFrame):
        poloniex.parse(encoded({**frame, "action": "patch"}))
    trade = {"symbol": "BTC_USDT", "amount": "248.3516391", "quantity": "0.01149", "takerSide": "sell",
             "createTime": 1661123520381, "price": "21614.59", "id": "60184114", "ts": 1661123520386}  # fmt: skip
    assert poloniex.parse(encoded({"channel": "trades", "data": [trade]})) == (
        TradeEvent("BTC_USDT", "60184114", "SELL", "21614.59", "0.01149", 1661123520381000),
    )
    assert poloniex.parse(encoded({"event": "subscribe", "channel": "book_lv2", "symbols": ["A_B", "C_D"]})) == (
        Reply(native="A_B"), Reply(native="C_D"),
    )  # fmt: skip
    assert poloniex.parse(encoded({"event": "subscribe", "channel": "trades", "symbols": ["A_B"]})) == ()
    assert poloniex.parse(b'{"event":"pong"}') == ()
    assert poloniex.parse(b'{"event":"error","message":"Invalid symbol"}') == (Reply(error="Invalid symbol"),)


def test_instruments_and_subscriptions(poloniex: Venue) -> None:
    limit = {"priceScale": 10, "quantityScale": 0, "minQuantity": "100", "minAmount": "0.00001"}
    market = {"symbol": "BTS_BTC", "baseCurrencyName": "BTS", "quoteCurrencyName": "BTC", "state": "NORMAL",
              "symbolTradeLimit": limit}  # fmt: skip
    one, two = poloniex.parse_instruments(encoded([market, {**market, "state": "PAUSE"}, {"symbol": "X"}]))
    assert (one.symbol, one.tick_size, one.lot_size, one.min_size, one.min_notional, one.state, two.state) == (
        "BTS/BTC", "0.0000000001", "1", "100", "0.00001", "TRADING", "HALTED",
    )  # fmt: skip
    frame = json.loads(poloniex.subscribe(["BTS_BTC"], 1)[0])
    assert frame == {"event": "subscribe", "channel": ["book_lv2", "trades"], "symbols": ["BTS_BTC"]}
    assert poloniex.heartbeat() == b'{"event":"ping"}'


@pytest.fixture(scope="module")
def lines(captures: Path) -> list[CaptureLine]:
    return lines_of([captures / "poloniex_v2_20220821.txt.gz"])


def test_a_real_streams_chain_holds_and_gives_the_venues_books(lines: list[CaptureLine]) -> None:
    assert adapter("poloniex").sniff([line.data for line in lines])
    run = play("poloniex", lines)
    books: dict[str, tuple[Levels, Levels]] = {}
    last: dict[str, int] = {}
    chained = 0
    for line in lines:
        frame = json.loads(line.data)
        if frame.get("channel") != "book_lv2" or "data" not in frame:
            continue
        for entry in frame["data"]:
            native = entry["symbol"]
            if frame["action"] == "snapshot":
                books[native] = ({}, {})
            else:
                assert entry["lastId"] == last[native]
                chained += 1
            last[native] = entry["id"]
            for side, name in zip(books[native], ("bids", "asks"), strict=True):
                side.update((Decimal(price), Decimal(size)) for price, size in entry[name])
                for price in [price for price, size in side.items() if not size]:
                    del side[price]
    assert (len(books), chained) == (11, 283)
    assert run.pipeline.states() == {"LIVE": 11}
    assert run.counts.book_events == 11 + 283
    assert (run.counts.gaps, run.counts.crossed, run.counts.dead_letters, run.counts.duplicates) == (0, 0, 0, 0)
    rebuilt = run.rebuilt()
    for native, truth in books.items():
        assert run.book(native) == rebuilt[native] == truth


def test_each_lost_update_of_a_real_stream_is_noticed(lines: list[CaptureLine]) -> None:
    own = [n for n, line in enumerate(lines) if b'"symbol":"BTC_USDT"' in line.data and b'"action":"update"' in line.data]
    for lost in own[:-1:7]:
        run = play("poloniex", lines[:lost] + lines[lost + 1 :])
        assert (run.counts.gaps, run.worker("BTC_USDT").state) == (1, "SYNCING")
