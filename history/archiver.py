"""The archiver: every record of the log into Parquet files, each exactly once, whatever is killed when.

It reads without a group, from where its own files end. One process for each set of topics; a lock file in the folder
keeps a second one out (in S3: see to it that there is one).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from bus.connection import require_broker
from bus.consumer import TailReader
from bus.status_page import start_server
from config.settings import Settings
from history.columns import row_of, table_of
from history.errors import ArchiveBusy, HistoryError
from history.metrics import ArchiverMetrics
from history.store import NO_VENUE, Store, hour_of
from schemas.topics import TOPICS

log = logging.getLogger(__name__)

Position = tuple[str, int]
Raw = tuple[int, int, bytes | None, bytes | None]
"""(offset, Kafka's time in ms, key, value): ten times smaller than the row that it becomes."""
CHUNK = 5000
"""Records that are rows at the same time."""


def archived_topics(settings: Settings) -> list[str]:
    """The topics that are kept."""
    return list(settings.history.topics) or [name for name in TOPICS if name.startswith("market.")]


class Archiver:
    """Reads topics and writes their files. Use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.store = Store(settings.history.root)
        self._lock = self._take_lock()
        self._topics = archived_topics(settings)
        self._waiting: dict[Position, list[Raw]] = {}
        self._waiting_rows = self._waiting_bytes = 0
        self._oldest_s = 0.0
        self._lateness = Lateness(time.time())
        self.written_rows = self.written_files = self.lost = 0
        known = {topic: self._known(topic) for topic in self._topics}
        self._next: dict[Position, int] = {(t, p): o for t, offsets in known.items() for p, o in offsets.items()}
        for topic in self._topics:
            if deleted := self.store.delete_unfinished(topic, known[topic]):
                log.warning("%s: %d files of a flush that did not end were deleted and are written again", topic, deleted)
        self._reader = TailReader(settings, self._topics, start=self._next)
        for position, at in self._reader.positions.items():
            self._note_loss(position, at)

    def _take_lock(self) -> IO[str] | None:
        if self.store.local is None:
            return None
        path = self.store.local / "archiver.lock"
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ArchiveBusy(f"another archiver writes here: {path} is locked; stop it, or name another folder") from None
        return lock

    def _known(self, topic: str) -> dict[int, int]:
        """The next offset of each partition of which something was kept."""
        found: dict[int, int] = {}
        for partition in range(4096):
            at = self.store.state(topic, partition)["next_offset"]
            if at >= 0:
                found[partition] = at
            elif partition >= max(64, self._settings.kafka.market_partitions):
                break
        return found

    def _note_loss(self, position: Position, at: int) -> None:
        wanted = self._next.get(position, -1)
        if 0 <= wanted < at:
            self.lost += at - wanted
            log.error("%s[%d]: %d records expired before they were read, from %d on", *position, at - wanted, wanted)
            state = self.store.state(*position)
            self.store.set_state(*position, {"next_offset": at, "lost": state["lost"] + at - wanted})
        self._next[position] = at

    def step(self, timeout_s: float = 0.2) -> int:
        """Read what is there, and write when it is time; gives how many records were read."""
        messages = self._reader.poll(2000, timeout_s)
        for message in messages:
            position = (message.topic(), message.partition())
            value = message.value()
            if not self._waiting_rows:
                self._oldest_s = time.monotonic()
            raw = message.offset(), message.timestamp()[1], message.key(), value
            self._waiting.setdefault(position, []).append(raw)
            self._lateness.read(position, message.timestamp()[1])
            self._waiting_rows += 1
            self._waiting_bytes += len(value or b"")
        h = self._settings.history
        full = self._waiting_rows >= h.flush_rows or self._waiting_bytes >= h.flush_mb * 1_000_000
        if full or (self._waiting_rows and time.monotonic() - self._oldest_s >= h.flush_s):
            self.flush()
        return len(messages)

    def flush(self) -> None:
        """Write everything that was read: a partition's files, then its state."""
        for (topic, partition), waiting in self._waiting.items():
            groups: dict[tuple[str, str], list[pa.Table]] = {}
            for at in range(0, len(waiting), CHUNK):
                for where, table in _tables(TOPICS[topic].record, partition, waiting[at : at + CHUNK]):
                    groups.setdefault(where, []).append(table)
            for (venue, hour), tables in groups.items():
                self.store.write(topic, venue, hour, partition, pa.concat_tables(tables))
                self.written_files += 1
            state = self.store.state(topic, partition)
            self.store.set_state(topic, partition, {"next_offset": waiting[-1][0] + 1, "lost": state["lost"]})
            self.written_rows += len(waiting)
        self._waiting.clear()
        self._waiting_rows = self._waiting_bytes = 0
        pa.default_memory_pool().release_unused()

    @property
    def lag(self) -> int | None:
        """Records of the log that were not read; None: a partition's end is not known yet."""
        return None if (lags := self._reader.lags()) is None else sum(lags.values())

    @property
    def behind_s(self) -> float | None:
        """How old is what was read last of the partition that is furthest behind; None as for ``lag``."""
        return None if (lags := self._reader.lags()) is None else self._lateness.behind_s(lags, time.time())

    @property
    def waiting_rows(self) -> int:
        """Records that were read and are in no file yet."""
        return self._waiting_rows

    @property
    def disk(self) -> Path | None:
        """The archive's folder; None: it is not on a disk."""
        return self.store.local

    def ends(self) -> dict[Position, int]:
        """Where the log ends now."""
        return self._reader.ends()

    def has_read(self, ends: dict[Position, int]) -> bool:
        """Whether everything before these offsets was read."""
        return self._reader.has_read(ends)

    def __enter__(self) -> Archiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        if self._lock is not None:
            self._lock.close()


class Lateness:
    """How far behind the log a reader is, by the partition that is furthest: one that alone stands still is seen."""

    def __init__(self, now_s: float) -> None:
        self._started_s = now_s
        self._read_s: dict[Position, float] = {}
        self._abreast_s: dict[Position, float] = {}

    def read(self, position: Position, ts_ms: int) -> None:
        """A record with Kafka's time was read."""
        self._read_s[position] = ts_ms / 1000

    def behind_s(self, lags: Mapping[Position, int], now_s: float) -> float:
        """Age of the newest record read, while more wait; a partition that had nothing waiting was abreast until then."""
        late = 0.0
        for position, waiting in lags.items():
            if waiting:
                known = max(self._abreast_s.get(position, 0.0), self._read_s.get(position, 0.0)) or self._started_s
                late = max(late, now_s - known)
            else:
                self._abreast_s[position] = now_s
        return late


def _tables(record: str, partition: int, waiting: list[Raw]) -> Iterator[tuple[tuple[str, str], pa.Table]]:
    """((venue, hour), its rows) of these records of one partition."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for offset, ts_ms, key, value in waiting:
        row = row_of(record, partition, offset, ts_ms, key, value)
        venue = row.get("venue") or (row["_key"] or "").partition("|")[0] or NO_VENUE
        groups.setdefault((_safe(venue), hour_of(ts_ms)), []).append(row)
    for where, rows in groups.items():
        yield where, table_of(record, rows)


def _safe(venue: str) -> str:
    """A venue's name as a folder's: ids are plain words, but a key of another program may hold anything."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in venue)[:80] or NO_VENUE


def compact(store: Store, topic: str, before_hour: str, say: Callable[[str], None]) -> int:
    """Merge the small files of each past hour into one for each partition; gives how many files fewer there are.

    Only to be called by the one who holds the lock. Cut short, it leaves files that readers pass over.
    """
    fewer = 0
    for venue in store.venues(topic):
        for hour in store.hours(topic, venue):
            if hour >= before_hour:
                continue
            by_partition: dict[int, list[Any]] = {}
            for file in store.hour_files(topic, venue, hour):
                by_partition.setdefault(file.partition, []).append(file)
            for partition, files in by_partition.items():
                if len(files) < 2:
                    continue
                whole = store.merge(topic, venue, hour, partition, files)
                for file in files:
                    if file.path != whole.path:
                        store.delete(file)
                        fewer += 1
    if fewer:
        say(f"{topic}: {fewer} files fewer")
    return fewer


def main(settings: Settings, *, until_end: bool, compact_too: bool, say: Callable[[str], None]) -> int:
    """Archive until SIGTERM or SIGINT, or with ``until_end`` up to where the log ends now. Raises BusError, HistoryError."""
    require_broker(settings)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with Archiver(settings) as archiver:
        say(f"archiving {', '.join(archived_topics(settings))} to {settings.history.root}")
        if until_end:
            ends = archiver.ends()
            while not stopped.is_set() and not archiver.has_read(ends):
                archiver.step()
        else:
            asyncio.run(_serve(archiver, settings, stopped, say))
        archiver.flush()
        if compact_too:
            for topic in archived_topics(settings):
                compact(archiver.store, topic, hour_of(int(time.time() * 1000)), say)
        say(f"{archiver.written_rows} records in {archiver.written_files} files, {archiver.lost} lost to retention")
    return 0


async def _serve(archiver: Archiver, settings: Settings, stopped: threading.Event, say: Callable[[str], None]) -> None:
    """Archive in a thread, beside the page with its metrics."""
    h = settings.history
    try:
        page, _ = await start_server(
            h.metrics_host, h.metrics_port, ArchiverMetrics(archiver).exposition,
            lambda: {"topics": archived_topics(settings), "lag": archiver.lag, "lost": archiver.lost},
            lambda: "" if archiver.lag is not None else "the log's end is not known yet",
        )  # fmt: skip
    except OSError as error:
        raise HistoryError(f"history.metrics_port {h.metrics_port} cannot be had on {h.metrics_host}: {error.strerror}") from None
    try:
        await asyncio.to_thread(_follow, archiver, settings, stopped, say)
    finally:
        await page.cleanup()


def _follow(archiver: Archiver, settings: Settings, stopped: threading.Event, say: Callable[[str], None]) -> None:
    hour = hour_of(int(time.time() * 1000))
    while not stopped.is_set():
        archiver.step()
        now = hour_of(int(time.time() * 1000))
        if now != hour:
            archiver.flush()
            for topic in archived_topics(settings):
                compact(archiver.store, topic, hour, say)
            hour = now
