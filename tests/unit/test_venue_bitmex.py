"""BitMEX: rows named by ids, what its tables say, and a real stream held against an independent table."""

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
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Parser,
    Reply,
    StreamBroken,
    TickerEvent,
    TradeEvent,
    Venue,
    adapter,
)
from tests.rest_replay import encoded, lines_of
from tests.venue_replay import Levels, Replay


@pytest.fixture
def bitmex() -> Venue:
    return adapter("bitmex")(channels=ALL_CHANNELS)


@pytest.fixture
def parse(bitmex: Venue) -> Parser:
    return bitmex.connection()


def book(action: str, *rows: dict[str, Any], **more: Any) -> bytes:
    return encoded({"table": "orderBookL2", "action": action, **more, "data": [{"symbol": "XBTUSD", **row} for row in rows]})


PARTIAL = book("partial", {"id": 7, "side": "Sell", "size": 5, "price": 101.5}, {"id": 9, "side": "Buy", "size": 3, "price": 99},
               filter={"symbol": "XBTUSD"})  # fmt: skip


def test_rows_are_found_by_their_id(parse: Parser) -> None:
    assert parse(book("update", {"id": 7, "side": "Sell", "size": 6})) == (), "what precedes the partial is in it"
    assert parse(PARTIAL) == (BookSnapshot("XBTUSD", -1, [("99", "3")], [("101.5", "5")]),)
    assert parse(book("update", {"id": 7, "side": "Sell", "size": 6}, {"id": 9, "side": "Buy", "size": 1})) == (
        BookDelta("XBTUSD", -1, -1, -1, [("99", "1")], [("101.5", "6")]),
    )
    fresh = {"id": 8, "side": "Buy", "size": 2, "price": 1.6327e-06, "timestamp": "2026-01-02T03:04:05.678Z"}
    assert parse(book("insert", fresh)) == (
        BookDelta("XBTUSD", -1, -1, -1, [("1.6327e-06", "2")], [], 1767323045678000),
    )
    assert parse(book("delete", {"id": 9, "side": "Buy"})) == (BookDelta("XBTUSD", -1, -1, -1, [("99", "0")], []),)


def test_a_level_may_turn_its_side(parse: Parser) -> None:
    parse(PARTIAL)
    assert parse(book("update", {"id": 7, "side": "Buy", "size": 4})) == (
        BookDelta("XBTUSD", -1, -1, -1, [("101.5", "4")], [("101.5", "0")]),
    )


def test_a_row_that_the_book_does_not_hold_breaks_the_stream(parse: Parser) -> None:
    parse(PARTIAL)
    (broken,) = parse(book("update", {"id": 77, "side": "Buy", "size": 4}))
    assert isinstance(broken, StreamBroken)
    assert "77" in broken.reason


def test_an_empty_book_has_a_partial_too(parse: Parser) -> None:
    assert parse(book("partial", filter={"symbol": "XBTUSD"})) == (BookSnapshot("XBTUSD", -1, [], []),)


def test_trades_quotes_and_liquidations(parse: Parser) -> None:
    trade = {"timestamp": "2021-07-22T22:36:10.014Z", "symbol": "UNIUSDT", "side": "Buy", "size": 52, "price": 17.297,
             "trdMatchID": "39744121-c20e-44ba-8cc8-a6b8cdf72885"}  # fmt: skip
    expected = TradeEvent("UNIUSDT", "39744121-c20e-44ba-8cc8-a6b8cdf72885", "BUY", "17.297", "52", 1626993370014000)
    assert parse(encoded({"table": "trade", "action": "insert", "data": [trade]})) == (expected,)
    assert parse(encoded({"table": "trade", "action": "partial", "data": [trade]})) == (), "that was before"
    quote = {"timestamp": "2021-07-22T22:36:09.757Z", "symbol": "XBTUSD", "bidSize": 1046200, "bidPrice": 32180,
             "askPrice": 32180.5, "askSize": 161000}  # fmt: skip
    assert parse(encoded({"table": "quote", "action": "insert", "data": [quote, {**quote, "bidPrice": None}]})) == (
        TickerEvent("XBTUSD", -1, "32180", "1046200", "32180.5", "161000", 1626993369757000),
    )
    forced = {"orderID": "00593f1e", "symbol": "XBTUSD", "side": "Sell", "price": 7711.5, "leavesQty": 8020}
    assert parse(encoded({"table": "liquidation", "action": "insert", "data": [forced]})) == (
        LiquidationEvent("XBTUSD", "SELL", "7711.5", "8020", "00593f1e"),
    )


