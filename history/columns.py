"""Records as columns: one Parquet column a field of the Avro schema, and four that say where the record stood in Kafka.

Arrays of longs stay lists, enums are texts, a missing value is null. A record that cannot be decoded keeps its bytes in
``_raw`` with all fields null, so that the rows of an archive are exactly the records of the log.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pyarrow as pa

from schemas.codec import codec
from schemas.errors import DecodeError

KAFKA = (
    ("_partition", pa.int32()), ("_offset", pa.int64()), ("_timestamp_ms", pa.int64()), ("_key", pa.string()),
    ("_raw", pa.binary()),
)  # fmt: skip
SIMPLE: dict[str, pa.DataType] = {
    "string": pa.string(), "long": pa.int64(), "int": pa.int32(), "boolean": pa.bool_(), "bytes": pa.binary(),
}  # fmt: skip


def _arrow(kind: Any) -> pa.DataType:
    if isinstance(kind, list):
        return _arrow(next(k for k in kind if k != "null"))
    if isinstance(kind, dict):
        if kind["type"] == "enum":
            return pa.string()
        if kind["type"] == "array":
            return pa.list_(_arrow(kind["items"]))
        if kind["type"] == "record":
            return pa.struct([pa.field(f["name"], _arrow(f["type"])) for f in kind["fields"]])
        if kind["type"] == "map":
            return pa.map_(pa.string(), _arrow(kind["values"]))
        return _arrow(kind["type"])
    if kind not in SIMPLE:
        raise TypeError(f"no column type for the Avro type {kind!r}")
    return SIMPLE[kind]


@cache
def schema_of(record: str) -> pa.Schema:
    """The Arrow schema of a record by its name."""
    fields = [pa.field(name, kind) for name, kind in KAFKA]
    fields += [pa.field(f["name"], _arrow(f["type"])) for f in codec(record).schema["fields"]]
    return pa.schema(fields)


def row_of(record: str, partition: int, offset: int, ts_ms: int, key: bytes | None, value: bytes | None) -> dict[str, Any]:
    """One record as a row. Never raises for what is in it."""
    row: dict[str, Any] = {
        "_partition": partition, "_offset": offset, "_timestamp_ms": ts_ms,
        "_key": None if key is None else key.decode("utf-8", "backslashreplace"), "_raw": None,
    }  # fmt: skip
    if value is None:  # a tombstone: key and place are all there is
        return row
    try:
        return row | codec(record).decode(value)
    except DecodeError:
        row["_raw"] = value
        return row


def table_of(record: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table."""
    return pa.Table.from_pylist(rows, schema=schema_of(record))
