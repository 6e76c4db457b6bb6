"""What a deployment needs for so many gigabytes of venue messages an hour: partitions, processes, cores, brokers, disk.

    python benchmarks/capacity.py                                            # from the figures in docs/measured.json
    python benchmarks/capacity.py --results collector.json processor.json    # from your own machine's (--json of each)
    python benchmarks/capacity.py --capture FILE --json sizes.json           # measure bytes in and out again

A model, not a measurement: the rates of one core and the bytes of one message are measured, everything else is
multiplication, with the reserve that ``--load`` leaves. What is not linear (a broker's own limits, a venue's limits by
address) stands as a bound of its own. The table of docs/scaling.md is this command's output; a test holds it to that.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import Results
from benchmarks.table import print_table

MEASURED = Path(__file__).resolve().parent.parent / "docs" / "measured.json"
MISSION_GB_H = 4
STEPS = (1, 10, 100, 1000)
REPLICATION = 3
BROKER_MB_S = 100
"""Written by producers, a broker: what a disk and a 10 Gb/s line carry with threefold replication and two readers."""
PARTITIONS_EACH = 2
"""Partitions a processor, so that one more can always take some over."""


@dataclass(frozen=True)
class Rates:
    """What was measured."""

    collector_us: float
    """CPU of one venue message, from its bytes to Kafka's client."""
    processor_per_s: float
    """Book events of one core."""
    message_bytes: float
    """One venue message."""
    record_bytes: float
    """What one venue message becomes on Kafka, compressed."""


def rates(rows: list[dict[str, object]]) -> Rates:
    """From rows of benchmarks/results.py; raises SystemExit naming what is missing."""

    def one(benchmark: str, *words: str) -> float:
        for row in rows:
            if row["benchmark"] == benchmark and all(word in str(row["row"]) for word in words):
                return float(str(row["ours"]))
        raise SystemExit(f"error: no row of {benchmark} with {' '.join(words)}: run python benchmarks/{benchmark}.py --json FILE")

    return Rates(
        one("collector", "produce"), one("processor", "alone"), one("capacity", "message"), one("capacity", "record")
    )  # fmt: skip


@dataclass(frozen=True)
class Need:
    """A deployment."""

    gb_h: float
    messages_s: float
    collectors: int
    processors: int
    partitions: int
    kafka_mb_s: float
    brokers: int
    disk_gb_h: float


def need(gb_h: float, measured: Rates, load: float) -> Need:
    """For this many GB of venue messages an hour, with processes ``load`` (0…1) busy on average."""
    messages_s = gb_h * 1e9 / 3600 / measured.message_bytes
    collectors = math.ceil(messages_s * measured.collector_us / 1e6 / load)
    processors = math.ceil(messages_s / measured.processor_per_s / load)
    kafka_mb_s = messages_s * measured.record_bytes / 1e6
    brokers = max(3, math.ceil(kafka_mb_s * REPLICATION / BROKER_MB_S / load))
    partitions = max(12, 12 * math.ceil(processors * PARTITIONS_EACH / 12))
    return Need(gb_h, messages_s, collectors, processors, partitions, kafka_mb_s, brokers, kafka_mb_s * 3.6 * REPLICATION)


def sizes(capture: Path) -> tuple[float, float]:
    """(bytes of a venue message, compressed bytes of the records that it becomes) of a capture."""
    import cramjam

    from benchmarks.collector import Bench, find_adapter
    from collectors.metrics import Counts
    from collectors.publisher import Publisher
    from simulator.capture_file import read_capture

    lines = sorted(read_capture([capture]), key=lambda line: line.ts_ns)
    bench = Bench(find_adapter(lines), lines)
    written = bytearray()
    bench.handle(Publisher(bench.venue.id, lambda _, key, value: written.extend(key.encode() + value), Counts()))
    block = 512 * 1024  # the producer's batch
    packed = sum(len(cramjam.lz4.compress_block(bytes(written[at : at + block]))) for at in range(0, len(written), block))
    return sum(map(len, bench.frames)) / len(bench.frames), packed / len(bench.frames)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", default=[MEASURED], metavar="FILE")
    parser.add_argument("--load", type=float, default=0.5, help="how busy each process may be on average")
    parser.add_argument("--capture", type=Path, help="measure the sizes of this one instead, and write them to --json")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.capture:
        message, record = sizes(options.capture)
        told = Results("capacity")
        told.add("bytes of a message", message, "bytes")
        told.add("compressed bytes of its records", record, "bytes")
        told.write(options.json)
        print(f"{message:.0f} bytes a message, {record:.0f} bytes of records on Kafka")
        return
    measured = rates([row for file in options.results for row in json.loads(file.read_text("utf-8"))])
    rows = []
    for step in STEPS:
        n = need(step * MISSION_GB_H, measured, options.load)
        rows.append((
            f"{n.gb_h:,.0f} ({step:,} ×)", f"{n.messages_s:,.0f}", f"{n.collectors:,}", f"{n.processors:,}", f"{n.partitions:,}",
            f"{n.kafka_mb_s:,.1f}", f"{n.brokers:,}", f"{n.disk_gb_h:,.0f}",
        ))  # fmt: skip
    print_table(
        f"{measured.message_bytes:.0f} bytes a message, {measured.record_bytes:.0f} on Kafka; {measured.collector_us:.1f} µs a "
        f"message in a collector, {measured.processor_per_s:,.0f} events/s a processor; processes {options.load:.0%} busy",
        ("GB/h of venue messages", "messages/s", "collectors", "processors", "partitions", "MB/s to Kafka", "brokers",
         "disk, GB an hour kept"),
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
