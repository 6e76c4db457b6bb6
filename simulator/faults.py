"""What a simulated venue can be told to do wrong, by name."""

from __future__ import annotations

from dataclasses import dataclass, field

VERBS = {
    "list": "list a new instrument: {symbol: 'NEWUSDT'}",
    "delist": "stop listing one: {symbol}",
    "halt": "halt one: {symbol}",
    "resume": "let it trade again: {symbol}",
    "rate": "book events a second over all instruments: {rate}",
    "drop": "lose the next n depth frames, or one in `every`: {n} or {every}",
    "duplicate": "send the next n depth frames twice: {n}",
    "reorder": "swap the next n pairs of depth frames: {n}",
    "garbage": "send n frames that are no JSON to every client: {n}",
    "wrongtype": "send n depth frames with a wrong-typed field: {n}",
    "unknown": "send n depth frames of a symbol that nobody knows: {n}",
    "ratelimit": "answer the next n REST calls with 429: {n, retry_after}",
    "stale_snapshot": "answer the next n depth calls with a book from `behind` events ago: {n, behind}",
    "silence": "send nothing of a symbol for some seconds: {symbol, seconds}",
    "cut": "close every websocket",
}


class ControlError(Exception):
    """An order to the venue that makes no sense; the text says what would."""


@dataclass
class Faults:
    """What is left to do wrong."""

    drop_next: int = 0
    drop_every: int = 0
    duplicate: int = 0
    reorder: int = 0
    ratelimit: int = 0
    retry_after_s: float = 1.0
    stale_snapshots: int = 0
    behind: int = 0
    silent_until_s: dict[str, float] = field(default_factory=dict[str, float])
    held: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    """The first of a pair to be swapped: (stream, frame)."""
