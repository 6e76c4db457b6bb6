"""Captures: what a venue sent, line by line, in either of the two formats that circulate.

H: ``RECV_NS JSON``, a received frame (or a REST answer) a line.
C: ``ADDR <-> TS`` connected, ``ADDR <- TS: JSON`` sent, ``TS: JSON`` received, ``URL -> TS: JSON`` a REST answer; TS in
seconds. A frame may be written as a Python bytes literal of a gzip stream. Files may be gzipped or plain.
"""

from __future__ import annotations

import ast
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Literal, cast

GZIP_MAGIC = b"\x1f\x8b"
LINE_MAX = 64 * 1024 * 1024
"""Bytes of a line, and of a frame after inflating: more is no capture but an attack on memory."""
SECONDS = re.compile(rb"\d{1,12}(\.\d{1,12})?")


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
    """The lines of all files, one file after the other. Raises CaptureError, at the line that cannot be read."""
    for path in paths:
        number = 0
        try:
            with _open(path) as file:
                while raw := file.readline(LINE_MAX):
                    number += 1
                    line = raw.strip(b"\r\n")
                    if line.strip():
                        yield _parse(line)
        except (OSError, EOFError, zlib.error) as error:
            raise CaptureError(f"{path} cannot be read after line {number}: {error}") from error
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise CaptureError(f"{path}, line {number}: {error or type(error).__name__}") from error


def with_answers(path: Path) -> list[Path]:
    """The capture, and the REST answers that lie beside it."""
    beside = path.with_name(path.name.replace(".txt.gz", ".http.txt.gz"))
    return [path, beside] if beside != path and beside.exists() else [path]


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        magic = file.read(2)
    return cast(BinaryIO, gzip.open(path, "rb")) if magic == GZIP_MAGIC else path.open("rb")


def _parse(line: bytes) -> CaptureLine:
    head, space, rest = line.partition(b" ")
    if head.isdigit() and space:
        if len(head) > 20:
            raise ValueError(f"no time in nanoseconds: {head[:30]!r}")
        kind = "rest" if rest.startswith(b'{"lastUpdateId"') else "frame"
        return CaptureLine(int(head), kind, rest)
    if head.endswith(b":") and space and SECONDS.fullmatch(head[:-1]):
        return CaptureLine(_ns(head[:-1]), "frame", _frame(rest))
    arrow, _, rest = rest.partition(b" ")
    if arrow == b"<->":
        return CaptureLine(_ns(rest), "connect", b"", head.decode())
    stamp, colon, body = rest.partition(b": ")
    if colon and arrow == b"<-":
        return CaptureLine(_ns(stamp), "sent", body, head.decode())
    if colon and arrow == b"->":
        return CaptureLine(_ns(stamp), "rest", _frame(body), head.decode())
    raise ValueError(f"neither format H nor C: {line[:60]!r}")


def _ns(text: bytes) -> int:
    if not SECONDS.fullmatch(text):
        raise ValueError(f"no time in seconds: {text[:30]!r}")
    return int(Decimal(text.decode()) * 1_000_000_000)


def _frame(body: bytes) -> bytes:
    if body[:2] not in (b"b'", b'b"'):
        return body
    value = ast.literal_eval(body.decode())
    if not isinstance(value, bytes):
        raise ValueError("not a bytes literal")
    if value[:2] != GZIP_MAGIC:
        return value
    inflater = zlib.decompressobj(wbits=31)
    try:
        frame = inflater.decompress(value, LINE_MAX)
    except zlib.error as error:
        raise ValueError(f"a frame that cannot be inflated: {error}") from error
    if not inflater.eof:
        raise ValueError(f"a gzipped frame that is cut off, or longer than {LINE_MAX} bytes")
    return frame
