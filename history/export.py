"""Trades, bars or book events of a time range as one Parquet or CSV file, decimals exact.

Prices and sizes leave as decimal texts in CSV. Parquet keeps the mantissas beside their exponents, as in the records.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from config.settings import Settings
from history.columns import schema_of
from history.errors import HistoryError, NotRecorded
from history.past import Entry, Past
from market.decimals import format_decimal
from schemas.topics import BAR, BOOK, TRADE, Topic

What = Literal["trades", "bars", "books"]
TOPIC: dict[str, Topic] = {"trades": TRADE, "bars": BAR, "books": BOOK}
PRICES = {"trades": ("price",), "bars": ("open", "high", "low", "close"), "books": ("bid_prices", "ask_prices")}
SIZES = {"trades": ("size",), "bars": (), "books": ("bid_sizes", "ask_sizes")}
CHUNK = 20_000
VWAP_DIGITS = 4


def export(
    settings: Settings, what: What, from_ns: int, to_ns: int, out: Path, *, venue: str | None, symbol: str | None
) -> int:
    """Write what was kept with from <= Kafka's time < to; gives the number of rows.

    Bars: of each interval only the last revision. Raises NotRecorded when there is nothing, HistoryError for a file
    name that ends in neither .parquet nor .csv. The file appears whole or not at all.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise HistoryError(f"{out} ends in neither .parquet nor .csv")
    if to_ns <= from_ns:
        raise HistoryError("the range is empty: --to is not after --from")
    past = Past(settings)
    entries: Any = past.entries(TOPIC[what].name, from_ns // 1_000_000, to_ns // 1_000_000, venue=venue, symbol=symbol)
    if what == "bars":
        entries = _last_revisions(entries)
    temporary = out.with_name(f".{out.name}.tmp")
    rows = (_write_csv if out.suffix == ".csv" else _write_parquet)(what, entries, temporary)
    if not rows:
        temporary.unlink(missing_ok=True)
        raise NotRecorded(f"no {what} were kept in that time; derived.bar is archived only when history.topics names it")
    temporary.replace(out)
    return rows


def _last_revisions(entries: Any) -> list[Entry]:
    newest: dict[tuple[Any, ...], Entry] = {}
    for entry in entries:
        r = entry.record
        key = r["venue"], r["symbol"], r["interval_s"], r["start_us"]
        if key not in newest or newest[key].record["revision"] <= r["revision"]:
            newest[key] = entry
    return sorted(newest.values(), key=lambda e: (e.record["venue"], e.record["symbol"], e.record["start_us"]))


def _write_parquet(what: str, entries: Any, path: Path) -> int:
    schema = schema_of(TOPIC[what].record)
    schema = schema.remove(schema.get_field_index("_raw")).remove(schema.get_field_index("_key"))
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        chunk: list[dict[str, Any]] = []
        for entry in entries:
            chunk.append(
                {"_partition": entry.partition, "_offset": entry.offset, "_timestamp_ms": entry.ts_ms} | entry.record
            )
            if len(chunk) >= CHUNK:
                writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
                count += len(chunk)
                chunk = []
        if chunk:
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
    return count + len(chunk)


def _write_csv(what: str, entries: Any, path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for entry in entries:
            row = {"partition": entry.partition, "offset": entry.offset} | _texts(what, entry.record)
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)
            count += 1
    return count


def _texts(what: str, record: dict[str, Any]) -> dict[str, Any]:
    """Decimals as plain texts, lists as JSON, no exponents left."""
    out = dict(record)
    price_exp, size_exp = out.pop("price_exp"), out.pop("size_exp", 0)
    for names, exp in ((PRICES[what], price_exp), (SIZES[what], size_exp)):
        for name in names:
            value = out[name]
            if isinstance(value, list):
                out[name] = json.dumps([format_decimal(v, exp) for v in value])
            else:
                out[name] = format_decimal(value, exp)
    if what == "bars":
        out["vwap"] = format_decimal(out["vwap"], price_exp - VWAP_DIGITS)
    out.pop("partition", None)
    out.pop("offset", None)
    return out
