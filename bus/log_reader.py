"""The log as strategies and execution read it: manual assignment, the first record at once, any part of it again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bus.connection import client_config
from bus.consumer import FAST
from bus.errors import BusError
from bus.offsets import TIMEOUT_S, Position, bounds, offsets_at
from bus.tracing import Context, active, context_of
from config.settings import Settings

BUFFER_MAX = 5000
"""Records of one partition that a playback holds before it pauses that partition."""


class LogRecord(NamedTuple):
    """One record of the log."""

    topic: str
    partition: int
    offset: int
    ts_ns: int
    """Kafka's time of the record."""
    key: bytes | None
    value: bytes | None
    context: Context | None = None
    """Of the trace that it belongs to (bus/tracing.py)."""


def _consumer(settings: Settings, more: Mapping[str, Any]) -> Any:
    from confluent_kafka import Consumer

    # A large local queue would only be memory: what is not read yet is safe in Kafka.
    own = {"group.id": "venue-mirror-log", "queued.max.messages.kbytes": 65_536}
    return Consumer({**client_config(settings), **FAST, **own, **more})


def _record(message: Any) -> LogRecord:
    ts_ns = message.timestamp()[1] * 1_000_000
    return LogRecord(message.topic(), message.partition(), message.offset(), ts_ns, message.key(), message.value())


def _traced_record(message: Any) -> LogRecord:
    return _record(message)._replace(context=context_of(message.headers()))


def start_positions(settings: Settings, starts: Mapping[str, str | int]) -> dict[Position, int]:
    """Where to begin: by topic ``beginning``, ``end``, or a time in milliseconds since the epoch. Blocks.

    Raises BusError when a topic does not exist or the broker does not say.
    """
    from confluent_kafka import KafkaException

    consumer = _consumer(settings, {})
    out: dict[Position, int] = {}
    try:
        metadata = consumer.list_topics(timeout=TIMEOUT_S).topics
        for topic, start in starts.items():
            if topic not in metadata or not metadata[topic].partitions:
                raise BusError(f"the topic {topic} does not exist; create it with: venue-mirror topics apply")
            partitions = [(topic, partition) for partition in sorted(metadata[topic].partitions)]
            found = bounds(consumer, partitions)
            times = offsets_at(consumer, partitions, start) if isinstance(start, int) else {}
            for position, (low, high) in found.items():
                at = low if start == "beginning" else times.get(position, high)
                out[position] = max(low, at if at >= 0 else high)
        return out
    except KafkaException as error:
        raise BusError(f"no offsets: {error}") from error
    finally:
        consumer.close()


class LogReader:
    """Reads partitions from given offsets on, for ever. No group, nothing committed. Not thread-safe.

    ``market``: reads what comes all the time, and may wait for more of it (``kafka.fetch_min_bytes``).
    """

    def __init__(self, settings: Settings, positions: Mapping[Position, int], *, market: bool = False) -> None:
        from confluent_kafka import TopicPartition

        self.positions: dict[Position, int] = dict(positions)
        """The next offset of each partition."""
        self._record = _record if active() is None else _traced_record
        self._consumer = _consumer(settings, {"fetch.min.bytes": settings.kafka.fetch_min_bytes if market else 1})
        self._consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in self.positions.items()])

    def batch(self, most: int = 500, timeout_s: float = 0.1) -> list[LogRecord]:
        """Waits up to ``timeout_s`` for the first record, then takes what is there. Raises BusError when reading failed."""
        # consume() with a timeout would wait for all of ``most``: the first record must not wait for the others.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages: list[Any] = [first, *self._consumer.consume(most - 1, 0)]
        out: list[LogRecord] = []
        for message in messages:
            if (error := message.error()) is not None:
                if error.fatal():
                    raise BusError(f"reading Kafka failed: {error}")
                continue  # a broker that restarts: librdkafka retries by itself
            self.positions[(message.topic(), message.partition())] = message.offset() + 1
            out.append(self._record(message))
        return out

    def close(self) -> None:
        """Leave; the reader is of no use afterwards."""
        self._consumer.close()


class Playback:
    """Reads chosen ranges of the log again, in any interleaving, forward in each partition.

    ``ends`` bounds what is read of each partition. Memory is bounded: a partition that runs ahead is paused.
    """

    def __init__(self, settings: Settings, starts: Mapping[Position, int], ends: Mapping[Position, int]) -> None:
        from confluent_kafka import TopicPartition

        self._tp = TopicPartition
        self._ends = dict(ends)
        self._next = {p: starts.get(p, 0) for p in ends if starts.get(p, 0) < ends[p]}
        self._buffers: dict[Position, deque[LogRecord]] = {p: deque() for p in ends}
        self._paused: set[Position] = set()
        self._consumer = _consumer(settings, {"enable.partition.eof": True, "auto.offset.reset": "earliest"})
        if self._next:
            self._consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in self._next.items()])

    def take(self, topic: str, partition: int, start: int, end: int, timeout_s: float = 30) -> list[LogRecord]:
        """The records from ``start`` to before ``end``; those that compaction or retention took are missing.

        Raises BusError when they cannot be read in time.
        """
        position, out = (topic, partition), list[LogRecord]()
        buffer = self._buffers.setdefault(position, deque())
        deadline = time.monotonic() + timeout_s
        while True:
            while buffer and buffer[0].offset < end:
                record = buffer.popleft()
                if record.offset >= start:
                    out.append(record)
            if position in self._paused and len(buffer) < BUFFER_MAX // 2:
                self._paused.discard(position)
                self._consumer.resume([self._tp(topic, partition)])
            if buffer or self._next.get(position, end) >= end or (out and out[-1].offset >= end - 1):
                return out
            if time.monotonic() > deadline:
                raise BusError(f"{topic}[{partition}] was not read up to {end} within {timeout_s:g} s")
            self._fetch()

    def _fetch(self) -> None:
        from confluent_kafka import KafkaError

        first = self._consumer.poll(0.2)
        messages: Iterable[Any] = [] if first is None else [first, *self._consumer.consume(2000, 0)]
        for message in messages:
            position = (message.topic(), message.partition())
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # pyright: ignore[reportPrivateUsage]
                    self._next[position] = max(self._next.get(position, 0), message.offset())
                continue
            self._next[position] = message.offset() + 1
            if message.offset() < self._ends.get(position, 0):
                self._buffers[position].append(_record(message))
            elif position not in self._paused:
                self._paused.add(position)
                self._consumer.pause([self._tp(*position)])
            if len(self._buffers[position]) > BUFFER_MAX and position not in self._paused:
                self._paused.add(position)
                self._consumer.pause([self._tp(*position)])

    def close(self) -> None:
        """Leave; the playback is of no use afterwards."""
        self._consumer.close()


def read_all(settings: Settings, topic: str, start: str | int = "beginning", timeout_s: float = 60) -> list[LogRecord]:
    """Every record of a topic from ``start`` up to where it ends now, by partition, then offset. Blocks; raises BusError."""
    begin, end = start_positions(settings, {topic: start}), start_positions(settings, {topic: "end"})
    playback = Playback(settings, begin, end)
    try:
        return [r for (t, p), stop in sorted(end.items()) for r in playback.take(t, p, begin[(t, p)], stop, timeout_s)]
    finally:
        playback.close()