def test_an_instruments_changes_are_put_together(parse: Parser) -> None:
    whole = {"symbol": "XBTUSD", "timestamp": "2026-01-02T00:00:00.000Z", "markPrice": 100.5, "indicativeSettlePrice": 100.25,
             "openInterest": 9000, "fundingRate": 0.0001, "fundingTimestamp": "2026-01-02T04:00:00.000Z",
             "fundingInterval": "2000-01-01T08:00:00.000Z"}  # fmt: skip
    at = 1767312000000000
    assert parse(encoded({"table": "instrument", "action": "partial", "data": [whole]})) == (
        MarkPriceEvent("XBTUSD", "100.5", "100.25", at),
        OpenInterestEvent("XBTUSD", "9000", "CONTRACT", at),
        FundingEvent("XBTUSD", "0.0001", 28_800_000_000, at + 4 * 3_600_000_000, at),
    )
    change = {"symbol": "XBTUSD", "fundingRate": -0.0002, "timestamp": "2026-01-02T00:00:01.000Z"}
    assert parse(encoded({"table": "instrument", "action": "update", "data": [change]})) == (
        FundingEvent("XBTUSD", "-0.0002", 28_800_000_000, at + 4 * 3_600_000_000, at + 1_000_000),
    )
    assert parse(encoded({"table": "instrument", "action": "update", "data": [{"symbol": "XBTUSD", "volume": 1}]})) == ()


def test_answers(parse: Parser, bitmex: Venue) -> None:
    assert bitmex.heartbeat() == b"ping"
    assert parse(b"pong") == ()
    assert parse(encoded({"info": "Welcome to the BitMEX Realtime API.", "limit": {"remaining": 39}})) == ()
    assert parse(encoded({"success": True, "subscribe": "orderBookL2:XBTUSD", "request": {"op": "subscribe", "args": []}})) == (
        Reply(native="XBTUSD"),
    )
    assert parse(encoded({"success": True, "subscribe": "trade:XBTUSD"})) == ()
    args = ["orderBookL2:XBTUSD", "orderBookL2:NOPE", "trade:NOPE"]
    refused = {"status": 400, "error": "Unknown or expired symbol: NOPE", "request": {"op": "subscribe", "args": args}}
    assert parse(encoded(refused)) == (Reply(error="Unknown or expired symbol: NOPE", native="NOPE"),)
    assert len(parse(encoded({**refused, "error": "Rate limit exceeded"}))) == 2


def test_a_subscription_names_all_tables(bitmex: Venue) -> None:
    (frame,) = bitmex.subscribe(["XBTUSD"], 1)
    tables = [arg.partition(":")[0] for arg in json.loads(frame)["args"]]
    assert tables == ["orderBookL2", "trade", "quote", "liquidation", "instrument"]


ENTRY = {"symbol": "XBTUSD", "state": "Open", "typ": "FFWCSX", "underlying": "XBT", "quoteCurrency": "USD",
         "settlCurrency": "XBt", "lotSize": 100, "tickSize": 0.5, "isInverse": True, "isQuanto": False, "multiplier": -100000000,
         "underlyingToSettleMultiplier": -100000000, "underlyingToPositionMultiplier": None, "makerFee": 0.0002,
         "takerFee": 0.0005}  # fmt: skip
