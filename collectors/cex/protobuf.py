"""Reading Protocol Buffers without generated classes: a message as its fields, nothing else.

Source: Protocol Buffers documentation, "Encoding". Field numbers and their meaning are the adapter's.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) in the order of the wire: an unsigned integer, or the bytes of a text or message.

    Fixed-width fields are skipped. Raises ValueError where the bytes are no message.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if not number:
            raise ValueError("a field of number 0")
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at + size > end:
            raise ValueError("a message that is cut off")
        if kind == BYTES:
            yield number, data[at : at + size]
        at += size


def texts(data: bytes) -> dict[int, str]:
    """The text fields of a flat message. Raises ValueError."""
    return {number: value.decode() for number, value in fields(data) if isinstance(value, bytes)}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a message that is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a varint of more than ten bytes")
