"""dYdX v4: the connection's count, late snapshots, crossed books, and v3's real stream in v4's words."""

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
    TradeEvent,
    Venue,
    adapter,
)
from simulator.capture_file import CaptureLine, read_capture
from tests.rest_replay import encoded
from tests.venue_replay import Levels, Replay


@pytest.fixture
def dydx() -> Venue:
    return adapter("dydx")(channels=ALL_CHANNELS)


@pytest.fixture
def parse(dydx: Venue) -> Parser:
    return dydx.connection()


def message(number: int, kind: str, contents: Any, channel: str = "v4_orderbook") -> bytes:
    return encoded({"type": kind, "connection_id": "c", "message_id": number, "id": "BTC-USD", "channel": channel,
                    "version": "1.0.0", "contents": contents})  # fmt: skip


def whole(number: int, bids: Any, asks: Any) -> bytes:
    rows = {name: [{"price": p, "size": s} for p, s in side] for name, side in (("bids", bids), ("asks", asks))}
    return message(number, "subscribed", rows)


def test_frames(parse: Parser) -> None:
    assert parse(b'{"type":"connected","connection_id":"c","message_id":0}') == ()
    assert parse(whole(1, [("114623", "0.1112")], [("114624", "0.0872")])) == (
        BookSnapshot("BTC-USD", -1, [("114623", "0.1112")], [("114624", "0.0872")]),
    )
    assert parse(message(2, "channel_data", {"bids": [["114622.5", "0"]], "asks": [["114630", "1e-3"]]})) == (
        BookDelta("BTC-USD", -1, -1, -1, [("114622.5", "0")], [("114630", "1e-3")]),
    )
    assert parse(message(3, "channel_batch_data", [{"bids": [["1", "2"]]}, {"asks": [["200000", "2"]]}])) == (
        BookDelta("BTC-USD", -1, -1, -1, [("1", "2")], []),
        BookDelta("BTC-USD", -1, -1, -1, [], [("200000", "2")]),
    )
    trade = {"id": "02b6148d0000000200000005", "side": "BUY", "size": "0.024", "price": "114581", "type": "LIQUIDATED",
             "createdAt": "2025-08-04T00:42:07.119Z", "createdAtHeight": "45487245"}  # fmt: skip
    at = 1754268127119000
    assert parse(message(4, "subscribed", {"trades": [trade]}, "v4_trades")) == ()
    assert parse(message(5, "channel_data", {"trades": [trade]}, "v4_trades")) == (
        TradeEvent("BTC-USD", "02b6148d0000000200000005", "BUY", "114581", "0.024", at),
        LiquidationEvent("BTC-USD", "BUY", "114581", "0.024", "02b6148d0000000200000005", at),
    )
    assert parse(b'{"type":"error","message":"Invalid id","connection_id":"c","message_id":6}') == (Reply(error="Invalid id"),)


def test_a_younger_level_ends_the_older_ones_that_it_crosses(parse: Parser) -> None:
    parse(whole(1, [("99", "1"), ("98", "1")], [("101", "1"), ("102", "1"), ("103", "1")]))
    assert parse(message(2, "channel_data", {"bids": [["102", "5"]]})) == (
        BookDelta("BTC-USD", -1, -1, -1, [("102", "5")], [("101", "0"), ("102", "0")]),
    )
    assert parse(message(3, "channel_data", {"asks": [["98.5", "2"]]})) == (
        BookDelta("BTC-USD", -1, -1, -1, [("102", "0"), ("99", "0")], [("98.5", "2")]),
    )
    (same,) = parse(message(4, "channel_data", {"bids": [["98.7", "1"]], "asks": [["98.6", "1"]]}))
    assert isinstance(same, BookDelta)
    assert (same.bids, same.asks) == ([("98.7", "1")], [("98.6", "1"), ("98.5", "0")]), "nobody says which of one message holds"


def test_a_book_that_crosses_in_one_message_is_a_gap() -> None:
    run = Replay("dydx", ["BTC-USD"])
    run.subscribed()
    run.receive(whole(1, [("99", "1")], [("101", "1")]), 1)
    run.receive(message(2, "channel_data", {"bids": [["100.5", "1"]], "asks": [["100", "1"]]}), 2)
    assert (run.worker("BTC-USD").state, run.counts.crossed, run.counts.gaps) == ("SYNCING", 1, 1)


