# pyright: reportPrivateImportUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""Creating and comparing the topics of the catalogue. Nothing is ever shrunk or deleted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from bus.connection import client_config, require_broker
from bus.errors import BusError, TopicMismatch
from config.settings import Settings
from schemas.topics import MARKET_PARTITIONS, TOPICS, Topic, durable

TIMEOUT_S = 30
APPEAR_S = 120
"""A topic that was created is known to every broker soon; a loaded one takes its time."""


@dataclass(frozen=True)
class Difference:
    """How one topic on the broker differs from the catalogue."""

    topic: str
    what: str
    refused: bool = False
    """True: `apply` will not change it (partitions that exist carry keys; another number would move them)."""
    grows: bool = False
    """True: it has fewer partitions than wanted, and `apply --grow` gives it more."""


def wanted_partitions(topic: Topic, settings: Settings) -> int:
    """The partitions that this deployment wants: topics keyed by instrument follow kafka.market_partitions."""
    return settings.kafka.market_partitions if topic.partitions == MARKET_PARTITIONS else topic.partitions


def admin_client(settings: Settings) -> Any:
    """A confluent_kafka AdminClient; raises BrokerUnreachable."""
    from confluent_kafka.admin import AdminClient

    require_broker(settings)
    return AdminClient(client_config(settings))


def differences(settings: Settings, admin: Any = None) -> list[Difference]:
    """Everything in which the broker differs from the catalogue; blocks while it asks."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType

    admin = admin or admin_client(settings)
    try:
        present = admin.list_topics(timeout=TIMEOUT_S).topics
        names = [name for name in TOPICS if name in present]
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        futures = admin.describe_configs(resources) if resources else {}
        configs = {r.name: f.result(timeout=TIMEOUT_S) for r, f in futures.items()}
    except KafkaException as error:
        raise BusError(f"cannot read the topics: {error}") from error
    found: list[Difference] = []
    for topic in TOPICS.values():
        if topic.name not in configs:
            found.append(Difference(topic.name, "missing"))
            continue
        have, want = len(present[topic.name].partitions), wanted_partitions(topic, settings)
        if have != want and topic.grows:
            text = f"has {have} partitions, the catalogue says {want}"
            grows = have < want and topic.partitions == MARKET_PARTITIONS
            found.append(Difference(topic.name, text, refused=True, grows=grows))
        kept = min(len(p.replicas) for p in present[topic.name].partitions.values())
        for key, value in topic.config_on(kept).items():
            entry = configs[topic.name].get(key)
            if entry is not None and entry.value != value:
                found.append(Difference(topic.name, f"{key} is {entry.value}, the catalogue says {value}"))
    return found


def _replicas(admin: Any, name: str) -> int:
    return min(len(p.replicas) for p in admin.list_topics(name, timeout=TIMEOUT_S).topics[name].partitions.values())


def check(settings: Settings) -> list[str]:
    """Problems, one a line; empty when the broker is as the catalogue says."""
    return [f"{d.topic}: {d.what}" for d in differences(settings)]


def apply(settings: Settings) -> list[str]:
    """Create what is missing and set what differs; gives a line for each thing done.

    Raises TopicMismatch, before anything is changed, when a topic has another number of partitions than wanted.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        NewTopic,
        ResourceType,
    )

    admin = admin_client(settings)
    found = differences(settings, admin)
    if refused := [f"{d.topic} {d.what}" for d in found if d.refused]:
        raise TopicMismatch(
            "refused to change partitions, because keys would move: "
            + "; ".join(refused)
            + ". Set kafka.market_partitions to what the broker has; or raise them with --grow, as docs/OPERATIONS.md says"
        )
    done: list[str] = []
    missing = [TOPICS[d.topic] for d in found if d.what == "missing"]
    replicas = settings.kafka.replication_factor
    done += _create(
        admin,
        [NewTopic(t.name, wanted_partitions(t, settings), replicas, config=t.config_on(replicas)) for t in missing],
    )
    changed = {d.topic for d in found if d.what != "missing"}
    for name in sorted(changed):
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in TOPICS[name].config_on(_replicas(admin, name)).items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        for future in admin.incremental_alter_configs([resource]).values():
            try:
                future.result(timeout=TIMEOUT_S)
            except KafkaException as error:
                raise BusError(f"cannot change {name}: {error}") from error
        done.append(f"changed {name}: " + ", ".join(d.what for d in found if d.topic == name))
    return done


def _create(admin: Any, topics: list[Any]) -> list[str]:
    """Create NewTopics, those that another process has just made left out; a line for each. Raises BusError."""
    from confluent_kafka import KafkaError, KafkaException

    done: list[str] = []
    for name, future in (admin.create_topics(topics, operation_timeout=TIMEOUT_S) if topics else {}).items():
        try:
            future.result(timeout=TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                continue
            raise BusError(f"cannot create {name}: {error}") from error
        done.append(f"created {name}")
    _await(admin, {topic.topic for topic in topics})
    return done


def _await(admin: Any, names: set[str]) -> None:
    """Wait until the broker itself knows these topics: it is told of them after their creation was confirmed."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        known = {name for name, topic in admin.list_topics(timeout=TIMEOUT_S).topics.items() if topic.partitions}
        if not (missing := names - known):
            return
        if time.monotonic() > deadline_s:
            raise BusError(f"the broker does not know the topics that it created: {', '.join(sorted(missing))}")
        time.sleep(0.05)


def partitions_on_broker(settings: Settings, admin: Any = None) -> dict[str, int]:
    """How many partitions each topic has; blocks. Raises BusError."""
    from confluent_kafka import KafkaException

    admin = admin or admin_client(settings)
    try:
        topics = admin.list_topics(timeout=TIMEOUT_S).topics
    except KafkaException as error:
        raise BusError(f"cannot read the topics: {error}") from error
    return {name: len(topic.partitions) for name, topic in topics.items()}


def provide(settings: Settings, topics: dict[str, dict[str, str]], partitions: int) -> None:
    """Create these topics ({name: settings}) where they are missing, and wait until Kafka tells of them; blocks.

    Raises BusError.
    """
    from confluent_kafka.admin import NewTopic

    admin = admin_client(settings)
    missing = set(topics) - set(partitions_on_broker(settings, admin))
    factor = settings.kafka.replication_factor
    new = [NewTopic(name, partitions, factor, config=topics[name] | durable(factor)) for name in sorted(missing)]
    _create(admin, new)
    deadline = time.monotonic() + APPEAR_S
    while missing and (missing := missing - set(partitions_on_broker(settings, admin))):
        if time.monotonic() > deadline:
            raise BusError(f"the topics {', '.join(sorted(missing))} were created and do not appear")
        time.sleep(0.05)
