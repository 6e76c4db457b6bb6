"""What a synthetic venue does wrong when it is told to: each command, seen from a client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.depth_window import DepthWindow
from simulator.fault_script import CLOSE_CODES, KINDS, FaultScript
from simulator.faults import VERBS, ControlError
from simulator.instrument import Name, SyntheticInstrument
from simulator.synthetic import SyntheticVenue
from simulator.truth import TooOld, TruthBook, TruthError
from tests.conftest import ROOT, program

BOOKS = {"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT"}]}
Socket = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def started(protocol: str = "okx", **more: Any) -> AsyncIterator[tuple[SyntheticVenue, aiohttp.ClientSession]]:
    venue = SyntheticVenue(protocol, **{"instruments": 4, "rate": 400, "levels": 8, **more})
    await venue.start()
    async with aiohttp.ClientSession() as session:
        yield venue, session
    await venue.stop()


@asynccontextmanager
async def subscribed(venue: SyntheticVenue, session: aiohttp.ClientSession, **more: Any) -> AsyncIterator[Socket]:
    async with session.ws_connect(venue.ws_url + "/ws/v5/public", **more) as socket:
        await socket.send_str(json.dumps(BOOKS))
        await book(socket)
        yield socket


async def book(socket: Socket) -> dict[str, Any]:
    """The next book of a frame that can be read."""
    while True:
        frame = await socket.receive(timeout=5)
        assert frame.type is aiohttp.WSMsgType.TEXT, frame
        try:
            value = json.loads(frame.data)
        except ValueError:
            continue
        if isinstance(value, dict) and "action" in value and value["arg"]["instId"] == "BTC-USDT":
            return value["data"][0]


async def chain(socket: Socket, count: int) -> list[tuple[int, int]]:
    """(prevSeqId, seqId) of the next books."""
    books = [await book(socket) for _ in range(count)]
    return [(b["prevSeqId"], b["seqId"]) for b in books]


def breaks(numbers: list[tuple[int, int]]) -> int:
    return sum(before[1] != after[0] for before, after in pairwise(numbers))


# Frames.


async def test_lost_repeated_swapped_and_late_frames_break_the_chain_and_are_counted():
    async with started() as (venue, session), subscribed(venue, session) as socket:
        numbers = await chain(socket, 30)
        assert breaks(numbers) == 0
        venue.control("drop", n=2)
        numbers = numbers[-1:] + await chain(socket, 60)
        assert breaks(numbers) in (1, 2)
        venue.control("duplicate", n=1)
        numbers = numbers[-1:] + await chain(socket, 60)
        assert max(Counter(numbers).values()) == 2
        venue.control("reorder", n=1)
        numbers = numbers[-1:] + await chain(socket, 60)
        assert sorted(numbers) != numbers and breaks(sorted(numbers)) == 0
        venue.control("delay", n=1, seconds=0.1)
        numbers = numbers[-1:] + await chain(socket, 80)
        assert sorted(numbers) != numbers and breaks(sorted(numbers)) == 0
        assert {v: venue.faults.counts[v] for v in ("drop", "duplicate", "reorder", "delay")} == {
            "drop": 2, "duplicate": 1, "reorder": 1, "delay": 1,
        }  # fmt: skip
        noted = [fault for fault in venue.faults.injected if fault.verb == "drop"]
        assert {fault.native for fault in noted} == {"BTC-USDT"} and all(fault.seq > 0 for fault in noted)


async def test_a_corrupt_checksum_is_one_that_differs_from_the_true_one():
    async with started(instruments=1) as (venue, session), subscribed(venue, session) as socket:
        from simulator.okx_wire import checksum

        bad = 0
        venue.control("checksum", n=3)
        for _ in range(40):
            found = await book(socket)
            _, bids, asks = venue.books["BTC-USDT"].at(found["seqId"])
            one = venue.instruments["BTC-USDT"]
            decimals = (one.price_decimals, one.size_decimals)
            texts = [[[f"{float(v):.{d}f}" for v, d in zip(level, decimals, strict=True)] for level in side[:25]]
                     for side in (bids, asks)]  # fmt: skip
            bad += found["checksum"] != checksum(*texts)
        assert bad == 3
    async with started("deribit") as (venue, _):
        with pytest.raises(ControlError, match="sends no checksums"):
            venue.control("checksum", n=1)


async def test_a_frozen_symbol_loses_what_happens_and_the_others_go_on():
    async with started(instruments=2) as (venue, session), subscribed(venue, session) as socket:
        before = (await chain(socket, 1))[0][1]
        venue.control("freeze", symbol="BTC-USDT", seconds=0.3)
        seq = venue.books["BTC-USDT"].seq
        await asyncio.sleep(0.2)
        assert venue.books["BTC-USDT"].seq > seq, "the book itself goes on"
        numbers = [(before, before), *await chain(socket, 60)]
        assert breaks(numbers) == 1
        assert venue.faults.counts["frozen frame"] > 5


async def test_a_frozen_connection_says_nothing_and_another_one_everything():
    async with started() as (venue, session), subscribed(venue, session) as one, subscribed(venue, session) as two:
        venue.control("freeze", connection=1, seconds=0.6)
        await asyncio.sleep(0.1)
        heard = Counter[str]()

        async def listen(name: str, socket: Socket) -> None:
            while True:
                await book(socket)
                heard[name] += 1

        tasks = [asyncio.create_task(listen("one", one)), asyncio.create_task(listen("two", two))]
        await asyncio.sleep(0.3)
        assert heard["two"] > 10 and heard["one"] < heard["two"] / 2
        quiet = heard["one"]
        await asyncio.sleep(0.6)
        assert heard["one"] > quiet + 5
        venue.control("freeze", seconds=5)
        await asyncio.sleep(0.2)
        stopped = dict(heard)
        await asyncio.sleep(0.3)
        assert dict(heard) == stopped, "everything"
        for task in tasks:
            task.cancel()


async def test_a_frozen_stream_without_numbers_catches_up_in_order():
    async with (
        started("kraken", instruments=1, rate=100) as (venue, session),
        session.ws_connect(venue.ws_url + "/v2") as socket,
    ):
        params = {"channel": "book", "symbol": ["BTC/USD"], "depth": 1000}
        await socket.send_str(json.dumps({"method": "subscribe", "params": params}))
        times: list[str] = []
        venue.control("freeze", symbol="BTC/USD", seconds=0.3)
        while len(times) < 60:
            value = json.loads((await socket.receive(timeout=5)).data)
            if value.get("type") == "update" and value["channel"] == "book":
                times.append(value["data"][0]["timestamp"])
        assert times == sorted(times) and len(set(times)) == 60
        assert venue.faults.dropped == 0


async def test_slow_frames_come_whole_but_late():
    async with started(rate=100) as (venue, session), subscribed(venue, session) as socket:
        venue.control("slow_frames", n=1, seconds=0.8)
        began = time.monotonic()
        numbers = await chain(socket, 40)
        assert breaks(numbers) == 0
        assert time.monotonic() - began > 0.6


async def test_a_skewed_clock_shows_in_the_times_and_not_in_the_truth():
    async with started() as (venue, session), subscribed(venue, session) as socket:
        venue.control("skew", seconds=-3600)
        await chain(socket, 10)
        found = await book(socket)
        assert -3610 < int(found["ts"]) / 1000 - time.time() < -3590
        venue.control("skew", seconds="5")
        await chain(socket, 10)
        assert 4 < int((await book(socket))["ts"]) / 1000 - time.time() < 6
        venue.control("skew")
        assert venue.faults.skew_us == 0


async def test_a_calmed_venue_does_nothing_wrong_any_more():
    async with started(instruments=1) as (venue, session), subscribed(venue, session) as socket:
        for verb, values in (
            ("drop", {"every": 2}), ("reorder", {"n": 9}), ("skew", {"seconds": 99}), ("ratelimit", {"n": 9}),
            ("freeze", {"symbol": "BTC-USDT", "seconds": 60}), ("freeze", {"seconds": 60}),
        ):  # fmt: skip
            venue.control(verb, **values)
        venue.control("calm")
        await asyncio.sleep(0.1)
        assert breaks((await chain(socket, 60))[-30:]) == 0
        assert abs(venue.now_us() / 1e6 - time.time()) < 1
        async with session.get(venue.rest_url + "/api/v5/public/time") as response:
            assert response.status == 200


# Connections.


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 3000, 4000, 4999])
async def test_a_connection_is_closed_with_the_code_that_was_told(code: int):
    async with started() as (venue, session), subscribed(venue, session) as socket:
        venue.control("close", code=code, connection=1)
        while (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert socket.close_code == code


@pytest.mark.parametrize("code", [1005, 1006, 1015])
async def test_a_connection_may_end_without_a_code(code: int):
    async with started() as (venue, session), subscribed(venue, session) as socket:
        venue.control("close", code=code, all=True)
        while (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            pass
        # aiohttp reads a closing frame without a code as 1000.
        assert socket.close_code in ((0, 1000, 1005) if code == 1005 else (1006, None))
        await asyncio.sleep(0.1)
        assert not venue.stream.clients


async def test_a_half_open_connection_stays_open_and_carries_nothing():
    async with started() as (venue, session), subscribed(venue, session, autoping=False) as socket:
        venue.control("half_open", connection=1)
        while True:
            try:
                await socket.receive(timeout=0.3)
            except TimeoutError:
                break
        await socket.ping()
        await socket.send_str("ping")
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.5)
        assert not socket.closed
        (client,) = venue.stream.clients
        client.abort()


async def test_maintenance_says_so_closes_refuses_and_ends():
    async with started() as (venue, session), subscribed(venue, session) as socket:
        venue.control("maintenance", seconds=0.6)
        texts = []
        while (frame := await socket.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            texts.append(frame.data)
        assert any('"event":"notice"' in text and "64008" in text for text in texts)
        assert socket.close_code == 1001
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(venue.ws_url + "/ws/v5/public")
        assert refused.value.status == 503
        async with session.get(venue.rest_url + "/api/v5/public/time") as response:
            assert response.status == 503 and (await response.json())["code"] == "50001"
        await asyncio.sleep(0.6)
        async with subscribed(venue, session):
            pass


# REST.


@pytest.mark.parametrize("status", [429, 418])
async def test_rest_calls_are_refused_with_the_time_to_wait(status: int):
    async with started("bybit-linear") as (venue, session):
        venue.control("ratelimit", n=2, retry_after=3, status=status)
        for expected in (status, status, 200):
            async with session.get(venue.rest_url + "/v5/market/time") as response:
                assert response.status == expected
                assert response.headers.get("Retry-After") == ("3" if expected != 200 else None)
        assert venue.faults.counts[f"rest {status}"] == 2
        with pytest.raises(ControlError, match="429 or 418"):
            venue.control("ratelimit", n=1, status=500)


async def test_a_slow_answer_is_whole_but_late():
    async with started("deribit") as (venue, session):
        venue.control("slow_rest", n=1, seconds=0.6)
        began = time.monotonic()
        async with session.get(venue.rest_url + "/api/v2/public/get_instruments") as response:
            assert len((await response.json())["result"]) == 4
        assert time.monotonic() - began > 0.5


# Instruments.


@pytest.mark.parametrize("protocol", ["okx", "kraken", "bybit-spot", "coinbase", "deribit"])
async def test_a_storm_lists_500_at_once_and_a_delisting_ends_a_stream(protocol: str):
    async with started(protocol) as (venue, _):
        before = set(venue.symbols)
        venue.control("storm", n=500)
        assert len(venue.symbols) == len(before) + 500
        gone = venue.symbols[0]
        venue.control("delist", symbol=gone)
        assert gone not in venue.books
        events = venue.events
        await asyncio.sleep(0.2)
        assert venue.events > events, "the others go on"
        venue.control("list", symbol=gone)
        assert gone in venue.books
        with pytest.raises(ControlError, match="listed already"):
            venue.control("list", symbol=gone)
        with pytest.raises(ControlError):
            venue.control("list", symbol="not-a-name/of?this-venue")


async def test_three_thousand_instruments_are_served_by_one_process():
    async with started("okx", instruments=3000, rate=1500, levels=None) as (venue, session):
        assert venue.levels == 20
        async with session.ws_connect(venue.ws_url + "/ws/v5/public", max_msg_size=0) as socket:
            names = venue.symbols
            for start in range(0, 3000, 500):
                args = [{"channel": "books", "instId": name} for name in names[start : start + 500]]
                await socket.send_str(json.dumps({"op": "subscribe", "args": args}))
            whole: set[str] = set()
            last: dict[str, int] = {}
            updates = 0
            deadline = time.monotonic() + 20
            while (len(whole) < 3000 or updates < 3000) and time.monotonic() < deadline:
                value = json.loads((await socket.receive(timeout=5)).data)
                if "action" not in value:
                    continue
                native, found = value["arg"]["instId"], value["data"][0]
                assert found["prevSeqId"] == last.get(native, -1)
                last[native] = found["seqId"]
                whole.add(native) if value["action"] == "snapshot" else None
                updates += value["action"] == "update"
            assert len(whole) == 3000 and updates >= 3000
        assert venue.stream.overflows == 0


# Orders, scripts.


def test_orders_that_make_no_sense_are_refused_with_what_would():
    venue = SyntheticVenue("okx", instruments=1, levels=5)
    for verb, values, says in (
        ("explode", {}, "there are: list"),
        ("close", {"code": 99}, "code must be"),
        ("half_open", {}, "no such connection"),
        ("freeze", {"symbol": "NOBODY"}, "not listed"),
        ("delay", {"n": -1}, "from 0 on"),
        ("skew", {"seconds": "soon"}, "number"),
    ):
        with pytest.raises(ControlError, match=says):
            venue.control(verb, **values)
    assert not venue.faults.counts


async def test_every_verb_is_listed_and_obeyed_over_http():
    async with started() as (venue, session):
        async with session.get(venue.rest_url + "/control") as response:
            assert await response.json() == VERBS
        async with session.post(venue.rest_url + "/control/drop", json={"n": 3}) as response:
            assert response.status == 200
        assert venue.faults.drop_next == 3
        async with session.post(venue.rest_url + "/control/close?code=7") as response:
            assert response.status == 400 and "code must be" in (await response.json())["error"]
        async with session.get(venue.rest_url + "/stats") as response:
            assert (await response.json())["instruments"] == 4


def test_a_script_is_the_same_for_the_same_seed_and_has_every_kind():
    one, same, other = (FaultScript(seed, 600, 5) for seed in (7, 7, 8))
    assert one.faults == same.faults != other.faults
    assert {fault.what for fault in one.faults} == set(KINDS)
    assert len(one.faults) == 120
    assert [f.at_s for f in one.faults] == sorted(f.at_s for f in one.faults) and one.faults[-1].at_s <= 600
    codes = {f.values["code"] for seed in range(60) for f in FaultScript(seed, 600, 5).faults if f.verb == "close"}
    assert codes == set(CLOSE_CODES)
    assert {fault.verb for fault in one.faults} <= set(VERBS)


async def test_a_script_runs_by_command_and_ends_with_its_venue():
    async with started() as (venue, session), subscribed(venue, session) as socket:
        del socket
        venue.control("script", seed=3, seconds=1, every=0.05)
        await asyncio.sleep(1.1)
        assert sum(venue.faults.counts.values()) > 5


def test_the_program_starts_a_failing_venue_of_any_protocol(run_cli):
    refused = run_cli("simulate", "synthetic", "--protocol", "nobody")
    assert refused.returncode == 64
    assert "there are: binance-spot" in refused.stderr and "deribit" in refused.stderr
    arguments = ["simulate", "synthetic", "--protocol", "kraken", "--instruments", "3000", "--fault-every", "0.5"]
    with subprocess.Popen([*program(), *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        words = dict(part.split("=", 1) for part in process.stdout.readline().split()[1:])
        with urllib.request.urlopen(words["rest"] + "/0/public/AssetPairs") as response:
            assert len(json.load(response)["result"]) >= 3000
        process.terminate()
        assert process.wait(20) == 0


# Truth and windows.


def test_a_past_truth_is_found_by_the_venues_clock_too():
    book_ = TruthBook(remember=3)
    book_.load(10, [("1", "5")], [("2", "5")], ts_us=1000)
    for number in range(1, 6):
        book_.apply(10 + number, [("1", str(5 + number))], [], ts_us=1000 - number)  # a clock that runs backwards
    assert book_.seq_at_time(995) == 15
    assert book_.seq_at_time(997) == 13
    assert book_.at(13)[1] == [["1", "8"]]
    with pytest.raises(TruthError, match="no remembered event has the time"):
        book_.seq_at_time(1000)
    with pytest.raises(TooOld):
        book_.at(10)


@given(st.integers(0, 10**6), st.integers(3, 30), st.booleans(), st.integers(1, 60))
def test_a_window_tells_just_what_a_client_needs_to_hold_the_best_levels(
    seed: int, depth: int, says_fallen: bool, steps: int
):
    name = Name("BTCUSDT", "BTC", "USDT", "BTC/USDT")
    one = SyntheticInstrument(
        0, name, seed=seed, levels=20, first_u=1, ts_us=1, remember=10, status="live",
    )  # fmt: skip
    window = DepthWindow(one, depth, says_fallen=says_fallen)
    held = [dict(side) for side in window.levels()]
    last = 1
    for seq in range(2, steps + 2):
        one.flow.step()
        told = window.advance(seq)
        if told is not None:
            previous, *changes = told
            assert previous == last
            last = seq
            for side, changed in zip(held, changes, strict=True):
                for price, size in changed:
                    side[price] = size
                    if not size:
                        del side[price]  # told only of what is held
        if not says_fallen:
            for side, order in zip(held, (True, False), strict=True):
                for price in sorted(side, reverse=order)[depth:]:
                    del side[price]
        best = [sorted(one.flow.bids, reverse=True)[:depth], sorted(one.flow.asks)[:depth]]
        assert [set(side) for side in held] == [set(side) for side in best]
        assert held[0] == {p: one.flow.bids[p] for p in best[0]} and held[1] == {p: one.flow.asks[p] for p in best[1]}