def test_changes_that_overtake_their_book_are_not_lost(parse: Parser) -> None:
    parse(b'{"type":"connected","connection_id":"c","message_id":0}')
    assert parse(message(2, "channel_data", {"bids": [["5", "1"]]})) == ()
    assert parse(message(3, "channel_data", {"bids": [["6", "1"]]})) == ()
    assert parse(whole(1, [("4", "1")], [])) == (
        BookSnapshot("BTC-USD", -1, [("4", "1")], []),
        BookDelta("BTC-USD", -1, -1, -1, [("5", "1")], []),
        BookDelta("BTC-USD", -1, -1, -1, [("6", "1")], []),
    )


def test_a_message_that_never_comes_breaks_the_stream(parse: Parser) -> None:
    parse(whole(1, [("4", "1")], []))
    broken: list[StreamBroken] = []
    for number in range(3, 600):
        broken += [event for event in parse(message(number, "channel_data", {"bids": []})) if isinstance(event, StreamBroken)]
        if broken:
            break
    assert broken
    assert "message 2" in broken[0].reason
    assert number < 510
    (far,) = parse(message(5000, "channel_data", {"bids": []}))
    assert isinstance(far, StreamBroken)


MARKET = {"clobPairId": "0", "ticker": "BTC-USD", "status": "ACTIVE", "oraclePrice": "118976.5376", "nextFundingRate": "-0.00001",
          "openInterest": "52.0691", "tickSize": "1", "stepSize": "0.0001"}  # fmt: skip


def test_markets(dydx: Venue) -> None:
    settled = {**MARKET, "ticker": "OLD-USD", "status": "FINAL_SETTLEMENT", "oraclePrice": None, "nextFundingRate": "0"}
    body = encoded({"markets": {"BTC-USD": MARKET, "OLD-USD": settled}})
    one, two = dydx.parse_instruments(body)
    assert (one.symbol, one.tick_size, one.lot_size, one.state) == ("BTC/USDC:USDC", "1", "0.0001", "TRADING")
    assert two.state == "DELISTED"
    (poll,) = dydx.polls()
    assert list(dydx.parse_poll(poll.request, body))[:3] == [
        FundingEvent("BTC-USD", "-0.00001", 3_600_000_000),
        MarkPriceEvent("BTC-USD", "118976.5376", "118976.5376"),
        OpenInterestEvent("BTC-USD", "52.0691", "BASE"),
    ]
    assert adapter("dydx")().polls() == []
    frames = [json.loads(frame) for frame in dydx.subscribe(["BTC-USD"], 1)]
    assert [(frame["type"], frame["channel"], frame["id"]) for frame in frames] == [
        ("subscribe", "v4_orderbook", "BTC-USD"), ("subscribe", "v4_trades", "BTC-USD"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def lines(captures: Path) -> list[CaptureLine]:
    """v3's messages have v4's form but for the channel's name (and offsets, which v4 has not)."""
    lines = [line for line in read_capture([captures / "dydx_v3_20211028.txt.gz"]) if line.kind == "frame"]
    return [CaptureLine(line.ts_ns, "frame", line.data.replace(b'"v3_', b'"v4_')) for line in lines]


def test_v3s_real_stream_gives_v3s_books(lines: list[CaptureLine]) -> None:
    frames = [json.loads(line.data) for line in lines]
    natives = {frame["id"] for frame in frames if frame.get("channel") == "v4_orderbook"}
    run = Replay("dydx", natives)
    run.subscribed()
    for line in lines:
        run.receive(line.data, line.ts_ns)
    assert (run.broken, run.counts.gaps, run.counts.crossed, run.counts.dead_letters) == ([], 0, 0, 0)
    assert run.pipeline.states() == {"LIVE": 10}
    held: dict[str, tuple[Levels, Levels]] = {native: ({}, {}) for native in natives}
    for frame in frames:
        if frame.get("channel") == "v4_orderbook":
            # By arrival, which is all that v4 has; v3's offsets would let 34 of these levels lose against older messages.
            for side, name in zip(held[frame["id"]], ("bids", "asks"), strict=True):
                for row in frame["contents"][name]:
                    price, size = (row["price"], row["size"]) if isinstance(row, dict) else row
                    side[Decimal(price)] = Decimal(size)
    rebuilt = run.rebuilt()
    for native, sides in held.items():
        truth = tuple({price: size for price, size in side.items() if size} for side in sides)
        assert run.book(native) == rebuilt[native] == truth


def test_any_lost_message_of_the_real_stream_is_noticed(lines: list[CaptureLine]) -> None:
    for lost in (50, 1000, 3000, 4100):
        parse = adapter("dydx")(channels=ALL_CHANNELS).connection()
        kept = [line for line in lines if json.loads(line.data)["message_id"] != lost]
        assert any(isinstance(event, StreamBroken) for line in kept for event in parse(line.data))
