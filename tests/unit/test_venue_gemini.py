"""Gemini v2: its frames, and a real stream held against an independent book."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from collectors.venue import ALL_CHANNELS, BookDelta, BookSnapshot, Reply, TradeEvent, Venue, adapter
from tests.rest_replay import encoded, lines_of, play
from tests.venue_replay import Levels, events_of


@pytest.fixture
def gemini() -> Venue:
    return adapter("gemini")(channels=ALL_CHANNELS)


TRADE = {"type": "trade", "symbol": "FILUSD", "event_id": 45465842999, "timestamp": 1624493681030, "price": "58.4998",
         "quantity": "15.4053", "side": "buy"}  # fmt: skip
CHANGES = [["buy", "22252.37", "0.02"], ["sell", "22260.10", "0"]]


def test_frames(gemini: Venue) -> None:
    bids, asks = [("22252.37", "0.02")], [("22260.10", "0")]
    delta = {"type": "l2_updates", "symbol": "BTCUSD", "changes": CHANGES}
    assert gemini.parse(encoded(delta)) == (BookDelta("BTCUSD", -1, -1, -1, bids, asks),)
    assert gemini.parse(encoded({**delta, "trades": [TRADE], "auction_events": []})) == (
        BookSnapshot("BTCUSD", -1, bids, asks),
    ), "past trades mark the first message, and are not told again"
    assert gemini.parse(encoded(TRADE)) == (
        TradeEvent("FILUSD", "45465842999", "BUY", "58.4998", "15.4053", 1624493681030000),
    )
    assert adapter("gemini")(channels=["book"]).parse(encoded(TRADE)) == ()
    assert gemini.parse(b'{"type":"heartbeat","timestamp":1624493671867}') == ()
    (refused,) = gemini.parse(b'{"result":"error","reason":"InvalidSymbol","message":"no such symbol"}')
    assert isinstance(refused, Reply)
    assert "InvalidSymbol" in refused.error


def test_the_first_message_of_a_pair_is_its_whole_book_also_without_past_trades(gemini: Venue) -> None:
    parse = gemini.connection()
    message = {"type": "l2_updates", "symbol": "NEWUSD", "changes": CHANGES}
    first, second = (parse(encoded(message))[0] for _ in range(2))
    assert isinstance(first, BookSnapshot)
    assert isinstance(second, BookDelta)
    assert isinstance(parse(encoded({**message, "trades": []}))[0], BookSnapshot), "it was subscribed anew"


def test_instruments(gemini: Venue) -> None:
    assert gemini.instruments_requests()[0].path == "/v1/symbols/details/all"
    spot = (
        b'{"symbol":"BTCUSD","base_currency":"BTC","quote_currency":"USD","tick_size":1E-8,"quote_increment":0.01,'
        b'"min_order_size":"0.00001","status":"open"}'
    )
    perp = (
        b'{"symbol":"BTCGUSDPERP","base_currency":"BTC","quote_currency":"GUSD","tick_size":0.0001,"quote_increment":0.5,'
        b'"min_order_size":"0.0001","status":"cancel_only","product_type":"swap","contract_type":"linear",'
        b'"contract_price_currency":"GUSD"}'
    )
    one, two = gemini.parse_instruments(b"[%s,{},%s]" % (spot, perp))
    assert (one.symbol, one.tick_size, one.lot_size, one.min_size, one.state) == (
        "BTC/USD", "0.01", "0.00000001", "0.00001", "TRADING",
    )  # fmt: skip
    assert (two.symbol, two.kind, two.tick_size, two.state) == ("BTC/GUSD:GUSD", "PERPETUAL", "0.5", "HALTED")


def test_a_real_stream_gives_the_venues_books(captures: Path) -> None:
    lines = lines_of([captures / "gemini_v2_20210624.txt.gz"])
    assert adapter("gemini").sniff([line.data for line in lines])
    run = play("gemini", lines)
    books: dict[str, tuple[Levels, Levels]] = {}
    for line in lines:
        frame = json.loads(line.data)
        if frame["type"] != "l2_updates":
            continue
        sides = books.setdefault(frame["symbol"], ({}, {}))
        for side, price, size in frame["changes"]:
            if Decimal(size):
                sides[side == "sell"][Decimal(price)] = Decimal(size)
            else:
                sides[side == "sell"].pop(Decimal(price), None)
    assert len(books) == 10
    assert run.pipeline.states() == {"LIVE": 10}
    events = events_of("gemini", [line.data for line in lines])
    assert [sum(isinstance(e, kind) for e in events) for kind in (BookSnapshot, BookDelta)] == [10, 645]
    assert (run.counts.crossed, run.counts.gaps, run.counts.dead_letters) == (0, 0, 0)
    rebuilt = run.rebuilt()
    for native, book in books.items():
        assert run.book(native) == rebuilt[native] == book
