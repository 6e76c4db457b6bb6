"""`topics list|lag|backup|restore` on a real Kafka: what waits is counted, what must outlive a cluster comes back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus.backup import backup, kept_for_ever, restore
from bus.broker import EmbeddedBroker
from bus.errors import BusError
from bus.lag import lags
from bus.log_reader import read_all
from bus.producer import Producer
from bus.topics import apply
from config.settings import BrokerSettings, Settings
from tests.conftest import free_port

pytestmark = pytest.mark.broker


@pytest.fixture
def own(kafka: str, settings: Callable[..., Settings]) -> Settings:
    made = settings(kafka={"bootstrap_servers": kafka})
    apply(made)
    return made


def test_the_catalogue_is_listed_without_a_broker(run_cli) -> None:
    told = run_cli("topics", "list")
    assert told.returncode == 0, told.stderr
    lines = {line.split()[0]: line for line in told.stdout.splitlines()}
    assert "newest by key" in lines["market.instrument"] and "for ever" in lines["orders.journal"]


def test_what_a_group_has_not_read_is_counted(own: Settings, unique: str, run_cli, kafka: str) -> None:
    from confluent_kafka import Consumer, TopicPartition

    from bus.connection import client_config

    producer = Producer(own, linger_ms=0)
    for n in range(10):
        producer.send("orders.shadow", "a", str(n).encode())
    assert producer.flush() == 0
    end = read_all(own, "orders.shadow")[-1].offset + 1
    consumer = Consumer({**client_config(own), "group.id": f"group-{unique}", "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition("orders.shadow", 0, end - 4)], asynchronous=False)
    consumer.close()
    [one] = lags(own, f"group-{unique}")
    assert (one.topic, one.partition, one.committed, one.end, one.records) == ("orders.shadow", 0, end - 4, end, 4)
    told = run_cli("topics", "lag", "--group", f"group-{unique}", "--json", env={"KAFKA_BOOTSTRAP_SERVERS": kafka})
    assert [json.loads(line)["lag"] for line in told.stdout.splitlines()] == [4]
    everything = run_cli("topics", "lag", "--all", env={"KAFKA_BOOTSTRAP_SERVERS": kafka})
    assert f"group-{unique}" in everything.stdout, everything.stderr
    assert lags(own, "nobody") == []


def records(own: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """(key, value, time) of what is kept for ever, by topic; of compacted topics the newest by key."""
    out: dict[str, list[tuple[Any, ...]]] = {}
    for name in kept_for_ever():
        found = [(r.key, r.value, r.ts_ns) for r in read_all(own, name)]
        compacted = name in ("market.instrument", "market.status", "orders.position", "orders.balance")
        newest = {record[0]: record for record in found}
        out[name] = sorted(r for r in newest.values() if r[1] is not None) if compacted else found
    return out


def test_a_cluster_that_was_lost_comes_back_from_its_backup(
    own: Settings, settings: Callable[..., Settings], tmp_path: Path, unique: str, run_cli, kafka: str
) -> None:
    producer = Producer(own, linger_ms=0)
    for n in range(50):
        producer.send("market.status", f"v-{unique}|S{n % 5}", f"state {n}".encode())
        producer.send("orders.journal", f"account-{n % 2}", f"step {n}".encode())
    producer.send("market.status", f"v-{unique}|S0", None)  # delisted and forgotten
    assert producer.flush() == 0
    file = tmp_path / "backup.gz"
    told = run_cli("topics", "backup", file, env={"KAFKA_BOOTSTRAP_SERVERS": kafka})
    assert told.returncode == 0, told.stderr
    was = records(own)
    assert len(was["orders.journal"]) >= 50 and not any(key == f"v-{unique}|S0".encode() for key, *_ in was["market.status"])
    with pytest.raises(BusError, match="already holds records"):
        restore(own, file)

    broker = EmbeddedBroker(
        BrokerSettings(data_dir=tmp_path / "new", port=free_port(), heap_mb=256, start_timeout_s=120), lambda _: None
    )
    try:
        new = settings(kafka={"bootstrap_servers": broker.start(), "market_partitions": 3})
        apply(new)
        cut = tmp_path / "cut.gz"
        with gzip.open(file, "rt") as lines:
            text = lines.readlines()
        cut.write_bytes(gzip.compress("".join(text[:-1]).encode()))
        with pytest.raises(BusError, match="cut off"):
            restore(new, cut)
        cut.write_bytes(file.read_bytes()[:-30])
        with pytest.raises(BusError, match="cannot be read"):
            restore(new, cut)
        assert all(not found for found in records(new).values()), "nothing is written from a damaged file"
        restored = run_cli("topics", "restore", file, env={"KAFKA_BOOTSTRAP_SERVERS": new.kafka.bootstrap_servers})
        assert restored.returncode == 0, restored.stderr
        now = records(new)
        assert now == was, "every key, value and time"
        again = backup(new, tmp_path / "again.gz")
        assert again == {name: len(found) for name, found in was.items()}
    finally:
        broker.stop()


def test_a_topic_that_is_not_in_the_catalogue_is_named(own: Settings, tmp_path: Path) -> None:
    with pytest.raises(BusError, match=r"no topic market\.boook"):
        backup(own, tmp_path / "x", ["market.boook"])
