"""When each collector was last heard of in each partition: a book is LIVE only while its collector is there.

A collector writes into every partition of its LIVE books at least each ``beat_ms``, as the books' statuses promise. One
that has not for ``beat_max_s`` is gone, stands still, or is cut off from Kafka, and its books are LAGGING: the venue may
have moved on. What is read while a partition is being recovered is not heard: it was written long ago.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from processors.mirror_book import MirrorBook
from processors.watch import Watch

AWAY_S = 30.0
"""For so long after Kafka was away one is waited for that promises nothing; then its silence alone counts."""
FORGET_S = 3600.0
"""A collector that has been silent for so long is as one that was never heard of."""
NEVER = (0.0, 0)


class Heard:
    """What was heard of collectors, by partition and owner. Kafka's times are in ms, others in seconds of this process."""

    def __init__(self, beat_max_s: float, watch: Watch) -> None:
        self.beat_max_s = beat_max_s
        self._watch = watch
        self._last: dict[tuple[int, str], tuple[float, int]] = {}
        """(when a record was processed, when it was written)"""
        self._silent: set[tuple[int, str]] = set()

    def note(self, partition: int, owner: str, written_ms: int) -> bool:
        """A record of one of its books was processed; gives whether its books were doubted until now."""
        place = partition, owner
        last = self._last.get(place)
        self._last[place] = time.monotonic(), written_ms
        if last is None:
            return True
        if place in self._silent:
            self._silent.discard(place)
            return True
        return last[1] <= self._watch.back_ms < written_ms

    def greeted(self, partition: int, owner: str, written_ms: int) -> bool:
        """It has written a status: as good as a record, where none was heard yet."""
        return (partition, owner) not in self._last and self.note(partition, owner, written_ms)

    def doubt(self, book: MirrorBook, partition: int) -> str:
        """Why the book cannot be LIVE, as far as its collector goes; empty: it is there."""
        heard_s, written_ms = self._last.get((partition, book.owner), NEVER)
        if (back_ms := self._watch.back_ms) and written_ms <= back_ms:
            return "Kafka was away, and its collector has not written since"
        if not book.beat_ms:
            return ""
        if not heard_s:
            return "its collector has not been heard of since this worker began to read"
        silence_s = time.monotonic() - heard_s
        return f"its collector has written nothing for {silence_s:.0f} s" if silence_s > self.beat_max_s else ""

    def look(self) -> set[int]:
        """Once a second: the partitions in which a collector has become silent, or is waited for no longer."""
        turned: set[int] = set()
        watch, now = self._watch, time.monotonic()
        if watch.back_ms and time.time() * 1000 - watch.back_ms > AWAY_S * 1000:
            watch.back_ms = 0
            turned |= {partition for partition, _ in self._last}
        for place, (heard_s, _) in list(self._last.items()):
            if now - heard_s > self.beat_max_s and place not in self._silent:
                self._silent.add(place)
                turned.add(place[0])
            elif now - heard_s > FORGET_S:
                del self._last[place]
                self._silent.discard(place)
        return turned

    def forget(self, partitions: Iterable[int]) -> None:
        """These are read by another worker now, or anew."""
        gone = set(partitions)
        self._last = {place: heard for place, heard in self._last.items() if place[0] not in gone}
        self._silent = {place for place in self._silent if place[0] not in gone}
