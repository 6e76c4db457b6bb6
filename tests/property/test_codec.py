"""Laws of the codec: decode∘encode is identity for every record, and bad bytes are one named error."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import compiled
from schemas.codec import HEADER_SIZE, MAGIC, RECORD_NAMES, Codec, codec, fingerprint_id, parsed, schema_text
from schemas.errors import DecodeError, EncodeError, SchemaError
from schemas.fast_encoder import FEW, REFUSED, fast_encoder

LONG = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([0, -1, 1, -(1 << 63), (1 << 63) - 1]))
INT = st.one_of(st.integers(-(1 << 31), (1 << 31) - 1), st.sampled_from([0, -1, -(1 << 31), (1 << 31) - 1]))


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value that an Avro type takes."""
    if isinstance(kind, list):
        return st.one_of([values(branch) for branch in kind])
    name = kind["type"] if isinstance(kind, dict) else kind
    match name:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "int":
            return INT
        case "long":
            return LONG
        case "string":
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
        case "bytes":
            return st.binary(max_size=50)
        case "enum":
            return st.sampled_from(kind["symbols"])
        case "array":
            return st.lists(values(kind["items"]), max_size=8)
        case "record":
            return st.fixed_dictionaries({f["name"]: values(f["type"]) for f in kind["fields"]})
        case _:
            raise AssertionError(f"a type that this test does not know yet: {kind}")


RECORDS = st.sampled_from(RECORD_NAMES).flatmap(
    lambda name: st.tuples(st.just(name), values(json.loads(schema_text(name))))
)


@given(RECORDS)
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
def test_decode_of_encode_is_the_record_itself(named: tuple[str, dict[str, Any]]) -> None:
    name, record = named
    data = codec(name).encode(record)
    assert data[0] == MAGIC
    assert int.from_bytes(data[1:HEADER_SIZE], "big") == codec(name).schema_id
    assert codec(name).decode(data) == record
    assert hurried(name).decode(data) == record


def typed(value: Any) -> Any:
    """The value with its types: True is not 1 here."""
    if isinstance(value, dict):
        return {key: typed(one) for key, one in value.items()}
    return [typed(one) for one in value] if isinstance(value, list) else (type(value), value)


@cache
def compiled_reader(name: str) -> compiled.Reader:
    if not compiled.installed():
        pytest.skip("cavro has no wheel for this Python; fastavro reads everything")
    return compiled.reader(schema_text(name))


@cache
def hurried(name: str) -> Codec:
    """A codec of its own, by the compiled one where there is one."""
    return Codec(name).hurry()


Made = Callable[[str], Codec]
MADE = pytest.mark.parametrize("made", [codec, hurried])
"""Both ways of a codec."""
DAMAGE = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["set", "insert", "cut"]), st.binary(max_size=12)), max_size=3)


@given(RECORDS, DAMAGE)
@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
def test_what_the_compiled_reader_takes_fastavro_reads_likewise(named: tuple[str, dict[str, Any]], damage: Any) -> None:
    name, record = named
    read = compiled_reader(name)
    body = as_fastavro(name, record)[HEADER_SIZE:]
    for at, how, data in damage:
        at %= len(body) + 1
        body = body[:at] if how == "cut" else body[:at] + data + body[at + (len(data) if how == "set" else 0) :]
    try:
        ours = read(body)
    except Exception:
        assert damage, "a whole record is read"
        return
    reference = BytesIO(body)
    assert typed(ours) == typed(fastavro.schemaless_reader(reference, parsed(name), None))
    assert reference.tell() == len(body)


def as_fastavro(name: str, record: dict[str, Any]) -> bytes:
    """The reference: header and fastavro's own body."""
    out = BytesIO()
    out.write(bytes([MAGIC]) + codec(name).schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, parsed(name), record)
    return out.getvalue()


@given(RECORDS)
@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
def test_the_bytes_are_fastavros(named: tuple[str, dict[str, Any]]) -> None:
    name, record = named
    assert codec(name).encode(record) == as_fastavro(name, record)
    assert codec(name).encode_row(**record) == as_fastavro(name, record)
    assert hurried(name).encode(record) == as_fastavro(name, record)
    assert hurried(name).encode_row(**record) == as_fastavro(name, record)


EDGES = sorted({sign * (1 << bits) + d for bits in (6, 7, 13, 14, 27, 28, 31, 41, 42, 55, 56, 62, 63, 64) for sign in (1, -1)
                for d in (-1, 0, 1)})  # fmt: skip


@pytest.mark.parametrize("number", EDGES)
@pytest.mark.parametrize("place", ["alone", "in an array"])
def test_a_number_at_the_edge_of_a_length_is_fastavros_or_refused(number: int, place: str) -> None:
    record = {**book_event(), **({"epoch": number} if place == "alone" else {"ask_sizes": [1, number]})}
    fast = fast_encoder(parsed("BookEvent"), b"")
    assert fast is not None
    if -(1 << 63) <= number < 1 << 63:
        assert b"\0" + codec("BookEvent").schema_id.to_bytes(4, "big") + fast({**record, "exact": True}) == (
            as_fastavro("BookEvent", {**record, "exact": True})
        )
    else:
        with pytest.raises(REFUSED):
            fast({**record, "exact": True})
        for made in (codec, hurried):
            with pytest.raises(EncodeError):
                made("BookEvent").encode(record)


