"""Times, file names and columns of the past."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from history.asof import parse_time
from history.columns import row_of, schema_of, table_of
from history.errors import WrongTime
from history.store import File, Store, hour_of, without_merged
from schemas.codec import RECORD_NAMES, codec


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("2026-11-24T14:03:07.250Z", 1795528987250000000),
        ("2026-11-24T15:03:07.25+01:00", 1795528987250000000),
    ],
)
def test_a_moment_is_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert parse_time(text) == ns


@pytest.mark.parametrize("text", ["", "now-ish", "2026-11-24", "2026-11-24T14:03:07", "2026-11-24T14:03:07.Z",
                                  "2026-11-24T14:03:07.1234567890Z", "2026-13-24T14:03:07Z"])  # fmt: skip
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(WrongTime, match="write 2026-11-24T14:03:07"):
        parse_time(text)


def test_every_record_of_the_catalogue_has_columns() -> None:
    for name in RECORD_NAMES:
        assert schema_of(name).names[:5] == ["_partition", "_offset", "_timestamp_ms", "_key", "_raw"]


def trade(offset: int) -> bytes:
    return codec("Trade").encode(
        {"venue": "v", "symbol": "A/B", "trade_id": str(offset), "taker_side": "BUY", "price": 1, "size": 2**62,
         "price_exp": 0, "size_exp": 0, "ts_venue_us": 1, "ts_received_ns": 2}
    )  # fmt: skip


def table(*offsets: int) -> pa.Table:
    return table_of("Trade", [row_of("Trade", 3, o, 0, b"v|A/B", trade(o)) for o in offsets])


def test_what_cannot_be_decoded_keeps_its_bytes_and_a_tombstone_its_place() -> None:
    rows = [row_of("Trade", 0, 1, 2, b"k", b"junk"), row_of("Trade", 0, 2, 2, b"\xff", None)]
    found = table_of("Trade", rows).to_pylist()
    assert (found[0]["_raw"], found[0]["venue"]) == (b"junk", None)
    assert (found[1]["_raw"], found[1]["_key"], found[1]["_offset"]) == (None, "\\xff", 2)


def test_files_of_a_flush_that_did_not_end_are_deleted_and_the_others_kept(tmp_path) -> None:
    store = Store(str(tmp_path))
    for offsets in ((0, 1), (2, 3), (4, 5)):
        store.write("t", "v", "2026-11-24T14", 3, table(*offsets))
    store.set_state("t", 3, {"next_offset": 4, "lost": 0})
    assert store.delete_unfinished("t", {3: store.state("t", 3)["next_offset"]}) == 1
    assert [(f.first, f.last) for f in store.hour_files("t", "v", "2026-11-24T14")] == [(0, 1), (2, 3)]


def test_a_merge_that_was_cut_short_shows_no_row_twice(tmp_path) -> None:
    store = Store(str(tmp_path))
    small = [store.write("t", "v", "2026-11-24T14", 3, table(*o)) for o in ((0, 1), (2, 7))]
    whole = store.merge("t", "v", "2026-11-24T14", 3, small)
    found = without_merged(store.hour_files("t", "v", "2026-11-24T14"))
    assert found == [whole] or [f.path for f in found] == [whole.path]
    assert store.read(whole)["_offset"].to_pylist() == [0, 1, 2, 7]
    assert store.delete_unfinished("t", {3: 8}) == 2


def test_a_merge_has_all_rows_in_their_order_piece_by_piece_and_columns_that_came_later(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("history.store.GROUP_ROWS", 4)
    store, old = Store(str(tmp_path)), table(0, 1, 2).drop_columns(["size_exp"])
    for part in (old, table(3), table(4, 5), table(6)):
        store.write("t", "v", "2026-11-24T14", 3, part)
    files = store.hour_files("t", "v", "2026-11-24T14")
    whole = store.merge("t", "v", "2026-11-24T14", 3, files)
    assert (whole.first, whole.last) == (0, 6)
    assert pq.ParquetFile(whole.path).num_row_groups == 2
    again = store.merge("t", "v", "2026-11-24T14", 3, [*files, whole])  # one that was cut short before it deleted
    assert again == whole
    found = store.read(whole)
    assert set(found.schema.names) == set(table(0).schema.names)
    assert found.column("_offset").to_pylist() == list(range(7))
    assert found.column("size_exp").to_pylist() == [None] * 3 + [0] * 4


def test_files_of_other_partitions_and_folders_are_not_taken_for_merged() -> None:
    files = [File("a/x-1", 1, 0, 9), File("a/x-2", 2, 0, 5), File("b/x-1", 1, 2, 3)]
    assert without_merged(files) == files


def test_hours_are_utc() -> None:
    assert hour_of(1795528987250) == "2026-11-24T14"
