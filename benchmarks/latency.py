"""From the venue's byte to a consumer's hand, hop by hop, beside a bare consumer of market.book in the same run.

    python benchmarks/latency.py [--rate 5000] [--instruments 200] [--partitions 4] [--warm 40] [--seconds 30]

A desk's broker and processors have run for days: the first ``--warm`` seconds, in which the broker's JVM compiles itself, are
not measured. Hops: venue → collector (the venue stamps milliseconds), collector's receive → market.book in a bare
consumer's hand (the floor: what Kafka alone takes), collector's receive → derived.bbo in a consumer's hand (Kafka twice,
the processor's decode, book and encode between). One machine, one clock. The ratio is the processor's way to the floor.
A producer sends each partition's records in a request of its own, so one worker is faster with few partitions than with the
twelve of the settings, which leave room for twelve workers.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.mirror_stack import VENUE, log_to, mirror, percentile
from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from bus.log_reader import LogReader, start_positions
from cli.stack import private_broker
from config.settings import Settings, load_settings
from schemas.codec import codec
from schemas.topics import BBO, BOOK


class Hand(threading.Thread):
    """A consumer that notes how old each record is when it has it."""

    def __init__(self, settings: Settings, topic: str, record: str) -> None:
        super().__init__(daemon=True)
        self._reader = LogReader(settings, start_positions(settings, {topic: "end"}))
        self._decode = codec(record).decode
        self.measuring = threading.Event()
        self.stopped = threading.Event()
        self.ages_ns: list[int] = []
        self.venue_ns: list[int] = []

    def run(self) -> None:
        while not self.stopped.is_set():
            records = self._reader.batch(500, 0.1)
            now = time.time_ns()
            if not self.measuring.is_set():
                continue
            for r in records:
                value: dict[str, Any] = self._decode(r.value or b"")
                if value["venue"] == VENUE and value.get("kind", "DELTA") == "DELTA" and value.get("state", "LIVE") == "LIVE":
                    self.ages_ns.append(now - value["ts_received_ns"])
                    self.venue_ns.append(value["ts_received_ns"] - value["ts_venue_us"] * 1000)
        self._reader.close()


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=5000)
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--partitions", type=int, default=4, help="of each market topic")
    parser.add_argument("--warm", type=float, default=40, help="seconds before the measurement")
    parser.add_argument("--seconds", type=float, default=30)
    json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
        work = Path(temporary)
        given = load_settings()
        kafka = given.kafka.model_copy(update={"market_partitions": options.partitions})
        given = given.model_copy(update={"kafka": kafka})
        async with (
            private_broker(given, log_to) as settings,
            mirror(settings, work, instruments=options.instruments, rate=options.rate) as running,
        ):
            log_to(f"all books LIVE; measuring in {options.warm:g} s")
            book, bbo = (
                Hand(running.settings, topic.name, topic.record) for topic in (BOOK, BBO)
            )
            for hand in (book, bbo):
                hand.start()
            await asyncio.sleep(options.warm)
            before, started = await running.collector_metrics(), time.monotonic()
            for hand in (book, bbo):
                hand.measuring.set()
            await asyncio.sleep(options.seconds)
            for hand in (book, bbo):
                hand.stopped.set()
            after, took = await running.collector_metrics(), time.monotonic() - started
            for hand in (book, bbo):
                await asyncio.to_thread(hand.join)
    rate = (after["collector_book_events_total"] - before["collector_book_events_total"]) / took
    rows: list[tuple[str, ...]] = []
    told, peer = Results("latency"), "a bare consumer of market.book"
    floor = sorted(book.ages_ns)
    aims = {0.5: Aim("≤", 3), 0.99: Aim("≤", 15)}
    for label, values, known, wanted in (
        ("venue → collector's receive", sorted(book.venue_ns), [], {}),
        ("receive → market.book in hand (floor)", floor, [], {}),
        ("receive → derived.bbo in hand", sorted(bbo.ages_ns), floor, aims),
    ):
        if not values:
            raise SystemExit(f"nothing was measured for: {label}")
        p50, p99, p999 = (percentile(values, share) / 1e6 for share in (0.5, 0.99, 0.999))
        for share, figure in ((0.5, p50), (0.99, p99), (0.999, p999)):
            told.add(
                f"{label}, p{share * 100:g}", figure, "ms", theirs=percentile(known, share) / 1e6 if known else None,
                alternative=peer if known else "", aim=wanted.get(share),
            )  # fmt: skip
        ratio = f"{percentile(values, 0.5) / percentile(floor, 0.5):.1f} ×" if "hand" in label else ""
        rows.append((label, f"{len(values):,}", f"{p50:.2f}", f"{p99:.2f}", f"{p999:.2f}", ratio))
    print_table(
        f"Latency in ms at {rate:,.0f} book events/s of {options.instruments} books, {options.partitions} partitions",
        ("hop", "records", "p50", "p99", "p99.9", "p50 to the floor"), rows,
    )
    told.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
