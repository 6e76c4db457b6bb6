"""All mirrored books of one process, by partition: batches of records in, books and derived records out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from config.settings import ProcessorSettings
from processors.derived import Derived
from processors.metrics import Counts
from processors.mirror_book import InvalidEvent, MirrorBook, Outcome
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import BOOK, STATUS

Position = tuple[str, int]
"""(topic, partition)"""
Restore = Callable[[str, int], MirrorBook | None]
"""``restore(key, partition)``: the book of the table's checkpoint, if it has one."""


class Dirty:
    """What a checkpoint of one book does not hold yet: the first offsets on market.book and market.status."""

    __slots__ = ("book_offset", "levels", "status_offset", "written_at_s")

    def __init__(self) -> None:
        self.book_offset: int | None = None
        self.status_offset: int | None = None
        self.written_at_s = 0.0

    def __bool__(self) -> bool:
        return self.book_offset is not None or self.status_offset is not None


class Books:
    """The books of the partitions that this process holds."""

    def __init__(self, settings: ProcessorSettings, derived: Derived, counts: Counts, restore: Restore) -> None:
        self._settings = settings
        self._derived = derived
        self._counts = counts
        self._restore = restore
        self.by_partition: dict[int, dict[str, MirrorBook]] = {}
        self.dirty: dict[int, dict[str, Dirty]] = {}
        self.positions: dict[Position, int] = {}
        """The next offset to process, by topic and partition."""
        self.catch_up: dict[Position, int] = {}
        """Offsets that have to be reached before the books of a new assignment are what the log says."""
        self._decode_event = codec("BookEvent").decode
        self._decode_status = codec("BookStatus").decode

    def get(self, key: str, partition: int) -> MirrorBook | None:
        """The book of this key, from memory or from the table."""
        books = self.by_partition.setdefault(partition, {})
        book = books.get(key)
        if book is None and (book := self._restore(key, partition)) is not None:
            books[key] = book
            self._counts.restored += 1
        return book

    def all(self) -> Iterable[tuple[int, MirrorBook]]:
        """Every book with its partition."""
        for partition, books in self.by_partition.items():
            for book in books.values():
                yield partition, book

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget partitions that another process takes over (after their checkpoint)."""
        for partition in partitions:
            for key in self.by_partition.pop(partition, {}):
                self._derived.forget(key)
            self.dirty.pop(partition, None)
            for topic in (BOOK.name, STATUS.name):
                self.positions.pop((topic, partition), None)
                self.catch_up.pop((topic, partition), None)

    def recovering(self, partition: int) -> bool:
        """Whether this partition is still being read up to where the log ended when it was assigned."""
        for topic in (BOOK.name, STATUS.name):
            position = (topic, partition)
            end = self.catch_up.get(position)
            if end is None:
                continue
            if self.positions.get(position, 0) < end:
                return True
            del self.catch_up[position]
        return False

    def state(self, book: MirrorBook, partition: int) -> str:
        """The state to show: RECOVERING until the partition has caught up."""
        return "RECOVERING" if self.recovering(partition) else book.state

    # The hot path.

    def on_book_batch(self, tp: Any, records: Sequence[Any]) -> None:
        """A batch of market.book. Never raises for what is in a record."""
        counts, partition = self._counts, tp.partition
        books = self.by_partition.setdefault(partition, {})
        dirty = self.dirty.setdefault(partition, {})
        every, proofs = self._settings.bbo_every_event, self._settings.proofs
        decode, derived = self._decode_event, self._derived
        touched: dict[str, MirrorBook] = {}
        counts.batches += 1
        for record in records:
            offset, value = record.offset, record.value
            try:
                event = decode(value)
                key = f"{event['venue']}|{event['symbol']}"
                book = books.get(key)
                if book is None:
                    if key.encode() != record.key:
                        raise InvalidEvent(f"the key is {record.key!r}, the record is of {key}")
                    book = self.get(key, partition) or books.setdefault(
                        key, MirrorBook(event["venue"], event["symbol"])
                    )
                elif key.encode() != record.key:
                    raise InvalidEvent(f"the key is {record.key!r}, the record is of {key}")
                outcome = book.apply(event, offset)
            except (DecodeError, InvalidEvent, TypeError) as error:
                derived.dead_letter(tp.topic, partition, offset, value, f"{type(error).__name__}: {error}")
                continue
            if outcome is Outcome.APPLIED:
                counts.events += 1
                bids, asks = book.book.bids.order, book.book.asks.order
                if bids and asks and bids[-1] >= -asks[-1]:
                    counts.crossed += 1
            elif outcome is Outcome.REPLAYED:
                counts.replayed += 1
                continue
            elif outcome is Outcome.FENCED:
                counts.fenced += 1
                continue
            elif outcome is Outcome.KEYFRAME_OK:
                counts.keyframes_ok += 1
            elif outcome is Outcome.KEYFRAME_BAD:
                counts.keyframes_bad += 1
                derived.dead_letter(
                    tp.topic, partition, offset, value, f"key frame {book.epoch}/{book.index} holds another book"
                )
            elif outcome is Outcome.GAP:
                counts.gaps += 1
            else:
                counts.unsynced += 1
            mark = dirty.get(key)
            if mark is None:
                mark = dirty[key] = Dirty()
            if mark.book_offset is None:
                mark.book_offset = offset
            if event["kind"] == "KEYFRAME":
                if proofs and outcome is not Outcome.UNSYNCED:
                    derived.proof(book, outcome is not Outcome.KEYFRAME_BAD)
            elif every:
                derived.bbo(book, partition, always=True)
                continue
            touched[key] = book
        self.positions[(tp.topic, partition)] = records[-1].offset + 1
        if not self.recovering(partition):
            for book in touched.values():
                derived.bbo(book, partition)

    def on_status_batch(self, tp: Any, records: Sequence[Any]) -> None:
        """A batch of market.status. Never raises for what is in a record."""
        partition = tp.partition
        dirty = self.dirty.setdefault(partition, {})
        touched: dict[str, MirrorBook] = {}
        for record in records:
            if record.value is None:  # a tombstone: the instrument was removed from the topic
                continue
            try:
                status = self._decode_status(record.value)
                key = f"{status['venue']}|{status['symbol']}"
                if key.encode() != record.key:
                    raise InvalidEvent(f"the key is {record.key!r}, the record is of {key}")
            except (DecodeError, InvalidEvent) as error:
                self._derived.dead_letter(
                    tp.topic, partition, record.offset, record.value, f"{type(error).__name__}: {error}"
                )
                continue
            book = self.get(key, partition)
            if book is None:
                book = MirrorBook(status["venue"], status["symbol"])
                self.by_partition[partition][key] = book
            if not book.take_status(status):
                continue
            self._counts.statuses += 1
            mark = dirty.get(key)
            if mark is None:
                mark = dirty[key] = Dirty()
            if mark.status_offset is None:
                mark.status_offset = record.offset
            touched[key] = book
        self.positions[(tp.topic, partition)] = records[-1].offset + 1
        if not self.recovering(partition):
            for book in touched.values():
                self._derived.bbo(book, partition)
