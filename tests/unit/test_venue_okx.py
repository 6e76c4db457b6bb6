"""OKX v5: golden events, its chain and its checksum, and a real capture through real workers."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
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
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    StreamChain,
    TickerEvent,
    TradeEvent,
    Verdict,
    adapter,
)
from market.checksums import interleaved_crc32
from simulator.capture_file import read_capture
from tests.venue_replay import Levels, Replay, events_of

BTC, SWAP = "BTC-USDT", "BTC-USDT-SWAP"


def arg(channel: str, native: str = BTC) -> dict[str, str]:
    return {"channel": channel, "instId": native}


def parse(frame: Any) -> list[Event]:
    return events_of("okx", [frame if isinstance(frame, bytes) else json.dumps(frame, separators=(",", ":")).encode()])


def book(action: str, *, seq: int, prev: int, bids: Any = (), asks: Any = (), checksum: int = 0) -> bytes:
    data = {"asks": asks, "bids": bids, "ts": "1697026383085", "checksum": checksum, "seqId": seq, "prevSeqId": prev}
    return json.dumps({"arg": arg("books"), "action": action, "data": [data]}, separators=(",", ":")).encode()


SNAPSHOT = book("snapshot", seq=123456, prev=-1, bids=[["8476.97", "256", "0", "12"]], asks=[["8476.98", "415", "0", "13"]])
DELTA = book("update", seq=123457, prev=123456, asks=[["8476.98", "0", "0", "0"], ["8477.10", "7.5", "0", "1"]])


def test_books() -> None:
    assert parse(SNAPSHOT) == [BookSnapshot(BTC, 123456, [("8476.97", "256")], [("8476.98", "415")], 1697026383085000)]
    assert parse(DELTA) == [
        BookDelta(BTC, 123457, 123457, 123456, [], [("8476.98", "0"), ("8477.10", "7.5")], 1697026383085000)
    ]
    (signed,) = parse(book("update", seq=2, prev=1, checksum=-855196043))
    assert isinstance(signed, BookDelta)
    assert signed.checksum == -855196043


GOLDEN: list[tuple[dict[str, Any], Event]] = [
    (
        {"arg": arg("trades"), "data": [{"instId": BTC, "tradeId": "130639474", "px": "42219.9", "sz": "0.12060306",
                                         "side": "buy", "ts": "1630048897897", "count": "3", "seqId": 1}]},
        TradeEvent(BTC, "130639474", "BUY", "42219.9", "0.12060306", 1630048897897000),
    ),
    (
        {"arg": arg("bbo-tbt"), "data": [{"asks": [["8446", "95", "0", "3"]], "bids": [["8445", "12", "0", "1"]],
                                          "ts": "1597026383085", "seqId": 363996337}]},
        TickerEvent(BTC, 363996337, "8445", "12", "8446", "95", 1597026383085000),
    ),
    (
        {"arg": arg("funding-rate", SWAP), "data": [{"fundingRate": "0.0001875391284828", "fundingTime": "1700726400000",
                                                     "instId": SWAP, "nextFundingTime": "1700755200000", "ts": "1700724675402",
                                                     "nextFundingRate": "", "method": "current_period"}]},
        FundingEvent(SWAP, "0.0001875391284828", 28_800_000_000, 1700726400000000, 1700724675402000),
    ),
    (
        {"arg": arg("mark-price", SWAP), "data": [{"instType": "SWAP", "instId": SWAP, "markPx": "42310.6",
                                                   "ts": "1630049139746"}]},
        MarkPriceEvent(SWAP, "42310.6", "", 1630049139746000),
    ),
    (
        {"arg": arg("open-interest", SWAP), "data": [{"instId": SWAP, "instType": "SWAP", "oi": "2125419",
                                                      "oiCcy": "21254.19", "ts": "1630049139746"}]},
        OpenInterestEvent(SWAP, "2125419", "CONTRACT", 1630049139746000),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "event"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_events(frame: dict[str, Any], event: Event) -> None:
    assert parse(frame) == [event]
    assert parse(json.dumps(dict(reversed(frame.items())), indent=1).encode()) == [event]


FORCED = json.dumps(
    {"arg": {"channel": "liquidation-orders", "instType": "SWAP"}, "data": [
        {"details": [{"bkLoss": "0", "bkPx": "0.007831", "ccy": "", "posSide": "short", "side": "buy", "sz": "13",
                      "ts": "1692266434010"}],
         "instFamily": "IOST-USDT", "instId": "IOST-USDT-SWAP", "instType": "SWAP", "uly": "IOST-USDT"}]}
).encode()  # fmt: skip


def test_liquidations_of_every_instrument_come_on_each_connection_and_only_its_own_pass() -> None:
    venue = adapter("okx")(channels=ALL_CHANNELS)
    mine, other = venue.connection(), venue.connection()
    mine(SNAPSHOT.replace(b"BTC-USDT", b"IOST-USDT-SWAP"))
    other(SNAPSHOT)
    assert mine(FORCED) == [LiquidationEvent("IOST-USDT-SWAP", "BUY", "0.007831", "13", "", 1692266434010000)]
    assert other(FORCED) == []


def test_an_index_is_said_of_every_contract_above_it() -> None:
    tick = json.dumps({"arg": arg("index-tickers"), "data": [{"instId": BTC, "idxPx": "0.1", "ts": "1597026383085"}]},
                      separators=(",", ":")).encode()  # fmt: skip
    parser = adapter("okx")(channels=ALL_CHANNELS).connection()
    assert parser(tick) == []
    for native in (BTC, SWAP, "BTC-USDT-260327", "ETH-USDT-SWAP", SWAP):
        parser(SNAPSHOT.replace(b"BTC-USDT", native.encode()))
    assert parser(tick) == [MarkPriceEvent(native, "", "0.1", 1597026383085000) for native in (SWAP, "BTC-USDT-260327")]
    with pytest.raises(MalformedFrame):
        parser(tick.replace(b'"1597026383085"', b"5"))


def test_answers() -> None:
    assert parse({"id": "7", "event": "subscribe", "arg": arg("books"), "connId": "a4d3ae55"}) == [Reply(native=BTC)]
    assert parse({"event": "subscribe", "arg": arg("trades"), "connId": "a4d3ae55"}) == []
    assert parse({"event": "unsubscribe", "arg": arg("books"), "connId": "a4d3ae55"}) == []
    assert parse({"event": "channel-conn-count", "channel": "orders", "connCount": "2", "connId": "abcd1234"}) == []
    assert parse(b"pong") == []
    message = "Wrong URL or channel:books,instId:FOO-USDT doesn't exist. Please use the correct URL"
    (named,) = parse({"id": "7", "event": "error", "code": "60018", "msg": message, "connId": "a4d3ae55"})
    assert named == Reply(-1, f"60018: {message}", "FOO-USDT")
    (other,) = parse({"event": "error", "code": "60018", "msg": message.replace("books", "funding-rate"), "connId": "1"})
    assert isinstance(other, Reply)
    assert (other.request_id, other.native) == (-1, "")
    assert parse({"id": "7", "event": "error", "code": "60012", "msg": "Invalid request"}) == [Reply(7, "60012: Invalid request")]


def test_only_what_a_kind_has_is_subscribed() -> None:
    frame = json.loads(adapter("okx")(channels=ALL_CHANNELS).subscribe([BTC, SWAP], 3)[0])
    assert (frame["op"], frame["id"]) == ("subscribe", "3")
    names: defaultdict[str, set[str]] = defaultdict(set)
    for one in frame["args"]:
        names[one.get("instId", "")].add(one["channel"])
    assert names[BTC] == {"books", "trades", "bbo-tbt", "index-tickers"}
    assert names[SWAP] == {"books", "trades", "bbo-tbt", "mark-price", "open-interest", "funding-rate"}
    assert {"channel": "liquidation-orders", "instType": "SWAP"} in frame["args"]
    plain = json.loads(adapter("okx")(channels=["book"]).subscribe([BTC], 3)[0])
    assert plain["args"] == [arg("books")]


ENTRIES: list[dict[str, Any]] = [
    {"baseCcy": "BTC", "quoteCcy": "USDT", "instId": BTC, "instType": "SPOT", "lotSz": "0.00000001", "minSz": "0.00001",
     "tickSz": "0.1", "state": "live", "uly": "", "ctVal": "", "settleCcy": "", "expTime": "", "stk": "", "optType": ""},
    {"instId": SWAP, "instType": "SWAP", "uly": "BTC-USDT", "settleCcy": "USDT", "ctVal": "0.01", "ctMult": "1",
     "ctType": "linear", "tickSz": "0.1", "lotSz": "0.01", "minSz": "0.01", "state": "suspend", "baseCcy": "", "quoteCcy": ""},
    {"instId": "BTC-USD-260327", "instType": "FUTURES", "uly": "BTC-USD", "settleCcy": "BTC", "ctVal": "100", "ctMult": "1",
     "ctType": "inverse", "tickSz": "0.1", "lotSz": "1", "minSz": "1", "state": "live", "expTime": "1774598400000"},
    {"instId": "BTC-USD-260327-50000-C", "instType": "OPTION", "uly": "BTC-USD", "settleCcy": "BTC", "ctVal": "1",
     "ctMult": "0.01", "ctType": "", "tickSz": "0.0001", "lotSz": "1", "minSz": "1", "state": "live", "stk": "50000",
     "optType": "C", "expTime": "1774598400000"},
]  # fmt: skip


def test_instruments() -> None:
    bad: list[Any] = [None, {}, {**ENTRIES[0], "baseCcy": "", "quoteCcy": ""}, {**ENTRIES[1], "tickSz": "x"}]
    body = json.dumps({"code": "0", "data": [*ENTRIES, *bad], "msg": ""}).encode()
    spot, swap, future, option = adapter("okx")().parse_instruments(body)
    assert (spot.symbol, spot.kind, spot.tick_size, spot.lot_size, spot.min_size, spot.contract_size, spot.state) == (
        "BTC/USDT", "SPOT", "0.1", "0.00000001", "0.00001", None, "TRADING"
    )  # fmt: skip
    assert (swap.symbol, swap.kind, swap.settle, swap.contract_size, swap.inverse, swap.state) == (
        "BTC/USDT:USDT", "PERPETUAL", "USDT", "0.01", False, "HALTED"
    )  # fmt: skip
    assert (future.symbol, future.kind, future.inverse, future.contract_size, future.expiry_us) == (
        "BTC/USD:BTC-260327", "FUTURE", True, "100", 1774598400000000
    )  # fmt: skip
    assert (option.symbol, option.kind, option.contract_size) == ("BTC/USD:BTC-260327-50000-C", "OPTION", "0.01")
    with pytest.raises(MalformedFrame, match="51000"):
        adapter("okx")().parse_instruments(b'{"code":"51000","data":[],"msg":"Parameter instType error"}')


@pytest.mark.parametrize(
    ("last", "seq", "prev", "verdict"),
    [
        (10, 15, 10, Verdict.APPLY),
        (10, 10, 10, Verdict.APPLY),  # nothing changed for a minute
        (100, 3, 100, Verdict.APPLY),  # the venue began to count anew
        (15, 15, 10, Verdict.STALE),
        (10, 20, 15, Verdict.GAP),
    ],
)
def test_the_chain(last: int, seq: int, prev: int, verdict: Verdict) -> None:
    delta = BookDelta(BTC, seq, seq, prev, [], [])
    assert StreamChain().follows(last, delta) is verdict
    assert StreamChain().bridges(last, delta) is verdict


def test_a_checksum_is_of_the_venues_texts_and_a_wrong_one_is_a_gap() -> None:
    replay = Replay("okx", [BTC])
    bids, asks = [["10.0", "1.50", "0", "1"]], [["10.10", "2", "0", "1"], ["10.2", "3", "0", "1"]]
    replay.receive(book("snapshot", seq=5, prev=-1, bids=bids, asks=asks, checksum=interleaved_crc32(bids, asks)), 1)
    # A finer price rescales the book; the texts stay with their levels.
    asks = [["10.05", "7.0", "0", "1"], *asks]
    replay.receive(book("update", seq=6, prev=5, asks=asks[:1], checksum=interleaved_crc32(bids, asks)), 2)
    asks = asks[1:]
    replay.receive(book("update", seq=7, prev=6, asks=[["10.05", "0", "0", "0"]], checksum=interleaved_crc32(bids, asks)), 3)
    replay.receive(book("update", seq=8, prev=7, asks=[["10.2", "4", "0", "1"]]), 4)
    worker = replay.worker(BTC)
    assert (worker.state, worker.last_seq, replay.counts.checksum_ok, replay.counts.gaps) == ("LIVE", 8, 3, 0)
    replay.receive(book("update", seq=9, prev=8, asks=[["10.2", "5", "0", "1"]], checksum=12345), 5)
    assert (worker.state, replay.counts.checksum_bad, replay.counts.gaps, replay.wanted) == ("SYNCING", 1, 1, [worker])


def test_an_unsigned_book_is_proven_by_its_chain_alone() -> None:
    replay = Replay("okx", [BTC])
    replay.receive(SNAPSHOT, 1)
    replay.receive(DELTA, 2)
    worker = replay.worker(BTC)
    assert (worker.state, worker.last_seq, replay.counts.checksum_ok, replay.counts.checksum_bad) == ("LIVE", 123457, 0, 0)
    replay.receive(book("update", seq=123470, prev=123460), 3)
    assert (worker.state, replay.counts.gaps) == ("SYNCING", 1)


def test_a_real_capture_agrees_with_the_venue_on_every_message(captures: Path) -> None:
    frames = [line.data for line in read_capture([captures / "okx_v5_20220513.txt.gz"]) if line.kind == "frame"]
    assert adapter("okx").sniff(frames)
    natives = {"BTC-USDT", "BTC-USD-220527", "UNI-USD-SWAP"}
    replay = Replay("okx", natives)
    checked = 0
    truth: dict[str, tuple[Levels, Levels]] = {}
    kinds: Counter[str] = Counter()
    for number, frame in enumerate(frames):
        ok_before = replay.counts.checksum_ok
        replay.receive(frame, number)
        said = json.loads(frame)
        channel = said["arg"]["channel"]
        if "data" not in said:
            continue
        kinds[channel] += 1
        if channel != "books":
            continue
        for data in said["data"]:
            native = said["arg"]["instId"]
            if said["action"] == "snapshot":
                truth[native] = ({}, {})
            for side, name in zip(truth[native], ("bids", "asks"), strict=True):
                for price, size, *_ in data[name]:
                    side[Decimal(price)] = Decimal(size)
                    if not side[Decimal(price)]:
                        del side[Decimal(price)]
            assert replay.book(native) == truth[native]
            checked += replay.counts.checksum_ok - ok_before
    assert checked == 290
    assert {replay.worker(native).state for native in natives} == {"LIVE"}
    counts = replay.counts
    assert (counts.gaps, counts.checksum_bad, counts.crossed, counts.dead_letters, counts.internal_errors) == (0, 0, 0, 0, 0)
    assert counts.trades == kinds["trades"]
    assert counts.tickers == kinds["tickers"]
    assert all(replay.rebuilt()[native] == truth[native] for native in natives)
    assert all(len(side) <= 400 for book in truth.values() for side in book), "the venue deletes what falls out"