@pytest.mark.parametrize("count", [0, 1, FEW - 1, FEW, FEW + 1, 400])
def test_arrays_of_any_length_are_fastavros(count: int) -> None:
    record = {**book_event(), "bid_prices": list(range(count)), "bid_sizes": list(range(1 << 40, (1 << 40) + count))}
    assert codec("BookEvent").encode(record) == as_fastavro("BookEvent", record)
    assert hurried("BookEvent").encode(record) == as_fastavro("BookEvent", record)
    assert codec("BookEvent").decode(codec("BookEvent").encode(record))["bid_sizes"] == record["bid_sizes"]


@given(RECORDS, st.data())
def test_a_shortened_record_is_a_decode_error(named: tuple[str, dict[str, Any]], draw: st.DataObject) -> None:
    name, record = named
    data = codec(name).encode(record)
    cut = draw.draw(st.integers(0, len(data) - 1))
    for made in (codec, hurried):
        with pytest.raises(DecodeError):
            made(name).decode(data[:cut])


@given(RECORDS, st.binary(min_size=1, max_size=20))
def test_bytes_after_the_record_are_a_decode_error(named: tuple[str, dict[str, Any]], more: bytes) -> None:
    name, record = named
    for made in (codec, hurried):
        with pytest.raises(DecodeError):
            made(name).decode(codec(name).encode(record) + more)


@given(RECORDS, st.data())
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
def test_a_flipped_bit_gives_a_decode_error_or_a_record_of_the_schema(
    named: tuple[str, dict[str, Any]], draw: st.DataObject
) -> None:
    name, record = named
    data = bytearray(codec(name).encode(record))
    bit = draw.draw(st.integers(0, len(data) * 8 - 1))
    data[bit // 8] ^= 1 << bit % 8
    try:
        other = hurried(name).decode(bytes(data))
    except DecodeError:
        return
    assert fastavro.validate(other, parsed(name), raise_errors=False)


@given(st.sampled_from(RECORD_NAMES), st.binary(max_size=200), st.booleans())
def test_random_bytes_are_a_decode_error_or_a_record_of_the_schema(name: str, body: bytes, headed: bool) -> None:
    data = (bytes([MAGIC]) + codec(name).schema_id.to_bytes(4, "big") if headed else b"") + body
    try:
        record = hurried(name).decode(data)
    except DecodeError:
        return
    assert fastavro.validate(record, parsed(name), raise_errors=False)


@given(st.integers(0, (1 << 32) - 1))
def test_an_unknown_schema_id_is_named_in_the_error(schema_id: int) -> None:
    if schema_id == codec("Trade").schema_id:
        return
    with pytest.raises(DecodeError, match=str(schema_id)):
        codec("Trade").decode(bytes([MAGIC]) + schema_id.to_bytes(4, "big") + b"\x00" * 40)


def test_a_record_of_another_schema_is_a_decode_error() -> None:
    data = codec("DeadLetter").encode(
        {"source_topic": "t", "source_partition": 0, "source_offset": 0, "error": "", "payload": b"",
         "payload_size": 0, "ts_ns": 0}
    )  # fmt: skip
    with pytest.raises(DecodeError):
        codec("Trade").decode(data)


def test_another_magic_byte_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="Confluent"):
        codec("Trade").decode(b"\x01\x00\x00\x00\x01rest")


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 1 << 63}, {"epoch": "1"}, {"epoch": True}, {"index": 1.0}, {"price_exp": 1 << 31}, {"kind": "NONE"},
        {"bid_prices": [1.5]}, {"bid_prices": None}, {"ask_sizes": [Decimal(1)]}, {"venue_checksum": 1.5}, {"venue": 5},
    ],
)  # fmt: skip
@MADE
def test_a_value_that_the_schema_does_not_take_is_an_encode_error(made: Made, change: dict[str, Any]) -> None:
    with pytest.raises(EncodeError):
        made("BookEvent").encode({**book_event(), **change})
    with pytest.raises(EncodeError):
        made("BookEvent").encode_row(**{**book_event(), "exact": True, **change})


@MADE
def test_a_missing_field_is_an_encode_error(made: Made) -> None:
    record = book_event()
    del record["epoch"]
    with pytest.raises(EncodeError):
        made("BookEvent").encode(record)


def test_every_process_derives_the_same_ids_and_no_two_schemas_share_one() -> None:
    ids = {name: fingerprint_id(parsed(name)) for name in RECORD_NAMES}
    assert len(set(ids.values())) == len(RECORD_NAMES)
    assert all(0 <= i < 1 << 31 for i in ids.values())
    assert ids == {name: Codec(name).schema_id for name in RECORD_NAMES}


def test_a_name_that_is_no_record_lists_those_that_are() -> None:
    with pytest.raises(SchemaError, match="BookEvent"):
        codec("Nothing")


def book_event() -> dict[str, Any]:
    return {
        "venue": "v", "symbol": "A/B", "kind": "DELTA", "epoch": 1, "index": 0, "venue_seq": -1, "venue_prev_seq": -1,
        "ts_venue_us": 0, "ts_received_ns": 0, "price_exp": -2, "size_exp": -3, "bid_prices": [1], "bid_sizes": [2],
        "ask_prices": [], "ask_sizes": [], "venue_checksum": None,
    }  # fmt: skip
