"""KuCoin spot and futures: golden events, addresses, snapshots, and a real capture with its REST answers."""

from __future__ import annotations

import json
from collections import defaultdict
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
from simulator.capture_file import read_capture
from tests.venue_replay import Levels, Replay, events_of

BTC, XBT = "BTC-USDT", "XBTUSDTM"
MARKETS = ("kucoin-futures", "kucoin-spot", "kucoin-spot-full")


def message(topic: str, subject: str, data: Any) -> bytes:
    return json.dumps({"type": "message", "topic": topic, "subject": subject, "data": data}, separators=(",", ":")).encode()


def update(start: int, end: int, bids: Any = (), asks: Any = ()) -> bytes:
    changes = {"asks": asks, "bids": bids}
    data = {"sequenceStart": start, "symbol": BTC, "changes": changes, "sequenceEnd": end, "time": 1663747970273}
    return message(f"/market/level2:{BTC}", "trade.l2update", data)


def test_spot_books() -> None:
    changes = update(8, 10, [["18906", "0.00331", "10"], ["18907", "2", "8"], ["0", "0", "9"]], [["18908", "0", "9"]])
    delta = BookDelta(BTC, 8, 10, -1, [("18907", "2"), ("18906", "0.00331")], [("18908", "0")], 1663747970273000)
    for market in ("kucoin-spot", "kucoin-spot-full"):
        assert events_of(market, [changes]) == [delta]
    assert events_of("kucoin-spot", [json.dumps(dict(reversed(json.loads(changes).items())), indent=1).encode()]) == [delta]
    whole = {"asks": [["95964.3", "0.08168874"]], "bids": [["95964.2", "1.35483359"]], "timestamp": 1733124805073}
    assert events_of("kucoin-spot", [message(f"/spotMarket/level2Depth50:{BTC}", "level2", whole)]) == [
        BookSnapshot(BTC, -1, [("95964.2", "1.35483359")], [("95964.3", "0.08168874")], 1733124805073000, refresh=True)
    ]


GOLDEN: list[tuple[str, bytes, Event]] = [
    ("kucoin-spot", message(f"/market/match:{BTC}", "trade.l3match", {
        "makerOrderId": "671b5007389355000701b1d3", "price": "67523", "sequence": "11067996711960577", "side": "buy",
        "size": "0.003", "symbol": BTC, "takerOrderId": "671b50161777ff00074c168d", "time": "1729843222921000000",
        "tradeId": "11067996711960577", "type": "match"}),
     TradeEvent(BTC, "11067996711960577", "BUY", "67523", "0.003", 1729843222921000)),
    ("kucoin-spot", message(f"/market/ticker:{BTC}", "trade.ticker", {
        "bestAsk": "67218.7", "bestAskSize": "1.92318539", "bestBid": "67218.6", "bestBidSize": "0.01045638",
        "price": "67220", "sequence": "14691455768", "size": "0.00004316", "time": 1729757723612}),
     TickerEvent(BTC, 14691455768, "67218.6", "0.01045638", "67218.7", "1.92318539", 1729757723612000)),
    ("kucoin-futures", message(f"/contractMarket/level2:{XBT}", "level2", {
        "sequence": 1709400450243, "change": "90631.2,sell,2", "timestamp": 1731897467182}),
     BookDelta(XBT, 1709400450243, 1709400450243, -1, [], [("90631.2", "2")], 1731897467182000)),
    ("kucoin-futures", message(f"/contractMarket/execution:{XBT}", "match", {
        "symbol": XBT, "sequence": 1794100537695, "side": "buy", "size": 2, "price": "90503.9", "takerOrderId": "1",
        "makerOrderId": "2", "tradeId": "1794100537695", "ts": 1731898619520000000}),
     TradeEvent(XBT, "1794100537695", "BUY", "90503.9", "2", 1731898619520000)),
    ("kucoin-futures", message(f"/contractMarket/tickerV2:{XBT}", "tickerV2", {
        "symbol": XBT, "sequence": 1709294490099, "bestBidSize": 713, "bestBidPrice": "88987.4", "bestAskPrice": "88987.5",
        "bestAskSize": 1037, "ts": 1731570187000000000}),
     TickerEvent(XBT, 1709294490099, "88987.4", "713", "88987.5", "1037", 1731570187000000)),
    ("kucoin-futures", message(f"/contract/instrument:{XBT}", "mark.index.price", {
        "markPrice": 90445.02, "indexPrice": 90445.0200, "granularity": 1000, "timestamp": 1731899129000}),
     MarkPriceEvent(XBT, "90445.02", "90445.02", 1731899129000000)),
]  # fmt: skip


