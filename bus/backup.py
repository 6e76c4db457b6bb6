# pyright: reportPrivateImportUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""What must outlive a cluster, as a file: every record of the topics that are kept for ever, and back.

A line a record, JSON, gzip: topic, key and value in base64, Kafka's time. Of a compacted topic only the newest record of
each key is kept, of the others all, in order. Books are not in it: collectors synchronise them anew within seconds.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bus.connection import client_config
from bus.errors import BusError
from bus.log_reader import LogRecord, Playback, start_positions
from config.settings import Settings
from schemas.topics import TOPICS

FORMAT = 1
CHUNK = 5000


def kept_for_ever() -> list[str]:
    """The topics that a backup holds unless others are named."""
    return [name for name, topic in TOPICS.items() if topic.retention_ms == -1]


def _records(settings: Settings, topic: str) -> Iterator[LogRecord]:
    """Every record up to where the topic ends now, by partition."""
    begin, end = start_positions(settings, {topic: "beginning"}), start_positions(settings, {topic: "end"})
    playback = Playback(settings, begin, end)
    try:
        for (name, partition), stop in sorted(end.items()):
            for start in range(begin[(name, partition)], stop, CHUNK):
                yield from playback.take(name, partition, start, min(stop, start + CHUNK))
    finally:
        playback.close()


def backup(settings: Settings, file: Path, topics: Iterable[str] = ()) -> dict[str, int]:
    """Write the file; gives how many records of each topic are in it. Blocks; raises BusError, OSError.

    The file appears under its name only when it is whole.
    """
    names = list(topics) or kept_for_ever()
    if unknown := [name for name in names if name not in TOPICS]:
        raise BusError(f"no topic {', '.join(unknown)}; there are: {', '.join(TOPICS)}")
    counts: dict[str, int] = {}
    part = file.with_name(file.name + ".part")
    with gzip.open(part, "wt", encoding="ascii") as out:
        out.write(json.dumps({"format": FORMAT, "made_ms": time.time_ns() // 1_000_000, "topics": names}) + "\n")
        for name in names:
            found = _records(settings, name)
            if "compact" in TOPICS[name].cleanup:
                newest = {record.key: record for record in found}
                found = (record for record in newest.values() if record.value is not None)
            counts[name] = 0
            for record in found:
                out.write(json.dumps([name, _text(record.key), _text(record.value), record.ts_ns // 1_000_000]) + "\n")
                counts[name] += 1
        out.write(json.dumps({"records": sum(counts.values())}) + "\n")
    part.replace(file)
    return counts


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _lines(file: Path) -> Iterator[Any]:
    """The file's lines; raises BusError when it is cut off, or no backup."""
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            head = json.loads(next(lines, "null"))
            if not isinstance(head, dict) or head.get("format") != FORMAT:  # pyright: ignore[reportUnknownMemberType]
                raise BusError(f"{file} is no backup of format {FORMAT}")
            yield head
            count = 0
            for text in lines:
                line = json.loads(text)
                if isinstance(line, dict):
                    if line.get("records") != count:  # pyright: ignore[reportUnknownMemberType]
                        raise BusError(f"{file} says {line}, and holds {count} records")
                    return
                count += 1
                yield line
    except (OSError, EOFError, ValueError) as error:
        raise BusError(f"{file} cannot be read: {error}") from error
    raise BusError(f"{file} is cut off after {count} records")


def restore(settings: Settings, file: Path) -> dict[str, int]:
    """Write a backup's records into empty topics; gives how many of each. Blocks.

    Raises BusError before anything is written when the file is damaged, or one of its topics already holds records.
    """
    from confluent_kafka import Producer

    head: Any = None
    for line in _lines(file):  # all of it is read once before anything is written
        head = head or line
    for name in head["topics"]:
        begin, end = start_positions(settings, {name: "beginning"}), start_positions(settings, {name: "end"})
        if begin != end:
            raise BusError(f"{name} already holds records; a backup is restored into a new cluster")
    failed: list[str] = []

    def told(error: Any, message: Any) -> None:
        if error is not None:
            failed.append(f"{message.topic()}: {error}")

    producer = Producer(
        {
            **client_config(settings), "enable.idempotence": True, "acks": "all", "compression.type": "lz4",
            "partitioner": "murmur2_random", "message.max.bytes": 16 * 1024 * 1024, "delivery.report.only.error": True,
        }
    )  # fmt: skip
    counts: dict[str, int] = dict.fromkeys(head["topics"], 0)
    lines = _lines(file)
    next(lines)
    for topic, key, value, ts_ms in lines:
        while True:
            try:
                producer.produce(topic, _bytes(value), _bytes(key), timestamp=ts_ms, on_delivery=told)
                break
            except BufferError:
                producer.poll(0.1)
        counts[topic] += 1
    left = producer.flush(120)
    if left or failed:
        raise BusError(f"{left + len(failed)} records were not taken by Kafka{f'; the first: {failed[0]}' if failed else ''}")
    return counts


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
