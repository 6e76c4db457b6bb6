"""The tables' changelogs: made before a worker joins its group, and what becomes of them when partitions are raised.

A worker that leads its group hands out the changelogs that it knows of. One that was made a moment ago may be unknown
to it for minutes, and the books would come back without their checkpoints: so they exist before anybody joins.

When partitions are raised, collectors begin every book anew, in a new epoch, so no checkpoint of a book is of use:
without them a book is not LIVE before its collector has said so again. Bars go on: those that are open move with their
instrument.
"""

from __future__ import annotations

from bus.errors import TopicMismatch
from bus.growth import Changelog
from bus.topics import partitions_on_broker, provide
from config.settings import Settings
from schemas.codec import codec
from schemas.topics import BOOK

MAX_BYTES = 16 * 1024 * 1024
CONFIG = {
    "cleanup.policy": "compact", "max.message.bytes": str(MAX_BYTES),
    # A checkpoint a second of each book: only what is in closed segments can be compacted, and all that is not is read
    # again at each recovery.
    "segment.bytes": str(2 * MAX_BYTES), "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.2",
}  # fmt: skip
NOWHERE = -1
"""The offset of a trade that is in no partition of this bar's number: before the first of the new one."""


def changelog_name(settings: Settings, table: str) -> str:
    """The changelog's topic of one of the processors' tables."""
    return f"{settings.processor.app_id}-{table}-changelog"


def prepare(settings: Settings) -> Settings:
    """Make the changelogs that are missing; gives the settings with the number of partitions that the broker has. Blocks.

    Raises TopicMismatch when a changelog and market.book have different numbers: nobody can recover then.
    """
    partitions = partitions_on_broker(settings)
    count = partitions.get(BOOK.name, settings.kafka.market_partitions)
    kafka = settings.kafka.model_copy(update={"market_partitions": count})
    settings = settings.model_copy(update={"kafka": kafka})
    tables = ("books", "bars") if "bar" in settings.processor.derived else ("books",)
    names = [changelog_name(settings, table) for table in tables]
    if other := [f"{name} has {partitions[name]}" for name in names if partitions.get(name, count) != count]:
        raise TopicMismatch(
            f"{BOOK.name} has {count} partitions, {', '.join(other)}: end what was begun with "
            f"kafka.market_partitions = {count} and: venue-mirror topics apply --grow"
        )
    provide(settings, dict.fromkeys(names, CONFIG), count)
    return settings


def changelogs(settings: Settings) -> list[Changelog]:
    """The changelogs of the processors' tables, and what is kept of them."""
    return [
        Changelog(changelog_name(settings, "books"), None),
        Changelog(changelog_name(settings, "bars"), moved_bars),
    ]


def moved_bars(value: bytes) -> bytes:
    """A BarCheckpoint in its new partition: every trade there is behind those that it holds."""
    own = codec("BarCheckpoint")
    record = own.decode(value)
    bars = [{**bar, "first_offset": NOWHERE, "offset": NOWHERE} for bar in record["bars"]]
    return own.encode({**record, "offset": NOWHERE, "bars": bars})