LINEAR = {**ENTRY, "symbol": "XBTUSDT", "quoteCurrency": "USDT", "settlCurrency": "USDt", "isInverse": False, "multiplier": 1,
          "underlyingToPositionMultiplier": 1000000, "quoteToSettleMultiplier": 1000000, "makerFee": -0.0001}  # fmt: skip
DATED = {**LINEAR, "symbol": "XBTUSDTZ26", "typ": "FFCCSX", "expiry": "2026-12-25T12:00:00.000Z", "state": "Settled"}
QUANTO = {**ENTRY, "symbol": "ETHUSD", "underlying": "ETH", "isInverse": False, "isQuanto": True, "multiplier": 100}
SPOT = {**LINEAR, "symbol": "XBT_USDT", "typ": "IFXXXP", "settlCurrency": None, "underlyingToPositionMultiplier": 100000000}
INDEX = {**ENTRY, "symbol": ".BXBT", "typ": "MRCXXX"}


def test_instruments(bitmex: Venue) -> None:
    found = {o.native_id: o for o in bitmex.parse_instruments(encoded([ENTRY, LINEAR, DATED, QUANTO, SPOT, INDEX, {}]))}
    told = {name: (o.symbol, o.kind, o.inverse, o.contract_size, o.state) for name, o in found.items()}
    assert told == {
        "XBTUSD": ("BTC/USD:BTC", "PERPETUAL", True, "1", "TRADING"),
        "XBTUSDT": ("BTC/USDT:USDT", "PERPETUAL", False, "0.000001", "TRADING"),
        "XBTUSDTZ26": ("BTC/USDT:USDT-261225", "FUTURE", False, "0.000001", "DELISTED"),
        "ETHUSD": ("ETH/USD:BTC", "PERPETUAL", False, "0.000001", "TRADING"),
        "XBT_USDT": ("BTC/USDT", "SPOT", False, "0.00000001", "TRADING"),
    }
    assert (found["XBTUSD"].tick_size, found["XBTUSD"].taker_fee_bps, found["XBTUSDT"].maker_fee_bps) == ("0.5", "5", "-1")


def test_a_real_stream_gives_the_venues_books(captures: Path) -> None:
    lines = lines_of([captures / "bitmex_20210722.txt.gz"])
    assert adapter("bitmex").sniff([line.data for line in lines])
    frames = [json.loads(line.data, parse_float=Decimal, parse_int=Decimal) for line in lines]
    natives = {row["symbol"] for f in frames if f.get("table") == "orderBookL2" for row in f["data"]}
    assert len(natives) == 10
    run = Replay("bitmex", natives)
    run.subscribed()
    table: dict[tuple[str, Any], list[Any]] = {}
    tops, equal = 0, 0
    for line, frame in zip(lines, frames, strict=True):
        run.receive(line.data, line.ts_ns)
        if frame.get("table") == "orderBookL2":
            for row in frame["data"]:
                key = (row["symbol"], row["id"])
                if frame["action"] == "delete":
                    del table[key]
                elif frame["action"] == "update":
                    table[key][1:] = [row["side"], row["size"]]
                else:
                    table[key] = [row["price"], row["side"], row["size"]]
        elif frame.get("table") == "quote" and frame["action"] == "insert":
            quote = frame["data"][-1]
            book = run.worker(quote["symbol"]).local.book
            best = [Decimal(side.best()[0]).scaleb(book.price_exp) for side in (book.bids, book.asks)]
            tops += 1
            equal += best == [quote["bidPrice"], quote["askPrice"]]
    assert (run.counts.dead_letters, run.counts.gaps, run.counts.crossed, run.broken) == (0, 0, 0, [])
    assert run.pipeline.states() == {"LIVE": 10}
    rebuilt = run.rebuilt()
    for native in natives:
        truth: tuple[Levels, Levels] = ({}, {})
        for (name, _), (price, side, size) in table.items():
            if name == native:
                truth[side == "Sell"][price] = size
        assert run.book(native) == rebuilt[native] == truth
    assert tops > 80
    assert equal / tops > 0.8, "quotes travel beside the book, a little earlier or later"
