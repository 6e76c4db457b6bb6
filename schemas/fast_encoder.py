"""Avro bodies of flat records without a general writer: one function a schema, made of the schema's own fields.

Most of what is encoded are events of a few numbers, and for those a general writer's way from field to field costs more
than the numbers. The bytes are fastavro's, byte for byte; what such a function cannot or may not encode it refuses by
raising, and the codec then takes the general way, which encodes it or says what is wrong.

Source: Apache Avro specification, "Binary encoding": zigzag varints, strings and arrays with their length before them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Encoder = Callable[[dict[str, Any]], bytes]
"""Raises one of REFUSED for what the general writer should look at."""
RowEncoder = Callable[..., bytes]
"""``encode(*, venue=…, symbol=…, …)`` with every field of the record; raises what the general writer raises."""

REFUSED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
FEW = 12
"""Numbers in an array up to which this is faster than the general writer in C."""
RECUR = ("venue", "symbol", "chain", "pool", "event")
"""Fields whose strings are encoded once and remembered."""
REMEMBERED = 1 << 14
SHORT = 128
"""Bytes of an encoded list of strings that is remembered."""
OWN_NAMES = frozenset({"n", "type", "header", "general", "varint", "longs", "blob", "blobs", "write"})
"""No field of a row may be called so: the generated lines use these names."""
FINAL = [bytes([n]) if n < 128 else bytes([n & 127 | 128, n >> 7]) for n in range(1 << 14)]
"""The varint of each number below 2^14."""
MORE = [bytes([n & 127 | 128, n >> 7 | 128]) for n in range(1 << 14)]
"""The same 14 bits where more follow."""


class High(dict[int, bytes]):
    """The varint of a number's bits above the lowest 28: those of a clock change once in seconds, so they recur.

    Bounded: it forgets everything when it remembers REMEMBERED. Raises IndexError for what is below zero or above 36 bits.
    """

    def __missing__(self, high: int) -> bytes:
        data = varint(high)
        if high >= 1 << 36:
            raise IndexError("beyond 64 bits")
        if len(self) >= REMEMBERED:
            self.clear()
        self[high] = data
        return data


HIGH = High()


def varint(n: int) -> bytes:
    """A number from 0 to 2^64 - 1 as seven bits a byte, lowest first. Raises IndexError beyond."""
    if n < 1 << 14:
        return FINAL[n]
    if n < 1 << 28:
        return MORE[n & 16383] + FINAL[n >> 14]
    if n < 1 << 42:
        return MORE[n & 16383] + MORE[n >> 14 & 16383] + FINAL[n >> 28]
    if n < 1 << 56:
        return MORE[n & 16383] + MORE[n >> 14 & 16383] + MORE[n >> 28 & 16383] + FINAL[n >> 42]
    if n < 1 << 64:
        return MORE[n & 16383] + MORE[n >> 14 & 16383] + MORE[n >> 28 & 16383] + MORE[n >> 42 & 16383] + FINAL[n >> 56]
    raise IndexError("beyond 64 bits")


def longs(values: list[int]) -> bytes:
    """An array of longs. Raises ValueError or TypeError when it is long, no list, or holds something else than integers."""
    if type(values) is not list:
        raise TypeError("for the general writer")
    count = len(values)
    if not count:
        return b"\0"
    if count > FEW or type(sum(values)) is not int:
        raise ValueError("for the general writer")
    out = FINAL[count << 1]
    for v in values:
        n = v << 1 if v >= 0 else (v << 1) ^ (v >> 63)
        # Most prices and sizes are in the middle case, which saves them a call.
        if n < 1 << 14:
            out += FINAL[n]
        elif n < 1 << 28:
            out += MORE[n & 16383] + FINAL[n >> 14]
        else:
            out += MORE[n & 16383] + MORE[n >> 14 & 16383] + HIGH[n >> 28]
    return out + b"\0"


class Texts(dict[str, bytes]):
    """Encoded strings that recur in every record of a book. Bounded: it forgets everything when it remembers REMEMBERED."""

    def __missing__(self, text: str) -> bytes:
        data = text.encode()
        data = varint(len(data) << 1) + data
        if len(self) >= REMEMBERED:
            self.clear()
        self[text] = data
        return data


TEXTS = Texts()


class TextLists(dict[tuple[str, ...], bytes]):
    """Encoded lists of strings, of which short ones recur: the names of slots. Bounded as Texts is."""

    def __missing__(self, texts: tuple[str, ...]) -> bytes:
        parts = [text.encode() for text in texts]
        body = b"".join([varint(len(part) << 1) + part for part in parts])
        data = varint(len(texts) << 1) + body + b"\0" if texts else b"\0"
        if len(data) <= SHORT:
            if len(self) >= REMEMBERED:
                self.clear()
            self[texts] = data
        return data


TEXT_LISTS = TextLists()


def blob(data: bytes) -> bytes:
    """A bytes value. Raises TypeError for anything else."""
    if type(data) is not bytes:
        raise TypeError("for the general writer")
    return FINAL[len(data) << 1] + data


def blobs(values: list[bytes]) -> bytes:
    """An array of bytes."""
    return FINAL[len(values) << 1] + b"".join([blob(v) for v in values]) + b"\0" if values else b"\0"


def fast_encoder(schema: dict[str, Any], header: bytes) -> Encoder | None:
    """The function that writes ``header`` and a record of this parsed schema; None: it has fields of other kinds."""
    names = [f"v{i}" for i in range(len(schema["fields"]))]
    made = _body_of(schema, header, names)
    if made is None:
        return None
    lines, scope = made
    read = [f"{name} = r[{field['name']!r}]" for name, field in zip(names, schema["fields"], strict=True)]
    return _made("def encode(r):", [*read, *lines], scope)


def row_encoder(schema: dict[str, Any], header: bytes, general: Encoder) -> RowEncoder:
    """The same with the fields as keyword arguments, in the schema's order for speed; ``general`` takes what it refuses."""
    names: list[str] = [field["name"] for field in schema["fields"]]
    made = _body_of(schema, header, names)
    if made is None or not OWN_NAMES.isdisjoint(names):

        def slowly(**record: Any) -> bytes:
            return general(record)

        return slowly
    lines, scope = made
    scope |= {"REFUSED": REFUSED, "general": general}
    record = ", ".join(f"{name!r}: {name}" for name in names)
    guarded = ["try:", *(f"    {line}" for line in lines), "except REFUSED:", f"    return general({{{record}}})"]
    return _made(f"def encode(*, {', '.join(names)}):", guarded, scope)


