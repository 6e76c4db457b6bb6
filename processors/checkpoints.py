"""Books to the Faust table, then the offsets that the table covers: the order that makes a restart exact.

A book is written at most once in ``checkpoint_s``, and less often when it is deep (a second for each LEVELS_PER_S
levels), so that checkpoints never cost more than a share of the stream. The committed offset of a partition never
passes the oldest event that is not yet in the table.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from config.settings import ProcessorSettings
from processors.books import Books, Dirty
from processors.metrics import Counts
from processors.mirror_book import MirrorBook
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import BOOK

log = logging.getLogger(__name__)

LEVELS_PER_S = 4000
YIELD_EVERY = 20
"""Books written between two looks at the event loop: a round of checkpoints must not hold up the stream."""


class Checkpoints:
    """Writes and reads the table ``books`` of one app."""

    def __init__(self, settings: ProcessorSettings, app: Any, table: Any, counts: Counts) -> None:
        self._settings = settings
        self._app = app
        self._table = table
        self._counts = counts
        self._encode = codec("BookCheckpoint").encode
        self._decode = codec("BookCheckpoint").decode
        self._committed: dict[tuple[str, int], int] = {}
        self._lock = asyncio.Lock()

    def restore(self, key: str, _: int) -> MirrorBook | None:
        """The checkpoint of this key as a book; None when there is none or it cannot be read."""
        value = self._table.get(key)
        if value is None:
            return None
        try:
            return MirrorBook.restored(self._decode(value))
        except DecodeError as error:
            log.error("the checkpoint of %s cannot be read, the book waits for its next key frame: %s", key, error)
            return None

    async def write(self, books: Books, *, everything: bool = False, partitions: set[int] | None = None) -> None:
        """Write the books that are due (all dirty ones with ``everything``), then commit what the table covers."""
        async with self._lock:
            written = 0
            for partition in list(books.dirty):
                if partitions is not None and partition not in partitions:
                    continue
                marks = books.dirty[partition]
                for key in list(marks):
                    mark = marks.get(key)
                    book = books.by_partition.get(partition, {}).get(key)
                    if not mark or book is None or not (everything or self._due(mark, book)):
                        continue
                    self._table[key] = self._encode(book.checkpoint())
                    mark.book_offset = mark.status_offset = None
                    mark.written_at_s = time.monotonic()
                    self._counts.checkpoints += 1
                    written += 1
                    if written % YIELD_EVERY == 0 and not everything:
                        await asyncio.sleep(0)
            await self._commit(books, partitions)

    def _due(self, mark: Dirty, book: MirrorBook) -> bool:
        levels = len(book.book.bids) + len(book.book.asks)
        pause_s = max(self._settings.checkpoint_s, levels / LEVELS_PER_S)
        return time.monotonic() - mark.written_at_s >= pause_s

    async def _commit(self, books: Books, partitions: set[int] | None) -> None:
        from faust.types import TP

        offsets: dict[Any, int] = {}
        for (topic, partition), position in books.positions.items():
            if partitions is not None and partition not in partitions:
                continue
            for mark in books.dirty.get(partition, {}).values():
                first = mark.book_offset if topic == BOOK.name else mark.status_offset
                if first is not None and first < position:
                    position = first
            if self._committed.get((topic, partition)) != position:
                offsets[TP(topic, partition)] = position
        if not offsets:
            return
        # Flushes the producer first: the changelog is durable before the offsets are.
        if await self._app.consumer._commit_offsets(offsets):
            self._counts.commits += 1
            self._committed.update({(tp.topic, tp.partition): offset for tp, offset in offsets.items()})

    def forget(self) -> None:
        """A rebalance: what was committed is the broker's to say."""
        self._committed.clear()
