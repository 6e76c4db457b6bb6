"""The gate: no schema changes so that a reader or writer, older or newer, would break."""

from __future__ import annotations

import copy
import json
from typing import Any

import fastavro
import pytest

from schemas import compatibility
from schemas.codec import RECORD_NAMES, codec, fingerprint_id, history, schema_text
from schemas.errors import CompatibilityError
from schemas.topics import TOPICS

SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "R",
    "fields": [
        {"name": "a", "type": "long"},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["X", "Y"]}},
        {"name": "levels", "type": {"type": "array", "items": "long"}},
        {"name": "maybe", "type": ["null", "long"], "default": None},
    ],
}


def changed(**by_field: Any) -> dict[str, Any]:
    """SCHEMA with fields replaced, added (a whole field) or removed (None)."""
    schema = copy.deepcopy(SCHEMA)
    for name, field in by_field.items():
        schema["fields"] = [f for f in schema["fields"] if f["name"] != name]
        if field is not None:
            schema["fields"].append({"name": name, **field})
    return schema


BREAKING = {
    "a field without a default is new": changed(b={"type": "long"}),
    "a field without a default is gone": changed(a=None),
    "a type is another one": changed(a={"type": "string"}),
    "a type is narrower": changed(a={"type": "int"}),
    "a type is wider": changed(levels={"type": {"type": "array", "items": "double"}}),
    "an item is another type": changed(levels={"type": {"type": "array", "items": "string"}}),
    "an array is a scalar": changed(levels={"type": "long"}),
    "an enum lost a symbol": changed(kind={"type": {"type": "enum", "name": "K", "symbols": ["X"]}}),
    "an enum has a new symbol and no default": changed(kind={"type": {"type": "enum", "name": "K", "symbols": ["X", "Y", "Z"]}}),
    "a field may be null now": changed(a={"type": ["null", "long"]}),
    "a field may not be null any more": changed(maybe={"type": "long", "default": 0}),
    "a union lost a branch": changed(maybe={"type": ["null", "string"], "default": None}),
    "the record has another name": {**SCHEMA, "name": "S"},
}
HARMLESS = {
    "nothing": SCHEMA,
    "a field with a default is new": changed(b={"type": "long", "default": 0}),
    "a field with a default is gone": changed(maybe=None),
    "fields stand in another order": {**SCHEMA, "fields": SCHEMA["fields"][::-1]},
    "words of documentation": {**SCHEMA, "doc": "other words"},
}


@pytest.mark.parametrize("what", BREAKING)
def test_the_gate_refuses(what: str) -> None:
    with pytest.raises(CompatibilityError, match="version 1"):
        compatibility.check("R", BREAKING[what], [SCHEMA])


@pytest.mark.parametrize("what", HARMLESS)
def test_the_gate_lets_pass(what: str) -> None:
    compatibility.check("R", HARMLESS[what], [SCHEMA])


def test_every_committed_version_counts_not_only_the_last() -> None:
    with pytest.raises(CompatibilityError, match="version 1"):
        compatibility.check("R", SCHEMA, [changed(a={"type": "string"}), SCHEMA])


@pytest.mark.parametrize("name", RECORD_NAMES)
def test_each_schema_is_in_its_history_and_compatible_with_all_of_it(name: str) -> None:
    compatibility.check(name, json.loads(schema_text(name)), json.loads((compatibility.HISTORY / f"{name}.json").read_text()))
    assert fingerprint_id(history(name)[-1]) == fingerprint_id(json.loads(schema_text(name)))


def test_the_command_passes_on_what_is_committed(capsys: pytest.CaptureFixture[str]) -> None:
    assert compatibility.main([]) == 0
    assert "compatible" in capsys.readouterr().out


def test_the_command_fails_on_a_breaking_change_and_accept_does_not_hide_it(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in RECORD_NAMES:
        (tmp_path / f"{name}.json").write_text((compatibility.HISTORY / f"{name}.json").read_text())
    old = json.loads((tmp_path / "Trade.json").read_text())
    old[-1]["fields"].append({"name": "was_there", "type": "long"})
    (tmp_path / "Trade.json").write_text(json.dumps(old))
    monkeypatch.setattr(compatibility, "HISTORY", tmp_path)
    before = (tmp_path / "Trade.json").read_text()
    assert compatibility.main(["--accept"]) == 1
    assert "BREAKING Trade" in capsys.readouterr().out
    assert (tmp_path / "Trade.json").read_text() == before


def test_a_schema_that_is_not_in_its_history_is_asked_for_and_accepted(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compatibility, "HISTORY", tmp_path)
    assert compatibility.main([]) == 1
    assert "--accept" in capsys.readouterr().out
    assert compatibility.main(["--accept"]) == 0
    assert compatibility.main([]) == 0


def test_a_reader_resolves_an_older_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    older = json.loads(schema_text("BookEvent"))
    older["fields"] = [f for f in older["fields"] if f["name"] != "venue_checksum"]
    reader = codec("BookEvent")
    writer = fastavro.parse_schema(older, named_schemas={})
    header = bytes([0]) + fingerprint_id(writer).to_bytes(4, "big")
    monkeypatch.setitem(reader._writers, header, writer)
    from io import BytesIO

    record = {
        "venue": "v", "symbol": "A/B", "kind": "DELTA", "epoch": 1, "index": 0, "venue_seq": 1, "venue_prev_seq": 0,
        "ts_venue_us": 0, "ts_received_ns": 0, "price_exp": 0, "size_exp": 0, "bid_prices": [], "bid_sizes": [],
        "ask_prices": [], "ask_sizes": [],
    }  # fmt: skip
    body = BytesIO()
    fastavro.schemaless_writer(body, writer, record)
    assert reader.decode(header + body.getvalue()) == {**record, "venue_checksum": None, "exact": True}


def test_the_catalogue_names_only_records_that_exist() -> None:
    assert {topic.record for topic in TOPICS.values()} <= set(RECORD_NAMES)
    assert all(name == topic.name for name, topic in TOPICS.items())
