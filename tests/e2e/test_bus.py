"""Topics, producer and readers on a real Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bus.consumer import TailReader
from bus.errors import BusError, QueueFull, TopicMismatch
from bus.producer import Producer, Producers
from bus.topics import apply, check, differences
from config.settings import Settings
from schemas.topics import BBO, STATUS, TOPICS, TRADE


@pytest.fixture
def own(kafka: str, settings: Callable[..., Settings]) -> Settings:
    made = settings(kafka={"bootstrap_servers": kafka})
    apply(made)
    return made


def settled(own: Settings, problems: list[str]) -> bool:
    """Whether the broker shows these problems within five seconds: it takes a change over a little after its yes."""
    deadline = time.monotonic() + 60
    while check(own) != problems:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.broker
def test_applied_topics_are_as_the_catalogue_says_and_applying_again_does_nothing(own: Settings) -> None:
    assert check(own) == []
    assert apply(own) == []


@pytest.mark.broker
def test_a_changed_setting_of_a_topic_is_found_and_set_back(own: Settings) -> None:
    from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

    admin = AdminClient({"bootstrap.servers": own.kafka.bootstrap_servers})
    entry = ConfigEntry("retention.ms", "12345", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, TRADE.name, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=10)
    problem = f"{TRADE.name}: retention.ms is 12345, the catalogue says {TRADE.retention_ms}"
    assert settled(own, [problem])
    assert apply(own) == [f"changed {problem}"]
    assert settled(own, [])


@pytest.mark.broker
def test_another_number_of_partitions_is_refused_before_anything_is_changed(own: Settings) -> None:
    more = own.model_copy(update={"kafka": own.kafka.model_copy(update={"market_partitions": 13})})
    found = differences(more)
    assert found and all(d.refused and d.what == "has 12 partitions, the catalogue says 13" for d in found)
    with pytest.raises(TopicMismatch, match="keys would move"):
        apply(more)
    assert check(own) == []


@pytest.mark.broker
def test_a_full_queue_is_said_at_once_and_what_was_taken_arrives(own: Settings, unique: str) -> None:
    reader = TailReader(own, [BBO.name], start="end")
    producer = Producer(own, queue_max=10, linger_ms=1000)
    taken = 0
    with pytest.raises(QueueFull, match="10 records wait"):
        for _ in range(11):
            producer.send(BBO.name, unique, b"x")
            taken += 1
    assert taken == 10
    assert producer.flush(20) == 0
    producer.raise_failures()
    messages = [m for m in reader.read_to_end() if m.key() == unique.encode()]
    reader.close()
    assert len(messages) == taken


@pytest.mark.broker
def test_producers_with_one_face_deliver_in_order_and_count_as_one(own: Settings, unique: str) -> None:
    reader = TailReader(own, [BBO.name, TRADE.name], start="end")
    producers = Producers(own, [BBO.name], queue_max=20, rest_linger_ms=1000)
    for number in range(10):
        producers.send(TRADE.name, unique, str(number).encode())
        producers.send(BBO.name, unique, str(number).encode())
    with pytest.raises(QueueFull, match="20 records wait"):
        for _ in range(20):
            producers.send(TRADE.name, unique, b"more")
    assert len(producers) >= 20, "those of trades wait for a second"
    assert producers.flush(20) == 0 == len(producers)
    assert producers.failed == 0
    assert producers.first_failure == ""
    found: dict[str, list[bytes]] = {BBO.name: [], TRADE.name: []}
    for message in reader.read_to_end():
        if message.key() == unique.encode():
            found[message.topic()].append(message.value())
    reader.close()
    in_order = [str(number).encode() for number in range(10)]
    assert found == {BBO.name: in_order, TRADE.name: [*in_order, *[b"more"] * 10]}


def test_what_one_of_several_producers_could_not_deliver_is_told(settings: Callable[..., Settings]) -> None:
    nowhere = settings(kafka={"bootstrap_servers": "127.0.0.1:1"})
    producers = Producers(nowhere, [BBO.name])
    producers.send(BBO.name, "key", b"x")
    producers.send(TRADE.name, "key", b"x")
    assert producers.flush(0.2) == 2
    for producer in producers._all:
        producer._producer.purge()
    producers.poll()
    assert producers.failed == 2
    assert "Purged" in producers.first_failure


@pytest.mark.broker
def test_a_key_has_the_same_partition_for_the_producer_and_for_fausts_client(own: Settings, unique: str) -> None:
    from aiokafka.partitioner import murmur2

    reader = TailReader(own, [BBO.name], start="end")
    producer = Producer(own)
    keys = [f"venue-{unique}|{base}/USDT" for base in ("BTC", "ETH", "1000PEPE", "币", "$WIF")]
    for key in keys:
        producer.send(BBO.name, key, b"x")
    assert producer.flush(20) == 0
    found = {m.key().decode(): m.partition() for m in reader.read_to_end() if m.key().decode() in keys}
    reader.close()
    assert found == {key: (murmur2(key.encode()) & 0x7FFFFFFF) % 12 for key in keys}


@pytest.mark.broker
def test_a_reader_starts_where_it_is_told_and_knows_its_positions(own: Settings, unique: str) -> None:
    producer = Producer(own)
    reader = TailReader(own, [STATUS.name], start="end")
    before = reader.positions
    for number in range(5):
        producer.send(STATUS.name, unique, str(number).encode())
    assert producer.flush(20) == 0
    assert [m.value() for m in reader.read_to_end() if m.key() == unique.encode()] == [b"0", b"1", b"2", b"3", b"4"]
    moved = {p: (before[p], at) for p, at in reader.positions.items() if at != before[p]}
    assert reader.ends() == reader.positions
    reader.close()
    (position, (first, _)) = next(iter(moved.items()))
    again = TailReader(own, [STATUS.name], start={**before, position: first + 3})
    assert [m.value() for m in again.read_to_end() if m.key() == unique.encode()] == [b"3", b"4"]
    again.close()


@pytest.mark.broker
def test_a_topic_that_does_not_exist_is_named_with_what_to_do(own: Settings) -> None:
    with pytest.raises(BusError, match=r"nowhere\.at\.all does not exist.*topics apply"):
        TailReader(own, ["nowhere.at.all"])


def test_what_three_replicas_acknowledge_is_on_two_of_them() -> None:
    for topic in TOPICS.values():
        assert topic.config_on(3) == topic.config | {"min.insync.replicas": "2"}
        assert topic.config_on(1) == topic.config_on(2) == topic.config


def test_every_topic_of_the_catalogue_names_a_schema_that_exists() -> None:
    from schemas.codec import RECORD_NAMES

    assert {t.record for t in TOPICS.values()} <= set(RECORD_NAMES)
