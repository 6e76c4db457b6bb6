# pyright: reportPrivateImportUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""How far consumer groups are behind, by partition, as Kafka itself knows it."""

from __future__ import annotations

from typing import Any, NamedTuple

from bus.connection import client_config, require_broker
from bus.errors import BusError
from config.settings import Settings
from schemas.topics import TOPICS

TIMEOUT_S = 30


class Lag(NamedTuple):
    """One group on one partition."""

    group: str
    topic: str
    partition: int
    committed: int
    """The next offset that the group would read after a restart."""
    end: int
    """The offset behind the last record."""

    @property
    def records(self) -> int:
        """Records that wait."""
        return max(0, self.end - self.committed)


def lags(settings: Settings, group: str = "") -> list[Lag]:
    """Every partition of the catalogue's topics on which a group has committed; all groups, or this one. Blocks.

    Raises BusError. Groups that commit nothing (the collectors', strategies') are not in it: they hold their places
    elsewhere, or read to the end by themselves.
    """
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient, OffsetSpec

    require_broker(settings)
    admin: Any = AdminClient(client_config(settings))
    try:
        names = [group] if group else [g.group_id for g in admin.list_consumer_groups().result(TIMEOUT_S).valid]
        committed: dict[tuple[str, str, int], int] = {}
        for name in names:
            asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])
            for place in asked[name].result(TIMEOUT_S).topic_partitions:
                if place.topic in TOPICS and place.offset >= 0:
                    committed[(name, place.topic, place.partition)] = place.offset
        places = {(topic, partition) for _, topic, partition in committed}
        wanted = {TopicPartition(topic, partition): OffsetSpec.latest() for topic, partition in places}
        futures = admin.list_offsets(wanted, request_timeout=TIMEOUT_S) if wanted else {}
        ends = {(place.topic, place.partition): future.result(TIMEOUT_S).offset for place, future in futures.items()}
    except KafkaException as error:
        raise BusError(f"the groups' offsets cannot be read: {error}") from error
    return sorted(Lag(g, t, p, offset, ends[(t, p)]) for (g, t, p), offset in committed.items())
