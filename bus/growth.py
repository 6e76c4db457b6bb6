# pyright: reportPrivateImportUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""More partitions for the topics keyed by instrument, while nobody writes them: every compacted record moves along.

A key's partition is its hash modulo their number, so another number moves most keys. What is kept for hours only stays
where it is: its readers know an instrument's old events by their epoch. What is compacted would be found twice, the
older record perhaps last; so it is written anew, each record where its key belongs now, and what stood before is
deleted. Cut short at any point, the same call goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bus.connection import client_config
from bus.errors import BusError, StillInUse, TopicMismatch
from bus.log_reader import LogRecord, Playback, start_positions
from bus.partitions import home
from bus.topics import TIMEOUT_S, admin_client
from config.settings import Settings
from schemas.topics import BOOK, INSTRUMENT, MARKET_PARTITIONS, TOPICS, TRADE

CHUNK = 5000
COLLECTORS = "collector."
"""Their groups' names begin so."""


@dataclass(frozen=True)
class Changelog:
    """A compacted topic beside the catalogue, co-partitioned with it."""

    topic: str
    moved: Callable[[bytes], bytes] | None
    """What a value becomes in its new partition; None: the whole topic is emptied, moved or not."""


def grow(settings: Settings, group: str, changelogs: Iterable[Changelog] = ()) -> list[str]:
    """Raise the partitions to ``kafka.market_partitions``; gives a line for each thing done. Blocks.

    ``group`` is the processors' consumer group. Raises StillInUse, before anything is changed, while a collector or
    processor runs or records wait that no processor has read; TopicMismatch when a topic has more than wanted.
    """
    admin = admin_client(settings)
    wanted = settings.kafka.market_partitions
    logs = {log.topic: log for log in changelogs}
    have = _partitions(admin)
    names = [t.name for t in TOPICS.values() if t.partitions == MARKET_PARTITIONS and t.grows and t.name in have]
    names += [name for name in logs if name in have]
    if more := [f"{name} has {have[name]}" for name in names if have[name] > wanted]:
        raise TopicMismatch(f"partitions are never taken away, and kafka.market_partitions is {wanted}: {', '.join(more)}")
    _refuse_while_in_use(settings, admin, group, have)
    raised = {name: have[name] for name in names if have[name] < wanted}
    done = raise_partitions(admin, raised, wanted)
    if raised or _newest(settings, INSTRUMENT.name, wanted).away:  # the second: an earlier call did not get to its end
        compacted = [name for name in names if name not in logs and TOPICS[name].cleanup == "compact"]
        for log in logs.values():
            if log.topic not in have:
                continue
            if log.moved is None:
                ends = start_positions(settings, {log.topic: "end"})
                _delete_before(admin, log.topic, {p: end for (_, p), end in ends.items()})
                done.append(f"{log.topic}: emptied")
            else:
                done += _rehome(settings, admin, log.topic, wanted, log.moved)
        for name in sorted(compacted, key=lambda name: name == INSTRUMENT.name):  # last: it says that all was done
            done += _rehome(settings, admin, name, wanted, _as_it_was)
    return done


def _as_it_was(value: bytes) -> bytes:
    return value


def _partitions(admin: Any) -> dict[str, int]:
    return {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=TIMEOUT_S).topics.items()}


def _refuse_while_in_use(settings: Settings, admin: Any, group: str, have: dict[str, int]) -> None:
    from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException

    try:
        listed = admin.list_consumer_groups(request_timeout=TIMEOUT_S).result().valid
        names = [g.group_id for g in listed if g.group_id == group or g.group_id.startswith(COLLECTORS)]
        described: dict[str, Any] = admin.describe_consumer_groups(names, request_timeout=TIMEOUT_S) if names else {}
        running: dict[str, int] = {name: len(future.result().members) for name, future in described.items()}
        if busy := [f"{count} of {name}" for name, count in sorted(running.items()) if count]:
            raise StillInUse(
                f"keys would move under running processes: {', '.join(busy)}. Stop the collectors, then the processors, "
                "and wait until Kafka has noticed those that were killed"
            )
        if group not in names:
            return
        answer = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT_S)
        read = {(tp.topic, tp.partition): tp.offset for tp in answer[group].result().topic_partitions}
        waiting = 0
        for topic in (BOOK.name, TRADE.name):  # statuses move, read or not
            if topic in have and any(name == topic for name, _ in read):
                begins = start_positions(settings, {topic: "beginning"})
                for position, end in start_positions(settings, {topic: "end"}).items():
                    waiting += max(0, end - max(read.get(position, 0), begins[position]))
    except KafkaException as error:
        raise BusError(f"cannot see who uses the topics: {error}") from error
    if waiting:
        raise StillInUse(
            f"{waiting} records wait for the processors, and would be read in the wrong partition. Start a processor "
            f"without collectors until nothing waits, stop it, and try again"
        )


