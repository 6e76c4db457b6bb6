"""Kraken spot v2: golden events, the checksum on wire digits, and v1's capture written as v2's frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import ALL_CHANNELS, BookDelta, BookSnapshot, Event, Reply, TickerEvent, TradeEvent, adapter
from market.checksums import kraken_v2_crc32
from simulator.capture_file import read_capture
from tests.venue_replay import Levels, Replay, events_of

MATIC = "MATIC/USD"


def parse(frame: str | dict[str, Any]) -> list[Event]:
    return events_of("kraken", [(frame if isinstance(frame, str) else json.dumps(frame)).encode()])


def side(levels: list[tuple[str, str]]) -> str:
    return "[" + ",".join(f'{{"price":{price},"qty":{size}}}' for price, size in levels) + "]"


def book(kind: str, bids: Any = (), asks: Any = (), checksum: int = 1, symbol: str = MATIC) -> bytes:
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}","bids":{side(bids)},"asks":{side(asks)},'
        f'"checksum":{checksum},"timestamp":"2023-10-06T17:35:55.440295Z"}}]}}'
    ).encode()


TS = 1696613755440295


def test_books_keep_the_digits_of_the_wire() -> None:
    bids, asks = [("0.5666", "4831.75496356"), ("0.5660", "10.00000000")], [("0.5668", "1e-8")]
    assert events_of("kraken", [book("snapshot", bids, asks, 2439117997)]) == [
        BookSnapshot(MATIC, -1, bids, asks, TS, 2439117997)
    ]
    assert events_of("kraken", [book("update", [("0.5657", "0.00000000")], [], 2114181697)]) == [
        BookDelta(MATIC, -1, -1, -1, [("0.5657", "0.00000000")], [], TS, 2114181697)
    ]
    loose = json.dumps(dict(reversed(json.loads(book("update")).items())), indent=1)
    assert parse(loose) == [BookDelta(MATIC, -1, -1, -1, [], [], TS, 1)]


def test_golden_events() -> None:
    trades = (
        '{"channel":"trade","type":"update","data":[{"symbol":"MATIC/USD","side":"sell","price":0.5117,"qty":40.00000000,'
        '"ord_type":"market","trade_id":4665906,"timestamp":"2023-09-25T07:49:37.708706Z"}]}'
    )
    assert parse(trades) == [TradeEvent(MATIC, "4665906", "SELL", "0.5117", "40.00000000", 1695628177708706)]
    ticker = (
        '{"channel":"ticker","type":"snapshot","data":[{"symbol":"ALGO/USD","bid":0.10025,"bid_qty":740.00000000,'
        '"ask":0.10035,"ask_qty":740.00000000,"last":0.10035,"volume":997038.98383185,"vwap":0.10148,"low":0.09979,'
        '"high":0.10285,"change":-0.00017,"change_pct":-0.17}]}'
    )
    assert parse(ticker) == [TickerEvent("ALGO/USD", -1, "0.10025", "740.00000000", "0.10035", "740.00000000")]
    assert parse(ticker.replace('"bid":0.10025', '"bid":null')) == []


def test_answers_speak_of_one_instrument_each() -> None:
    ok = {"method": "subscribe", "result": {"channel": "book", "depth": 1000, "snapshot": True, "symbol": MATIC},
          "success": True, "time_in": "2023-09-25T09:04:31.742599Z", "req_id": 7}  # fmt: skip
    assert parse(ok) == [Reply(native=MATIC)]
    assert parse({**ok, "result": {"channel": "trade", "symbol": MATIC}}) == []
    refused = {"error": "Currency pair not supported FOO/USD", "method": "subscribe", "success": False, "symbol": "FOO/USD"}
    assert parse({**refused, "req_id": 7}) == [Reply(7, "Currency pair not supported FOO/USD", "FOO/USD")]
    assert parse(refused) == [Reply(-1, "Currency pair not supported FOO/USD")], "not the books' request"
    assert parse({"channel": "heartbeat"}) == []
    assert parse({"method": "pong", "time_in": "2023-09-24T14:10:23.799685Z", "time_out": "2023-09-24T14:10:23.799703Z"}) == []
    status = {"channel": "status", "data": [{"api_version": "v2", "connection_id": 13834774380200032777, "system": "online",
                                             "version": "2.0.0"}], "type": "update"}  # fmt: skip
    assert parse(status) == []


def test_subscriptions() -> None:
    venue = adapter("kraken")(channels=ALL_CHANNELS)
    first, trades, tickers = (json.loads(frame) for frame in venue.subscribe([MATIC, "BTC/USD"], 5))
    wanted = {"channel": "book", "symbol": [MATIC, "BTC/USD"], "depth": 1000}
    assert first == {"method": "subscribe", "params": wanted, "req_id": 5}
    assert (trades["params"]["channel"], trades["params"]["snapshot"]) == ("trade", False)
    assert tickers["params"]["event_trigger"] == "bbo"
    back = json.loads(venue.unsubscribe([MATIC], 6)[0])
    assert back == {"method": "unsubscribe", "params": {"channel": "book", "symbol": [MATIC], "depth": 1000}, "req_id": 6}


def test_instruments_have_websocket_names_and_fees() -> None:
    entry = {"altname": "XBTUSD", "wsname": "XBT/USD", "base": "XXBT", "quote": "ZUSD", "pair_decimals": 1, "lot_decimals": 8,
             "fees": [[0, 0.4], [10000, 0.35]], "fees_maker": [[0, 0.25], [10000, 0.2]], "ordermin": "0.00005",
             "costmin": "0.5", "tick_size": "0.1", "status": "online"}  # fmt: skip
    doge = {**entry, "wsname": "XDG/USD", "status": "cancel_only", "tick_size": "", "pair_decimals": 7}
    bad: dict[str, Any] = {"A": None, "B": {}, "C": {**entry, "wsname": "AB"}, "D": {**entry, "lot_decimals": 99}}
    body = json.dumps({"error": [], "result": {"XXBTZUSD": entry, "XDGUSD": doge, **bad}}).encode()
    first, second = adapter("kraken")().parse_instruments(body)
    assert (first.native_id, first.symbol, first.tick_size, first.lot_size, first.min_size, first.min_notional) == (
        "BTC/USD", "BTC/USD", "0.1", "0.00000001", "0.00005", "0.5"
    )  # fmt: skip
    assert (first.maker_fee_bps, first.taker_fee_bps, first.state) == ("25", "40", "TRADING")
    assert (second.native_id, second.symbol, second.tick_size, second.state) == ("DOGE/USD", "DOGE/USD", "0.0000001", "HALTED")
    with pytest.raises(MalformedFrame, match="EGeneral"):
        adapter("kraken")().parse_instruments(b'{"error":["EGeneral:Internal error"],"result":{}}')


def test_the_checksum_is_of_the_ten_best_with_the_finest_digits_seen() -> None:
    replay = Replay("kraken", [MATIC])
    good = kraken_v2_crc32([(100, 150000000)], [(102, 200000000)])
    replay.receive(book("snapshot", [("1.00", "1.50000000")], [("1.02", "2.00000000")], good), 1)
    worker = replay.worker(MATIC)
    assert (worker.state, replay.counts.checksum_bad) == ("LIVE", 0)
    replay.receive(book("update", [("1.01", "3.00000000")], [], kraken_v2_crc32([(101, 3 * 10**8), (100, 15 * 10**7)],
                                                                             [(102, 2 * 10**8)])), 2)  # fmt: skip
    assert (worker.state, replay.counts.checksum_ok) == ("LIVE", 2)
    replay.receive(book("update", [("1.01", "0.00000000")], [], good + 1), 3)
    assert (worker.state, replay.counts.checksum_bad, replay.wanted) == ("SYNCING", 1, [worker])


def test_what_falls_out_of_the_subscribed_depth_is_deleted_for_everybody() -> None:
    replay = Replay("kraken", [MATIC])
    bids = [(f"{2000 - n}.0", "1.0") for n in range(1000)]

    def crc(prices: list[int]) -> int:
        return kraken_v2_crc32([(price * 10, 10) for price in prices], [])

    replay.receive(book("snapshot", bids, [], crc(list(range(2000, 1990, -1)))), 1)
    replay.receive(book("update", [("2001.0", "1.0")], [], crc(list(range(2001, 1991, -1)))), 2)
    held, _ = replay.book(MATIC)
    assert (len(held), max(held), min(held)) == (1000, 2001, 1002)
    assert replay.rebuilt()[MATIC][0] == held


def as_v2(frames: list[bytes]) -> Iterator[bytes]:
    """v1's frames in v2's form: the same texts as JSON numbers, the checksum at the end of the whole message."""
    for frame in frames:
        said = json.loads(frame)
        if not isinstance(said, list):
            continue
        *parts, _, pair = said[1:]
        merged = {key: value for part in parts for key, value in part.items()}
        kind = "snapshot" if "as" in merged or "bs" in merged else "update"
        bids = [(p, s) for p, s, *_ in merged.get("bs", merged.get("b", []))]
        asks = [(p, s) for p, s, *_ in merged.get("as", merged.get("a", []))]
        yield pair.encode() + b" " + kind.encode() + b" " + book(kind, bids, asks, int(merged.get("c", 0)), pair)


def test_a_real_v1_capture_agrees_on_every_message_when_written_as_v2(captures: Path) -> None:
    path = captures / "kraken_v1_20210417.txt.gz"
    frames = list(as_v2([line.data for line in read_capture([path]) if line.kind == "frame"]))
    natives = {frame.split(b" ")[0].decode() for frame in frames}
    replay = Replay("kraken", natives)
    truth: dict[str, tuple[Levels, Levels]] = {}
    for number, line in enumerate(frames):
        pair, kind, frame = line.split(b" ", 2)
        native = pair.decode()
        (event,) = replay.venue.parse(frame)
        assert isinstance(event, BookSnapshot | BookDelta)
        if kind == b"snapshot":  # v1 sends no checksum with its snapshots, v2 does
            replay.worker(native).on_snapshot(BookSnapshot(native, -1, event.bids, event.asks), number)
            truth[native] = ({}, {})
        else:
            replay.receive(frame, number)
        bids, asks = truth[native]
        for levels, held, sign in ((event.bids, bids, 1), (event.asks, asks, -1)):
            for price, size in levels:
                held[Decimal(price)] = Decimal(size)
                if not Decimal(size):
                    del held[Decimal(price)]
            for price in sorted(held, key=lambda p, s=sign: s * p)[: max(0, len(held) - 1000)]:
                del held[price]
    counts = replay.counts
    assert (counts.checksum_ok, counts.checksum_bad, counts.gaps, counts.internal_errors) == (4269, 0, 0, 0)
    rebuilt = replay.rebuilt()
    for native in natives:
        assert replay.worker(native).state == "LIVE"
        assert replay.book(native) == truth[native] == rebuilt[native]


WORKED_BIDS = [
    ("45283.5", "0.10000000"), ("45283.4", "1.54582015"), ("45282.1", "0.10000000"), ("45281.0", "0.10000000"),
    ("45280.3", "1.54592586"), ("45279.0", "0.07990000"), ("45277.6", "0.03310103"), ("45277.5", "0.30000000"),
    ("45277.3", "1.54602737"), ("45276.6", "0.15445238"),
]  # fmt: skip
WORKED_ASKS = [
    ("45285.2", "0.00100000"), ("45286.4", "1.54571953"), ("45286.6", "1.54571109"), ("45289.6", "1.54560911"),
    ("45290.2", "0.15890660"), ("45291.8", "1.54553491"), ("45294.7", "0.04454749"), ("45296.1", "0.35380000"),
    ("45297.5", "0.09945542"), ("45299.5", "0.18772827"),
]  # fmt: skip


@pytest.mark.parametrize("zeros", [True, False], ids=["as the venue writes them", "without trailing zeros"])
def test_the_documentations_worked_example(zeros: bool) -> None:
    def written(levels: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return levels if zeros else [(price.removesuffix(".0"), size.rstrip("0")) for price, size in levels]

    replay = Replay("kraken", [MATIC])
    replay.receive(book("snapshot", written(WORKED_BIDS), written(WORKED_ASKS), 3310070434), 1)
    assert (replay.worker(MATIC).state, replay.counts.checksum_bad) == ("LIVE", 0)
    other = Replay("kraken", [MATIC])
    other.receive(book("snapshot", written(WORKED_BIDS), written(WORKED_ASKS), 3310070435), 1)
    assert (other.worker(MATIC).state, other.counts.checksum_bad) == ("SYNCING", 1)
