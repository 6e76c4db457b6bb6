"""Which books to repeat so that the silence of a partition means something: its collector is gone, or cut off from Kafka.

A heartbeat is a delta without levels in market.book itself, behind everything that its collector wrote before: whoever
has read it has read all of that. A partition in which something was written lately needs none, so a busy one costs nothing.
The status of a book says that its collector does so (``beat_ms``); processors hold it to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Beating(Protocol):
    """A book that can be repeated."""

    def beat(self) -> None:
        """Write a delta without levels."""
        ...


B = TypeVar("B", bound=Beating)


def due(books: Iterable[tuple[int, int, B]], now_ns: int, beat_ns: int) -> list[B]:
    """One book of each partition in which nothing was written for ``beat_ns``.

    ``books``: (partition, when something of it was last written, book) of those that are LIVE.
    """
    newest: dict[int, tuple[int, B]] = {}
    for partition, written_ns, book in books:
        found = newest.get(partition)
        if found is None or written_ns > found[0]:
            newest[partition] = written_ns, book
    return [book for written_ns, book in newest.values() if now_ns - written_ns >= beat_ns]
