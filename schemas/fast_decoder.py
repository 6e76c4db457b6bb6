# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""Avro bodies read by cavro, a compiled reader, where it is installed; fastavro stays the reference and the way without it.

Whatever cavro refuses or cannot be sure of raises, and the codec then asks fastavro, which reads it or says what is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

Decoder = Callable[[bytes], dict[str, Any]]
"""``decode(body)``: the record of a body without its header. Raises anything for what fastavro should look at."""

TAIL = "_tail"
TAIL_SIZE = 8


def fast_decoder(text: str) -> Decoder | None:
    """A reader of bodies written with this very schema (its .avsc); None: cavro is not installed."""
    try:
        import cavro
    except ImportError:
        return None
    schema = _wide(json.loads(text))
    # cavro does not say how many bytes it has read. So a word that nobody can know is read behind the record: with bytes
    # left over, or too few, something else stands there.
    schema["fields"].append({"name": TAIL, "type": {"type": "fixed", "name": "Tail", "size": TAIL_SIZE}})
    tail = os.urandom(TAIL_SIZE)
    read = cavro.Schema(json.dumps(schema), options=cavro.Options(record_decodes_to_dict=True)).binary_decode

    def decode(body: bytes) -> dict[str, Any]:
        record = read(body + tail)
        if record.pop(TAIL) != tail:
            raise ValueError("the record ends elsewhere")
        return record

    return decode


def _wide(schema: Any) -> Any:
    """The same with long for int: the bytes are alike, and cavro cuts off what does not fit 32 bits without a word."""
    if schema == "int":
        return "long"
    if isinstance(schema, list):
        return [_wide(branch) for branch in schema]
    if isinstance(schema, dict):
        return {key: value if key in ("name", "doc", "symbols", "default") else _wide(value) for key, value in schema.items()}
    return schema
