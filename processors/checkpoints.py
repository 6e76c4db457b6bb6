"""State to the changelogs of the Faust tables, then the offsets that they cover: the order that makes a restart exact.

The changelog is written through a producer of our own; Faust reads it back. Faust's own buffer counts a record as
flushed before the driver has it, so that a crash right after a commit could lose the checkpoint under it; it also
costs thirty times as much a record.

A book is written at most once in ``checkpoint_s``, and less often when it is deep (a second for each LEVELS_PER_S
levels); all books together may take ``checkpoint_share`` of the process. So 5,000 books × 400 levels take several
rounds, oldest change first, and the stream goes on between any two slices. The committed offset of a partition never
passes the oldest event that is not yet in the table.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from faust.types import TP

from bus.errors import QueueFull
from bus.producer import Producer
from config.settings import ProcessorSettings
from processors.metrics import Counts
from schemas.errors import DecodeError

log = logging.getLogger(__name__)

LEVELS_PER_S = 4000
SLICE_S = 0.002
"""Work between two looks at the event loop."""
FLUSH_S = 5.0
"""How long a commit waits for Kafka to take the checkpoints; after that it is tried again with the next round."""
FENCE_S = 2.0
"""A process that stood still for longer asks whether its partitions are still its own before it writes."""
ROUND_S = 0.1
"""A round of due checkpoints starts this often, and takes its share of this time."""

Position = tuple[str, int]
"""(topic, partition)"""


class Mark:
    """What the table does not hold yet of one key: the first offset of each source topic."""

    __slots__ = ("first", "written_at_s")

    def __init__(self) -> None:
        self.first: dict[str, int] = {}
        self.written_at_s = 0.0

    def __bool__(self) -> bool:
        return bool(self.first)


Marks = dict[int, dict[str, Mark]]
"""By partition and key, oldest change first: a key that is marked anew goes to the end."""


def mark(marks: dict[str, Mark], key: str, topic: str, offset: int) -> None:
    """Note that the state of this key holds an event of the topic from here on which its checkpoint does not."""
    found = marks.get(key)
    if found is None:
        found = marks[key] = Mark()
    if topic not in found.first:
        found.first[topic] = offset


class Store(Protocol):
    """What is checkpointed: books, bars."""

    dirty: Marks

    def encoded(self, key: str, partition: int) -> bytes | None:
        """The checkpoint of this key as the table's value; None when it is no longer held."""
        ...

    def weight(self, key: str, partition: int) -> int:
        """Its size in levels."""
        ...


