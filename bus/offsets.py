"""Where partitions begin and end, asked of the broker in one request for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from bus.errors import BusError

Position = tuple[str, int]
"""(topic, partition)"""

TIMEOUT_S = 30
ASK_S = 5.0
FIRST, END = -2, -1
"""Kafka's own names for the first offset and the one behind the last, asked for like a time."""


def offsets_at(consumer: Any, positions: Iterable[Position], when: int) -> dict[Position, int]:
    """The offset of each partition at FIRST, END, or a time in milliseconds since the epoch. Blocks.

    By time: of the first record at or after it; -1 where there is none. Raises BusError when the broker does not say.
    """
    from confluent_kafka import KafkaException, TopicPartition

    asked = [TopicPartition(topic, partition, when) for topic, partition in positions]
    if not asked:
        return {}
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            found = consumer.offsets_for_times(asked, timeout=ASK_S)
            if (error := next((one.error for one in found if one.error is not None), None)) is None:
                return {(one.topic, one.partition): one.offset for one in found}
            why = str(error)
        except KafkaException as failure:
            why = str(failure)
        # A topic that was created a moment ago, or a broker that moves its leaders: asked again.
        if time.monotonic() > deadline:
            raise BusError(f"no offsets of {asked[0].topic}: {why}")
        time.sleep(0.05)


def bounds(consumer: Any, positions: Iterable[Position]) -> dict[Position, tuple[int, int]]:
    """(first offset, offset behind the last) of each partition. Blocks; raises BusError."""
    positions = list(positions)
    first, end = offsets_at(consumer, positions, FIRST), offsets_at(consumer, positions, END)
    return {position: (first[position], end[position]) for position in positions}
