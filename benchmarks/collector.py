"""CPU a message in a collector, step by step, beside cryptofeed and ccxt.pro over the same captures in the same run.

    python benchmarks/collector.py [--rounds 5] [--frames 0] [--no-peers] [--kafka-frames 5000] [CAPTURE ...]

Rows: the adapter's parse; with the exact book and the worker's state machine; with the Avro records; with producing them to
a real broker, idempotent, lz4 and acks=all. cryptofeed and ccxt.pro parse and keep their book (benchmarks/peers.py says how);
cryptofeed once more with its own Kafka backend on the same broker. Binance also has a bare loop: msgspec typed decode,
sequence check, a dict a side, best price tracked; floats, no state, no proof.

Every row handles every frame and starts with nothing remembered. CPU is that of the whole process, librdkafka's threads
included; the broker's own is not in it. Short captures are handled several times over. Rounds alternate between the rows,
and the best of each counts. Before that, each library's final best bid and offer are held against ours.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bare_loop import BareLoop
from benchmarks.mirror_stack import log_to
from benchmarks.peer_process import Peer, PeerError, interpreter
from benchmarks.peers import first_frames
from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from bus.connection import configured_bootstrap
from bus.producer import Producer
from cli.stack import private_broker
from collectors import mantissas
from collectors.errors import MalformedFrame
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.publisher import Publisher
from collectors.venue import ALL_CHANNELS, adapter, adapter_ids
from collectors.worker import BookWorker
from config.settings import CollectorSettings, Settings, load_settings
from simulator.capture_file import CaptureLine, read_capture, with_answers

CAPTURES = Path(os.environ.get("VENUE_MIRROR_CAPTURES", Path(__file__).resolve().parents[2] / "shared" / "captures"))
DEFAULTS = (
    "binance_usdm_btcusdt_20240808.gz", "binance_spot_btcusdt_20240808.gz", "binance_cm_btcusd_perp_20240808.gz",
    "okx_v5_20220513.txt.gz", "krakenfutures_v1_20210722.txt.gz", "kucoin_spot_20210425.txt.gz",
    "deribit_v2_20210722.txt.gz", "poloniex_v2_20220821.txt.gz",
)  # fmt: skip
LEAST_FRAMES, CCXT_LEAST = 20_000, 3_000
"""A row's run handles at least so many: less would measure the clock. ccxt takes a third of a second for a fresh exchange."""
KAFKA_LEAST, KAFKA_PROBE, KAFKA_ROUND_S = 2_000, 100, 10.0
"""cryptofeed's Kafka backend waits for each record's acknowledgement: so many frames tell how many a round has time for."""
LIBRARIES = ("cryptofeed", "ccxt")
BARE, PARSE, BOOK, AVRO, PRODUCE = "bare loop", "parse", "parse + book", "parse + book + Avro", "parse + book + Avro + Kafka"
SAME = "the same, "


