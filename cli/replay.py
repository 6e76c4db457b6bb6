"""Plays captures through the whole pipeline, collector, Kafka, Faust, and reads the books back from the web views."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bus.consumer import TailReader
from bus.producer import Producer
from cli.stack import Stack, StackError, free_port, private_broker
from cli.views import Views
from collectors.metrics import Counts
from collectors.player import Player
from collectors.publisher import Publisher
from collectors.venue import ALL_CHANNELS, adapter, adapter_ids
from config.settings import Settings, VenueSettings
from market.decimals import strip_zeros
from schemas.codec import codec
from schemas.topics import BBO, BOOK, PROOF, STATUS, TICKER
from simulator.capture_file import read_capture
from simulator.capture_venue import CaptureVenue

SNIFFED_FRAMES = 2000
SERVED = ("binance-spot", "binance-usdm", "binance-coinm")
"""Venues whose captures are served by a venue of their own, over sockets; the others' go straight to their workers."""
SETTLE_S = 60.0
SETTLED_LOOKS = 600
"""A minute: where Kafka was away for seconds, a processor waits half a minute for collectors that write nothing more."""


class ReplayError(Exception):
    """The captures cannot be played; the text says which file and why."""


@dataclass(frozen=True)
class ReplayOptions:
    """What the command line says."""

    files: Sequence[Path]
    out: Path
    speed: float = 0.0
    digests: Path | None = None
    drop_every: int = 0
    seed: int = 0
    keyframe_every: int = 100


