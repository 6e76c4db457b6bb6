"""All mirrored books of one process, by partition: batches of records in, books and derived records out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from config.settings import ProcessorSettings
from processors.checkpoints import Marks, mark
from processors.derived import Derived
from processors.heard import Heard
from processors.metrics import Counts
from processors.mirror_book import InvalidEvent, MirrorBook, Outcome
from processors.watch import Watch
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import BOOK, STATUS

Position = tuple[str, int]
"""(topic, partition)"""
Restore = Callable[[str], dict[str, Any] | None]
"""``restore(key)``: the BookCheckpoint of the table, if it has one."""
TOPICS = (BOOK.name, STATUS.name)
LOOK_S = 5.0


class Books:
    """The books of the partitions that this process holds."""

    def __init__(self, settings: ProcessorSettings, derived: Derived, counts: Counts, restore: Restore) -> None:
        self._settings = settings
        self._derived = derived
        self._counts = counts
        self._restore = restore
        self.by_partition: dict[int, dict[str, MirrorBook]] = {}
        self.by_key: dict[bytes, MirrorBook] = {}
        """The same books by the record's key as it stands in Kafka."""
        self.dirty: Marks = {}
        self.positions: dict[Position, int] = {}
        """The next offset to process, by topic and partition."""
        self.catch_up: dict[Position, int] = {}
        """Offsets that have to be reached before the books of a new assignment are what the log says."""
        self._silent: set[str] = set()
        self._looked_s = 0.0
        self.suspended = False
        """A rebalance is under way: nothing is read, and another process may be the owner already."""
        self.watch = Watch(settings.lag_max_s, self._on_lag)
        self.heard = Heard(settings.beat_max_s, self.watch)
        self.on_touched: Callable[[MirrorBook, int], None] = _nobody
        """Called for each book that a batch changed, once a batch: must be quick."""
        self.partition_of: Callable[[str], int] = _unknown
        """Where a key belongs, -1: not known. Asked at a key's first record only."""
        self._encode = codec("BookCheckpoint").hurry().encode
        self._decode_event = codec("BookEvent").hurry().decode
        self._decode_status = codec("BookStatus").decode

    def get(self, key: str, partition: int) -> MirrorBook | None:
        """The book of this key, from memory or from the table."""
        books = self.by_partition.setdefault(partition, {})
        book = books.get(key)
        if book is None and (record := self._restore(key)) is not None:
            book = self._add(partition, MirrorBook.restored(record))
            book.heard_ms = int(time.time() * 1000)  # its silence counts from here
            self._counts.restored += 1
        return book

    def _add(self, partition: int, book: MirrorBook) -> MirrorBook:
        self.by_partition.setdefault(partition, {})[book.key] = book
        self.by_key[book.key.encode()] = book
        return book

    def all(self) -> Iterable[tuple[int, MirrorBook]]:
        """Every book with its partition."""
        for partition, books in self.by_partition.items():
            for book in books.values():
                yield partition, book

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget partitions that another process takes over (after their checkpoint)."""
        partitions = list(partitions)
        for partition in partitions:
            for key in self.by_partition.pop(partition, {}):
                self.by_key.pop(key.encode(), None)
                self._derived.forget(key)
                self._silent.discard(key)
            self.dirty.pop(partition, None)
            for topic in TOPICS:
                self.positions.pop((topic, partition), None)
                self.catch_up.pop((topic, partition), None)
        self.heard.forget(partitions)
        self.watch.forget(partitions)

    def recovering(self, partition: int) -> bool:
        """Whether this partition is still being read up to where the log ended when it was assigned."""
        if self.suspended:
            return True
        if not self.catch_up:
            return False
        return any((topic, partition) in self.catch_up for topic in TOPICS)

    def reached(self, topic: str, partition: int, offset: int) -> None:
        """Everything of the topic before this offset is processed; ends the recovery of a partition that got there."""
        end = self.catch_up.get((topic, partition))
        if end is None or offset < end:
            return
        del self.catch_up[(topic, partition)]
        if not self.recovering(partition):
            self.say_again(partition)

    def state(self, book: MirrorBook, partition: int) -> str:
        """The state to show: RECOVERING until the partition has caught up, LAGGING when it fell behind."""
        if self.recovering(partition):
            return "RECOVERING"
        state = book.state
        if state != "LIVE":
            return state
        if self.watch.lagging(partition):
            return "LAGGING"
        if self.silent_s(book):
            return "STALE"
        return "LAGGING" if self.heard.doubt(book, partition) else state

    def silent_s(self, book: MirrorBook) -> float:
        """Seconds since a collector wrote of this book, where they are too many; else 0.

        A living collector repeats a quiet book at least each ``collector.keyframe_max_s``; a dead one cannot say so.
        """
        silence_s = time.time() - book.heard_ms / 1000
        return silence_s if silence_s > self._settings.silence_max_s else 0.0

    def look_for_silence(self) -> None:
        """Say it of collectors that have become silent; and, each LOOK_S at most, of single books."""
        for partition in self.heard.look():
            if not self.recovering(partition):
                self.say_again(partition)
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        for partition, book in self.all():
            silent = book.state == "LIVE" and bool(self.silent_s(book))
            if silent and book.key not in self._silent and not self.recovering(partition):
                self._silent.add(book.key)
                self._derived.bbo(book, partition, self.state(book, partition))
                self.on_touched(book, partition)
            elif not silent:
                self._silent.discard(book.key)

    def reason(self, book: MirrorBook, partition: int) -> str:
        """Why the book is shown in this state."""
        if self.suspended:
            return "the partitions are being handed out anew"
        if self.recovering(partition):
            return "this worker reads on from its checkpoint"
        if book.state == "LIVE":
            if lags := self.watch.lagging(partition):
                return lags
            if not (silent_s := self.silent_s(book)):
                return self.heard.doubt(book, partition)
            return f"no collector has said anything of it for {silent_s:.0f} s"
        return book.reason

    def say_again(self, partition: int) -> None:
        """Write the best bid and offer of each book whose state is another one now than was last said."""
        for book in self.by_partition.get(partition, {}).values():
            self._derived.bbo(book, partition, self.state(book, partition))
            self.on_touched(book, partition)

    def say_leaving(self, partitions: Iterable[int]) -> None:
        """Tell the readers of derived.bbo that nobody keeps these books for the moment."""
        for partition in partitions:
            for book in self.by_partition.get(partition, {}).values():
                self._derived.bbo(book, partition, "RECOVERING")

    def _on_lag(self, partition: int) -> None:
        if not self.recovering(partition):
            self.say_again(partition)

    # For Checkpoints.

    def encoded(self, key: str, partition: int) -> bytes | None:
        """The BookCheckpoint of this key."""
        book = self.by_partition.get(partition, {}).get(key)
        return None if book is None else self._encode(book.checkpoint())

    def weight(self, key: str, partition: int) -> int:
        """Levels of the book."""
        book = self.by_partition.get(partition, {}).get(key)
        return 0 if book is None else len(book.book.bids) + len(book.book.asks)

    # The hot path.

    def on_book_batch(self, tp: Any, records: Sequence[Any]) -> None:
        """A batch of market.book. Never raises for what is in a record."""
        counts, partition, topic = self._counts, tp.partition, BOOK.name
        by_key = self.by_key
        dirty = self.dirty.setdefault(partition, {})
        every, proofs = self._settings.bbo_every_event, self._settings.proofs
        decode, derived = self._decode_event, self._derived
        touched: dict[str, MirrorBook] = {}
        applied = 0
        counts.batches += 1
        for record in records:
            offset, value = record.offset, record.value
            try:
                event = decode(value)
                book = by_key.get(record.key)
                if book is None:
                    book = self._first_event(event, record.key, partition)
                    if book is None:
                        continue
                elif event["symbol"] != book.symbol or event["venue"] != book.venue:
                    raise InvalidEvent(f"the key is {record.key!r}, the record is of {event['venue']}|{event['symbol']}")
                outcome = book.apply(event, offset)
            except (DecodeError, InvalidEvent, TypeError) as error:
                derived.dead_letter(topic, partition, offset, value, f"{type(error).__name__}: {error}")
                continue
            key = book.key
            book.heard_ms = record.timestamp
            if outcome is Outcome.APPLIED:
                applied += 1
                counts.crossed += book.book.crossed()
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
                    topic, partition, offset, value, f"key frame {book.epoch}/{book.index} holds another book"
                )
            elif outcome is Outcome.GAP:
                counts.gaps += 1
            else:
                counts.unsynced += 1
            found = dirty.get(key)
            if found is None or topic not in found.first:
                mark(dirty, key, topic, offset)
            if event["kind"] == "KEYFRAME":
                if proofs and outcome is not Outcome.UNSYNCED:
                    derived.proof(book, outcome is not Outcome.KEYFRAME_BAD)
            elif every:
                derived.bbo(book, partition, book.state, always=True)
                if self.watch.back_ms:
                    self.heard.note(partition, book.owner, book.heard_ms)
                continue
            touched[key] = book
        counts.events += applied
        self._took(topic, partition, records[-1], touched)

    def _first_event(self, event: dict[str, Any], key: bytes | None, partition: int) -> MirrorBook | None:
        """The book that this event begins; None: the key lives elsewhere since the partitions were raised."""
        own = f"{event['venue']}|{event['symbol']}"
        if own.encode() != key:
            raise InvalidEvent(f"the key is {key!r}, the record is of {own}")
        if self._moved(own, partition):
            return None
        return self.get(own, partition) or self._add(partition, MirrorBook(event["venue"], event["symbol"]))

    def _moved(self, key: str, partition: int) -> bool:
        moved = self.partition_of(key) not in (partition, -1)
        self._counts.moved += moved
        return moved

    def _took(self, topic: str, partition: int, last: Any, touched: dict[str, MirrorBook]) -> None:
        self.positions[(topic, partition)] = last.offset + 1
        if topic == BOOK.name:
            self.watch.batch(partition, last.timestamp)
        if self.recovering(partition):
            self.reached(topic, partition, last.offset + 1)
            return
        bbo, on_touched, heard = self._derived.bbo, self.on_touched, self.heard
        lags, again, noted = bool(self.watch.lagging(partition)), False, set[str]()
        note = heard.note if topic == BOOK.name else heard.greeted
        # Usually one record of an owner in a batch tells as much as all of them, and leaves no doubt.
        each = topic != BOOK.name or bool(self.watch.back_ms)
        for book in touched.values():
            state, owner = book.state, book.owner
            if (each or owner not in noted) and book.epoch == book.status_epoch:
                noted.add(owner)
                again |= note(partition, owner, book.heard_ms)
            doubted = state == "LIVE" and (lags or (each and heard.doubt(book, partition)))
            bbo(book, partition, "LAGGING" if doubted else state)
            on_touched(book, partition)
        if again:
            self.say_again(partition)

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
            book = self.by_key.get(record.key)
            if book is None:
                if self._moved(key, partition):
                    continue
                book = self.get(key, partition) or self._add(partition, MirrorBook(status["venue"], status["symbol"]))
            if not book.take_status(status):
                continue
            self._counts.statuses += 1
            mark(dirty, key, STATUS.name, record.offset)
            touched[key] = book
        self._took(STATUS.name, partition, records[-1], touched)


def _unknown(key: str) -> int:
    return -1


def _nobody(book: MirrorBook, partition: int) -> None:
    """Nothing is derived but the best bid and offer."""
