"""A small coverage-guided fuzzer: inputs that reach new lines are kept and changed further.

No part of it knows what is fuzzed. Changes are made to bytes, to numbers in texts, and to JSON, whose places get values
that a venue, a node or a stranger might send. A failure is any error that the target does not allow; failures of the
same error at the same line are one, shown by its shortest input.
"""

from __future__ import annotations

import json
import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

LENGTH_MAX = 8192
KEPT_MAX = 400
SHRINK_S = 1.0
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 1e308, -0.0, 1e-9, 0.1, "", "0", "-1",
    "1e5", "1E-8", "NaN", "Infinity", "-0", "0x", "0x0", "0xzz", "0x" + "f" * 64, "0x" + "f" * 66, "1" * 400,
    "0." + "0" * 60 + "1", "٣", "\x00", "\ud800", "é" * 40, "BTC/USDT", "a|b",
    [], {}, [[]], [None], [["1"]], [["1", "2"], ["1", "2"]], [[1, 2, 3, 4, 5]], {"": ""},
)  # fmt: skip
BYTES = (
    b"", b"\x00", b"\xff", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"-", b"1e9", b"null", b"\x80\x80\x80\x80\x08",
    b"\xff" * 9,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What is fuzzed. ``run`` may raise what it likes: what it raises is a failure."""

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    files: tuple[str, ...]
    """Ends of the paths of files whose lines count as coverage, or parts of them."""


@dataclass
class Failure:
    """One way in which a target failed."""

    target: str
    error: str
    trace: str
    data: bytes


@dataclass
class Outcome:
    """What came of one target."""

    target: str
    runs: int = 0
    lines: int = 0
    kept: list[bytes] = field(default_factory=list[bytes])
    """Inputs beyond the seeds that reached lines which nothing before them had."""
    failures: dict[str, Failure] = field(default_factory=dict[str, Failure])


class Coverage:
    """Lines reached in chosen files."""

    def __init__(self, files: tuple[str, ...]) -> None:
        self._files = files
        self.reached: set[tuple[CodeType, int]] = set()
        self._wanted: dict[CodeType, bool] = {}

    def of(self, run: Callable[[], object]) -> bool:
        """Run it; gives whether a new line was reached. What it raises passes through."""
        before = len(self.reached)
        sys.settrace(self._call)
        try:
            run()
        finally:
            sys.settrace(None)
        return len(self.reached) > before

    def _call(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        wanted = self._wanted.get(code)
        if wanted is None:
            wanted = self._wanted[code] = any(part in code.co_filename for part in self._files)
        if not wanted:
            return None
        reached = self.reached

        def line(frame: FrameType, event: str, _: Any) -> Any:
            reached.add((code, frame.f_lineno))
            return line

        return line


def fuzz(target: Target, seconds: float, seed: int, runs: int = 0) -> Outcome:
    """Fuzz for so long, or so many ``runs``."""
    chance = random.Random(f"{target.name} {seed}")
    coverage, out = Coverage(target.files), Outcome(target.name)
    pool = list(target.seeds) or [b""]
    end = time.monotonic() + seconds

    def attempt(data: bytes) -> bool:
        out.runs += 1
        try:
            return coverage.of(lambda: target.run(data))
        except Exception as error:
            _note(target, out, data, error)
            return False

    for data in target.seeds:
        attempt(data)
    while (out.runs < runs) if runs else (time.monotonic() < end):
        data = changed(chance, chance.choice(pool), pool)
        if attempt(data) and len(pool) < KEPT_MAX:
            pool.append(data)
            out.kept.append(data)
    out.lines = len(coverage.reached)
    return out


def signature(error: Exception) -> str:
    """What makes two failures one: the error's type and the line of ours that raised it."""
    told = traceback.extract_tb(error.__traceback__)
    frames = [f for f in told if "site-packages" not in f.filename and "tests/fuzz" not in f.filename]
    where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].name}" if frames else "the target itself"
    return f"{type(error).__name__} in {where}"


def _note(target: Target, out: Outcome, data: bytes, error: Exception) -> None:
    name = signature(error)
    if name not in out.failures:
        data = _shortened(target, data, name)
        out.failures[name] = Failure(target.name, name, "".join(traceback.format_exception(error)[-6:]), data)


def _shortened(target: Target, data: bytes, name: str) -> bytes:
    end, step = time.monotonic() + SHRINK_S, max(1, len(data) // 2)
    while step and time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            shorter = data[:at] + data[at + step :]
            try:
                target.run(shorter)
            except Exception as error:
                if signature(error) == name:
                    data = shorter
                    continue
            at += step
        step //= 2
    return data


def changed(chance: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    """Another input made of this one."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        how = chance.random()
        if how < 0.55 and (made := _json_changed(chance, data)) is not None:
            data = made
        elif how < 0.65 and pool:
            other = chance.choice(pool)
            data = data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]
        else:
            data = _bytes_changed(chance, data)
    return data[:LENGTH_MAX]


def _bytes_changed(chance: random.Random, data: bytes) -> bytes:
    at = chance.randint(0, len(data))
    match chance.randint(0, 4):
        case 0:
            return data[:at] + chance.choice(BYTES) + data[at:]
        case 1:
            return data[:at] + data[at + chance.randint(1, 8) :]
        case 2:
            return data[:at] + bytes([chance.randint(0, 255)]) + data[at + 1 :]
        case 3:
            to = min(len(data), at + chance.randint(1, 40))
            return data[:to] + data[at:to] + data[to:]
        case _:
            return data[:at]


def _json_changed(chance: random.Random, data: bytes) -> bytes | None:
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return None
    places: list[tuple[Any, Any]] = []
    _places(whole, places)
    if not places:
        return json.dumps(chance.choice(VALUES)).encode()
    inside, key = chance.choice(places)
    match chance.randint(0, 5):
        case 0:
            del inside[key]
        case 1:
            inside[key] = inside[chance.choice(list(inside))] if isinstance(inside, dict) else chance.choice(inside)
        case 2 if isinstance(inside, list):
            inside.insert(key, inside[key])
        case 3 if isinstance(inside[key], str | int | float) and not isinstance(inside[key], bool):
            text = str(inside[key])
            at = chance.randint(0, len(text))
            text = text[:at] + chance.choice(("0", "9", "-", ".", "e", " ", "")) + text[at + chance.randint(0, 1) :]
            inside[key] = text if isinstance(inside[key], str) or not text.removeprefix("-").isdecimal() else int(text[:400])
        case _:
            inside[key] = chance.choice(VALUES)
    try:
        return json.dumps(whole, separators=(",", ":"), ensure_ascii=chance.random() < 0.8).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None


def _places(value: Any, out: list[tuple[Any, Any]]) -> None:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        out.append((value, key))
        _places(inner, out)
