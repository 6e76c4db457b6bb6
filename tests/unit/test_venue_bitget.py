"""Bitget v2: golden events, checksum and predecessors, instruments, and a real capture (v1, the same book frames)."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import (
    ALL_CHANNELS,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    TickerEvent,
    TradeEvent,
    adapter,
)
from market.checksums import interleaved_crc32
from simulator.capture_file import read_capture
from tests.venue_replay import Levels, Replay, book_natives

MARKETS = ("bitget-spot", "bitget-usdt", "bitget-usdc", "bitget-coin")
BTC = "BTCUSDT"
TS = 1695716059516000


def parse(frame: dict[str, Any] | bytes, market: str = "bitget-usdt", channels: Any = ALL_CHANNELS) -> list[Event]:
    data = frame if isinstance(frame, bytes) else json.dumps(frame, separators=(",", ":")).encode()
    return list(adapter(market)(channels=channels).parse(data))


def arg(channel: str) -> dict[str, str]:
    return {"instType": "USDT-FUTURES", "channel": channel, "instId": BTC}


def book(action: str, bids: Any = (), asks: Any = (), **fields: Any) -> bytes:
    data = {"asks": asks, "bids": bids, "ts": "1695716059516", **fields}
    frame = {"action": action, "arg": arg("books"), "data": [data], "ts": 1695716059516}
    return json.dumps(frame, separators=(",", ":")).encode()


def test_books() -> None:
    whole = book("snapshot", [["26274.8", "0.0009"]], [["26274.9", "0.0010"]], checksum=0, seq=123)
    assert parse(whole) == [BookSnapshot(BTC, 123, [("26274.8", "0.0009")], [("26274.9", "0.0010")], TS, 0)]
    changed = book("update", [["26274.8", "0"]], [], checksum=-1367582038, seq="1343064377779269632", pseq=123)
    delta = BookDelta(BTC, 1343064377779269632, 1343064377779269632, 123, [("26274.8", "0")], [], TS, -1367582038)
    assert parse(changed) == [delta]
    assert parse(json.dumps(dict(reversed(json.loads(changed).items())), indent=1).encode()) == [delta]
    (bare,) = parse(book("update", seq=5, pseq=0))
    assert isinstance(bare, BookDelta)
    assert (bare.prev_seq, bare.checksum) == (-1, None)
    with pytest.raises(MalformedFrame, match="neither whole nor changed"):
        parse(book("other"))


def test_golden_events() -> None:
    trades = {"action": "update", "arg": arg("trade"), "ts": 1, "data": [
        {"ts": "1695709835822", "price": "26293.4", "size": "0.0013", "side": "buy", "tradeId": "1000000000"},
        {"ts": "1695709835821", "price": "26293.3", "size": "0.5", "side": "sell", "tradeId": "999999999"}]}  # fmt: skip
    assert parse(trades) == [
        TradeEvent(BTC, "999999999", "SELL", "26293.3", "0.5", 1695709835821000),
        TradeEvent(BTC, "1000000000", "BUY", "26293.4", "0.0013", 1695709835822000),
    ]
    assert parse({**trades, "action": "snapshot"}) == [], "what was before"
    ticker = {"action": "snapshot", "arg": arg("ticker"), "ts": 1, "data": [
        {"instId": BTC, "lastPr": "27000.5", "bidPr": "27000", "askPr": "27000.5", "bidSz": "2.71", "askSz": "8.76",
         "fundingRate": "0.000010", "nextFundingTime": "1695722400000", "markPrice": "27000.0", "indexPrice": "25702.4",
         "holdingAmount": "929.502", "ts": "1695715383021"}]}  # fmt: skip
    ts_us = 1695715383021000
    everything = [
        TickerEvent(BTC, -1, "27000", "2.71", "27000.5", "8.76", ts_us),
        FundingEvent(BTC, "0.000010", 0, 1695722400000000, ts_us),
        MarkPriceEvent(BTC, "27000.0", "25702.4", ts_us),
        OpenInterestEvent(BTC, "929.502", "BASE", ts_us),
    ]
    assert parse(ticker) == everything
    assert parse(ticker, channels=["book", "mark_price"]) == everything[2:3]
    assert parse(ticker, "bitget-spot") == everything[:1]


def test_answers() -> None:
    assert parse({"event": "subscribe", "arg": arg("books")}) == [Reply(native=BTC)]
    assert parse({"event": "subscribe", "arg": arg("trade")}) == []
    assert parse({"event": "unsubscribe", "arg": arg("books")}) == []
    assert parse(b"pong") == []
    message = "instType:SPOT,channel:books,instId:FOO doesn't exist"
    refused = {"event": "error", "arg": arg("books"), "code": 30001, "msg": message, "op": "subscribe"}
    assert parse(refused) == [Reply(-1, f"30001: {message}", BTC)]
    assert parse({**refused, "arg": arg("ticker")}) == [Reply(-1, f"30001: {message}")]


@pytest.mark.parametrize("market", MARKETS)
def test_requests_stay_below_the_venues_length(market: str) -> None:
    venue = adapter(market)(channels=ALL_CHANNELS)
    natives = [f"1000000COIN{i:04}USDT" for i in range(venue.limits.instruments_per_request)]
    frames = venue.subscribe(natives, 1)
    assert all(len(frame) <= 4096 for frame in frames)
    assert [json.loads(frame)["args"][0]["channel"] for frame in frames] == ["books", "trade", "ticker"]
    kinds = {one["instType"] for frame in frames for one in json.loads(frame)["args"]}
    assert kinds == {"SPOT" if market == "bitget-spot" else venue.instruments_requests()[0].path.rpartition("=")[2]}


def test_instruments() -> None:
    spot = {"symbol": "TRXUSDT", "baseCoin": "TRX", "quoteCoin": "USDT", "minTradeAmount": "0", "takerFeeRate": "0.002",
            "makerFeeRate": "0.001", "pricePrecision": "6", "quantityPrecision": "4", "status": "online",
            "minTradeUSDT": "5"}  # fmt: skip
    swap = {"symbol": BTC, "baseCoin": "BTC", "quoteCoin": "USDT", "supportMarginCoins": ["USDT"], "minTradeNum": "0.001",
            "priceEndStep": "5", "volumePlace": "3", "pricePlace": "1", "sizeMultiplier": "0.001", "symbolType": "perpetual",
            "minTradeUSDT": "5", "symbolStatus": "maintain", "deliveryTime": ""}  # fmt: skip
    coin = {**swap, "symbol": "BTCUSDH26", "quoteCoin": "USD", "supportMarginCoins": ["BTC", "ETH"], "symbolType": "delivery",
            "deliveryTime": "1774598400000", "symbolStatus": "normal"}  # fmt: skip
    bad: list[Any] = [None, {}, {**spot, "pricePrecision": "x"}, {**swap, "supportMarginCoins": []}]
    body = json.dumps({"code": "00000", "msg": "success", "data": [spot, *bad, swap, coin]}).encode()
    one, two, three = adapter("bitget-spot")().parse_instruments(body)
    assert (one.symbol, one.tick_size, one.lot_size, one.min_size, one.min_notional, one.taker_fee_bps, one.maker_fee_bps) == (
        "TRX/USDT", "0.000001", "0.0001", None, "5", "20", "10"
    )  # fmt: skip
    assert (two.symbol, two.kind, two.tick_size, two.lot_size, two.min_size, two.state, two.contract_size) == (
        "BTC/USDT:USDT", "PERPETUAL", "0.5", "0.001", "0.001", "HALTED", "1"
    )  # fmt: skip
    assert (three.symbol, three.kind, three.settle, three.expiry_us) == ("BTC/USD:BTC-260327", "FUTURE", "BTC", 1774598400000000)
    with pytest.raises(MalformedFrame, match="40017"):
        adapter("bitget-spot")().parse_instruments(b'{"code":"40017","msg":"Parameter verification failed","data":[]}')


def test_a_wrong_checksum_and_a_wrong_predecessor_are_gaps() -> None:
    replay = Replay("bitget-usdt", [BTC])
    worker, bids, asks = replay.worker(BTC), [["10.0", "1.50"]], [["10.10", "2"]]
    replay.receive(book("snapshot", bids, asks, checksum=0, seq=5), 1)
    asks = [["10.10", "3.0"]]
    replay.receive(book("update", [], asks, checksum=interleaved_crc32(bids, asks), seq=9), 2)
    replay.receive(book("update", [], asks, checksum=1, seq=9), 3)
    assert (worker.state, replay.counts.checksum_ok, replay.counts.duplicates) == ("LIVE", 1, 1)
    replay.receive(book("update", [], asks, checksum=1, seq=10), 4)
    assert (worker.state, replay.counts.checksum_bad) == ("SYNCING", 1)
    replay.receive(book("snapshot", bids, asks, seq=20, pseq=0), 5)
    replay.receive(book("update", [], [["10.2", "1"]], seq=30, pseq=20), 6)
    assert worker.state == "LIVE"
    replay.receive(book("update", [], [["10.2", "2"]], seq=50, pseq=40), 7)
    assert (worker.state, replay.counts.gaps) == ("SYNCING", 2)


def test_a_real_capture_agrees_with_the_venue_on_every_message(captures: Path) -> None:
    path = captures / "bitget_spot_v1_20220407.txt.gz"
    frames = [line.data for line in read_capture([path]) if line.kind == "frame"]
    assert [market for market in MARKETS if adapter(market).sniff(frames)] == ["bitget-spot"]
    frames = [frame for frame in frames if b'"channel":"books"' in frame]  # v1's trades and tickers had another form
    natives = book_natives("bitget-spot", frames)
    replay = Replay("bitget-spot", natives)
    truth: dict[str, tuple[Levels, Levels]] = {}
    for number, frame in enumerate(frames):
        replay.receive(frame, number)
        said = json.loads(frame)
        for data in said.get("data", ()):
            native = said["arg"]["instId"]
            if said["action"] == "snapshot":
                truth[native] = ({}, {})
            for held, name in zip(truth[native], ("bids", "asks"), strict=True):
                for price, size in data[name]:
                    held[Decimal(price)] = Decimal(size)
                    if not Decimal(size):
                        del held[Decimal(price)]
    counts = replay.counts
    assert (len(natives), counts.checksum_ok) == (8, 443)
    assert (counts.checksum_bad, counts.gaps, counts.crossed, counts.dead_letters, counts.internal_errors) == (0, 0, 0, 0, 0)
    rebuilt = replay.rebuilt()
    for native in natives:
        assert replay.worker(native).state == "LIVE"
        assert replay.book(native) == truth[native] == rebuilt[native]
