"""Captures: what a venue sent, line by line, in either of the two formats that circulate.

H: ``RECV_NS JSON``, a received frame (or a REST answer) a line.
C: ``ADDR <-> TS`` connected, ``ADDR <- TS: JSON`` sent, ``TS: JSON`` received, ``URL -> TS: JSON`` a REST answer; TS in
seconds. A frame may be written as a Python bytes literal of a gzip stream. Files may be gzipped or plain.
"""

from __future__ import annotations

import ast
import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import BinaryIO, Literal, cast

GZIP_MAGIC = b"\x1f\x8b"
FRAME_MAX = 64 * 1024 * 1024


class CaptureError(Exception):
    """A file is no capture; the text names the file and the line."""


@dataclass(frozen=True, slots=True)
class CaptureLine:
    """One line. ``ts_ns`` is the recorder's clock, nanoseconds since the epoch; ``url`` names a REST call or a socket."""

    ts_ns: int
    kind: Literal["frame", "rest", "sent", "connect"]
    data: bytes
    url: str = ""


def read_capture(paths: Iterable[Path]) -> Iterator[CaptureLine]:
    """The lines of all files, one file after the other. Raises CaptureError."""
    for path in paths:
        try:
            with _open(path) as file:
                for number, raw in enumerate(file, 1):
                    line = raw.strip(b"\r\n")
                    if line.strip():
                        try:
                            yield _parse(line)
                        except (ValueError, SyntaxError, InvalidOperation, zlib.error, OSError) as error:
                            raise CaptureError(f"{path}, line {number}: {error}") from error
        except (OSError, EOFError, zlib.error) as error:
            raise CaptureError(f"{path} cannot be read: {error}") from error


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        magic = file.read(2)
    return cast(BinaryIO, gzip.open(path, "rb")) if magic == GZIP_MAGIC else path.open("rb")


def _parse(line: bytes) -> CaptureLine:
    head, space, rest = line.partition(b" ")
    if head.isdigit() and space:
        kind = "rest" if rest.startswith(b'{"lastUpdateId"') else "frame"
        return CaptureLine(int(head), kind, rest)
    if head.endswith(b":") and space:
        return CaptureLine(_ns(head[:-1]), "frame", _frame(rest))
    arrow, _, rest = rest.partition(b" ")
    if arrow == b"<->":
        return CaptureLine(_ns(rest), "connect", b"", head.decode())
    stamp, colon, body = rest.partition(b": ")
    if not colon:
        raise ValueError(f"neither format H nor C: {line[:60]!r}")
    if arrow == b"<-":
        return CaptureLine(_ns(stamp), "sent", body, head.decode())
    if arrow == b"->":
        return CaptureLine(_ns(stamp), "rest", _frame(body), head.decode())
    raise ValueError(f"neither format H nor C: {line[:60]!r}")


def _ns(text: bytes) -> int:
    return int(Decimal(text.decode()) * 1_000_000_000)


def _frame(body: bytes) -> bytes:
    if body[:2] not in (b"b'", b'b"'):
        return body
    value = ast.literal_eval(body.decode())
    if not isinstance(value, bytes):
        raise ValueError("not a bytes literal")
    return gzip.decompress(value) if value[:2] == GZIP_MAGIC else value
