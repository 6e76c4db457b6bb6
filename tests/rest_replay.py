"""A capture with REST answers beside it, through real workers: each book is answered when its worker asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from simulator.capture_file import CaptureLine, read_capture
from tests.venue_replay import Replay, book_natives

NameOf = Callable[[str], str]
"""The instrument that a REST call's address asks for."""


def encoded(value: Any) -> bytes:
    """Compact JSON, as venues write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def lines_of(files: Iterable[Path]) -> list[CaptureLine]:
    """What was received, by stream and REST, in the order of the recorder's clock."""
    lines = [line for line in read_capture(files) if line.kind in ("frame", "rest")]
    return sorted(lines, key=lambda line: line.ts_ns)


def play(name: str, lines: Iterable[CaptureLine], native_of: NameOf = lambda url: url) -> Replay:
    """The workers after these lines."""
    lines = list(lines)
    rest = [line for line in lines if line.kind == "rest"]
    natives = {native_of(line.url) for line in rest} | book_natives(name, (x.data for x in lines if x.kind == "frame"))
    out = Replay(name, natives)
    out.subscribed()
    answers: dict[str, bytes] = {}
    for line in lines:
        if line.kind == "rest":
            answers[native_of(line.url)] = line.data
        else:
            out.receive(line.data, line.ts_ns)
        for worker in out.wanted[:]:
            if (body := answers.pop(worker.native, None)) is not None:
                out.wanted.remove(worker)
                worker.on_snapshot(out.venue.parse_snapshot(worker.native, body), line.ts_ns, worker.epoch)
    return out