def row_writer(schema: dict[str, Any], header: bytes, write: Encoder, general: Encoder) -> RowEncoder:
    """A row encoder by ``write``, which writes a record's body; ``general`` takes what it refuses."""
    names: list[str] = [field["name"] for field in schema["fields"]]
    if not OWN_NAMES.isdisjoint(names):
        return row_encoder(schema, header, general)
    record = ", ".join(f"{name!r}: {name}" for name in names)
    lines = ["try:", f"    return header + write({{{record}}})", "except Exception:", f"    return general({{{record}}})"]
    return _made(f"def encode(*, {', '.join(names)}):", lines, {"header": header, "write": write, "general": general})


def _made(head: str, lines: list[str], scope: dict[str, Any]) -> Any:
    exec("\n    ".join([head, *lines]), scope)  # noqa: S102  # the text is made of our own schemas' field names
    return scope["encode"]


def _body_of(schema: dict[str, Any], header: bytes, names: list[str]) -> tuple[list[str], dict[str, Any]] | None:
    """The lines that return the record whose fields stand under these names, and what the lines use."""
    scope: dict[str, Any] = {
        "varint": varint, "longs": longs, "blob": blob, "blobs": blobs, "FINAL": FINAL, "MORE": MORE, "HIGH": HIGH,
        "header": header, "TEXTS": TEXTS, "TEXT_LISTS": TEXT_LISTS,
    }  # fmt: skip
    arrays: list[str] = []
    lines: list[str] = []
    for i, (name, field) in enumerate(zip(names, schema["fields"], strict=True)):
        recurs = field["type"] == "string" and field["name"] in RECUR
        body = [f"b{i} = TEXTS[{name}]"] if recurs else _lines_of(field["type"], name, f"b{i}", scope)
        if body is None:
            return None
        # Arrays first: a long one makes the rest needless.
        (arrays if "longs(" in body[0] else lines).extend(body)
    parts = ", ".join(["header", *(f"b{i}" for i in range(len(schema["fields"])))])
    return [*arrays, *lines, f"return b''.join(({parts},))"], scope


def _lines_of(kind: Any, v: str, b: str, scope: dict[str, Any]) -> list[str] | None:
    """The lines that put the bytes of ``v`` into ``b``."""
    # The shorter varints without a call: exponents, lengths, prices.
    integer = [
        f"if type({v}) is not int: raise TypeError",
        f"n = {v} << 1 if {v} >= 0 else ({v} << 1) ^ ({v} >> 63)",
        f"{b} = FINAL[n] if n < 16384 else MORE[n & 16383] + FINAL[n >> 14] if n < 268435456 else "
        "MORE[n & 16383] + MORE[n >> 14 & 16383] + HIGH[n >> 28]",
    ]
    match kind:
        case "long":
            return integer
        case "int":
            return [f"if not -2147483648 <= {v} <= 2147483647: raise ValueError", *integer]
        case "string":
            return [f"{b} = {v}.encode()", f"n = len({b}) << 1", f"{b} = (FINAL[n] if n < 16384 else varint(n)) + {b}"]
        case "boolean":
            return [f"{b} = b'\\1' if {v} else b'\\0'"]
        case "bytes":
            return [f"{b} = blob({v})"]
        case {"type": "array", "items": "long"}:
            return [f"{b} = longs({v})"]
        case {"type": "array", "items": "string"}:
            return [f"{b} = TEXT_LISTS[tuple({v})]"]
        case {"type": "array", "items": "bytes"}:
            return [f"{b} = blobs({v})"]
        case {"type": "enum", "symbols": symbols}:
            scope[f"enum_{b}"] = {name: varint(n << 1) for n, name in enumerate(symbols)}
            return [f"{b} = enum_{b}[{v}]"]
        case ["null", inner] if (body := _lines_of(inner, v, b, scope)) is not None and isinstance(inner, str):
            return [f"if {v} is None: {b} = b'\\0'", "else:", *(f"    {line}" for line in body), f"    {b} = b'\\2' + {b}"]
        case _:
            return None
