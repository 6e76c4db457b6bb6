"""Every number that the console counts about itself, declared once. Names: ``console_<field>_total``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def _counter(text: str) -> int:
    return field(default=0, metadata={"help": text})


@dataclass(slots=True)
class Counts:
    """The counters of one console."""

    records: int = _counter("Records read from Kafka")
    conflated: int = _counter("Records passed over because a newer one of the same key was read with them")
    unreadable: int = _counter("Records that could not be decoded")
    refused_keys: int = _counter("Records of instruments beyond what one console holds")
    frames: int = _counter("Frames sent to browsers")
    frame_bytes: int = _counter("Bytes of frames sent to browsers")
    slow_readers: int = _counter("Browsers closed because they did not take a frame in time")
    refused_clients: int = _counter("Browsers turned away because too many are connected")
    refused_requests: int = _counter("Requests turned away: no token, foreign host, nonsense")
    view_errors: int = _counter("Questions to a processor that it did not answer")


@dataclass(slots=True)
class Gauges:
    """What is measured at the moment of a scrape."""

    clients: Callable[[], int] = int
    books: Callable[[], int] = int
    watched: Callable[[], int] = int
    lag: Callable[[], int] = int


class ConsoleMetrics:
    """A Prometheus collector over the console's counts."""

    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self.counts = counts
        self.gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """The metric families, as prometheus_client asks for them."""
        for item in fields(self.counts):
            family = CounterMetricFamily(f"console_{item.name}", item.metadata["help"])
            family.add_metric([], getattr(self.counts, item.name))
            yield family
        for name, text, read in (
            ("clients", "Browsers connected", self.gauges.clients),
            ("books", "Books known", self.gauges.books),
            ("watched", "Books that a browser looks at", self.gauges.watched),
            ("lag", "Records of the derived topics not yet read", self.gauges.lag),
        ):
            yield GaugeMetricFamily(f"console_{name}", text, value=read())

    def exposition(self) -> bytes:
        """The text of ``/metrics``."""
        registry = CollectorRegistry()
        registry.register(self)  # pyright: ignore[reportArgumentType]
        return generate_latest(registry)