def cpu(run: Callable[[], None]) -> float:
    """CPU seconds of the whole process for one call, without the collector of cycles running in between by chance."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        run()
        return time.process_time() - start
    finally:
        gc.enable()


class _Silent(Publisher):
    """Takes every record and encodes none: what the book alone costs."""

    def book(self, *_: Any, **__: Any) -> bool:
        return True

    def trade(self, *_: Any, **__: Any) -> bool:
        return True

    def ticker(self, *_: Any, **__: Any) -> bool:
        return True

    def _side(self, *_: Any, **__: Any) -> bool:
        return True


class Bench:
    """Our rows over one capture."""

    def __init__(self, venue_id: str, lines: list[CaptureLine], least: int = LEAST_FRAMES) -> None:
        self.venue = adapter(venue_id)(channels=ALL_CHANNELS)
        self.lines = lines
        self.frames = [line.data for line in lines if line.kind == "frame"]
        self.times = -(-least // len(self.frames))
        natives = set[str]()
        parse = self.venue.connection()
        for frame in self.frames:
            try:
                natives |= {event.native for event in parse(frame) if hasattr(event, "native")}  # type: ignore[union-attr]
            except MalformedFrame as error:
                raise SystemExit(f"error: {venue_id} cannot read {frame[:80]!r}: {error}") from None
        self.natives = sorted(natives)
        self.exponents = dict.fromkeys(self.natives, (0, 0))
        self.handle(self.silent())
        # A collector knows tick and lot from the start; a capture says nothing about them.
        self.exponents = {native: worker.local.exponents() for native, worker in self.workers.items()}
        self.handle(publisher := self.silent())
        self.counts: Counts = publisher.counts

    def silent(self) -> Publisher:
        """A publisher that writes nothing."""
        return _Silent(self.venue.id, lambda *_: None, Counts())

    def bare(self) -> float:
        """The floor; Binance's frames only."""
        snapshot = next(line.data for line in self.lines if line.kind == "rest")
        return cpu(lambda: BareLoop().run(snapshot, self.frames))

    def parse(self) -> float:
        """The adapter alone."""
        parse = self.venue.connection()

        def run() -> None:
            for frame in self.frames:
                parse(frame)

        return cpu(run)

    def handle(self, publisher: Publisher) -> float:
        """From the frame's bytes to what the publisher does with the records."""
        mantissas.price_mantissas.cache_clear()
        mantissas.size_mantissas.cache_clear()
        counts = publisher.counts
        pipeline = Pipeline(publisher, counts)
        self.workers = pipeline.workers
        for native in self.natives:
            price_exp, size_exp = self.exponents[native]
            worker = pipeline.workers[native] = BookWorker(
                native, native, self.venue.rule(native), publisher, counts, CollectorSettings(), lambda *_: None,
                price_exp=price_exp, size_exp=size_exp,
            )  # fmt: skip
            worker.announce()
            worker.on_subscribed()
        receive = pipeline.receiver(self.venue.connection())
        steps = [(line.data, line.ts_ns, self._asked(line)) for line in self.lines if line.kind in ("frame", "rest")]

        def run() -> None:
            for data, ts_ns, native in steps:
                if native is None:
                    receive(data, ts_ns)
                elif native:
                    worker = pipeline.workers[native]
                    worker.on_snapshot(self.venue.parse_snapshot(native, data), ts_ns, worker.epoch)

        spent = cpu(run)
        assert counts.gaps == counts.internal_errors == counts.dead_letters == counts.dropped == 0, counts
        return spent

    def _asked(self, line: CaptureLine) -> str | None:
        """Whose book a REST answer is; None: a frame."""
        if line.kind == "frame":
            return None
        if not line.url:
            return self.natives[0]
        return next((native for native in self.natives if line.url.endswith(f"={native}")), "")

    def book(self) -> float:
        """Parse and book."""
        return self.handle(self.silent())

    def avro(self) -> float:
        """Parse, book and Avro."""
        return self.handle(Publisher(self.venue.id, lambda *_: None, Counts()))

    def produce(self, settings: Settings) -> float:
        """All of it, onto the broker; the flush at the end is in the time."""
        producer = Producer(settings, queue_max=2_000_000)
        spent = 0.0
        for _ in range(self.times):
            publisher = Publisher(self.venue.id, producer.send, Counts(), waiting=producer.__len__, limit=2_000_000)
            spent += self.handle(publisher)
        start = time.process_time()
        left = producer.flush(60)
        assert not left and not producer.failed, producer.first_failure
        return spent + time.process_time() - start

    def repeated(self, row: Callable[[], float]) -> Callable[[], float]:
        """The row so often that it can be measured."""
        return lambda: sum(row() for _ in range(self.times))

    def disagreements(self, tops: dict[str, list[list[str]]]) -> int:
        """Books whose best bid and offer differ from ours, as the floats that libraries keep."""
        differ = 0
        for native, theirs in tops.items():
            own = self.workers[native].local.book.level_texts(1)
            differ += [[*map(float, side[0])] if side else [] for side in own] != [[*map(float, side)] for side in theirs]
        return differ


class Row:
    """One row's times."""

    def __init__(self, run: Callable[[], float], frames: int, rounds: int) -> None:
        self.run, self.frames, self.rounds = run, frames, rounds
        self.times: list[float] = []
        self.failure = ""

    def round(self, number: int) -> None:
        """Once; round 0 warms caches, topics and connections."""
        if self.failure or number > self.rounds:
            return
        try:
            taken = self.run()
        except PeerError as error:
            self.failure = str(error)
            return
        if number:
            self.times.append(taken)

    @property
    def us(self) -> float:
        """Microseconds a frame, the best round."""
        return min(self.times) / self.frames * 1e6


