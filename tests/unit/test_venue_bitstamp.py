"""Bitstamp v2: its frames, its order by time, and a real stream on the real REST books beside it."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from collectors.venue import (
    ALL_CHANNELS,
    BookDelta,
    BookSnapshot,
    Reply,
    StreamBroken,
    TradeEvent,
    Venue,
    Verdict,
    adapter,
)
from simulator.capture_file import CaptureLine
from tests.rest_replay import encoded, lines_of, play
from tests.venue_replay import Levels, Replay


@pytest.fixture
def bitstamp() -> Venue:
    return adapter("bitstamp")(channels=ALL_CHANNELS)


def test_frames(bitstamp: Venue) -> None:
    data = {"timestamp": "1641343691", "microtimestamp": "1641343691591603", "bids": [], "asks": [["0.99991", "0.00000"]]}
    book = {"data": data, "channel": "diff_order_book_usdtusd", "event": "data"}
    at = 1641343691591603
    assert bitstamp.parse(encoded(book)) == (BookDelta("usdtusd", at, at, -1, [], [("0.99991", "0.00000")], at),)
    perpetual = {**book, "channel": "diff_order_book_btcusd-perp"}
    assert [e.native for e in bitstamp.parse(encoded(perpetual)) if isinstance(e, BookDelta)] == ["btcusd-perp"]
    trade = {"data": {"id": 216000485, "amount": 3.2394864, "amount_str": "3.23948640", "price_str": "3802.89",
                      "type": 1, "microtimestamp": "1641343709599000"}, "channel": "live_trades_ethusd",
             "event": "trade"}  # fmt: skip
    assert bitstamp.parse(encoded(trade)) == (
        TradeEvent("ethusd", "216000485", "SELL", "3802.89", "3.23948640", 1641343709599000),
    )


def test_answers(bitstamp: Venue) -> None:
    ok = {"event": "bts:subscription_succeeded", "channel": "diff_order_book_ethusd", "data": {}}
    assert bitstamp.parse(encoded(ok)) == (Reply(native="ethusd"),)
    assert bitstamp.parse(encoded({**ok, "channel": "live_trades_ethusd"})) == ()
    bad = {"event": "bts:error", "channel": "diff_order_book_x", "data": {"code": None, "message": "Bad subscription string."}}
    (reply,) = bitstamp.parse(encoded(bad))
    assert isinstance(reply, Reply)
    assert (reply.native, "Bad subscription string." in reply.error) == ("x", True)
    assert bitstamp.parse(b'{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}') == ()
    (broken,) = bitstamp.parse(b'{"event":"bts:request_reconnect","channel":"","data":""}')
    assert isinstance(broken, StreamBroken)


def test_a_subscription_is_a_frame_a_channel(bitstamp: Venue) -> None:
    frames = [json.loads(frame)["data"]["channel"] for frame in bitstamp.subscribe(["btcusd", "ethusd"], 1)]
    assert frames == ["diff_order_book_btcusd", "diff_order_book_ethusd", "live_trades_btcusd", "live_trades_ethusd"]


def test_instruments(bitstamp: Venue) -> None:
    spot = {"name": "BTC/USD", "market_symbol": "btcusd", "base_currency": "BTC", "base_decimals": 8, "counter_currency": "USD",
            "counter_decimals": 0, "minimum_order_value": "10", "trading": "Enabled", "market_type": "SPOT"}  # fmt: skip
    perp = {**spot, "market_symbol": "btcusd-perp", "base_decimals": 5, "market_type": "PERPETUAL", "contract_size": "1.00000000",
            "minimum_order_amount": "0.00001000", "trading": "Disabled"}  # fmt: skip
    one, two = bitstamp.parse_instruments(encoded([spot, perp, {**spot, "market_type": "NEW"}, None]))
    assert (one.symbol, one.kind, one.tick_size, one.lot_size, one.min_notional) == ("BTC/USD", "SPOT", "1", "0.00000001", "10")
    assert (two.symbol, two.kind, two.contract_size, two.min_size, two.state) == (
        "BTC/USD:USD", "PERPETUAL", "1", "0.00001", "HALTED",
    )  # fmt: skip


def delta(at: int) -> BookDelta:
    return BookDelta("x", at, at, -1, [], [])


def test_a_book_older_than_the_stream_is_refused_and_time_never_runs_back(bitstamp: Venue) -> None:
    rule = bitstamp.rule("x")
    assert rule.bridges(100, delta(101)) is Verdict.GAP, "nothing says what happened between 100 and 101"
    assert rule.bridges(100, delta(100)) is Verdict.STALE
    assert rule.bridges(100, delta(101)) is Verdict.APPLY
    rule.reset()
    assert rule.bridges(100, delta(101)) is Verdict.APPLY
    assert rule.bridges(105, delta(106)) is Verdict.GAP, "what covered one book says nothing of another"
    assert rule.follows(101, delta(101)) is Verdict.APPLY
    assert rule.follows(101, delta(100)) is Verdict.GAP


def test_a_quiet_book_is_synchronised_anew_at_its_first_change() -> None:
    run = Replay("bitstamp", ["x"])
    run.subscribed()
    worker = run.worker("x")
    worker.on_timer(worker.since_ns + 2_000_000_000)
    worker.on_snapshot(BookSnapshot("x", 100, [("1", "1")], [("2", "1")]), 1, worker.epoch)
    assert worker.state == "LIVE"
    run.receive(b'{"event":"data","channel":"diff_order_book_x","data":{"microtimestamp":"110","bids":[["1","3"]],"asks":[]}}', 2)
    assert worker.state == "SYNCING"
    worker.on_snapshot(BookSnapshot("x", 111, [("1", "3")], [("2", "1")]), 3, worker.epoch)
    assert worker.state == "LIVE"


@pytest.fixture(scope="module")
def lines(captures: Path) -> list[CaptureLine]:
    return lines_of([captures / f"bitstamp_v2_20220105{part}.txt.gz" for part in ("", ".http")])


def pair_of(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def test_a_real_stream_gives_the_venues_books(lines: list[CaptureLine]) -> None:
    run = play("bitstamp", lines, pair_of)
    assert (run.counts.dead_letters, run.counts.internal_errors, run.counts.gaps) == (0, 0, 0)
    books: dict[str, tuple[Levels, Levels]] = {}
    last: dict[str, int] = {}
    changes = 0
    for line in sorted(lines, key=lambda line: line.kind == "frame"):
        frame = json.loads(line.data)
        if line.kind == "rest":
            native, data = pair_of(line.url), frame
            books[native] = ({}, {})
        elif frame.get("event") == "data":
            native, data = frame["channel"].removeprefix("diff_order_book_"), frame["data"]
            changes += 1
            if int(data["microtimestamp"]) <= last[native]:
                continue
        else:
            continue
        last[native] = int(data["microtimestamp"])
        for side, name in zip(books[native], ("bids", "asks"), strict=True):
            side.update((Decimal(price), Decimal(size)) for price, size in data[name])
            for price in [price for price, size in side.items() if not size]:
                del side[price]
    live = [native for native, worker in run.pipeline.workers.items() if worker.state == "LIVE"]
    assert len(live) >= 9
    assert changes > 700
    rebuilt = run.rebuilt()
    for native in live:
        assert run.book(native) == rebuilt[native] == books[native]


def test_the_capture_is_known(lines: list[CaptureLine]) -> None:
    assert adapter("bitstamp").sniff([line.data for line in lines])
