"""Records in from Kafka: a reader of whole topics without a group, and a member of a group that is handed work."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bus.connection import client_config
from bus.errors import BusError
from bus.offsets import END, Position, bounds, offsets_at
from config.settings import Settings

FAST = {
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 100,
    "fetch.error.backoff.ms": 5,
    "fetch.queue.backoff.ms": 5,
    "fetch.message.max.bytes": 16 * 1024 * 1024,
    "enable.auto.commit": False,
    "enable.partition.eof": False,
}


@dataclass(frozen=True, slots=True)
class BrokerSeen:
    """One broker of the cluster."""

    number: int
    address: str
    """Empty: it is away."""
    leads: int
    """Partitions whose leader it is, of the topics that may be seen."""
    behind: int
    """Partitions of which it keeps a replica that is not in sync."""
    controller: bool


class TailReader:
    """Reads all partitions of some topics by manual assignment: no group, no rebalance, nothing committed.

    ``start``: ``beginning``, ``end``, or offsets by (topic, partition) (missing ones begin at the beginning).
    Raises BusError when a topic does not exist. The constructor blocks while it asks for offsets.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Iterable[str],
        *,
        start: Literal["beginning", "end"] | Mapping[Position, int] = "beginning",
    ) -> None:
        from confluent_kafka import Consumer, TopicPartition

        self._consumer = Consumer({**client_config(settings), **FAST, "group.id": "venue-mirror-tail"})
        self._positions: dict[Position, int] = {}
        self._partitions: list[Position] = []
        metadata = self._consumer.list_topics(timeout=30).topics
        for topic in topics:
            if topic not in metadata or not metadata[topic].partitions:
                self._consumer.close()
                raise BusError(f"the topic {topic} does not exist; create it with: venue-mirror topics apply")
            self._partitions += [(topic, p) for p in sorted(metadata[topic].partitions)]
        for position, (low, high) in bounds(self._consumer, self._partitions).items():
            if isinstance(start, Mapping):
                self._positions[position] = max(low, start.get(position, low))
            else:
                self._positions[position] = high if start == "end" else low
        self._consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in self._positions.items()])

    @property
    def positions(self) -> dict[Position, int]:
        """The next offset to read of each partition."""
        return dict(self._positions)

    def poll(self, max_records: int = 1000, timeout_s: float = 0.1) -> list[Any]:
        """The next records (confluent_kafka.Message), without errors; waits up to ``timeout_s`` for the first."""
        messages: list[Any] = []
        fetched: list[Any] = self._consumer.consume(max_records, timeout_s)
        for message in fetched:
            if (error := message.error()) is not None:
                if error.fatal():
                    raise BusError(f"reading Kafka failed: {error}")
                continue  # a broker that restarts: librdkafka retries by itself
            self._positions[(message.topic(), message.partition())] = message.offset() + 1
            messages.append(message)
        return messages

    def lags(self) -> dict[Position, int] | None:
        """Records of each partition that were not read, by where the last answers said that the log ends; asks nobody.

        None: of a partition nothing was heard yet. While Kafka is away the last answers stand.
        """
        from confluent_kafka import TopicPartition

        waiting: dict[Position, int] = {}
        for (topic, partition), at in list(self._positions.items()):
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            if high < 0:
                return None
            waiting[topic, partition] = max(0, high - at)
        return waiting

    def ends(self) -> dict[Position, int]:
        """The offset behind the last record of each partition, asked now; blocks."""
        return offsets_at(self._consumer, self._partitions, END)

    def brokers(self) -> list[BrokerSeen]:
        """The brokers of the cluster, by number, as one of them sees it now; blocks. Raises BusError when none answers."""
        from confluent_kafka import KafkaException

        try:
            seen = self._consumer.list_topics(timeout=5)
        except KafkaException as error:
            raise BusError(f"the cluster cannot be looked at: {error}") from error
        partitions = [p for topic in seen.topics.values() for p in topic.partitions.values()]
        leads = Counter(p.leader for p in partitions)
        behind = Counter(number for p in partitions for number in set(p.replicas) - set(p.isrs))
        # One that only replicas name is away.
        away = sorted({number for p in partitions for number in p.replicas} - seen.brokers.keys())
        found = [(number, f"{one.host}:{one.port}") for number, one in sorted(seen.brokers.items())]
        return [
            BrokerSeen(number, address, leads[number], behind[number], number == seen.controller_id)
            for number, address in [*found, *((number, "") for number in away)]
        ]

    def read_to_end(self, timeout_s: float = 60) -> list[Any]:
        """Every record up to where the log ended when this was called; raises BusError when that takes too long."""
        ends, out = self.ends(), list[Any]()
        deadline = time.monotonic() + timeout_s
        while any(self._positions[p] < end for p, end in ends.items()):
            if time.monotonic() > deadline:
                raise BusError(f"the end of the log was not reached within {timeout_s:g} s")
            batch = self.poll(5000, 0.2)
            out += batch
            if not batch:
                self.has_read(ends)
        return out

    def has_read(self, ends: Mapping[Position, int]) -> bool:
        """Whether everything before these offsets was read, also where no record is left before them."""
        for position, end in ends.items():
            if self._positions[position] < end:  # compaction or an aborted batch can leave no record before the end
                at = self._consumer.position([self._topic_partition(position)])[0].offset
                if at < end:
                    return False
                self._positions[position] = at
        return True

    @staticmethod
    def _topic_partition(position: Position) -> Any:
        from confluent_kafka import TopicPartition

        return TopicPartition(*position)

    def close(self) -> None:
        """Leave; the reader is of no use afterwards."""
        self._consumer.close()


def group_consumer(
    settings: Settings,
    group: str,
    topics: list[str],
    *,
    on_assign: Callable[[Any, list[Any]], None],
    on_revoke: Callable[[Any, list[Any]], None],
    on_lost: Callable[[Any, list[Any]], None] | None = None,
    session_timeout_ms: int = 6000,
) -> Any:
    """A confluent_kafka.Consumer subscribed as a member of ``group``; callbacks run inside its poll().

    Cooperative: a rebalance takes away only what moves. A member that dies silently is noticed after
    ``session_timeout_ms``.
    """
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            **client_config(settings),
            **FAST,
            "group.id": group,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": max(300, session_timeout_ms // 6),
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(topics, on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost or on_revoke)
    return consumer