class Checkpoints:
    """Writes and reads the tables of one app. Nobody else may use ``producer``: it is flushed before each commit."""

    def __init__(self, settings: ProcessorSettings, app: Any, producer: Producer, counts: Counts) -> None:
        self._settings = settings
        self._app = app
        self._producer = producer
        self._counts = counts
        self._stores: list[tuple[str, Store]] = []
        self._committed: dict[Position, int] = {}
        self._commit_at_s = 0.0
        self._round_at_s = time.monotonic()
        self._lock = asyncio.Lock()

    def add(self, table: Any, store: Store) -> None:
        """Keep this store in that table."""
        self._stores.append((table.changelog_topic.get_topic_name(), store))

    @staticmethod
    def read(table: Any, key: str, decode: Any) -> Any:
        """The decoded checkpoint of this key; None when there is none or it cannot be read."""
        value = table.get(key)
        if value is None:
            return None
        try:
            return decode(value)
        except DecodeError as error:
            log.error("the checkpoint of %s cannot be read; it starts anew from the log: %s", key, error)
            return None

    async def round(self, positions: dict[Position, int]) -> None:
        """Write what is due, within the share of time that checkpoints may take; commit once in ``checkpoint_s``."""
        async with self._lock:
            now = time.monotonic()
            stood_s, self._round_at_s = now - self._round_at_s, now
            if stood_s > FENCE_S and not await self._still_ours(positions, None):
                return
            await self._write(self._due_keys(), budget_s=ROUND_S * self._settings.checkpoint_share)
            if now >= self._commit_at_s:
                self._commit_at_s = now + self._settings.checkpoint_s
                await self._commit(positions, None)

    async def write_all(self, positions: dict[Position, int], partitions: set[int] | None = None) -> bool:
        """Write everything that is not in the tables (of these partitions), and commit: before it is given away.

        False, and nothing written, when the partitions are another worker's already.
        """
        async with self._lock:
            if not await self._still_ours(positions, partitions):
                return False
            await self._write(self._all_keys(partitions), budget_s=None)
            await self._commit(positions, partitions)
            return True

    async def _still_ours(self, positions: dict[Position, int], partitions: set[int] | None) -> bool:
        """Ask the group by a commit of what is covered already.

        A process that was stopped for longer than its session must not write: its old books would stand behind the
        new owner's in the changelog, and be what the next recovery finds.
        """
        return not positions or await self._commit(positions, partitions, always=True)

    def _all_keys(self, partitions: set[int] | None) -> Iterator[tuple[str, Store, int, str, Mark]]:
        for topic, store in self._stores:
            for partition in list(store.dirty):
                if partitions is None or partition in partitions:
                    for key, found in list(store.dirty.get(partition, {}).items()):
                        if found:
                            yield topic, store, partition, key, found

    def _due_keys(self) -> Iterator[tuple[str, Store, int, str, Mark]]:
        now = time.monotonic()
        for topic, store, partition, key, found in self._all_keys(None):
            pause_s = max(self._settings.checkpoint_s, store.weight(key, partition) / LEVELS_PER_S)
            if now - found.written_at_s >= pause_s:
                yield topic, store, partition, key, found

    async def _write(self, items: Iterable[tuple[str, Store, int, str, Mark]], budget_s: float | None) -> None:
        spent_s, started = 0.0, time.perf_counter()
        for topic, store, partition, key, found in items:
            value = store.encoded(key, partition)
            if value is not None and found:
                try:
                    self._producer.send(topic, key, value)
                except QueueFull:  # the marks stay: they are tried again
                    return
                self._counts.checkpoints += 1
                self._counts.checkpoint_bytes += len(value)
            found.first.clear()
            found.written_at_s = time.monotonic()
            marks = store.dirty.get(partition)
            if marks is not None and marks.pop(key, None) is not None:
                marks[key] = found  # to the end: the next round begins with those that wait longest
            took_s = time.perf_counter() - started
            if took_s >= SLICE_S:
                spent_s += took_s
                if budget_s is not None and spent_s >= budget_s:
                    return
                await asyncio.sleep(0)
                started = time.perf_counter()

    async def _commit(
        self, positions: dict[Position, int], partitions: set[int] | None, *, always: bool = False
    ) -> bool:
        """Commit what the tables cover; with ``always`` even when it is committed already. False: not taken."""
        covered = {tp: at for tp, at in positions.items() if partitions is None or tp[1] in partitions}
        for _, store in self._stores:
            for partition, marks in store.dirty.items():
                for found in marks.values():
                    for topic, first in found.first.items():
                        if first < covered.get((topic, partition), first):
                            covered[(topic, partition)] = first
        offsets: dict[Any, int] = {
            TP(*position): at for position, at in covered.items() if always or self._committed.get(position) != at
        }
        if not offsets:
            return True
        # The changelog is durable before the offsets are. Nothing is added to this producer meanwhile.
        if await asyncio.to_thread(self._producer.flush, FLUSH_S):
            return False
        self._producer.raise_failures()
        if not await self._app.consumer._commit_offsets(offsets):
            return False
        self._counts.commits += 1
        self._committed.update({(tp.topic, tp.partition): offset for tp, offset in offsets.items()})
        return True

    def forget(self) -> None:
        """A rebalance: what was committed is the broker's to say."""
        self._committed.clear()
