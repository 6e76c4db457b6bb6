"""Upbit: whole books in every message, and what its lists say."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import ALL_CHANNELS, BookSnapshot, Reply, RestRequest, TradeEvent, Venue, adapter
from tests.rest_replay import encoded
from tests.venue_replay import Replay


@pytest.fixture
def upbit() -> Venue:
    return adapter("upbit")(channels=ALL_CHANNELS)


def book(*units: tuple[str, str, str, str], at: int = 1584486737444) -> bytes:
    rows = ",".join(f'{{"ask_price":{a},"bid_price":{b},"ask_size":{x},"bid_size":{y}}}' for a, x, b, y in units)
    return b'{"type":"orderbook","code":"BTC-ETH","timestamp":%d,"orderbook_units":[%s],"stream_type":"REALTIME","level":0}' % (
        at, rows.encode(),
    )  # fmt: skip


def test_frames(upbit: Venue) -> None:
    frame = book(("0.02295077", "3.57100696", "0.02161249", "22.5303265"), ("0.0229", "1E-8", "2.10e-02", "5"))
    assert upbit.parse(frame) == (
        BookSnapshot(
            "BTC-ETH", -1, [("0.02161249", "22.5303265"), ("2.10e-02", "5")], [("0.02295077", "3.57100696"), ("0.0229", "1E-8")],
            1584486737444000, refresh=True,
        ),
    )  # fmt: skip
    assert adapter("upbit").sniff([frame])
    trade = {"type": "trade", "code": "KRW-BTC", "timestamp": 1584508285812, "trade_timestamp": 1584508285000,
             "trade_price": 6747000, "trade_volume": 0.06499468, "ask_bid": "ASK", "sequential_id": 1584508285000002,
             "stream_type": "REALTIME"}  # fmt: skip
    assert upbit.parse(encoded(trade)) == (
        TradeEvent("KRW-BTC", "1584508285000002", "SELL", "6747000", "0.06499468", 1584508285000000),
    )
    assert upbit.parse(encoded({**trade, "stream_type": "SNAPSHOT"})) == ()
    assert upbit.parse(b'{"status":"UP"}') == ()
    (refused,) = upbit.parse(b'{"error":{"name":"INVALID_PARAM","message":"no such code"}}')
    assert refused == Reply(error="INVALID_PARAM: no such code")


def test_a_connection_carries_one_pair_as_requests_replace_each_other(upbit: Venue) -> None:
    assert upbit.limits.instruments_per_connection == 1
    _, books, trades = json.loads(upbit.subscribe(["KRW-BTC"], 7)[0])
    assert (books, trades["type"]) == ({"type": "orderbook", "codes": ["KRW-BTC"]}, "trade")


def test_pairs_are_listed_with_their_steps(upbit: Venue) -> None:
    names = encoded([{"market": "KRW-BTC", "korean_name": "비트코인"}, {"market": "USDT-ETH"}])
    first = upbit.instruments_requests()[0]
    assert upbit.parse_instruments(names) == []
    second = upbit.next_instruments_request(first, names)
    assert second == RestRequest("/v1/orderbook/instruments?markets=KRW-BTC,USDT-ETH")
    steps = encoded([{"market": "KRW-BTC", "quote_currency": "KRW", "tick_size": "1000"}, {"market": "BAD", "tick_size": "1"}])
    (listing,) = upbit.parse_instruments(steps)
    assert (listing.native_id, listing.symbol, listing.tick_size, listing.state) == ("KRW-BTC", "BTC/KRW", "1000", "TRADING")
    assert upbit.next_instruments_request(second, steps) is None
    with pytest.raises(MalformedFrame):
        upbit.next_instruments_request(first, b'[{"name":1}]')


def test_the_mirror_is_the_last_message() -> None:
    run = Replay("upbit", ["BTC-ETH"])
    run.subscribed()
    worker = run.worker("BTC-ETH")
    run.receive(book(("3", "1", "2", "1"), ("4", "1", "1", "1")), 1)
    epoch = worker.epoch
    run.receive(book(("3", "1", "2.5", "7"), ("0", "0", "2", "1")), 2)
    assert run.book("BTC-ETH") == ({Decimal("2.5"): Decimal(7), Decimal(2): Decimal(1)}, {Decimal(3): Decimal(1)})
    assert run.rebuilt()["BTC-ETH"] == run.book("BTC-ETH")
    assert (worker.state, worker.epoch, worker.index, run.counts.gaps) == ("LIVE", epoch, 1, 0)
