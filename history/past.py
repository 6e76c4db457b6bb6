"""The log as far back as it was kept: the archive's files up to where they end, Kafka from there on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pyarrow import compute

from bus.log_reader import Playback, start_positions
from config.settings import Settings
from history.errors import HistoryError
from history.store import File, Store
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import TOPICS

CHUNK = 5000
LOOKS = 5
pc: Any = compute
"""Its functions are made when it is imported; no type checker sees them."""


class Entry(NamedTuple):
    """One record and where it stood."""

    partition: int
    offset: int
    ts_ms: int
    """Kafka's time of the record."""
    record: dict[str, Any]


class Past:
    """Reads ranges of topics by Kafka's time. Records that cannot be decoded are left out and counted."""

    def __init__(self, settings: Settings, *, kafka: bool = True) -> None:
        self._settings = settings
        self._store = Store(settings.history.root)
        self._kafka = kafka
        self.unreadable = 0

    def entries(
        self, topic: str, from_ms: int, to_ms: int, *, venue: str | None = None, symbol: str | None = None
    ) -> Iterator[Entry]:
        """Everything with from_ms <= Kafka's time < to_ms, in order of offsets within each partition. Blocks."""
        yield from self._archived(topic, from_ms, to_ms, venue, symbol)
        if self._kafka:
            yield from self._logged(topic, from_ms, to_ms, venue, symbol)

    def _archived(self, topic: str, from_ms: int, to_ms: int, venue: str | None, symbol: str | None) -> Iterator[Entry]:
        given: dict[tuple[str, int], int] = {}
        """The last offset given of each folder and partition."""
        for _ in range(LOOKS):
            try:
                for file in self._store.files(topic, venue, from_ms, to_ms):
                    place = file.folder, file.partition
                    for entry in self._rows(topic, file, from_ms, to_ms, symbol):
                        if entry.offset > given.get(place, -1):
                            given[place] = entry.offset
                            yield entry
                return
            except FileNotFoundError:  # an archiver has just merged it with others: they are looked up again
                continue
        raise HistoryError(f"the files of {topic} change faster than they can be read; try again")

    def _rows(self, topic: str, file: File, from_ms: int, to_ms: int, symbol: str | None) -> Iterator[Entry]:
        if file.first >= self._store.state(topic, file.partition)["next_offset"]:
            return  # of a flush under way: Kafka has these too
        # Most files hold nothing that is asked for, and the levels are most of a file: two thin columns first.
        thin = self._store.read(file, ["_timestamp_ms", "symbol"])
        chosen = pc.and_(pc.greater_equal(thin["_timestamp_ms"], from_ms), pc.less(thin["_timestamp_ms"], to_ms))
        if symbol is not None and "symbol" in thin.column_names:
            chosen = pc.and_(chosen, pc.equal(thin["symbol"], symbol))
        if not pc.any(chosen).as_py():
            return
        for row in self._store.read(file).filter(chosen).to_pylist():
            if row.pop("_raw") is not None:
                self.unreadable += 1
                continue
            place = row.pop("_partition"), row.pop("_offset"), row.pop("_timestamp_ms")
            row.pop("_key")
            yield Entry(*place, row)

    def _logged(self, topic: str, from_ms: int, to_ms: int, venue: str | None, symbol: str | None) -> Iterator[Entry]:
        decode = codec(TOPICS[topic].record).decode
        starts = start_positions(self._settings, {topic: from_ms})
        ends = start_positions(self._settings, {topic: to_ms})
        for position in starts:
            starts[position] = max(starts[position], self._store.state(*position)["next_offset"])
        key = f"{venue}|{symbol}".encode() if venue is not None and symbol is not None else None
        playback = Playback(self._settings, starts, ends)
        try:
            for (name, partition), end in sorted(ends.items()):
                at = starts[(name, partition)]
                while at < end:
                    stop = min(end, at + CHUNK)
                    for record in playback.take(name, partition, at, stop):
                        if record.value is None or (key is not None and record.key != key):
                            continue
                        try:
                            decoded = decode(record.value)
                        except DecodeError:
                            self.unreadable += 1
                            continue
                        mine = decoded.get("venue") == venue if venue is not None else True
                        if mine and (symbol is None or decoded.get("symbol") == symbol):
                            yield Entry(partition, record.offset, record.ts_ns // 1_000_000, decoded)
                    at = stop
        finally:
            playback.close()