def our_rows(bench: Bench, settings: Settings, rounds: int) -> dict[str, Row]:
    """venue-mirror's rows, and Binance's floor."""
    frames = len(bench.frames) * bench.times
    rows = {BARE: Row(bench.repeated(bench.bare), frames, rounds)} if bench.venue.id in ("binance-usdm", "binance-spot") else {}
    return rows | {
        PARSE: Row(bench.repeated(bench.parse), frames, rounds),
        BOOK: Row(bench.repeated(bench.book), frames, rounds),
        AVRO: Row(bench.repeated(bench.avro), frames, rounds),
        PRODUCE: Row(lambda: bench.produce(settings), frames, rounds),
    }


def peer_rows(bench: Bench, peers: dict[str, Peer], settings: Settings, options: argparse.Namespace) -> dict[str, Row]:
    """The libraries' rows, after a look at whether they end with our books."""
    rows: dict[str, Row] = {}
    frames, times = len(bench.frames), bench.times
    for library, peer in peers.items():
        name = f"{library} {peer.version}"

        def run(*command: object, peer: Peer = peer) -> Callable[[], float]:
            return lambda: peer.ask(*command)["cpu"]

        often = times if library == "cryptofeed" else -(-min(options.least, CCXT_LEAST) // frames)
        row = rows[f"{name}: parse + book"] = Row(run("run", often), frames * often, options.rounds)
        try:
            told = peer.ask("check")
        except PeerError as error:
            row.failure = str(error)
            continue
        differ = bench.disagreements(told["tops"])
        log_to(f"{bench.venue.id}: {name}: {told['events']}, {differ} of {len(told['tops'])} books end differently")
        if differ:
            row.failure = f"{differ} of {len(told['tops'])} books end wrong"
        if library == "cryptofeed":
            if bench.counts.checksum_ok:
                rows[f"{name}: parse + book + checksum"] = Row(run("verify", times), frames * times, options.rounds)
            rows |= backend_rows(bench, peer, settings, options)
    return rows


def backend_rows(bench: Bench, peer: Peer, settings: Settings, options: argparse.Namespace) -> dict[str, Row]:
    """cryptofeed with its Kafka backend, and ours over the same frames where that is not all of them."""
    frames, address, rounds = len(bench.frames), configured_bootstrap(settings), min(2, options.rounds)
    name = f"cryptofeed {peer.version}: with its Kafka backend"
    some = min(frames, options.kafka_frames)
    probe = min(some, KAFKA_PROBE)
    try:
        fit = int(KAFKA_ROUND_S * probe / peer.ask("kafka", 1, probe, address)["s"])
    except PeerError as error:
        (row := Row(float, some, rounds)).failure = str(error)
        return {name: row}
    again = max(1, min(-(-KAFKA_LEAST // some), fit // some))
    some = min(some, max(KAFKA_PROBE, fit))
    rows = {name: Row(lambda: peer.ask("kafka", again, some, address)["cpu"], some * again, rounds)}
    if frames > some:
        first = Bench(bench.venue.id, first_frames(bench.lines, some), options.least)
        of_those = len(first.frames) * first.times
        rows[f"{SAME}first {some:,} frames"] = Row(lambda: first.produce(settings), of_those, options.rounds)
    return rows


def report(bench: Bench, rows: dict[str, Row], title: str, told: Results, out: Path | None) -> list[str]:
    """Print one capture's table, note and write its figures; gives its line of the summary."""
    unit = rows[BOOK].us
    print_table(
        title,
        ("step", "ratio to our parse + book", "µs a frame"),
        [
            (name, f"{row.us / unit:.2f} ×", f"{row.us:.2f}") if row.times else (name, row.failure, "–")
            for name, row in rows.items()
        ],
    )

    def find(start: str, end: str) -> str:
        return next((name for name in rows if name.startswith(start) and name.endswith(end)), "")

    feed, pro, kafka = find("cryptofeed", "parse + book"), find("ccxt", "parse + book"), find("cryptofeed", "backend")
    line = [bench.venue.id]
    for own, peer, aim in ((BOOK, feed, 3), (BOOK, pro, 8), (PRODUCE, feed, 1), (find(SAME, "") or PRODUCE, kafka, 4)):
        theirs = rows[peer].us if peer and rows[peer].times else None
        row = told.add(
            f"{bench.venue.id}: {own}", rows[own].us, "µs a frame", theirs=theirs, aim=Aim("≥", aim, "ratio") if theirs else None,
            alternative=peer if theirs or not peer else f"{peer}: {rows[peer].failure}",
        )  # fmt: skip
        line.append(f"{row.ratio:.1f} ×{'' if row.met else ' (behind)'}" if row.ratio else "–")
    if (checked := find("cryptofeed", "checksum")) and rows[checked].times:  # ours compares it in every row
        own = f"{bench.venue.id}: {BOOK}, the venue's checksum compared"
        told.add(own, rows[BOOK].us, "µs a frame", theirs=rows[checked].us, alternative=checked)
    if BARE in rows:
        for own, most in ((BOOK, 1.5), (PRODUCE, 5)):
            told.add(
                f"{bench.venue.id}: {own}, against the floor", rows[own].us, "µs a frame", theirs=rows[BARE].us,
                alternative="the bare msgspec + dict loop", aim=Aim("≥", round(1 / most, 2), "ratio"),
            )  # fmt: skip
    for step in (PARSE, AVRO):
        told.add(f"{bench.venue.id}: {step}", rows[step].us, "µs a frame")
    told.write(out)  # after each capture: what comes later may be cut off
    return line


def find_adapter(lines: Sequence[CaptureLine]) -> str:
    """The adapter that knows these frames."""
    frames = [line.data for line in lines if line.kind == "frame"][:500]
    found = [name for name in adapter_ids() if adapter(name).sniff(frames)]
    if len(found) != 1:
        raise SystemExit(f"error: no adapter knows this capture ({', '.join(found) or 'none'})")
    return found[0]


def measure(path: Path, settings: Settings, python: Path | None, told: Results, options: argparse.Namespace) -> list[str]:
    """All rows of one capture; gives its line of the summary."""
    paths = with_answers(path)
    lines = first_frames(sorted(read_capture(paths), key=lambda line: line.ts_ns), options.frames)
    bench = Bench(find_adapter(lines), lines, options.least)
    gc.freeze()  # what is loaded is not walked through before each of many short runs
    rows = our_rows(bench, settings, options.rounds)
    with ExitStack() as stack:
        peers: dict[str, Peer] = {}
        for library in LIBRARIES:
            if python is None:
                break
            try:
                peers[library] = stack.enter_context(Peer(python, library, bench.venue.id, bench.natives, options.frames, paths))
            except PeerError as error:
                log_to(f"{bench.venue.id}: {library}: {error}")
        rows |= peer_rows(bench, peers, settings, options)
        for number in range(options.rounds + 1):
            for row in rows.values():
                row.round(number)
            log_to(f"{bench.venue.id}: round {number} of {options.rounds}")
    of = f"{len(bench.natives)} instruments, best of {options.rounds} rounds ({path.name})"
    title = f"{bench.venue.id}: {len(bench.frames):,} frames of {of}"
    return report(bench, rows, title, told, options.json)


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", nargs="*", type=Path, metavar="CAPTURE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=0, help="only the first so many of each capture; 0: all")
    parser.add_argument("--least", type=int, default=LEAST_FRAMES, help="frames of a run: short captures are repeated")
    parser.add_argument("--no-peers", action="store_true", help="only our own rows")
    parser.add_argument("--kafka-frames", type=int, default=5000, help="of each capture, for cryptofeed's Kafka backend")
    json_option(parser)
    options = parser.parse_args()
    captures = options.captures or [CAPTURES / name for name in DEFAULTS]
    for path in captures:
        if not path.exists():
            raise SystemExit(f"error: {path} is missing; name a capture (venue-mirror record BINANCE-USDM … makes one)")
    python = None
    if not options.no_peers:
        try:
            python = interpreter(log_to)
        except PeerError as error:
            log_to(f"without the other libraries: {error}")
    async with private_broker(load_settings(), log_to) as settings:
        told = Results("collector")
        summary = [measure(path, settings, python, told, options) for path in captures]
    print_table(
        f"how many times dearer the others are (what we aim at); CPython {platform.python_version()}, {os.cpu_count()} cores",
        ("capture of", "cryptofeed (3)", "ccxt.pro (8)", "cryptofeed : ours with Avro + Kafka (1)", "both with Kafka (4)"),
        summary,
    )


if __name__ == "__main__":
    asyncio.run(main())
