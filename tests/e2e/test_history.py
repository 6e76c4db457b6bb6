"""The archive holds every record once, whatever was killed; any past book is the venue's own of that moment."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import random
import re
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bus.errors import BusError
from bus.log_reader import read_all
from cli.stack import environment, free_port
from cli.views import ViewError, Views
from config.settings import Settings
from history.archiver import Archiver, archived_topics, compact
from history.asof import book_at, market_at
from history.errors import ArchiveBusy, NotRecorded
from history.store import Store, hour_of
from schemas.codec import codec
from schemas.topics import BOOK, STATUS, TOPICS, TRADE
from simulator.synthetic import SyntheticVenue
from tests.chaos.asof_drill import judge, note_moments
from tests.e2e.rooms import DEADLINE_S, rooms_of, section, unified

INSTRUMENTS = 4
KILLS = 10


@pytest.fixture
async def running(kafka: str, settings, unique: str, tmp_path: Path):
    """A synthetic venue and its collector; no processor is needed to remember."""
    name = f"past-{unique}"
    venue = SyntheticVenue("binance-usdm", instruments=INSTRUMENTS, rate=200, levels=30)
    await venue.start()
    own = settings(
        kafka={"bootstrap_servers": kafka}, venues={name: section("binance-usdm", venue)},
        collector={"keyframe_max_s": 4.0, "keyframe_min_s": 2.0},
        history={"root": str(tmp_path / "archive"), "flush_rows": 200, "flush_s": 0.5},
    )  # fmt: skip
    async with rooms_of(own, tmp_path) as rooms:
        await rooms.collector(name)

        async def every_book_is_live() -> bool:
            try:
                records = await asyncio.to_thread(read_all, own, STATUS.name)
            except BusError:  # a slow broker has just made the topics
                return False
            statuses = [codec("BookStatus").decode(r.value) for r in records if r.value]
            return len({s["symbol"] for s in statuses if s["venue"] == name and s["state"] == "LIVE"}) == INSTRUMENTS

        await rooms.stack.until("the collector's books", every_book_is_live, DEADLINE_S, pause_s=0.5)
        yield rooms, name, venue
    await venue.stop()


def archived_rows(settings: Settings, topic: str) -> list[tuple[int, int]]:
    """(partition, offset) of every row, as any reader of Parquet sees them."""
    import duckdb

    pattern = f"{settings.history.root}/topic={topic}/**/*.parquet"
    if not list(Path(settings.history.root).glob(f"topic={topic}/**/*.parquet")):
        return []
    query = "select _partition, _offset from read_parquet(?, hive_partitioning=true) order by 1, 2"
    return duckdb.execute(query, [pattern]).fetchall()


def logged(settings: Settings, topic: str) -> list[tuple[int, int]]:
    return sorted((r.partition, r.offset) for r in read_all(settings, topic))


async def quiet(venue: SyntheticVenue) -> None:
    """No more events, and what was sent has arrived."""
    venue.control("rate", rate=0)
    await asyncio.sleep(1.5)


@pytest.mark.broker
async def test_an_archiver_that_is_killed_again_and_again_keeps_every_record_once(running) -> None:
    rooms, name, venue = running
    chance = random.Random(7)
    for number in range(KILLS):
        child = await rooms.stack.start(f"archiver-{number}", "archive")
        await asyncio.sleep(1.0 + chance.random())
        rooms.stack.children.remove(child)
        assert child.process.returncode is None, child.tail()
        os.kill(child.process.pid, signal.SIGKILL)
        await child.process.wait()
    await quiet(venue)
    await rooms.stack.stop(rooms.stack.children[0])
    last = await rooms.stack.start("archiver-last", "archive", "--until-end")
    rooms.stack.children.remove(last)
    assert await asyncio.wait_for(last.process.wait(), 180) == 0, last.tail()
    for topic in archived_topics(rooms.settings):
        kept = await asyncio.to_thread(archived_rows, rooms.settings, topic)
        wanted = await asyncio.to_thread(logged, rooms.settings, topic)
        if TOPICS[topic].cleanup == "compact":  # the log may have dropped what the archive still has
            assert set(wanted) <= set(kept) and len(kept) == len(set(kept)), topic
        else:
            assert kept == wanted, topic
    store = Store(rooms.settings.history.root)
    events = {(r.partition, r.offset): codec("BookEvent").decode(r.value or b"") for r in read_all(rooms.settings, BOOK.name)}
    compared = 0
    for file in store.files(BOOK.name, name, 0, time.time_ns() // 1_000_000 + 3_600_000):
        for row in store.read(file).to_pylist():
            event = events[(row["_partition"], row["_offset"])]
            assert {k: v for k, v in row.items() if not k.startswith("_")} == event
            compared += 1
    assert compared > 500

    def merge() -> int:
        return sum(compact(store, t, hour_of(2**42), lambda _: None) for t in archived_topics(rooms.settings))

    before = await asyncio.to_thread(archived_rows, rooms.settings, BOOK.name)
    assert await asyncio.to_thread(merge) > 0
    assert await asyncio.to_thread(archived_rows, rooms.settings, BOOK.name) == before


@pytest.mark.broker
async def test_any_past_book_is_the_venues_own_of_that_moment_from_archive_and_log_together(running) -> None:
    rooms, name, venue = running
    chance, natives = random.Random(11), sorted(venue.books)
    await asyncio.sleep(1)
    moments = await note_moments(venue, 4, 20, chance)
    with Archiver(rooms.settings) as archiver:  # the first part is in files, the rest only in Kafka
        ends = await asyncio.to_thread(archiver.ends)
        while not archiver.has_read(ends):
            await asyncio.to_thread(archiver.step)
        await asyncio.to_thread(archiver.flush)
        with pytest.raises(ArchiveBusy, match="another archiver writes here"):
            Archiver(rooms.settings)
    moments += await note_moments(venue, 4, 20, chance)
    await quiet(venue)
    assert await asyncio.to_thread(judge, rooms.settings, name, venue, moments) == []
    moment = moments[20].at_ns
    market = await asyncio.to_thread(market_at, rooms.settings, moment, venue=name)
    assert {symbol for _, symbol in market} == {unified(n) for n in natives}
    for (_, symbol), book in market.items():
        alone = await asyncio.to_thread(book_at, rooms.settings, name, symbol, moment)
        assert (alone.state, alone.offset, alone.levels()) == ("LIVE", book.offset, book.levels())
    with pytest.raises(NotRecorded, match="no whole book"):
        await asyncio.to_thread(book_at, rooms.settings, name, "NO/BODY", moment)


@pytest.mark.broker
async def test_an_archiver_shows_how_far_it_is_and_ends_when_it_is_told_to(running) -> None:
    rooms, _, _ = running
    page = f"http://127.0.0.1:{(port := free_port())}"
    history = rooms.settings.history.model_copy(update={"metrics_port": port, "flush_s": 1.0})
    child = await rooms.stack.start("archiver", "archive", settings=rooms.settings.model_copy(update={"history": history}))
    seen: dict[str, float] = {}

    async def keeps_up() -> bool:
        async with Views(page) as views:
            with contextlib.suppress(ViewError):
                seen.update(await views.metrics(f"{page}/metrics"))
                ready = await views.get("/readyz")
                return ready["ready"] and seen["archiver_records_total"] > 100 and seen["archiver_lag"] < 100
        return False

    await rooms.stack.until("the archiver to keep up", keeps_up, DEADLINE_S)
    elsewhere = history.model_copy(update={"root": f"{history.root}-2"})
    second = await rooms.stack.start("second", "archive", settings=rooms.settings.model_copy(update={"history": elsewhere}))
    rooms.stack.children.remove(second)
    assert await asyncio.wait_for(second.process.wait(), DEADLINE_S) == 1
    assert f"history.metrics_port {port} cannot be had" in second.tail() and "Traceback" not in second.tail()
    assert seen["archiver_lost_total"] == 0
    assert seen["archiver_files_total"] > 0
    assert seen["archiver_disk_bytes"] > seen["archiver_disk_free_bytes"] > 0
    assert await rooms.stack.stop(child) == 0, child.tail()
    rows = sum([len(await asyncio.to_thread(archived_rows, rooms.settings, t)) for t in archived_topics(rooms.settings)])
    told = re.search(r"(\d+) records in \d+ files, 0 lost", child.tail())
    assert told and int(told[1]) == rows >= seen["archiver_records_total"], child.tail()


@pytest.mark.broker
async def test_the_commands_answer_export_and_refuse(running, run_cli, tmp_path: Path) -> None:
    rooms, name, venue = running
    await asyncio.sleep(4)
    await quiet(venue)
    own = {k: v for k, v in environment(rooms.settings).items() if k.startswith("VENUE_MIRROR_")}

    async def cli(*arguments: str) -> Any:
        return await asyncio.to_thread(run_cli, *arguments, env=own, timeout_s=180)

    symbol, native = unified(sorted(venue.books)[0]), sorted(venue.books)[0]
    result = await cli("asof", "now", "--venue", name, "--symbol", symbol)
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    _, bids, asks = venue.books[native].at(shown["venue_seq"])
    assert (shown["bids"], shown["asks"]) == (bids, asks)
    result = await cli("export", "trades", "--from", "2020-01-01T00:00:00Z", "--venue", name, "--out", "trades.csv")
    assert result.returncode == 0, result.stderr
    trades = [
        codec("Trade").decode(r.value or b"")
        for r in read_all(rooms.settings, TRADE.name)
        if (r.key or b"").startswith(name.encode())
    ]
    rows = list(csv.DictReader((tmp_path / "trades.csv").open()))
    wanted = sorted((t["symbol"], t["trade_id"], Decimal(t["price"]).scaleb(t["price_exp"])) for t in trades)
    assert sorted((r["symbol"], r["trade_id"], Decimal(r["price"])) for r in rows) == wanted
    result = await cli("export", "books", "--from", "2020-01-01T00:00:00Z", "--venue", name, "--out", "books.parquet")
    assert result.returncode == 0, result.stderr
    for arguments, code, reason in (
        (("asof", "yesterday", "--venue", name), 64, "is no moment"),
        (("asof", "2026-11-24T14:03:07", "--venue", name), 64, "names no zone"),
        (("asof", "now", "--venue", name, "--symbol", "NO/BODY"), 1, "no whole book"),
        (("asof", "now", "--venue", name, "--clock", "sun"), 64, "--clock is receive or venue"),
        (("export", "candles", "--from", "2020-01-01T00:00:00Z", "--out", "x.csv"), 64, "there are trades, bars, books"),
        (("export", "trades", "--from", "2020-01-01T00:00:00Z", "--out", "x.doc"), 1, "neither .parquet nor .csv"),
    ):
        result = await cli(*arguments)
        assert (result.returncode, reason in result.stderr) == (code, True), (arguments, result.stderr)
        assert "Traceback" not in result.stderr

