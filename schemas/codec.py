# pyright: reportUnknownMemberType=false
"""Avro in the Confluent wire format: magic byte 0, 4-byte big-endian schema id, the record's Avro body.

Without a registry the id is 31 bits of the canonical schema's SHA-256 fingerprint, so every process agrees with no
server. With SCHEMA_REGISTRY_URL set, ids come from the registry and unknown ones are looked up there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from io import BytesIO
from typing import Any

import fastavro
from fastavro.schema import to_parsing_canonical_form

from schemas import compiled
from schemas.errors import DecodeError, EncodeError, SchemaError
from schemas.fast_encoder import RowEncoder, fast_encoder, row_encoder, row_writer

Record = dict[str, Any]
MAGIC = 0
HEADER_SIZE = 5
MANY = 1000
"""Records read after which the compiled codec is worth its start: a fifth of a second and 20 MB."""
INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1
RECORD_NAMES = tuple(
    sorted(file.name.removesuffix(".avsc") for file in resources.files("schemas").iterdir() if file.name.endswith(".avsc"))
)


def schema_text(name: str) -> str:
    """The committed .avsc of a record."""
    try:
        return resources.files("schemas").joinpath(f"{name}.avsc").read_text("utf-8")
    except FileNotFoundError:
        raise SchemaError(f"no schema named {name!r}; known: {', '.join(RECORD_NAMES)}") from None


def fingerprint_id(schema: Any) -> int:
    """31 bits of the SHA-256 of the schema's canonical form: a schema id that needs no server."""
    digest = hashlib.sha256(to_parsing_canonical_form(schema).encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


@cache
def parsed(name: str) -> Any:
    """The record's schema as fastavro wants it."""
    return fastavro.parse_schema(json.loads(schema_text(name)), named_schemas={})


@cache
def history(name: str) -> tuple[Any, ...]:
    """Every committed version of the record's schema, oldest first (see schemas/history)."""
    text = resources.files("schemas").joinpath("history", f"{name}.json").read_text("utf-8")
    return tuple(fastavro.parse_schema(s, named_schemas={}) for s in json.loads(text))


def _fields_of(name: str, *kinds: str) -> tuple[str, ...]:
    """The record's own fields of these types; those with a default may be missing and are left out."""
    fields: list[dict[str, Any]] = json.loads(schema_text(name))["fields"]
    found: list[str] = []
    for field in fields:
        kind = field["type"]
        if kind == {"type": "array", "items": "long"}:
            kind = "array of long"
        if kind in kinds and "default" not in field:
            found.append(field["name"])
    return tuple(found)


class Codec:
    """Encodes and decodes one record type.

    ``encode(record) -> bytes`` raises EncodeError; ``decode(bytes) -> record`` raises DecodeError, and nothing else.
    Neither blocks, except that an id unknown to a codec with a registry is looked up there once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.schema = parsed(name)
        registry = _registry()
        self.schema_id = registry.register(name) if registry else fingerprint_id(self.schema)
        self._header = bytes([MAGIC]) + self.schema_id.to_bytes(4, "big")
        self._read: compiled.Reader | None = None
        self._read_slowly = 0
        self._fast = fast_encoder(self.schema, self._header)
        self.encode_row: RowEncoder = row_encoder(self.schema, self._header, self.encode)
        """``encode`` with every field as a keyword argument instead of a record: the hot path makes no dict."""
        # fastavro takes a float or a Decimal for a long and cuts it off without a word, and any size for an int.
        self._whole = _fields_of(name, "int", "long")
        self._ints = _fields_of(name, "int")
        self._arrays = _fields_of(name, "array of long")
        self._writers: dict[bytes, Any] = {self._header: self.schema}
        for old in history(name):
            self._writers.setdefault(bytes([MAGIC]) + fingerprint_id(old).to_bytes(4, "big"), old)

    def hurry(self) -> Codec:
        """For who reads or writes many: start the compiled codec now, where there is one. Take ``encode_row`` afterwards.

        It writes only what holds arrays of numbers: flat records are written in half its time by ``fast_encoder``.
        """
        if self._read is None and compiled.installed():
            text, header = schema_text(self.name), self._header
            self._read = compiled.reader(text)
            if self._fast is not None and not self._arrays:
                return self
            write = compiled.writer(text)

            def encode(record: Record) -> bytes:
                return header + write(record)

            self._fast = encode
            self.encode_row = row_writer(self.schema, header, write, self.encode)
        return self

    def encode(self, record: Record) -> bytes:
        """The record in the Confluent wire format."""
        if self._fast is not None:
            try:
                return self._fast(record)
            except Exception:  # noqa: S110
                pass  # long, or wrong: below is the way that says what is wrong
        out = BytesIO()
        out.write(self._header)
        try:
            self._refuse_inexact(record)
            fastavro.schemaless_writer(out, self.schema, record)
        except Exception as error:  # fastavro raises many types for a wrong value
            raise EncodeError(f"{self.name}: {type(error).__name__}: {error}") from error
        return out.getvalue()

    def _refuse_inexact(self, record: Record) -> None:
        for field in self._whole:
            if type(record[field]) is not int:
                raise TypeError(f"{field} is not an integer: {record[field]!r}")
        for field in self._ints:
            if not INT_MIN <= record[field] <= INT_MAX:
                raise ValueError(f"{field} does not fit 32 bits: {record[field]}")
        for field in self._arrays:
            # One float or Decimal makes the sum one: the fastest look at every item.
            if type(sum(record[field])) is not int:
                raise TypeError(f"{field} holds something else than integers")

    def decode(self, data: bytes) -> Record:
        """The record of these bytes, resolved from the writer's schema to ours; trailing bytes are an error."""
        header = data[:HEADER_SIZE]
        if self._read is not None and header == self._header:
            try:
                return self._in_range(self._read(data[HEADER_SIZE:]))
            except Exception:  # noqa: S110  # corrupt, or beyond what it reads: below is the way that says what is wrong
                pass
        self._read_slowly += 1
        if self._read_slowly == MANY:
            self.hurry()
        writer = self._writers.get(header) or self._find_writer(data)
        body = BytesIO(data)
        body.seek(HEADER_SIZE)
        try:
            record = (
                fastavro.schemaless_reader(body, writer, None)
                if writer is self.schema
                else fastavro.schemaless_reader(body, writer, self.schema)
            )
        except Exception as error:  # corrupt bytes reach fastavro as many types of error
            raise DecodeError(f"{self.name}: {type(error).__name__}: {error}") from error
        if body.tell() != len(data):
            raise DecodeError(f"{self.name}: {len(data) - body.tell()} bytes left over after the record")
        return self._in_range(record)  # pyright: ignore[reportArgumentType]

    def _in_range(self, record: Record) -> Record:
        for field in self._ints:
            if not INT_MIN <= record[field] <= INT_MAX:
                raise DecodeError(f"{self.name}: {field} does not fit 32 bits")
        return record

    def _find_writer(self, data: bytes) -> Any:
        if len(data) < HEADER_SIZE:
            raise DecodeError(f"{self.name}: {len(data)} bytes are too short for a record")
        if data[0] != MAGIC:
            raise DecodeError(f"{self.name}: first byte is {data[0]}, not {MAGIC}: not the Confluent wire format")
        schema_id = int.from_bytes(data[1:HEADER_SIZE], "big")
        registry = _registry()
        if registry is None:
            raise DecodeError(f"{self.name}: unknown schema id {schema_id}")
        writer = registry.lookup(schema_id)
        if writer.get("name", "").rpartition(".")[2] != self.name:
            raise DecodeError(f"{self.name}: schema id {schema_id} is of record {writer.get('name')}")
        self._writers[data[:HEADER_SIZE]] = writer
        return writer


@cache
def codec(name: str) -> Codec:
    """The codec of a record by its name, made once for each process."""
    return Codec(name)


def encoder(name: str) -> Callable[[Record], bytes]:
    """``codec(name).encode``, for the hot path."""
    return codec(name).encode


class _Registry:
    """The few calls that the codec makes to a schema registry."""

    def __init__(self, url: str) -> None:
        try:
            from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
        except ImportError as error:
            raise SchemaError("SCHEMA_REGISTRY_URL is set: install venue-mirror[registry]") from error
        self._schema = Schema
        self._client = SchemaRegistryClient({"url": url})

    def register(self, name: str) -> int:
        subject = f"venue_mirror.{name}"
        try:
            return self._client.register_schema(subject, self._schema(schema_text(name), "AVRO"))
        except Exception as error:
            raise SchemaError(f"the schema registry did not take {subject}: {error}") from error

    def lookup(self, schema_id: int) -> Any:
        try:
            text = self._client.get_schema(schema_id).schema_str
            return fastavro.parse_schema(json.loads(text or ""), named_schemas={})
        except Exception as error:
            raise DecodeError(f"schema id {schema_id} is not in the registry: {error}") from error


@cache
def _registry() -> _Registry | None:
    url = os.environ.get("SCHEMA_REGISTRY_URL", "").strip()
    return _Registry(url) if url else None