@pytest.mark.parametrize(("market", "frame", "event"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_events(market: str, frame: bytes, event: Event) -> None:
    assert events_of(market, [frame]) == [event]


def test_a_futures_change_of_its_own_kind_is_malformed() -> None:
    for change in ("1,both,2", "1,sell", "1", "1,sell,2,3"):
        with pytest.raises(MalformedFrame):
            events_of("kucoin-futures", [message(f"/contractMarket/level2:{XBT}", "level2", {"sequence": 1, "change": change})])


@pytest.mark.parametrize("market", MARKETS)
def test_answers_and_subscriptions(market: str) -> None:
    def parse(frame: Any) -> list[Event]:
        return events_of(market, [json.dumps(frame).encode()])

    assert parse({"id": "7", "type": "ack"}) == [Reply(7)]
    assert parse({"id": "7-1", "type": "ack"}) == []
    assert parse({"id": "7", "type": "error", "code": 404, "data": "topic is not found"}) == [Reply(7, "404: topic is not found")]
    assert parse({"id": "hQvf8jkno", "type": "welcome"}) == []
    assert parse({"id": "0", "type": "pong"}) == []
    frames = [json.loads(frame) for frame in adapter(market)(channels=ALL_CHANNELS).subscribe(["A", "B"], 7)]
    assert all(frame["topic"].endswith(":A,B") for frame in frames)
    assert frames[0]["id"] == "7"
    assert "level2" in frames[0]["topic"]
    assert len(json.loads(adapter(market)(channels=["book"]).subscribe(["A"], 7)[0])) == 5
    assert len(adapter(market)(channels=["book"]).subscribe(["A"], 7)) == 1


def test_the_address_comes_from_a_call() -> None:
    venue = adapter("kucoin-spot")()
    request = venue.endpoint_request()
    assert request is not None
    assert (request.method, request.path) == ("POST", "/api/v1/bullet-public")
    servers = [{"endpoint": "wss://ws-api-spot.kucoin.com/", "encrypt": True, "protocol": "websocket", "pingInterval": 18000}]
    body = {"code": "200000", "data": {"token": "2neAiuYvAU==&", "instanceServers": servers}}
    assert venue.parse_endpoint(json.dumps(body).encode()) == "wss://ws-api-spot.kucoin.com/?token=2neAiuYvAU%3D%3D%26"
    for bad in (b"", b"{}", b'{"code":"200000","data":{"token":"x","instanceServers":[]}}', b'{"code":"400100","data":null}'):
        with pytest.raises(MalformedFrame):
            venue.parse_endpoint(bad)


def test_snapshots() -> None:
    data = {"time": 1619378326628, "sequence": "1613277183892", "bids": [["242.649", "5"]], "asks": []}
    body = {"code": "200000", "data": data}
    assert adapter("kucoin-spot-full")().parse_snapshot("BCHSV-USDT", json.dumps(body).encode()) == BookSnapshot(
        "BCHSV-USDT", 1613277183892, [("242.649", "5")], [], 1619378326628000
    )
    futures = b'{"code":"200000","data":{"sequence":1697895963339,"symbol":"X","bids":[[66968,2],["1e3",3]],' \
              b'"asks":[[66968.1,13.0]],"ts":1729168101216000000}}'  # fmt: skip
    assert adapter("kucoin-futures")().parse_snapshot("X", futures) == BookSnapshot(
        "X", 1697895963339, [("66968", "2"), ("1e3", "3")], [("66968.1", "13.0")], 1729168101216000
    )
    with pytest.raises(MalformedFrame, match="400003"):
        adapter("kucoin-spot-full")().parse_snapshot("X", b'{"code":"400003","msg":"KC-API-KEY not exists","data":null}')


def test_instruments_and_polls() -> None:
    spot = {"symbol": BTC, "baseCurrency": "BTC", "quoteCurrency": "USDT", "baseMinSize": "0.00001",
            "baseIncrement": "0.00000001", "priceIncrement": "0.1", "minFunds": "0.1", "enableTrading": True,
            "makerFeeCoefficient": "1.00",
            "takerFeeCoefficient": "2.00"}  # fmt: skip
    body = json.dumps({"code": "200000", "data": [spot, None, {**spot, "priceIncrement": ""}]}).encode()
    (one,) = adapter("kucoin-spot")().parse_instruments(body)
    assert (one.symbol, one.tick_size, one.lot_size, one.min_notional, one.maker_fee_bps, one.taker_fee_bps) == (
        "BTC/USDT", "0.1", "0.00000001", "0.1", "10", "20"
    )  # fmt: skip
    perpetual = {"symbol": "XBTUSDM", "baseCurrency": "XBT", "quoteCurrency": "USD", "settleCurrency": "XBT", "tickSize": 0.5,
                 "lotSize": 1, "multiplier": -1.0, "isInverse": True, "status": "Open", "expireDate": None,
                 "makerFeeRate": 0.00020, "takerFeeRate": 0.00060, "fundingFeeRate": 0.000535, "openInterest": "8724443",
                 "fundingRateGranularity": 28800000, "nextFundingRateDateTime": 1729166400000}  # fmt: skip
    dated = {**perpetual, "symbol": "XBTMH26", "expireDate": 1774598400000, "fundingFeeRate": None, "status": "Paused"}
    contracts = json.dumps({"code": "200000", "data": [perpetual, dated, {}]}).encode()
    venue = adapter("kucoin-futures")(channels=ALL_CHANNELS)
    two, three = venue.parse_instruments(contracts)
    assert (two.symbol, two.kind, two.inverse, two.contract_size, two.taker_fee_bps) == (
        "BTC/USD:BTC", "PERPETUAL", True, "1", "6"
    )  # fmt: skip
    assert (three.symbol, three.kind, three.state) == ("BTC/USD:BTC-260327", "FUTURE", "HALTED")
    (poll,) = venue.polls()
    assert venue.parse_poll(poll.request, contracts) == [
        FundingEvent("XBTUSDM", "0.000535", 28_800_000_000, 1729166400000000),
        OpenInterestEvent("XBTUSDM", "8724443", "CONTRACT"),
        OpenInterestEvent("XBTMH26", "8724443", "CONTRACT"),
    ]


def test_whole_books_become_what_changed() -> None:
    replay = Replay("kucoin-spot", [BTC])
    for bids in ([["10", "1"], ["9", "2"]], [["10", "1"], ["8", "3"]], [["10", "1"], ["8", "3"]]):
        whole = {"asks": [["11", "1"]], "bids": bids, "timestamp": 1733124805073}
        replay.receive(message(f"/spotMarket/level2Depth50:{BTC}", "level2", whole), 1)
    worker = replay.worker(BTC)
    assert (worker.state, worker.index) == ("LIVE", 1)
    expected = ({Decimal(10): Decimal(1), Decimal(8): Decimal(3)}, {Decimal(11): Decimal(1)})
    assert replay.book(BTC) == replay.rebuilt()[BTC] == expected


def test_a_real_capture_chains_onto_its_rest_snapshots(captures: Path) -> None:
    stream = list(read_capture([captures / "kucoin_spot_20210425.txt.gz"]))
    rest = list(read_capture([captures / "kucoin_spot_20210425.http.txt.gz"]))
    frames = [line.data for line in stream if line.kind == "frame"]
    assert [market for market in MARKETS if adapter(market).sniff(frames)] == ["kucoin-spot-full"]
    natives = {line.url.rpartition("symbol=")[2] for line in rest if "/orderbook/level2" in line.url}
    replay = Replay("kucoin-spot-full", natives)
    replay.subscribed()
    truth: dict[str, tuple[Levels, Levels]] = {}
    seqs: dict[str, int] = {}
    early: dict[str, list[Any]] = defaultdict(list)

    def apply(native: str, data: Any) -> None:
        if data["sequenceEnd"] <= seqs[native]:
            return
        assert data["sequenceStart"] == seqs[native] + 1
        seqs[native] = data["sequenceEnd"]
        for held, name in zip(truth[native], ("bids", "asks"), strict=True):
            for price, size, _ in data["changes"][name]:
                held[Decimal(price)] = Decimal(size)
                if not Decimal(size):
                    del held[Decimal(price)]

    updates = 0
    for line in sorted([*stream, *rest], key=lambda one: one.ts_ns):
        if line.kind == "rest" and "/orderbook/level2" in line.url:
            native = line.url.rpartition("symbol=")[2]
            worker = replay.worker(native)
            worker.on_snapshot(replay.venue.parse_snapshot(native, line.data), line.ts_ns, worker.epoch)
            data = json.loads(line.data)["data"]
            truth[native] = tuple({Decimal(p): Decimal(s) for p, s in data[name]} for name in ("bids", "asks"))  # type: ignore[assignment]
            seqs[native] = int(data["sequence"])
            for one in early.pop(native, []):
                apply(native, one)
        elif line.kind == "frame":
            replay.receive(line.data, line.ts_ns)
            said = json.loads(line.data)
            if said.get("subject") == "trade.l2update":
                updates += 1
                native = said["data"]["symbol"]
                if native in seqs:
                    apply(native, said["data"])
                else:
                    early[native].append(said["data"])
    counts = replay.counts
    assert updates == 3853
    assert (counts.gaps, counts.old_snapshots, counts.crossed, counts.internal_errors, counts.dead_letters) == (0, 0, 0, 0, 0)
    rebuilt = replay.rebuilt()
    for native in natives:
        assert (replay.worker(native).state, replay.worker(native).last_seq) == ("LIVE", seqs[native])
        assert replay.book(native) == truth[native] == rebuilt[native]
