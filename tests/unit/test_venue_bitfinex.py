"""Bitfinex v2: channels by number, golden events, the count of frames, the checksum, and a real capture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from collectors.errors import MalformedFrame
from collectors.pool import ConnectionPool
from collectors.venue import (
    ALL_CHANNELS,
    Answer,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    StreamBroken,
    TradeEvent,
    adapter,
)
from market.checksums import interleaved_crc32
from simulator.capture_file import read_capture
from tests.venue_replay import Levels, Replay, events_of

BTC, PERP = "tBTCUSD", "tBTCF0:USTF0"


def subscribed(channel: str, number: int, **fields: Any) -> str:
    return json.dumps({"event": "subscribed", "channel": channel, "chanId": number, **fields})


START = [
    '{"event":"info","version":2,"serverId":"eec61c8e-f0c1-4a25-9ee9-1ee5d5a4ea0b","platform":{"status":1}}',
    '{"event":"conf","status":"OK","flags":196608}',
    subscribed("book", 10, symbol=BTC, prec="P0", freq="F0", len="250", pair="BTCUSD"),
    subscribed("trades", 11, symbol=BTC, pair="BTCUSD"),
    subscribed("status", 12, key=f"deriv:{PERP}"),
]


def parse(*frames: str, start: Iterable[str] = START) -> list[Event]:
    before = events_of("bitfinex", [frame.encode() for frame in start])
    return events_of("bitfinex", [frame.encode() for frame in (*start, *frames)])[len(before) :]


def test_the_first_frame_is_answered_with_the_flags_and_a_book_is_confirmed_by_name() -> None:
    answer, reply = events_of("bitfinex", [frame.encode() for frame in START])
    assert isinstance(answer, Answer)
    assert json.loads(answer.frame) == {"event": "conf", "flags": 65536 + 131072}
    assert reply == Reply(native=BTC)


def test_golden_events() -> None:
    assert parse("[10,[[31424,4,0.58],[31425,1,-1e-7]],1]", "[10,[31423,2,0.050],2]", "[10,[31425,0,-1],3]",
                 "[10,[31424,0,1],4]", '[10,"hb",5]', '[10,"cs",-890884919,6]', "[10,[],7]") == [
        BookSnapshot(BTC, 1, [("31424", "0.58")], [("31425", "1e-7")]),
        BookDelta(BTC, 2, 2, -1, [("31423", "0.050")], []),
        BookDelta(BTC, 3, 3, -1, [], [("31425", "0")]),
        BookDelta(BTC, 4, 4, -1, [("31424", "0")], []),
        BookDelta(BTC, 6, 6, -1, [], [], 0, -890884919),
        BookSnapshot(BTC, 7, [], []),
    ]  # fmt: skip
    past = "[11,[[401597393,1574694475039,0.005,7244.9]],1]"
    made = '[11,"te",[401597395,1574694478808,-0.0050,7245.3],2]'
    assert parse(past, made, made.replace("te", "tu").replace(",2]", ",3]")) == [
        TradeEvent(BTC, "401597395", "SELL", "7245.3", "0.0050", 1574694478808000)
    ]
    status = ("[12,[1596124822000,null,0.896,0.771995,null,1396531.67,null,1596153600000,-0.00010,112056,null,-0.00114,null,null,"
              "0.7664,null,null,246502.09,null,null,null,null,null],1]")  # fmt: skip
    ts_us = 1596124822000000
    assert parse(status) == [
        FundingEvent(PERP, "-0.00114", 28_800_000_000, 1596153600000000, ts_us),
        MarkPriceEvent(PERP, "0.7664", "0.771995", ts_us),
        OpenInterestEvent(PERP, "246502.09", "BASE", ts_us),
    ]
    assert parse("[99,[1,2,3],1]") == [], "a channel that nobody subscribed"
    with pytest.raises(MalformedFrame):
        parse("[12,[1,2],1]")


def test_every_frame_of_the_connection_counts() -> None:
    assert parse("[10,[],1]", '[11,"hb",2]', "[99,[1],3]", "[10,[5,1,1],4]", "[10,[5,1,9],4]")[-1] == (
        BookDelta(BTC, 4, 4, -1, [("5", "1")], [])
    )  # fmt: skip
    assert parse("[10,[],1]", "[10,[5,1,1],3]", "[10,[6,1,1],4]")[1:] == [
        StreamBroken("frame 3 came after 1"), BookDelta(BTC, 4, 4, -1, [("6", "1")], [])
    ]  # fmt: skip
    assert parse("[10,[]]", "[10,[5,1,1]]") == [
        BookSnapshot(BTC, -1, [], []), BookDelta(BTC, -1, -1, -1, [("5", "1")], [])
    ], "before the flags are taken nothing is counted"  # fmt: skip
    assert parse('{"event":"info","code":20051,"msg":"Stopping"}') == [StreamBroken("the server is restarted")]


def test_refusals() -> None:
    refused = '{"channel":"book","symbol":"tFOO","prec":"P0","event":"error","msg":"symbol: invalid","code":10300}'
    assert parse(refused) == [Reply(-1, "10300: symbol: invalid", "tFOO")]
    assert parse(refused.replace('"book"', '"trades"')) == [Reply(-1, "10300: symbol: invalid")]
    assert parse(refused.replace("10300", "10301")) == [Reply(-1, "", "tFOO")], "it is subscribed already"
    assert parse('{"event":"info","code":10000,"msg":"x"}') == []


def test_a_cancellation_names_the_numbers_that_the_connection_was_told() -> None:
    venue = adapter("bitfinex")(channels=ALL_CHANNELS)
    frames = [json.loads(frame) for frame in venue.subscribe([PERP], 1)]
    assert frames == [
        {"event": "subscribe", "channel": "book", "symbol": PERP, "prec": "P0", "freq": "F0", "len": "250"},
        {"event": "subscribe", "channel": "trades", "symbol": PERP},
        {"event": "subscribe", "channel": "status", "key": f"deriv:{PERP}"},
    ]
    assert len(venue.subscribe([BTC], 1)) == 2
    assert venue.unsubscribe([BTC], 2) == []
    one = venue.connection()
    for frame in START:
        one(frame.encode())
    assert [json.loads(frame)["chanId"] for frame in venue.unsubscribe([BTC], 2)] == [10, 11]
    other = venue.connection()
    other(START[2].replace("10", "77").encode())
    one(b'{"event":"unsubscribed","status":"OK","chanId":10}')
    assert [json.loads(frame)["chanId"] for frame in venue.unsubscribe([BTC], 2)] == [77, 11], "the newer number stays"
    other(b'{"event":"unsubscribed","status":"OK","chanId":77}')
    one(b'{"event":"unsubscribed","status":"OK","chanId":11}')
    assert venue.unsubscribe([BTC], 2) == []
    assert BTC not in venue.numbers  # pyright: ignore[reportAttributeAccessIssue]


def test_instruments_have_the_venues_own_names() -> None:
    def info(smallest: Any) -> list[Any]:
        return [None, None, None, smallest, "2000.0", None, None, None, 0.1, 0.05]

    body = [["BTCUSD", "DUSK:UST", "AB"], ["BTCF0:USTF0"], [["BTCUSD", info("0.00004")], ["DUSK:UST", info("2.0")], 5],
            [["BTCF0:USTF0", info("0.0001")]], [["UST", "USDt"], ["IOT", "IOTA"]]]  # fmt: skip
    spot, dusk, perpetual = adapter("bitfinex")().parse_instruments(json.dumps(body).encode())
    assert (spot.native_id, spot.symbol, spot.min_size, spot.lot_size) == (BTC, "BTC/USD", "0.00004", "0.00000001")
    assert (dusk.native_id, dusk.symbol, dusk.min_size) == ("tDUSK:UST", "DUSK/USDT", "2")
    assert (perpetual.native_id, perpetual.symbol, perpetual.kind, perpetual.settle, perpetual.contract_size) == (
        PERP, "BTC/USDT:USDT", "PERPETUAL", "USDT", "1"
    )  # fmt: skip
    with pytest.raises(MalformedFrame):
        adapter("bitfinex")().parse_instruments(b'["error",10020,"conf: invalid"]')


def test_the_checksum_is_of_the_wires_numbers() -> None:
    replay = Replay("bitfinex", [BTC])
    bids, asks = [("10", "1.50"), ("9", "2")], [("10.5", "-1e-7"), ("11", "-3")]
    for number, frame in enumerate([*START, "[10,[[10,1,1.50],[10.5,1,-1e-7],[11,2,-3]],1]", "[10,[9,1,2],2]"]):
        replay.receive(frame.encode(), number)
    replay.receive(f'[10,"cs",{interleaved_crc32(bids, asks)},3]'.encode(), 10)
    worker = replay.worker(BTC)
    assert (worker.state, replay.counts.checksum_ok, replay.counts.checksum_bad) == ("LIVE", 1, 0)
    replay.receive(b'[10,"cs",5,4]', 11)
    assert (worker.state, replay.counts.checksum_bad, replay.wanted) == ("SYNCING", 1, [worker])


def test_a_real_capture_has_no_hole_and_its_books_are_exact(captures: Path) -> None:
    path = captures / "bitfinex_v2_20210417.txt.gz"
    frames = [line.data for line in read_capture([path]) if line.kind == "frame"]
    assert adapter("bitfinex").sniff(frames)
    said = [json.loads(frame, parse_float=Decimal, parse_int=Decimal) for frame in frames]
    told = [one for one in said if isinstance(one, dict) and one["event"] == "subscribed"]
    channels = {int(one["chanId"]): one["symbol"] for one in told if one["channel"] == "book"}
    replay = Replay("bitfinex", channels.values())
    truth: dict[str, tuple[Levels, Levels]] = {}
    arrays = 0
    for number, (frame, one) in enumerate(zip(frames, said, strict=True)):
        replay.receive(frame, number)
        if isinstance(one, dict):
            continue
        arrays += 1
        native = channels.get(int(one[0]))
        if native is None or one[1] == "hb":
            continue
        whole = not one[1] or isinstance(one[1][0], list)
        if whole:
            truth[native] = ({}, {})
        for price, count, amount in one[1] if whole else [one[1]]:
            held = truth[native][amount < 0]
            held[price] = abs(amount)
            if not count:
                del held[price]
    counts = replay.counts
    assert replay.broken == []
    assert (arrays, counts.gaps, counts.crossed, counts.dead_letters, counts.internal_errors) == (1670, 0, 0, 0, 0)
    rebuilt = replay.rebuilt()
    assert truth.keys() == set(channels.values())
    for native, book in truth.items():
        assert replay.worker(native).state == "LIVE"
        assert replay.book(native) == book == rebuilt[native]
        assert all(len(side) <= 100 for side in book), "the venue deletes what falls out"
    lost = Replay("bitfinex", channels.values())
    for number, frame in enumerate(frames):
        if number != 1000:
            lost.receive(frame, number)
    assert len(lost.broken) == 1


LIQUIDATIONS = subscribed("status", 91684, key="liq:global")
EXECUTED = '["pos",142397657,1574697680828.2002,null,"tBSVUSD",-2.62932,91.583875238719,null,1,1,null,112.27]'
BEGUN = '["pos",171085137,1706395919788,null,"tAVAXF0:USTF0",-8,32.868,null,0,1,null,33.2550]'
LONG = '["pos",171085138,1706395919788.5,null,"tBTCUSD",1e-8,1.0093,null,0,0,null,1.0098]'
SHORT_EVENT = LiquidationEvent("tAVAXF0:USTF0", "BUY", "33.2550", "8", "171085137", 1706395919788000)
LONG_EVENT = LiquidationEvent("tBTCUSD", "SELL", "1.0098", "1e-8", "171085138", 1706395919788500)


def liquidations(*frames: str) -> list[Event]:
    return parse(*frames, start=[*START[:2], LIQUIDATIONS])


def test_a_liquidation_is_told_once_as_it_begins() -> None:
    assert liquidations(f"[91684,[{BEGUN},{EXECUTED},{LONG}],1]", '[91684,"hb",2]') == [SHORT_EVENT, LONG_EVENT]
    assert liquidations(f"[91684,{BEGUN},1]", f"[91684,[{EXECUTED}],2]", "[91684,[],3]") == [SHORT_EVENT]
    assert liquidations(f"[91684,[{LONG}],1]", f"[91684,[{LONG}],3]")[1:] == [
        StreamBroken("frame 3 came after 1")
    ], "its frames are counted too"


@pytest.mark.parametrize(
    "row",
    [BEGUN.replace("33.2550", "null"), BEGUN.replace("-8", "null"), BEGUN.replace('"pos"', '"x"'),
     BEGUN.replace(",0,1,", ",2,1,"), BEGUN.replace("1706395919788", '"now"'), BEGUN[:-14] + "]",
     BEGUN.replace('"tAVAXF0:USTF0"', "null"), "5", "{}"],
)  # fmt: skip
def test_a_liquidation_that_cannot_be_read_is_malformed(row: str) -> None:
    with pytest.raises(MalformedFrame):
        liquidations(f"[91684,[{LONG},{row}],1]")


async def test_all_liquidations_come_on_one_connection_which_is_opened_anew_when_they_are_refused() -> None:
    natives = [f"tX{n}USD" for n in range(20)]
    run = Replay("bitfinex", [*natives, BTC])
    beside = run.venue.beside()
    assert beside is not None
    assert (type(run.venue)().beside(), beside.unsubscribe([BTC], 1)) == (None, [])
    asked: list[int] = []

    async def talk(socket: ServerConnection) -> None:
        number = -1
        await socket.send(START[0])
        async for raw in socket:
            said = json.loads(raw)
            if said.get("key") != "liq:global":
                continue
            if number < 0:
                number = len(asked)
                asked.append(0)
            asked[number] += 1
            if number == 0:
                await socket.send(json.dumps({**said, "event": "error", "msg": "key: invalid", "code": 10300}))
            elif asked[number] > 1:
                await socket.send(json.dumps({**said, "event": "error", "msg": "subscribe: dup", "code": 10301}))
            else:
                await socket.send(LIQUIDATIONS)
                await socket.send(f"[91684,[{LONG},{BEGUN}],1]")

    async with serve(talk, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        pool = ConnectionPool("bitfinex", beside, url, run.pipeline, run.counts, silence_s=30)
        pool.connect_turn = lambda: asyncio.sleep(0)
        try:
            pool.subscribe(natives)
            async with asyncio.timeout(20):
                while not run.kinds()["market.liquidation"]:
                    await asyncio.sleep(0.02)
            pool.subscribe([BTC])
            async with asyncio.timeout(20):
                while asked != [1, 2]:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
            assert (len(pool.connections), pool.open_count()) == (1, 1)
        finally:
            await pool.close()
    counts = run.counts
    assert run.kinds()["market.liquidation"] == 1
    assert (counts.reconnects, counts.unrouted, counts.dead_letters, counts.internal_errors) == (1, 1, 0, 0)
