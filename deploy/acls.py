# pyright: reportPrivateImportUsage=false
"""Who may read and write what on Kafka: one table, for every way to apply it.

Each room has its own Kafka user. It may write the topics that it is the writer of, and no others: a strategy that is
taken over cannot forge a book, a collector cannot send an order.

    python -m deploy.acls                      show the table
    python -m deploy.acls --apply              create the ACLs on the broker of the settings
    python -m deploy.acls --helm FILE          write the catalogue and the ACLs for the chart
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus.connection import client_config
from bus.errors import BusError
from config.settings import Settings, load_settings
from schemas.topics import MARKET_PARTITIONS, TOPICS

OPERATOR = "operator"
PROCESSOR_GROUP = "venue-mirror-processor"
"""processor.app_id: the prefix of Faust's group and of its own topics."""

READ, WRITE, CREATE, DELETE, DESCRIBE, ALTER = "Read", "Write", "Create", "Delete", "Describe", "Alter"
DESCRIBE_CONFIGS, ALTER_CONFIGS = "DescribeConfigs", "AlterConfigs"


@dataclass(frozen=True)
class Rule:
    """One user may do these operations on one resource; ``prefixed``: on all whose name begins so."""

    room: str
    kind: str
    """topic, group or cluster"""
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False


def _starting(*prefixes: str) -> set[str]:
    return {name for name in TOPICS if name.startswith(prefixes)}


MARKET = _starting("market.")
DERIVED = _starting("derived.") - {"derived.opportunity"}
ORDERS = _starting("orders.")
DECISIONS = {"orders.intent", "orders.shadow"} & ORDERS
COMMANDS = {"orders.limits", "orders.control"} & ORDERS
STRATEGY = _starting("strategy.") | {"derived.opportunity"} & set(TOPICS)

WRITES: dict[str, set[str]] = {
    "collector": MARKET | _starting("chain.") | {"dead.letter"},
    "processor": DERIVED | {"dead.letter"},
    "strategy": DECISIONS | STRATEGY | {"dead.letter"},
    # Hedges of what was filled in part are the gateway's own intents.
    "gateway": ORDERS - COMMANDS - {"orders.shadow"} | {"dead.letter"},
    "archiver": {"dead.letter"},
    "console": set(),
    OPERATOR: COMMANDS,
}
READS: dict[str, set[str]] = {
    "collector": {"market.instrument", "market.status", "market.book"} | _starting("chain."),
    "processor": MARKET | {"derived.bbo_by_group"},
    "strategy": MARKET | DERIVED | STRATEGY | ORDERS,
    "gateway": MARKET | DERIVED | ORDERS,
    "archiver": set(TOPICS),
    "console": set(TOPICS) - {"orders.journal", "dead.letter"},
    OPERATOR: set(TOPICS),
}
GROUPS = {
    "collector": "collector.", "processor": PROCESSOR_GROUP, "archiver": "venue-mirror-archiver", OPERATOR: "venue-mirror-",
}  # fmt: skip


def rules() -> list[Rule]:
    """Every rule, sorted by room."""
    out: list[Rule] = []
    for room in WRITES:
        for topic in sorted(READS[room] | WRITES[room]):
            operations = (DESCRIBE,) + (READ,) * (topic in READS[room]) + (WRITE,) * (topic in WRITES[room])
            out.append(Rule(room, "topic", topic, operations))
        if room in GROUPS:
            out.append(Rule(room, "group", GROUPS[room], (READ, DESCRIBE), prefixed=True))
    # Faust makes its changelog and its leader topic by itself, under its own name only.
    faust = (CREATE, READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS)
    out.append(Rule("processor", "topic", PROCESSOR_GROUP, faust, prefixed=True))
    # `topics apply` and `topics check`, for the catalogue only.
    for topic in sorted(TOPICS):
        out.append(Rule(OPERATOR, "topic", topic, (CREATE, ALTER, DESCRIBE_CONFIGS, ALTER_CONFIGS)))
    # `topics apply --grow`: moves what is compacted, and asks whether anybody still runs.
    moves = (READ, WRITE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS)
    for topic in sorted(t.name for t in TOPICS.values() if t.name.startswith("market.") and t.cleanup == "compact"):
        out.append(Rule(OPERATOR, "topic", topic, (WRITE, DELETE)))
    out.append(Rule(OPERATOR, "topic", PROCESSOR_GROUP, moves, prefixed=True))
    out.append(Rule(OPERATOR, "group", GROUPS["collector"], (DESCRIBE,), prefixed=True))
    return out


