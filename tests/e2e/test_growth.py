"""More partitions: keys move, and nothing is lost, counted twice or LIVE and wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.broker import EmbeddedBroker
from bus.errors import TopicMismatch
from bus.growth import grow, raise_partitions
from bus.log_reader import read_all
from bus.partitions import home
from bus.producer import Producer
from bus.topics import admin_client, apply, check, partitions_on_broker, provide
from cli.stack import Child, environment, free_port
from cli.views import ViewError, Views
from config.settings import BrokerSettings, Settings
from history.archiver import Archiver
from history.asof import book_at
from processors.changelogs import CONFIG, changelog_name, changelogs
from processors.views import INTERVALS
from schemas.codec import codec
from schemas.topics import BAR, BOOK, CHAIN_POOL, INSTRUMENT, STATUS, TOPICS, TRADE
from simulator.synthetic import SyntheticVenue
from simulator.truth import TruthError
from strategies.registry import load_config
from strategies.runner import Runner
from tests.e2e.rooms import DEADLINE_S, Rooms, rooms_of, section, unified
from tests.trading_world import World

INSTRUMENTS = 8
FEW, MANY = 3, 7
"""Not a multiple: keys move between the old partitions too."""


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[str]:
    """A broker of each test's own, whatever the other tests use: its topics are not as theirs have to be."""
    broker = EmbeddedBroker(
        BrokerSettings(data_dir=tmp_path / "own-kafka", port=free_port(), heap_mb=256, start_timeout_s=120),
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
    try:
        yield broker.start()
    finally:
        broker.stop()


class Prober:
    """Asks any worker for any book all the time, and holds every LIVE answer against the venue."""

    def __init__(self, name: str, venue: SyntheticVenue, ports: list[int]) -> None:
        self.name, self.venue, self.ports = name, venue, ports
        self.live = 0
        self.wrong: list[str] = []

    async def run(self) -> None:
        chance, natives = random.Random(3), sorted(self.venue.books)
        while True:
            native = chance.choice(natives)
            async with Views(f"http://127.0.0.1:{chance.choice(self.ports)}") as views:
                with contextlib.suppress(ViewError):
                    book = await views.book(self.name, unified(native))
                    if book["state"] == "LIVE":
                        self.live += 1
                        try:
                            _, bids, asks = self.venue.books[native].at(book["venue_seq"])
                        except TruthError as error:
                            self.wrong.append(f"{native}: {error}")
                            continue
                        if (book["bids"], book["asks"]) != (bids, asks):
                            self.wrong.append(f"{native} at {book['venue_seq']}")
            await asyncio.sleep(0.02)


def archive(settings: Settings) -> None:
    with Archiver(settings) as archiver:
        ends = archiver.ends()
        while not archiver.has_read(ends):
            archiver.step()
        archiver.flush()


def homes(settings: Settings, topic: str, partitions: int) -> dict[bytes, int]:
    """{key: partition} of a compacted topic; fails when a key stands where it does not belong."""
    out: dict[bytes, int] = {}
    for record in read_all(settings, topic):
        assert record.key is not None and record.partition == home(record.key, partitions), (topic, record)
        out[record.key] = record.partition
    return out


def written_bars(settings: Settings) -> dict[tuple[str, int, int], int]:
    """{(symbol, interval in seconds, start in us): trades} of the last revision of every bar on its topic."""
    last: dict[tuple[str, int, int], dict[str, Any]] = {}
    for record in read_all(settings, BAR.name):
        bar = codec("Bar").decode(record.value or b"")
        which = (bar["symbol"], bar["interval_s"], bar["start_us"])
        if which not in last or bar["revision"] >= last[which]["revision"]:
            last[which] = bar
    return {which: bar["trades"] for which, bar in last.items()}


async def stop(rooms: Rooms, children: list[Child]) -> None:
    for child in children:
        assert await rooms.stack.stop(child) == 0, child.tail()


def test_a_growth_that_was_cut_short_is_ended_by_the_next(own_kafka: str, settings) -> None:
    few, many = (settings(kafka={"bootstrap_servers": own_kafka, "market_partitions": n}) for n in (FEW, MANY))
    log = changelog_name(few, "books")
    apply(few)
    provide(few, {log: CONFIG}, FEW)
    producer = Producer(few)
    keys = [f"v|C{number}/USDT" for number in range(40)]
    for turn in range(2):
        for key in keys:
            producer.send(STATUS.name, key, f"{key} {turn}".encode())
            producer.send(INSTRUMENT.name, key, f"{key} {turn}".encode())
            producer.send(log, key, b"a checkpoint")
    producer.send(INSTRUMENT.name, keys[0], None)
    assert producer.flush() == 0
    # Cut short: the partitions are raised, two keys have moved, and nothing is deleted yet.
    raise_partitions(admin_client(many), dict.fromkeys((STATUS.name, INSTRUMENT.name, log), FEW), MANY)
    producer = Producer(many)
    away = [k for k in keys[1:] if home(k.encode(), FEW) != home(k.encode(), MANY)]
    for key in away[:2]:
        producer.send(STATUS.name, key, f"{key} newer".encode())
    assert producer.flush() == 0
    assert any("keys moved" in line for line in grow(many, many.processor.app_id, changelogs(many)))
    for topic, kept in ((STATUS.name, keys), (INSTRUMENT.name, keys[1:])):
        assert {k.decode() for k in homes(many, topic, MANY)} == set(kept)
        values = {(r.key or b"").decode(): (r.value or b"").decode() for r in read_all(many, topic)}
        newer = away[:2] if topic == STATUS.name else []
        assert values == {k: f"{k} newer" if k in newer else f"{k} 1" for k in kept}
    assert read_all(many, log) == []
    assert grow(many, many.processor.app_id, changelogs(many)) == []
    assert check(many) == []
    with pytest.raises(TopicMismatch, match="partitions are never taken away"):
        grow(few, few.processor.app_id, changelogs(few))
    with pytest.raises(TopicMismatch, match="as docs"):
        apply(many.model_copy(update={"kafka": many.kafka.model_copy(update={"market_partitions": MANY + 1})}))


def test_a_strategy_goes_on_in_the_partitions_that_were_added(own_kafka: str, settings, tmp_path: Path) -> None:
    few, many = (settings(kafka={"bootstrap_servers": own_kafka, "market_partitions": n}) for n in (FEW, MANY))
    apply(few)
    symbol = next(s for s in (f"C{n}/USDT" for n in range(100)) if home(f"v|{s}".encode(), MANY) >= FEW)
    key, file = f"v|{symbol}", tmp_path / "mm.toml"
    file.write_text(
        'kind = "market_making"\nname = "grown"\n[fees.v]\nmaker_bps = "10"\ntaker_bps = "10"\n'
        f'[parameters]\nvenues = ["v"]\nsymbols = ["{symbol}"]\na = "1"\nk = "0.3"\nsigma = "1"\n'
    )

    def publish(settings: Settings, epoch: int) -> None:
        """A whole book of a new epoch, as a collector that starts writes it."""
        world, producer = World(), Producer(settings)
        world.now_ns = time.time_ns()
        for record in (*world.list("v", symbol), world.status("v", symbol, "LIVE", epoch)):
            producer.send(record.topic, key, record.value)
        book = world.book("v", symbol, [(100_00 + epoch, 5)], [(101_00 + epoch, 5)], epoch=epoch)
        producer.send(book.topic, key, book.value)
        assert producer.flush() == 0

    def at_epoch(settings: Settings, epoch: int, recovered: bool) -> None:
        """Start it, and let it read until its book is of this epoch and live."""
        runner = Runner(settings, load_config(file), "SHADOW")
        runner.start()
        assert bool(runner.recovered) == recovered
        deadline = time.monotonic() + DEADLINE_S
        while (book := runner.loop.view.live(key)) is None or book.epoch != epoch:
            assert time.monotonic() < deadline, runner.loop.view.books[key]
            runner.step()
        runner.close()

    publish(few, 1)
    at_epoch(few, 1, recovered=False)
    publish(few, 2)  # what it had not read when the keys moved stays in the old partition
    grow(many, many.processor.app_id, changelogs(many))
    publish(many, 3)
    at_epoch(many, 3, recovered=True)
    publish(many, 4)
    at_epoch(many, 4, recovered=True)


@pytest.mark.broker
async def test_partitions_are_raised_and_every_book_bar_and_past_book_stays_exact(
    own_kafka: str, settings, unique: str, tmp_path: Path, run_cli
) -> None:
    name = f"grown-{unique}"
    venue = SyntheticVenue("binance-usdm", instruments=INSTRUMENTS, rate=150, levels=30)
    await venue.start()
    before: Settings = settings(
        kafka={"bootstrap_servers": own_kafka, "market_partitions": FEW},
        venues={name: section("binance-usdm", venue)},
        collector={"keyframe_max_s": 4.0, "keyframe_min_s": 2.0},
        history={"root": str(tmp_path / "archive"), "topics": ["market.book", "market.trade", "market.status"]},
    )
    after = before.model_copy(update={"kafka": before.kafka.model_copy(update={"market_partitions": MANY})})
    own = {k: v for k, v in environment(after).items() if k.startswith("VENUE_MIRROR_")}
    ports = [before.processor.web_port, free_port()]

    async def grow() -> Any:
        return await asyncio.to_thread(run_cli, "topics", "apply", "--grow", env=own, timeout_s=180)

    async with rooms_of(before, tmp_path) as rooms:
        prober = Prober(name, venue, ports)
        asking = asyncio.create_task(prober.run())

        async def all_live() -> bool:
            async with Views(f"http://127.0.0.1:{ports[0]}") as views:
                with contextlib.suppress(ViewError):
                    status = await views.get("/status")
                    return status["states"].get("LIVE", 0) == INSTRUMENTS and not status["silent"]
            return False

        async def nothing_waits() -> bool:
            found = []
            for port in ports:
                async with Views(f"http://127.0.0.1:{port}") as views:
                    found.append((await views.metrics()).get("processor_lag", 0.0))
            return not any(found)

        workers = [await rooms.processor(f"before-{port}", port) for port in ports]
        collector = await rooms.collector(name)
        await rooms.stack.until("all books", all_live, DEADLINE_S)
        await asyncio.sleep(4)  # events, key frames and trades to look back at
        refused = await grow()
        assert (refused.returncode, "keys would move under running processes" in refused.stderr) == (2, True), refused
        moment = time.time_ns()

        await stop(rooms, [collector])
        await rooms.stack.until("the processors to have read all", nothing_waits, DEADLINE_S)
        await asyncio.to_thread(archive, rooms.settings)
        await stop(rooms, workers)
        live_before = prober.live
        grown, deadline = await grow(), time.monotonic() + 240
        while "keys would move" in grown.stderr and time.monotonic() < deadline:
            grown = await grow()  # as it says: until Kafka has noticed that they are gone
        assert grown.returncode == 0, grown.stderr
        assert f"{BOOK.name}: {FEW} partitions became {MANY}" in grown.stdout
        again = await grow()
        assert (again.returncode, again.stdout.strip()) == (0, "nothing to do: the topics are as the catalogue says"), again

        counts = await asyncio.to_thread(partitions_on_broker, after)
        changelogs = [changelog_name(after, table) for table in ("books", "bars")]
        for topic in [t.name for t in TOPICS.values() if t.partitions > 1 and t.grows] + changelogs:
            assert counts[topic] == MANY, topic
        assert counts[CHAIN_POOL.name] == FEW
        for topic in (INSTRUMENT.name, STATUS.name):
            kept = await asyncio.to_thread(homes, after, topic, MANY)
            assert {k.decode().partition("|")[2] for k in kept if k.startswith(name.encode())} == set(map(unified, venue.books))
        assert await asyncio.to_thread(homes, after, changelogs[1], MANY)
        assert await asyncio.to_thread(read_all, after, changelogs[0]) == []

        rooms.settings = after
        workers = [await rooms.processor(f"after-{port}", port) for port in ports]
        await asyncio.sleep(1)
        assert prober.live == live_before, "a book is LIVE that no collector has spoken of yet"
        await rooms.collector(name, "collector-after")
        await rooms.stack.until("all books again", all_live, DEADLINE_S)
        for native in venue.books:
            assert await rooms.equals_truth(name, unified(native), native, venue), native

        # The new partitions' checkpoints carry a killed worker over.
        await asyncio.sleep(2.5)
        rooms.stack.children.remove(workers[1])
        os.kill(workers[1].process.pid, signal.SIGKILL)
        await workers[1].process.wait()
        await rooms.processor("after-killed", ports[1])
        await rooms.stack.until("all books after a kill", all_live, DEADLINE_S)
        for native in venue.books:
            assert await rooms.equals_truth(name, unified(native), native, venue), native
        venue.control("rate", rate=0)
        await asyncio.sleep(1.5)
        await rooms.stack.until("the processors to have read all", nothing_waits, DEADLINE_S)

        # The bars hold every trade of both partitions once, whatever second, minute or hour ended meanwhile.
        counted: dict[tuple[str, int, int], int] = {}
        for record in await asyncio.to_thread(read_all, after, TRADE.name):
            trade = codec("Trade").decode(record.value or b"")
            for seconds in INTERVALS.values():
                start_us = trade["ts_venue_us"] - trade["ts_venue_us"] % (seconds * 1_000_000)
                bar = (trade["symbol"], seconds, start_us)
                counted[bar] = counted.get(bar, 0) + 1

        async def all_bars_hold_them() -> bool:
            found = await asyncio.to_thread(written_bars, after)
            for interval, seconds in INTERVALS.items():
                for native in venue.books:
                    shown = (await rooms.views.get(f"/bars/{name}/{unified(native)}?interval={interval}"))["bars"]
                    found |= {(unified(native), seconds, bar["start_us"]): bar["trades"] for bar in shown}
            return found == counted

        await rooms.stack.until(f"the trades of {len(counted)} bars in them", all_bars_hold_them, DEADLINE_S)
        asking.cancel()
        assert prober.wrong == []
        assert prober.live > live_before > 20
        for port in ports:
            async with Views(f"http://127.0.0.1:{port}") as views:
                metrics = await views.metrics()
                assert (metrics["processor_gaps_total"], metrics["processor_keyframes_bad_total"]) == (0, 0)

    # The archive goes on where it was, and the past before the move is as exact as after it.
    await asyncio.to_thread(archive, after)
    chance = random.Random(5)
    for native in venue.books:
        for at in (moment - chance.randint(0, 2_000_000_000), time.time_ns()):
            book = await asyncio.to_thread(book_at, after, name, unified(native), at)
            _, bids, asks = venue.books[native].at(book.venue_seq)
            assert book.levels() == (bids, asks), (native, at)
            assert (book.ts_received_ns <= moment) == (at <= moment)
    await venue.stop()