def raise_partitions(admin: Any, names: dict[str, int], wanted: int) -> list[str]:
    """Raise the partitions of these topics ({name: how many they have}), and nothing else; a line for each."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import NewPartitions

    if not names:
        return []
    futures = admin.create_partitions([NewPartitions(name, wanted) for name in names], operation_timeout=TIMEOUT_S)
    for name, future in futures.items():
        try:
            future.result(timeout=TIMEOUT_S)
        except KafkaException as error:
            raise BusError(f"cannot give {name} {wanted} partitions: {error}") from error
    return [f"{name}: {count} partitions became {wanted}" for name, count in sorted(names.items())]


def _rehome(
    settings: Settings, admin: Any, topic: str, partitions: int, moved: Callable[[bytes], bytes]
) -> list[str]:
    """Write the newest record of each key where it belongs, then delete what stood before."""
    found = _newest(settings, topic, partitions)
    if not found.away:
        return []
    written = _write(settings, topic, partitions, list(found.records.values()), moved)
    _delete_before(admin, topic, found.ends)
    return [f"{topic}: {len(found.away)} keys moved, {written} records written anew"]


@dataclass
class _Newest:
    """One record a key: the last one at home; else the latest of those elsewhere. Deleted keys are left out."""

    records: dict[bytes, LogRecord] = field(default_factory=dict[bytes, LogRecord])
    away: set[bytes] = field(default_factory=set[bytes])
    """Keys with a record where they do not belong."""
    ends: dict[int, int] = field(default_factory=dict[int, int])
    """Behind the last record of each partition."""


def _newest(settings: Settings, topic: str, partitions: int) -> _Newest:
    found, best = _Newest(), dict[bytes, tuple[bool, int, int]]()
    begins, ends = start_positions(settings, {topic: "beginning"}), start_positions(settings, {topic: "end"})
    playback = Playback(settings, begins, ends)
    try:
        for (name, partition), end in sorted(ends.items()):
            found.ends[partition] = end
            at = begins[(name, partition)]
            while at < end:
                stop = min(end, at + CHUNK)
                for r in playback.take(name, partition, at, stop):
                    if r.key is None:
                        continue
                    own = home(r.key, partitions) == partition
                    if not own:
                        found.away.add(r.key)
                    version = (own, r.ts_ns, r.offset)
                    if version < best.get(r.key, version):
                        continue
                    best[r.key] = version
                    if r.value is None:
                        found.records.pop(r.key, None)
                    else:
                        found.records[r.key] = r
                at = stop
    finally:
        playback.close()
    return found


def _write(
    settings: Settings, topic: str, partitions: int, records: list[LogRecord], moved: Callable[[bytes], bytes]
) -> int:
    from confluent_kafka import Producer

    failed: list[str] = []

    def report(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(str(error))

    producer = Producer(
        {**client_config(settings), "enable.idempotence": True, "acks": "all", "compression.type": "lz4",
         "message.max.bytes": 16 * 1024 * 1024, "queue.buffering.max.messages": 10_000_000}
    )  # fmt: skip
    written = 0
    for r in records:
        place = home(r.key or b"", partitions)
        value = r.value if place == r.partition else moved(r.value or b"")
        producer.produce(topic, value, r.key, partition=place, timestamp=r.ts_ns // 1_000_000, on_delivery=report)
        producer.poll(0)
        written += 1
    if (left := producer.flush(300)) or failed:
        raise BusError(f"{topic}: {left + len(failed)} records were not written anew ({failed[:1]}); try again")
    return written


def _delete_before(admin: Any, topic: str, ends: dict[int, int]) -> None:
    """Kafka deletes records on demand only where the policy has 'delete' in it: for this moment it has."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    # A partition's own broker hears of a new policy, and of itself, a moment after the controller.
    soon = {
        KafkaError.POLICY_VIOLATION, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE, KafkaError._UNKNOWN_PARTITION,  # pyright: ignore[reportPrivateUsage]
    }  # fmt: skip
    left = {partition for partition, end in ends.items() if end > 0}
    deadline = time.monotonic() + TIMEOUT_S
    try:
        _set_policy(admin, topic, "compact,delete")
        while left:
            places = [TopicPartition(topic, partition, ends[partition]) for partition in sorted(left)]
            for place, future in admin.delete_records(places, request_timeout=TIMEOUT_S).items():
                try:
                    future.result(timeout=TIMEOUT_S)
                    left.discard(place.partition)
                except KafkaException as error:
                    if error.args[0].code() not in soon or time.monotonic() > deadline:
                        raise
            time.sleep(0.1 if left else 0)
        _set_policy(admin, topic, "compact")
    except KafkaException as error:
        raise BusError(f"{topic}: what was moved could not be deleted where it stood: {error}; try again") from error


def _set_policy(admin: Any, topic: str, policy: str) -> None:
    from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    # Without an end of time, so that no age deletes what the policy allows to be deleted.
    wanted = {"retention.ms": "-1", "cleanup.policy": policy}
    entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in wanted.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=TIMEOUT_S)