def apply(settings: Settings, users: dict[str, str] | None = None, admin: Any = None) -> int:
    """Create the ACLs on the broker; gives how many. Blocks; raises BusError.

    ``users`` names the Kafka user of a room where it is not ``venue-mirror-ROOM``. The caller's user must be allowed to
    alter the cluster. Existing ACLs stay.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        AdminClient,
        ResourcePatternType,
        ResourceType,
    )  # fmt: skip

    kinds = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER}
    wanted = [
        AclBinding(
            kinds[rule.kind], rule.name,
            ResourcePatternType.PREFIXED if rule.prefixed else ResourcePatternType.LITERAL,
            f"User:{(users or {}).get(rule.room, user(rule.room))}", "*", _operation(AclOperation, name),
            AclPermissionType.ALLOW,
        )
        for rule in rules() for name in rule.operations
    ]  # fmt: skip
    admin = admin or AdminClient(client_config(settings))
    try:
        for future in admin.create_acls(wanted).values():
            future.result(timeout=30)
    except KafkaException as error:
        raise BusError(f"cannot create the ACLs: {error}") from error
    return len(wanted)


def _operation(kind: Any, name: str) -> Any:
    words = "".join(f"_{c}" if c.isupper() else c for c in name).strip("_").upper()
    return getattr(kind, words)


def user(room: str) -> str:
    """The Kafka user of a room, where nothing else is named."""
    return f"venue-mirror-{room}"


def catalogue() -> dict[str, Any]:
    """Topics and ACLs as the chart takes them: Strimzi's KafkaTopic and KafkaUser, with the chart's own partitions."""
    topics = {
        topic.name: {
            "partitions": topic.partitions,
            "keyedByInstrument": topic.partitions == MARKET_PARTITIONS,
            "config": topic.config,
        }
        for topic in TOPICS.values()
    }
    users: dict[str, list[dict[str, Any]]] = {}
    for rule in rules():
        resource: dict[str, Any] = {"type": rule.kind}
        if rule.kind != "cluster":
            resource |= {"name": rule.name, "patternType": "prefix" if rule.prefixed else "literal"}
        users.setdefault(rule.room, []).append({"resource": resource, "operations": list(rule.operations)})
    return {"topics": topics, "users": users}


def helm_file() -> str:
    """The text of the chart's files/catalogue.yaml (JSON is YAML)."""
    import json

    return "# Made by: python -m deploy.acls --helm FILE. Not to be edited.\n" + json.dumps(catalogue(), indent=1) + "\n"


def _table(found: Iterable[Rule]) -> str:
    lines = (
        f"{user(r.room):24} {r.kind:8} {r.name + ('*' if r.prefixed else ''):32} {', '.join(r.operations)}" for r in found
    )
    return "\n".join(lines)


def main() -> int:
    """Entry point of ``python -m deploy.acls``."""
    parser = argparse.ArgumentParser(description="Who may read and write what on Kafka.")
    parser.add_argument("--apply", action="store_true", help="create the ACLs on the broker of the settings")
    parser.add_argument("--config", type=Path, help="TOML file with the settings")
    parser.add_argument("--helm", type=Path, help="write the catalogue for the chart here")
    given = parser.parse_args()
    if given.helm:
        given.helm.write_text(helm_file(), "utf-8")
        return 0
    if not given.apply:
        print(_table(rules()))
        return 0
    try:
        print(f"{apply(load_settings(given.config))} ACLs are in force")
    except BusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
