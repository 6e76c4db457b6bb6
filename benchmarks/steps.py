"""The dearest steps between a venue's frame and a processor's book, each beside the way it was done before, in one run.

    python benchmarks/steps.py [--rounds 5] [--frames 8000] [CAPTURE ...]

The records are those that a collector writes of a capture. Encoding: fastavro's writer behind our check for what is no whole
number, the way that a record still falls back to, against what a collector calls. Decoding: fastavro's reader against what
a processor calls. Fetch: the records of a fetched batch as the driver copies them against as it parsed them, their offset, time,
key and value looked at. Book: levels kept sorted at every change against the heap that only knows the best price, over the same
events, with the best bid and offer asked for after each. What both ways give is held against each other first. CPU, the best
of alternating rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.collector import CAPTURES, Bench, cpu, find_adapter
from benchmarks.peers import first_frames
from benchmarks.results import Results, json_option
from benchmarks.table import print_table
from collectors.metrics import Counts
from collectors.publisher import Publisher
from market.book import OrderBook
from processors.batch_transport import as_read
from schemas.codec import HEADER_SIZE, Codec, Record, codec, parsed
from schemas.topics import TOPICS
from simulator.capture_file import read_capture, with_answers

DEFAULTS = ("binance_usdm_btcusdt_20240808.gz", "binance_spot_btcusdt_20240808.gz", "okx_v5_20220513.txt.gz")
KINDS = ("BookEvent", "Trade", "Ticker")
FEW = 100
"""Records of a kind below which a capture says nothing about it."""
BATCH = 1000
"""Records of a fetch."""
FASTAVRO = f"fastavro {fastavro.__version__}"

Way = Callable[[], Any]


def records_of(path: Path, frames: int) -> tuple[str, dict[str, list[bytes]]]:
    """The venue, and what its collector writes of the capture's first frames, by the record's name."""
    lines = first_frames(sorted(read_capture(with_answers(path)), key=lambda line: line.ts_ns), frames)
    bench = Bench(find_adapter(lines), lines)
    found: dict[str, list[bytes]] = {}

    def keep(topic: str, _: str, value: bytes | None, *__: Any) -> None:
        if value is not None:
            found.setdefault(TOPICS[topic].record, []).append(value)

    bench.handle(Publisher(bench.venue.id, keep, Counts()))
    return bench.venue.id, found


def encoding(name: str, records: list[Record]) -> tuple[Way, Way]:
    """(ours, before): every record's bytes."""
    row, general = codec(name).hurry().encode_row, Codec(name)
    general._fast = None  # pyright: ignore[reportPrivateUsage]  # the way that every record can fall back to
    write = general.encode
    return lambda: [row(**record) for record in records], lambda: [write(record) for record in records]


def decoding(name: str, values: list[bytes]) -> tuple[Way, Way]:
    """(ours, before): every record."""
    read, schema = codec(name).hurry().decode, parsed(name)

    def before() -> list[Any]:
        out: list[Any] = []
        for value in values:
            body = BytesIO(value)
            body.seek(HEADER_SIZE)
            out.append(fastavro.schemaless_reader(body, schema, None))
            assert body.tell() == len(value)
        return out

    return lambda: [read(value) for value in values], before


def fetching(values: list[bytes]) -> tuple[Way, Way]:
    """(ours, before): what a handler looks at, of every record of fetched batches."""
    tp, batches = TopicPartition("market.book", 0), list[bytes]()
    for start in range(0, len(values), BATCH):
        builder: Any = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 28)
        for offset, value in enumerate(values[start : start + BATCH]):
            builder.append(offset, 1_700_000_000_000 + offset, b"venue|BASE/QUOTE", value, [])
        batches.append(bytes(builder.build()))

    def run(*, copied: bool) -> list[Any]:
        out: list[Any] = []
        for batch in batches:
            fetched: Any = PartitionRecords(tp, MemoryRecords(batch), [], 0, None, None, True, READ_UNCOMMITTED)
            if not copied:
                fetched._consumer_record = as_read
            out += [(r.offset, r.timestamp, r.key, r.value) for r in fetched]
        return out

    return lambda: run(copied=False), lambda: run(copied=True)


def booking(events: list[Record]) -> tuple[Way, Way]:
    """(ours, before): the best prices after every event, of a book for each instrument."""

    def run(*, in_order: bool) -> list[Any]:
        books: dict[str, OrderBook] = {}
        out: list[Any] = []
        for event in events:
            book = books.setdefault(event["symbol"], OrderBook())
            book.apply(
                event["bid_prices"], event["bid_sizes"], event["ask_prices"], event["ask_sizes"], event["price_exp"],
                event["size_exp"], replace=event["kind"] != "DELTA",
            )  # fmt: skip
            if in_order:  # who asks for the order has it kept
                _ = book.bids.order, book.asks.order
            out.append((book.bids.best_price(), book.asks.best_price()))
        return out

    return lambda: run(in_order=False), lambda: run(in_order=True)


def measure(ours: Way, before: Way, rounds: int) -> tuple[float, float]:
    """CPU seconds of both, the best of alternating rounds, after holding what they give against each other."""
    if ours() != before():
        raise SystemExit("error: the two ways give different answers")
    times = [(cpu(ours), cpu(before)) for _ in range(rounds)]
    return min(own for own, _ in times), min(other for _, other in times)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", nargs="*", type=Path, metavar="CAPTURE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=8000, help="the first so many of each capture; 0: all")
    json_option(parser)
    options = parser.parse_args()
    told = Results("steps")
    table: list[tuple[str, ...]] = []
    for path in options.captures or [CAPTURES / name for name in DEFAULTS]:
        if not path.exists():
            raise SystemExit(f"error: {path} is missing; name a capture (venue-mirror record BINANCE-USDM … makes one)")
        venue, found = records_of(path, options.frames)
        for name in KINDS:
            if len(values := found.get(name, [])) < FEW:
                continue
            records = [codec(name).decode(value) for value in values]
            ways = [("encode", f"{FASTAVRO}, schemaless_writer behind the same check", *encoding(name, records))]
            ways.append(("decode", f"{FASTAVRO}, schemaless_reader", *decoding(name, values)))
            if name == "BookEvent":
                ways.append(("fetch", "aiokafka's ConsumerRecords", *fetching(values)))
                ways.append(("apply", "both sides sorted at every change", *booking(records)))
            for step, alternative, ours, before in ways:
                own, other = (s / len(values) * 1e6 for s in measure(ours, before, options.rounds))
                row = told.add(f"{venue}: {step} {name}", own, "µs a record", theirs=other, alternative=alternative)
                table.append((row.row, f"{len(values):,}", f"{row.ratio:.2f} ×", f"{own:.2f}", f"{other:.2f}", alternative))
        told.write(options.json)
    print_table(
        f"each step and how it was done before, best of {options.rounds} rounds",
        ("step", "records", "ratio", "µs a record", "before", "which was"), table,
    )  # fmt: skip


if __name__ == "__main__":
    main()
