"""Every number that an archiver shows, declared once, and how Prometheus reads it.

Nothing is kept for the sake of a scrape: each reads what the archiver knows, and its disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class Archives(Protocol):
    """What is shown of an archiver."""

    written_rows: int
    written_files: int
    lost: int

    @property
    def lag(self) -> int | None:
        """Records of the log that were not read."""
        ...

    @property
    def behind_s(self) -> float | None:
        """How old is what was read last of the partition that is furthest behind."""
        ...

    @property
    def waiting_rows(self) -> int:
        """Records that were read and are in no file yet."""
        ...

    @property
    def disk(self) -> Path | None:
        """The archive's folder; None: it is not on a disk."""
        ...


class ArchiverMetrics:
    """A Prometheus collector over one archiver."""

    def __init__(self, archiver: Archives) -> None:
        self._of = archiver

    def collect(self) -> Iterable[Metric]:
        """The metric families, as prometheus_client asks for them."""
        of = self._of
        for name, text, value in (
            ("records", "Records written to files", of.written_rows), ("files", "Files written", of.written_files),
            ("lost", "Records that expired in Kafka before they were read", of.lost),
        ):  # fmt: skip
            yield CounterMetricFamily(f"archiver_{name}", text, value=value)
        yield GaugeMetricFamily("archiver_waiting", "Records that were read and are in no file yet", value=of.waiting_rows)
        if (lag := of.lag) is not None:
            yield GaugeMetricFamily("archiver_lag", "Records of the log that were not read", value=lag)
        if (behind_s := of.behind_s) is not None:
            text = "Age of the newest record read of the partition furthest behind, while more wait"
            yield GaugeMetricFamily("archiver_behind_seconds", text, value=behind_s)
        if of.disk is not None:
            size = shutil.disk_usage(of.disk)
            yield GaugeMetricFamily("archiver_disk_bytes", "Size of the archive's disk", value=size.total)
            yield GaugeMetricFamily("archiver_disk_free_bytes", "What is free of it", value=size.free)

    def exposition(self) -> bytes:
        """The text of ``/metrics``."""
        registry = CollectorRegistry()
        registry.register(self)  # pyright: ignore[reportArgumentType]
        return generate_latest(registry)
