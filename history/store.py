"""Where the archive's files are, and how a crash leaves neither a hole nor a second copy of a row.

    ROOT/topic=market.book/venue=binance-spot/hour=2026-11-24T14/market.book-00003-000000000120-000000000455.parquet
    ROOT/_state/market.book-00003.json       {"next_offset": 456, "lost": 0}

A file's name carries the partition and its first and last offset. The state file is written last and at once: what is
below its ``next_offset`` is kept. A file that begins at or behind it is of a flush that did not end; it is deleted
before anything is written anew. The hour is of Kafka's timestamp, UTC.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from history.errors import WrongRoot

HOUR_MS = 3_600_000
NAME = re.compile(r"^(?P<topic>.+)-(?P<partition>\d{5})-(?P<first>\d{12,})-(?P<last>\d{12,})\.parquet$")
NO_VENUE = "_"
GROUP_ROWS = 50_000
"""Rows that a merge has in memory at once, and a file's readers in one piece."""


@dataclass(frozen=True)
class File:
    """One Parquet file of the archive."""

    path: str
    partition: int
    first: int
    last: int

    @property
    def folder(self) -> str:
        """Of one topic, venue and hour."""
        return self.path.rpartition("/")[0]


def hour_of(ts_ms: int) -> str:
    """``2026-11-24T14``."""
    return datetime.fromtimestamp(ts_ms // HOUR_MS * 3600, UTC).strftime("%Y-%m-%dT%H")


class Store:
    """The files below ``root``, on a local disk or in S3-compatible storage. Raises WrongRoot.

    S3's keys come from where AWS's own tools look: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the file that
    AWS_SHARED_CREDENTIALS_FILE names, or the machine's role.
    """

    def __init__(self, root: str) -> None:
        if "://" in root:
            if "@" in urlsplit(root).netloc:
                raise WrongRoot("history.root holds a key: name the file with the keys in AWS_SHARED_CREDENTIALS_FILE instead")
            try:
                self._fs, self._root = fs.FileSystem.from_uri(root)
            except (pa.ArrowInvalid, ValueError) as error:
                raise WrongRoot(f"history.root {root!r} is no storage that is known: {error}") from None
            self._root = self._root.rstrip("/")
            self.local: Path | None = None
        else:
            self.local = Path(root).resolve()
            self.local.mkdir(parents=True, exist_ok=True)
            self._fs, self._root = fs.LocalFileSystem(), str(self.local)

    def state(self, topic: str, partition: int) -> dict[str, int]:
        """The state of a partition; ``next_offset`` is -1 when nothing was kept yet."""
        try:
            with self._fs.open_input_stream(self._state_path(topic, partition)) as stream:
                return json.loads(stream.read())
        except FileNotFoundError:
            return {"next_offset": -1, "lost": 0}

    def set_state(self, topic: str, partition: int, state: dict[str, int]) -> None:
        """Replace the state, all or nothing."""
        self._write(self._state_path(topic, partition), json.dumps(state).encode())

    def _state_path(self, topic: str, partition: int) -> str:
        return f"{self._root}/_state/{topic}-{partition:05d}.json"

    def write(self, topic: str, venue: str, hour: str, partition: int, table: pa.Table) -> File:
        """Write one file, all or nothing; rows are in the order of their offsets."""
        offsets = table.column("_offset")
        file = self._named(topic, venue, hour, partition, offsets[0].as_py(), offsets[-1].as_py())
        out = BytesIO()
        pq.write_table(table, out, compression="zstd")
        self._write(file.path, out.getbuffer())
        return file

    def merge(self, topic: str, venue: str, hour: str, partition: int, files: list[File]) -> File:
        """Write one file with the rows of these, which are all of this folder and partition; delete nothing.

        They are read one after the other: an hour of a busy partition need not be in memory at once.
        """
        files = without_merged(files)
        schema = pa.unify_schemas([self._schema(file) for file in files], promote_options="default")
        out = BytesIO()
        with pq.ParquetWriter(out, schema, compression="zstd") as writer:
            waiting: list[pa.Table] = []
            for file in files:
                waiting.append(self.read(file))
                if file is files[-1] or sum(table.num_rows for table in waiting) >= GROUP_ROWS:
                    writer.write_table(_as(schema, waiting))
                    waiting.clear()
        whole = self._named(topic, venue, hour, partition, files[0].first, files[-1].last)
        self._write(whole.path, out.getbuffer())
        return whole

    def _schema(self, file: File) -> pa.Schema:
        with self._fs.open_input_file(file.path) as stream:
            return pq.read_schema(stream)

    def _named(self, topic: str, venue: str, hour: str, partition: int, first: int, last: int) -> File:
        name = f"{topic}-{partition:05d}-{first:012d}-{last:012d}.parquet"
        return File(f"{self._folder(topic, venue, hour)}/{name}", partition, first, last)

    def _folder(self, topic: str, venue: str, hour: str) -> str:
        return f"{self._root}/topic={topic}/venue={venue or NO_VENUE}/hour={hour}"

    def _write(self, path: str, data: bytes | memoryview) -> None:
        if self.local is None:  # an object appears whole or not at all
            with self._fs.open_output_stream(path) as stream:
                stream.write(data)
            return
        import os

        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

    def delete_unfinished(self, topic: str, next_offsets: dict[int, int]) -> int:
        """Delete the files of flushes that did not end, and those that a merged file repeats; gives how many."""
        found = list(self._files(f"{self._root}/topic={topic}"))
        gone = [f for f in found if f.first >= max(0, next_offsets.get(f.partition, 0))]
        kept = [f for f in found if f not in gone]
        gone += sorted(set(kept) - set(without_merged(kept)), key=lambda f: f.path)
        for file in gone:
            self.delete(file)
        return len(gone)

    def delete(self, file: File) -> None:
        """Delete one file."""
        self._fs.delete_file(file.path)

    def files(self, topic: str, venue: str | None, from_ms: int, to_ms: int) -> list[File]:
        """The files with rows of a topic (and venue) between two times, by partition and offset."""
        venues = [venue] if venue is not None else self.venues(topic)
        found: list[File] = []
        for name in venues:
            for hour in self.hours(topic, name):
                if hour_of(from_ms) <= hour <= hour_of(max(from_ms, to_ms - 1)):
                    found += without_merged(list(self._files(self._folder(topic, name, hour))))
        return sorted(found, key=lambda f: (f.partition, f.first))

    def venues(self, topic: str) -> list[str]:
        """The venues of a topic that the archive has files of."""
        return [name.removeprefix("venue=") for name in self._folders(f"{self._root}/topic={topic}")]

    def hours(self, topic: str, venue: str) -> list[str]:
        """The hours that the archive has files of."""
        return [name.removeprefix("hour=") for name in self._folders(f"{self._root}/topic={topic}/venue={venue}")]

    def hour_files(self, topic: str, venue: str, hour: str) -> list[File]:
        """The files of one hour, by partition and offset."""
        return sorted(self._files(self._folder(topic, venue, hour)), key=lambda f: (f.partition, f.first))

    def read(self, file: File, columns: list[str] | None = None) -> pa.Table:
        """The file as a table."""
        with self._fs.open_input_file(file.path) as stream:
            return pq.ParquetFile(stream).read(columns=columns)

    def _folders(self, path: str) -> list[str]:
        infos = self._fs.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(i.base_name for i in infos if i.type == fs.FileType.Directory)

    def _files(self, path: str) -> Iterator[File]:
        for info in self._fs.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True)):
            if info.type == fs.FileType.File and (m := NAME.match(info.base_name)) is not None:
                yield File(info.path, int(m["partition"]), int(m["first"]), int(m["last"]))


def without_merged(files: Iterable[File]) -> list[File]:
    """The files without those whose rows a larger one of the same folder holds too: a merge that was cut short."""
    out: list[File] = []
    for file in sorted(files, key=lambda f: (f.folder, f.partition, f.first, -f.last)):
        last = out[-1] if out else None
        same = last is not None and last.partition == file.partition
        if same and last is not None and last.folder == file.folder and file.last <= last.last:
            continue
        out.append(file)
    return out


def _as(schema: pa.Schema, tables: list[pa.Table]) -> pa.Table:
    """The tables as one of this schema; a column that one has not is null there."""
    whole = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")
    return whole.select(schema.names).cast(schema)