def group_by_adapter(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Which adapter each file belongs to, by its content; files of one adapter are one stream in the given order."""
    groups: dict[str, list[Path]] = {}
    alone: list[Path] = []
    for file in files:
        if not file.is_file():
            raise ReplayError(f"{file} is not a file")
        frames = [line.data for line in islice(read_capture([file]), SNIFFED_FRAMES) if line.kind in ("frame", "rest")]
        names = [name for name in adapter_ids() if adapter(name).sniff(frames)]
        if names:
            groups.setdefault(names[0], []).append(file)
        else:
            alone.append(file)
    for file in alone:
        # A venue's REST answers may stand in a file of their own, beside the stream's: name.http.txt.gz, name.txt.gz.
        stem = file.name.partition(".")[0]
        names = [name for name, others in groups.items() if any(o.name.partition(".")[0] == stem for o in others)]
        if not names:
            raise ReplayError(f"{file}: no adapter knows these frames; there are: {', '.join(adapter_ids())}")
        groups[names[0]].append(file)
    return groups


async def replay(settings: Settings, options: ReplayOptions, log: Callable[[str], None]) -> dict[str, Any]:
    """Play, wait until every record is in the books, write the results; gives the summary.

    Raises ReplayError, StackError, BusError, ViewError.
    """
    started = time.monotonic()
    if (task := asyncio.current_task()) is not None:
        # Its children and its broker must not outlive it.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    groups = await asyncio.to_thread(group_by_adapter, options.files)
    venues = {
        name: CaptureVenue(files, speed=options.speed, drop_every=options.drop_every, seed=options.seed)
        for name, files in groups.items() if name in SERVED
    }  # fmt: skip
    played = {name: files for name, files in groups.items() if name not in SERVED}
    if played and (options.speed or options.drop_every):
        raise ReplayError(f"--speed and --drop-every need a venue that can be served: {', '.join(SERVED)}")
    with tempfile.TemporaryDirectory(prefix="venue-mirror-replay-") as temporary:
        work = Path(temporary)
        for venue in venues.values():
            await venue.start()
        try:
            async with private_broker(settings, log) as own:
                tuned = _tuned(own, options, venues, work)
                async with Stack(tuned, work) as stack:
                    run = _Run(tuned, options, stack, venues, played, log)
                    summary = await run.play()
        finally:
            for venue in venues.values():
                await venue.stop()
    return summary | {"seconds": round(time.monotonic() - started, 3)}


def _tuned(settings: Settings, options: ReplayOptions, venues: dict[str, CaptureVenue], work: Path) -> Settings:
    sections = {
        name: VenueSettings(  # pyright: ignore[reportCallIssue]
            adapter=name, rest_url=venue.rest_url, ws_url=venue.ws_url, channels=ALL_CHANNELS, rest_weight_per_minute=1_000_000
        )
        for name, venue in venues.items()
    }
    collector = settings.collector.model_copy(
        # A capture's own silences are not the venue's: nothing is stale while it is played slowly.
        update={
            "keyframe_events": options.keyframe_every, "stale_s": 3600.0, "stale_connection_s": 3600.0,
            "lag_max_s": 0.0,  # nor late: its clock runs as fast as it is played
        }
    )  # fmt: skip
    processor = settings.processor.model_copy(
        update={
            "app_id": f"venue-mirror-replay-{time.time_ns()}",
            "web_port": free_port(),
            "data_dir": work / "faust",
            "bbo_every_event": True,
            "derived": (),
            "silence_max_s": 3600.0,
            "beat_max_s": 3600.0,
            "lag_max_s": 3600.0,  # as fast as it can is no reason to distrust what it says
            "proofs": True,
        }
    )
    return settings.model_copy(update={"venues": sections, "collector": collector, "processor": processor})


class _Run:
    def __init__(
        self, settings: Settings, options: ReplayOptions, stack: Stack, venues: dict[str, CaptureVenue],
        played: dict[str, list[Path]], log: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.settings, self.options, self.stack, self.venues, self.log = settings, options, stack, venues, log
        self.played = played
        self.players: list[Player] = []
        self.metrics_url: dict[str, str] = {}

    async def play(self) -> dict[str, Any]:
        """The whole run; gives the summary without its seconds."""
        ends = TailReader(self.settings, [BOOK.name, STATUS.name], start="end")
        results = TailReader(self.settings, [BBO.name, TICKER.name, PROOF.name], start="end")
        async with Views.of(self.settings) as views:
            await self.stack.start("processor", "process")
            await self.stack.until("the processor", views.ready, 60)
            for name in self.venues:
                port = free_port()
                collector = self.settings.collector.model_copy(update={"metrics_port": port})
                self.metrics_url[name] = f"http://{collector.metrics_host}:{port}/metrics"
                await self.stack.start(
                    f"collector-{name}", "collect", name,
                    settings=self.settings.model_copy(update={"collector": collector}),
                )  # fmt: skip
            for name, files in self.played.items():
                self.players.append(await asyncio.to_thread(self._play_through, name, files))
            await self._played(views)
            if self.venues:
                await self._collected(views)
            await self._processed(views, ends)
            counts = [await views.metrics(url) for url in self.metrics_url.values()]
            processed = await views.metrics()
            await self._write_books(views)
        records = await asyncio.to_thread(results.read_to_end, 120)
        ends.close()
        results.close()
        bbo_ok, bbo_bad = compare_bbo(records)
        if self.options.digests is not None:
            write_digests(records, self.options.digests)

        def total(name: str) -> int:
            served = sum(c.get(f"collector_{name}_total", 0) for c in counts)
            return int(served) + sum(getattr(player.counts, name) for player in self.players)

        return {
            "messages": sum(venue.frames_sent for venue in self.venues.values()) + total("frames") * (not self.venues),
            "book_events": total("book_events"),
            "gaps": total("gaps"),
            "resyncs": total("resyncs"),
            "checksum_ok": total("checksum_ok"),
            "checksum_bad": total("checksum_bad"),
            "bbo_ok": bbo_ok,
            "bbo_bad": bbo_bad,
            "keyframe_ok": int(processed.get("processor_keyframes_ok_total", 0)),
            "keyframe_bad": int(processed.get("processor_keyframes_bad_total", 0)),
            "dead_letters": total("dead_letters") + int(processed.get("processor_dead_letters_total", 0)),
        }

    def _play_through(self, name: str, files: Sequence[Path]) -> Player:
        """A capture whose venue is not served: through its adapter and workers in this process, onto Kafka."""
        producer = Producer(self.settings)
        counts = Counts()
        publisher = Publisher(name, producer.send, counts, owner="replay", waiting=producer.__len__)
        venue = adapter(name)(channels=ALL_CHANNELS)
        player = Player(venue, list(read_capture(files)), publisher, self.settings.collector)
        self.log(f"playing: {name}, {len(player.lines):,} lines, {len(player.pipeline.workers)} books")
        player.play(lambda: wait_for_room(producer))
        if left := producer.flush(60) or producer.failed:
            raise ReplayError(f"{name}: kafka did not take {left} records: {producer.first_failure}")
        return player

    async def _played(self, views: Views) -> None:
        last = 0.0
        while not all(venue.done.is_set() for venue in self.venues.values()):
            self.stack.check()
            if time.monotonic() - last > 2:
                last = time.monotonic()
                self.log("playing: " + ", ".join(f"{n} {v.frames_sent:,} messages" for n, v in self.venues.items()))
            await asyncio.sleep(0.05)

    async def _collected(self, views: Views) -> None:
        """Until the collectors have read all and no book waits for a snapshot."""

        async def settled() -> bool:
            for name, venue in self.venues.items():
                m = await views.metrics(self.metrics_url[name])
                books = {key: v for key, v in m.items() if key.startswith("collector_books{") and v}
                if m.get("collector_frames_total", 0) < venue.frames_sent or m.get("collector_producer_queue", 1):
                    return False
                if not books or any('state="LIVE"' not in key for key in books):
                    return False
            return True

        try:
            await self.stack.until("the collectors", settled, SETTLE_S)
        except StackError as error:
            self.log(f"warning: some books did not become LIVE: {str(error).splitlines()[0]}")

    async def _processed(self, views: Views, ends: TailReader) -> None:
        """Until the processor's positions are at the ends of the topics, and what it derived is in Kafka."""
        wanted = await asyncio.to_thread(ends.ends)

        async def there() -> bool:
            positions = (await views.get("/healthz"))["positions"]
            if not all(positions.get(f"{t}-{p}", 0) >= end for (t, p), end in wanted.items() if end):
                return False
            return not (await views.metrics()).get("processor_producer_queue", 1)

        await self.stack.until("the processor", there, 600)

    async def _write_books(self, views: Views) -> None:
        fields = ("venue", "symbol", "state", "epoch", "index", "venue_seq", "bids", "asks")
        names = sorted((b["venue"], b["symbol"]) for b in await views.books() if b["venue"] in (*self.venues, *self.played))
        with self.options.out.open("w", encoding="utf-8") as out:
            for venue, symbol in names:
                book = await views.book(venue, symbol)
                for _ in range(SETTLED_LOOKS):
                    if book["state"] != "LAGGING":
                        break
                    await asyncio.sleep(0.1)  # the processor stood still a moment ago, and says so
                    book = await views.book(venue, symbol)
                if book["state"] != "LIVE":
                    self.log(f"{venue} {symbol} is {book['state']}: {book.get('reason', '')}")
                out.write(json.dumps({name: book[name] for name in fields}, ensure_ascii=False) + "\n")
        self.log(f"{len(names)} books written to {self.options.out}")


def wait_for_room(producer: Producer, most: int = 50_000) -> None:
    """Until fewer than ``most`` records wait for Kafka."""
    while len(producer) > most:
        producer.poll(0.01)


def _best(record: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    pe, se = record["price_exp"], record["size_exp"]
    return tuple(
        strip_zeros(record[name], pe if name.endswith("price") else se)
        for name in ("bid_price", "bid_size", "ask_price", "ask_size")
    )


def compare_bbo(messages: Sequence[Any]) -> tuple[int, int]:
    """(ok, bad): after the event that ends at u, the best bid and offer equal the ticker with the greatest id <= u."""
    tickers: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    mirrored: dict[str, list[dict[str, Any]]] = defaultdict(list)
    read_ticker, read_bbo = codec("Ticker").decode, codec("Bbo").decode
    for message in messages:
        if message.key() is not None and message.key().decode().partition("|")[0] not in SERVED:
            continue  # other venues' tickers do not say which update of the book they belong to
        if message.topic() == TICKER.name:
            record = read_ticker(message.value())
            tickers[message.key().decode()].append((record["venue_seq"], record))
        elif message.topic() == BBO.name:
            mirrored[message.key().decode()].append(read_bbo(message.value()))
    ok = bad = 0
    for key, records in mirrored.items():
        own = sorted(tickers[key], key=lambda pair: pair[0])
        ids = [seq for seq, _ in own]
        seen: set[tuple[int, int]] = set()
        for record in records:
            at = bisect_right(ids, record["venue_seq"]) - 1
            version = (record["epoch"], record["venue_seq"])
            # The snapshot itself (index 0) is no event of the stream; a state change or a heartbeat repeats a number.
            again = version in seen
            seen.add(version)
            if record["index"] < 1 or at < 0 or again:
                continue
            if _best(record) == _best(own[at][1]):
                ok += 1
            else:
                bad += 1
    return ok, bad


def write_digests(messages: Sequence[Any], path: Path) -> None:
    """The processor's book at each key frame, one JSON line each."""
    read = codec("BookProof").decode
    fields = ("venue", "symbol", "epoch", "index", "venue_seq", "digest")
    with path.open("w", encoding="utf-8") as out:
        for message in messages:
            if message.topic() == PROOF.name:
                record = read(message.value())
                out.write(json.dumps({name: record[name] for name in fields}) + "\n")
