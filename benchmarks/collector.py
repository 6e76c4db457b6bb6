"""CPU a message in a collector, step by step, against a bare loop over the same capture in the same run.

    python benchmarks/collector.py [--rounds 5] [CAPTURE ...]

Rows: the bare loop (msgspec typed decode, sequence check, a dict a side, best price tracked; floats, no state, no proof);
the adapter's parse; with the exact book and the worker's state machine; with the Avro records; with producing them to a
real broker, lz4 and acks=all. Every row handles every frame: depth, trades and tickers. CPU is that of the whole process,
librdkafka's threads included; the broker's own is not in it. Rounds alternate between the rows and the best of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bare_loop import BareLoop
from benchmarks.table import print_table
from bus.producer import Producer
from cli.stack import private_broker
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.publisher import Publisher
from collectors.venue import ALL_CHANNELS, adapter, adapter_ids
from collectors.worker import BookWorker
from config.settings import CollectorSettings, Settings, load_settings
from simulator.capture_file import CaptureLine, read_capture

CAPTURES = Path(os.environ.get("VENUE_MIRROR_CAPTURES", Path(__file__).resolve().parents[2] / "shared" / "captures"))
DEFAULT = "binance_usdm_btcusdt_20240808.gz"
EXACT_PRICE, EXACT_SIZE = -2, -3

Run = Callable[[Sequence[CaptureLine]], float]
"""Handles all lines; gives the CPU seconds that it took."""


class _Silent(Publisher):
    """Takes every record and encodes none: what the book alone costs."""

    def book(self, *_: Any, **__: Any) -> bool:
        return True

    def trade(self, *_: Any, **__: Any) -> bool:
        return True

    def ticker(self, *_: Any, **__: Any) -> bool:
        return True


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


class Bench:
    """The rows over one capture."""

    def __init__(self, venue_id: str, lines: list[CaptureLine]) -> None:
        self.venue = adapter(venue_id)(channels=ALL_CHANNELS)
        self.lines = lines
        self.frames = [line for line in lines if line.kind == "frame"]
        self.events = 0

    def bare(self) -> float:
        """The floor."""
        loop = BareLoop()
        frames = [line.data for line in self.frames]
        snapshot = next(line.data for line in self.lines if line.kind == "rest")
        return cpu(lambda: loop.run(snapshot, frames))

    def parse(self) -> float:
        """The adapter alone."""
        parse = self.venue.parse

        def run() -> None:
            for line in self.frames:
                parse(line.data)

        return cpu(run)

    def worker(self, publisher: Publisher) -> float:
        """From the frame's bytes to what the publisher does with the records."""
        counts = publisher.counts
        pipeline = Pipeline(publisher, counts)
        receive = pipeline.receiver(self.venue.parse)
        natives = {event.native for line in self.frames[:2000] for event in self.venue.parse(line.data)}  # type: ignore[union-attr]
        for native in natives:
            worker = pipeline.workers[native] = BookWorker(
                native, native, self.venue.rule(native), publisher, counts, CollectorSettings(), lambda *_: None,
                price_exp=EXACT_PRICE, size_exp=EXACT_SIZE,
            )  # fmt: skip
            worker.announce()
            worker.on_subscribed()

        def run() -> None:
            for line in self.lines:
                if line.kind == "frame":
                    receive(line.data, line.ts_ns)
                elif line.kind == "rest":
                    for native, worker in pipeline.workers.items():
                        worker.on_snapshot(self.venue.parse_snapshot(native, line.data), line.ts_ns, worker.epoch)

        spent = cpu(run)
        assert counts.gaps == counts.internal_errors == counts.dead_letters == 0, counts
        if not isinstance(publisher, _Silent):
            self.events = counts.book_events + counts.trades + counts.tickers + counts.keyframes
        return spent

    def book(self) -> float:
        """Parse and book."""
        return self.worker(_Silent(self.venue.id, lambda *_: None, Counts()))

    def avro(self) -> float:
        """Parse, book and Avro."""
        return self.worker(Publisher(self.venue.id, lambda *_: None, Counts()))

    def produce(self, settings: Settings) -> float:
        """All of it, onto the broker; the flush at the end is in the time."""
        producer = Producer(settings, queue_max=2_000_000)
        publisher = Publisher(self.venue.id, producer.send, Counts(), waiting=producer.__len__, limit=2_000_000)
        spent = self.worker(publisher)
        start = time.process_time()
        left = producer.flush(60)
        assert not left and not producer.failed, producer.first_failure
        return spent + time.process_time() - start


def find_adapter(lines: Sequence[CaptureLine]) -> str:
    """The adapter that knows these frames."""
    frames = [line.data for line in lines[:500]]
    found = [name for name in adapter_ids() if adapter(name).sniff(frames)]
    if len(found) != 1:
        raise SystemExit(f"error: no adapter knows this capture ({', '.join(found) or 'none'})")
    return found[0]


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", nargs="*", type=Path, metavar="CAPTURE")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    captures = options.captures or [CAPTURES / DEFAULT]
    for path in captures:
        if not path.exists():
            raise SystemExit(f"error: {path} is missing; name a capture (venue-mirror record BINANCE-USDM … makes one)")
    base = load_settings()
    async with private_broker(base, lambda text: print(text, file=sys.stderr)) as settings:
        for path in captures:
            lines = list(read_capture([path]))
            bench = Bench(find_adapter(lines), lines)
            rows: dict[str, Callable[[], float]] = {
                "bare msgspec + dict loop": bench.bare,
                "parse": bench.parse,
                "parse + book": bench.book,
                "parse + book + Avro": bench.avro,
                "parse + book + Avro + produce": lambda settings=settings, bench=bench: bench.produce(settings),
            }
            spent: dict[str, list[float]] = {name: [] for name in rows}
            for number in range(options.rounds + 1):
                for name, run in rows.items():
                    taken = run()
                    if number:  # the first round warms caches, topics and connections
                        spent[name].append(taken)
                print(f"round {number} of {options.rounds}", file=sys.stderr)
            best = {name: min(times) for name, times in spent.items()}
            floor = best["bare msgspec + dict loop"]
            n = len(bench.frames)
            print_table(
                f"{bench.venue.id}: {n:,} frames, {bench.events:,} records, CPU, best of {options.rounds} rounds ({path.name})",
                ("step", "ratio to the bare loop", "µs a frame"),
                [(name, f"{t / floor:.2f} ×", f"{t / n * 1e6:.2f}") for name, t in best.items()],
            )


if __name__ == "__main__":
    asyncio.run(main())
