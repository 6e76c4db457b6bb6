# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""Avro bodies read and written by cavro, a compiled codec, where it is installed; fastavro stays the reference.

Whatever cavro refuses or cannot be sure of raises, and the caller then asks fastavro, which takes it or says what is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

Reader = Callable[[bytes], dict[str, Any]]
"""``read(body)``: the record of a body without its header. Raises anything for what fastavro should look at."""
Writer = Callable[[dict[str, Any]], bytes]
"""``write(record)``: the body. Raises anything for what fastavro should look at; no float, bool or Decimal is a long."""

TAIL = "_tail"
TAIL_SIZE = 8


def installed() -> bool:
    """Whether there is a cavro here."""
    try:
        import_module("cavro")
    except ImportError:
        return False
    return True


def reader(text: str) -> Reader:
    """Reads bodies written with this very schema (its .avsc)."""
    import cavro

    schema = _wide(json.loads(text))
    # cavro does not say how many bytes it has read. So a word that nobody can know is read behind the record: with bytes
    # left over, or too few, something else stands there.
    schema["fields"].append({"name": TAIL, "type": {"type": "fixed", "name": "Tail", "size": TAIL_SIZE}})
    tail = os.urandom(TAIL_SIZE)
    decode = cavro.Schema(json.dumps(schema), options=cavro.Options(record_decodes_to_dict=True)).binary_decode

    def read(body: bytes) -> dict[str, Any]:
        record = decode(body + tail)
        if record.pop(TAIL) != tail:
            raise ValueError("the record ends elsewhere")
        return record

    return read


def writer(text: str) -> Writer:
    """Writes bodies of this schema; fields with a default may be missing."""
    import cavro

    return cavro.Schema(text).binary_encode


def _wide(schema: Any) -> Any:
    """The same with long for int: the bytes are alike, and cavro cuts off what does not fit 32 bits without a word."""
    if schema == "int":
        return "long"
    if isinstance(schema, list):
        return [_wide(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: value if key in ("name", "doc", "symbols", "default") else _wide(value) for key, value in schema.items()}
    return schema
