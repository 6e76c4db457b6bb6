"""Lanes beside the stream: the newest state of each changed book, at most once in an interval, within a share of time.

A book that changes a hundred times in an interval is written once, as it is then. When all books that changed cost more
than the lane's share of the process, those that wait longest come first and the rest waits: a slow lane means a longer
interval, never a queue that grows and never a stream that is held up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from processors.mirror_book import MirrorBook

log = logging.getLogger(__name__)

SLICE_S = 0.002
"""Work between two looks at the event loop."""

Write = Callable[[MirrorBook, int], None]
"""``write(book, partition)``: writes one derived record of the book as it is now."""


class Lane:
    """Calls ``write`` for touched books. ``touch`` may be called from the hot path; ``run`` is the lane's task."""

    def __init__(self, interval_s: float, share: float, write: Write) -> None:
        self.interval_s = interval_s
        self.share = share
        self._write = write
        self.pending: dict[str, tuple[MirrorBook, int]] = {}
        """Oldest touch first; at most one entry a book."""
        self.written = 0
        self.conflated_turns = 0
        """Turns that ended with books left over."""

    def touch(self, book: MirrorBook, partition: int) -> None:
        """The book has changed."""
        self.pending[book.key] = (book, partition)

    def drop(self, partitions: set[int]) -> None:
        """These are another worker's now."""
        self.pending = {key: entry for key, entry in self.pending.items() if entry[1] not in partitions}

    async def run(self, stopped: Callable[[], bool]) -> None:
        """Take turns until ``stopped()``; the interval counts from a turn's end, so that no book is written too soon."""
        while not stopped():
            await asyncio.sleep(self.interval_s)
            await self.turn()

    async def turn(self) -> None:
        """Write what is pending, as far as the share of one interval reaches."""
        left = len(self.pending)  # what is touched from here on is of the next turn
        budget_s, spent_s, started = self.interval_s * self.share, 0.0, time.perf_counter()
        while left and self.pending:
            left -= 1
            key = next(iter(self.pending))
            book, partition = self.pending.pop(key)
            self._write(book, partition)
            self.written += 1
            took_s = time.perf_counter() - started
            if took_s >= SLICE_S or spent_s + took_s >= budget_s:
                spent_s += took_s
                if spent_s >= budget_s:
                    break
                await asyncio.sleep(0)
                started = time.perf_counter()
        if left and self.pending:
            self.conflated_turns += 1
