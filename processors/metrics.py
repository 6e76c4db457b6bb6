"""Every number that a processor counts, declared once, and how Prometheus reads them.

The hot path adds to plain integers; they become metric families when someone scrapes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def _counter(text: str) -> int:
    return field(default=0, metadata={"help": text})


@dataclass(slots=True)
class Counts:
    """The counters of one processor."""

    events: int = _counter("Book events applied")
    batches: int = _counter("Batches of records taken from Kafka")
    statuses: int = _counter("Book statuses taken over")
    replayed: int = _counter("Events that were in the book already, read again after a restart")
    fenced: int = _counter("Events of an older epoch, whose writer no longer owns the book")
    moved: int = _counter("Records that stood in a partition where their key no longer lives")
    unsynced: int = _counter("Deltas of books that wait for a snapshot or key frame")
    gaps: int = _counter("Books that missed an index")
    keyframes_ok: int = _counter("Key frames equal to the book")
    keyframes_bad: int = _counter("Key frames that held another book: each one is an alarm")
    crossed: int = _counter("Events after which the best bid was at or above the best ask")
    dead_letters: int = _counter("Records that could not be read, written to dead.letter")
    bbo: int = _counter("Records written to derived.bbo")
    depth: int = _counter("Records written to derived.depth")
    microstructure: int = _counter("Records written to derived.microstructure")
    crosses: int = _counter("Records written to derived.cross")
    bars: int = _counter("Records written to derived.bar")
    trades: int = _counter("Trades read")
    trades_too_late: int = _counter("Trades that came after a bar of theirs was forgotten, and are not in it")
    dropped: int = _counter("Derived records not written because Kafka was behind")
    checkpoints: int = _counter("Books written to the table")
    checkpoint_bytes: int = _counter("Bytes of checkpoints written to the tables")
    commits: int = _counter("Commits of offsets that checkpoints cover")
    restored: int = _counter("Books read back from the table")
    rebalances: int = _counter("Assignments of partitions")
    requests_refused: int = _counter("Requests of the views without the token (401)")
    requests_limited: int = _counter("Requests of the views over processor.web_rate_per_s of their client (429)")


@dataclass(slots=True)
class Gauges:
    """What is measured at the moment of a scrape."""

    books: Callable[[], Mapping[str, int]] = dict
    lag: Callable[[], Mapping[str, int]] = dict
    """Records not yet processed, by partition of market.book."""
    delay_ms: Callable[[], Mapping[str, int]] = dict
    """Age of the newest processed record, by partition of market.book."""
    lagging: Callable[[], int] = int
    loop_lag_s: Callable[[], float] = float
    waiting: Callable[[], Mapping[str, int]] = dict
    """Books that wait for their turn, by lane."""
    streams: Callable[[], int] = int
    failed_deliveries: Callable[[], int] = int
    producer_queue: Callable[[], int] = int
    partitions: Callable[[], int] = int


class ProcessorMetrics:
    """A Prometheus collector over one processor's counts. Names: ``processor_<field>_total``."""

    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self.counts = counts
        self.gauges = gauges
        self.started_s = time.time()

    def collect(self) -> Iterable[Metric]:
        """The metric families, as prometheus_client asks for them."""
        for item in fields(self.counts):
            family = CounterMetricFamily(f"processor_{item.name}", item.metadata["help"])
            family.add_metric([], getattr(self.counts, item.name), created=self.started_s)
            yield family
        books = GaugeMetricFamily("processor_books", "Books of this process by state", labels=["state"])
        for state, number in self.gauges.books().items():
            books.add_metric([state], number)
        yield books
        lag = GaugeMetricFamily("processor_lag", "Records of market.book not yet processed", labels=["partition"])
        for partition, number in self.gauges.lag().items():
            lag.add_metric([partition], number)
        yield lag
        delay = GaugeMetricFamily("processor_delay_ms", "Age of the newest processed record", labels=["partition"])
        for partition, number in self.gauges.delay_ms().items():
            delay.add_metric([partition], number)
        yield delay
        waiting = GaugeMetricFamily("processor_waiting", "Changed books that wait to be written", labels=["lane"])
        for lane, number in self.gauges.waiting().items():
            waiting.add_metric([lane], number)
        yield waiting
        for name, text, read in (
            ("failed_deliveries", "Derived records that Kafka did not take", self.gauges.failed_deliveries),
            ("producer_queue", "Derived records waiting for Kafka", self.gauges.producer_queue),
            ("partitions", "Partitions of market.book that this process holds", self.gauges.partitions),
            ("stream_clients", "Clients of the server-sent events", self.gauges.streams),
            ("lagging_partitions", "Partitions whose books are LAGGING", self.gauges.lagging),
            ("loop_lag_seconds", "Worst delay of the event loop since the last scrape", self.gauges.loop_lag_s),
        ):
            yield GaugeMetricFamily(f"processor_{name}", text, value=read())

    def exposition(self) -> bytes:
        """The text of ``/metrics``."""
        registry = CollectorRegistry()
        registry.register(self)  # pyright: ignore[reportArgumentType]
        return generate_latest(registry)
