"""Every number that a collector counts, declared once, and how Prometheus reads them.

The hot path adds to plain integers; prometheus_client's own counters take a lock at each step. They become metric
families when someone scrapes. Names: ``collector_<field>_total``; every metric has the label ``venue``.
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
    """The counters of one venue's collector."""

    frames: int = _counter("Websocket frames received")
    frame_bytes: int = _counter("Bytes of websocket frames received")
    book_events: int = _counter("Snapshots and deltas written to market.book")
    levels: int = _counter("Price levels in deltas and snapshots written")
    keyframes: int = _counter("Key frames written to market.book")
    keyframe_levels: int = _counter("Price levels in key frames written")
    beats: int = _counter("Heartbeats written to market.book: deltas without levels, where nothing else was written")
    trades: int = _counter("Trades written to market.trade")
    tickers: int = _counter("The venue's own tickers written to market.ticker")
    derivatives: int = _counter("Funding rates, mark prices, open interests and liquidations written")
    polls: int = _counter("REST calls made again and again for what no stream says")
    statuses: int = _counter("Changes of state written to market.status")
    gaps: int = _counter("Holes found in a book's sequence")
    crossed: int = _counter("Books found with the best bid at or above the best ask")
    checksum_ok: int = _counter("Books that agreed with the venue's checksum")
    checksum_bad: int = _counter("Books that did not")
    resyncs: int = _counter("Books synchronised anew after they had been LIVE once")
    stale: int = _counter("Books silent for longer than they should be")
    laggings: int = _counter("Books said to be LAGGING because what comes is older by the venue's clock than it may be")
    duplicates: int = _counter("Deltas skipped because the book held them already")
    old_snapshots: int = _counter("Snapshots refused because they were older than the stream")
    pending_overflows: int = _counter("Buffers of waiting deltas that grew too long and were given up")
    dead_letters: int = _counter("Frames and answers that could not be read")
    unrouted: int = _counter("Events of instruments that are not (or no longer) this process's")
    congestions: int = _counter("Books that went to GAP because Kafka was behind")
    dropped: int = _counter("Trades, tickers, other market data and dead letters not written because Kafka was behind")
    reconnects: int = _counter("Websocket connections opened again after a loss")
    renewals: int = _counter("Websocket connections replaced before the venue's limit of age, without a hole")
    connection_errors: int = _counter("Attempts to open a websocket connection that failed")
    refused_subscriptions: int = _counter("Instruments that the venue would not subscribe")
    snapshots: int = _counter("REST snapshots fetched")
    rest_errors: int = _counter("REST calls that failed")
    rest_throttled: int = _counter("REST calls that the venue answered with 429 or 418")
    discoveries: int = _counter("Loads of the venue's instruments")
    discovery_errors: int = _counter("Loads that failed")
    instruments_changed: int = _counter("Instrument records written: listed, changed, halted, delisted")
    fenced: int = _counter("Books synchronised anew because another process wrote a higher epoch")
    audit_checks: int = _counter("Books compared with a fresh REST book at the same sequence number")
    audit_mismatches: int = _counter("Books that were not equal to it: each one is an alarm")
    audit_unproven: int = _counter("Audits that proved nothing: the answer was too old, or the venue numbers nothing")
    internal_errors: int = _counter("Errors that nobody foresaw; each is in the log with its traceback")


@dataclass(slots=True)
class Gauges:
    """What is measured at the moment of a scrape."""

    books: Callable[[], Mapping[str, int]] = dict
    producer_queue: Callable[[], int] = int
    connections: Callable[[], int] = int
    snapshots_waiting: Callable[[], int] = int
    pending_deltas: Callable[[], int] = int
    failed_deliveries: Callable[[], int] = int


class CollectorMetrics:
    """A Prometheus collector over one venue's counts."""

    def __init__(self, venue: str, counts: Counts, gauges: Gauges) -> None:
        self.venue = venue
        self.counts = counts
        self.gauges = gauges
        self.started_s = time.time()

    def collect(self) -> Iterable[Metric]:
        """The metric families, as prometheus_client asks for them."""
        for item in fields(self.counts):
            family = CounterMetricFamily(f"collector_{item.name}", item.metadata["help"], labels=["venue"])
            family.add_metric([self.venue], getattr(self.counts, item.name), created=self.started_s)
            yield family
        books = GaugeMetricFamily("collector_books", "Books of this process by state", labels=["venue", "state"])
        for state, number in self.gauges.books().items():
            books.add_metric([self.venue, state], number)
        yield books
        exact = GaugeMetricFamily(
            "mirror_exact_ratio", "Share of the audited books that were equal to the venue's", labels=["venue"]
        )
        checks = self.counts.audit_checks
        exact.add_metric([self.venue], 1 - self.counts.audit_mismatches / checks if checks else float("nan"))
        yield exact
        for name, text, read in (
            ("producer_queue", "Records waiting for Kafka", self.gauges.producer_queue),
            ("connections", "Open websocket connections", self.gauges.connections),
            ("snapshots_waiting", "Books waiting for a REST snapshot", self.gauges.snapshots_waiting),
            ("pending_deltas", "Deltas buffered until a snapshot arrives", self.gauges.pending_deltas),
            ("failed_deliveries", "Records that Kafka did not take", self.gauges.failed_deliveries),
        ):
            gauge = GaugeMetricFamily(f"collector_{name}", text, labels=["venue"])
            gauge.add_metric([self.venue], read())
            yield gauge

    def exposition(self) -> bytes:
        """The text of ``/metrics``."""
        registry = CollectorRegistry()
        registry.register(self)  # pyright: ignore[reportArgumentType]
        return generate_latest(registry)
