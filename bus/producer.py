"""Records out to Kafka: idempotent, compressed, bounded, and loud about what was not delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from bus.connection import client_config
from bus.errors import BusError, DeliveryFailed, QueueFull
from bus.tracing import active as active_tracer
from config.settings import Settings

DeliveryCallback = Callable[[Any, Any], None]
"""``callback(error, message)``, called inside poll() and flush() for a record that Kafka did not take."""

METADATA_S = 30


class Producer:
    """A confluent-kafka producer with our rules: acks=all, idempotent, lz4, keys hashed as Java and Faust hash them.

    At most ``queue_max`` records wait; ``send`` never blocks. Call ``poll`` regularly: it serves delivery reports.
    Not to be shared by processes; threads may share it.
    """

    def __init__(self, settings: Settings, *, queue_max: int = 200_000, linger_ms: float | None = None) -> None:
        from confluent_kafka import Producer as RdProducer

        self.failed = 0
        """Records that Kafka did not take, after all retries."""
        self.first_failure = ""
        self._on_delivery = self._count
        self._producer = RdProducer(
            {
                **client_config(settings),
                "enable.idempotence": True,
                # With more of them a leader that changes refuses the second as out of order when the first failed, and
                # librdkafka then begins anew under another epoch: what was on its way to other partitions is written twice
                # (confluentinc/librdkafka#4953). Records gather meanwhile, so that it costs little.
                "max.in.flight.requests.per.connection": 1,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": settings.kafka.linger_ms if linger_ms is None else linger_ms,
                "batch.size": 512 * 1024,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": queue_max,
                "queue.buffering.max.kbytes": 1024 * 1024,
                "message.max.bytes": 16 * 1024 * 1024,
                "delivery.timeout.ms": 120_000,
                # A report for each success would cost a Python call a record; only failures are told.
                "delivery.report.only.error": True,
            }
        )
        self._produce = self._producer.produce
        if (tracer := active_tracer()) is not None:
            self._produce = tracer.produces(self._produce)

    def send(self, topic: str, key: str, value: bytes | None, on_delivery: DeliveryCallback | None = None) -> None:
        """Queue one record (``None``: a tombstone). Never blocks; raises QueueFull when the queue is."""
        try:
            self._produce(topic, value, key, on_delivery=on_delivery or self._on_delivery)
        except BufferError:
            raise QueueFull(f"{len(self._producer)} records wait for Kafka") from None

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has. Blocks; raises BusError."""
        from confluent_kafka import KafkaException

        try:
            found = self._producer.list_topics(topic, timeout=METADATA_S).topics[topic]
        except KafkaException as error:
            raise BusError(f"Kafka does not tell the partitions of {topic}: {error}") from error
        if not found.partitions:
            raise BusError(f"there is no topic {topic}; venue-mirror topics apply makes it")
        return len(found.partitions)

    def poll(self, timeout_s: float = 0) -> int:
        """Serve delivery reports, waiting up to ``timeout_s`` for the first; gives how many were served."""
        return self._producer.poll(timeout_s)

    def flush(self, timeout_s: float = 30) -> int:
        """Wait until all is delivered or the time is over; gives how many records still wait."""
        return self._producer.flush(timeout_s)

    def raise_failures(self) -> None:
        """Raise DeliveryFailed when any record was refused for good."""
        if self.failed:
            raise DeliveryFailed(f"{self.failed} records were not taken by Kafka; the first: {self.first_failure}")

    def __len__(self) -> int:
        return len(self._producer)

    def _count(self, error: Any, message: Any) -> None:
        if error is None:
            return
        self.failed += 1
        if not self.first_failure:
            self.first_failure = f"{message.topic()}: {error}"


class Producers:
    """Producers with one face: what is urgent does not wait behind what is not.

    librdkafka sends one partition's records in a request, and our rules allow one request at a time: a record of one of
    five topics of twelve partitions may wait for sixty requests. So topics ``apart`` have a producer of their own, each
    collection one. Records of one topic keep their order, as in a single producer; between topics there is none.
    ``rest_linger_ms``: how long those of all other topics wait for company; as the settings say by default.
    """

    def __init__(
        self, settings: Settings, *apart: Collection[str], queue_max: int = 200_000, rest_linger_ms: float | None = None
    ) -> None:
        self._rest = Producer(settings, queue_max=queue_max, linger_ms=rest_linger_ms)
        self._all = [self._rest]
        self._send_of = dict[str, Callable[..., None]]()
        for topics in apart:
            producer = Producer(settings, queue_max=queue_max)
            self._all.append(producer)
            self._send_of |= dict.fromkeys(topics, producer.send)

    def send(self, topic: str, key: str, value: bytes | None, on_delivery: DeliveryCallback | None = None) -> None:
        """As a Producer's."""
        self._send_of.get(topic, self._rest.send)(topic, key, value, on_delivery)

    def poll(self, timeout_s: float = 0) -> int:
        """Serve the delivery reports of all, waiting up to ``timeout_s`` for each one's first."""
        return sum(producer.poll(timeout_s) for producer in self._all)

    def flush(self, timeout_s: float = 30) -> int:
        """Wait until all is delivered or the time is over; gives how many records still wait."""
        until_s = time.monotonic() + timeout_s
        return sum(producer.flush(max(0.0, until_s - time.monotonic())) for producer in self._all)

    @property
    def failed(self) -> int:
        """Records that Kafka did not take, after all retries."""
        return sum(producer.failed for producer in self._all)

    @property
    def first_failure(self) -> str:
        """What was said of one of them."""
        return next((producer.first_failure for producer in self._all if producer.first_failure), "")

    def __len__(self) -> int:
        return sum(map(len, self._all))
