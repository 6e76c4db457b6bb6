"""What a synthetic venue can be told, by name: listings, and what it is to do wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

VERBS = {
    "list": "list a new instrument: {symbol: 'NEWUSDT'}",
    "delist": "stop listing one: {symbol}",
    "halt": "halt one: {symbol}",
    "resume": "let it trade again: {symbol}",
    "rate": "book events a second over all instruments: {rate}",
    "drop": "lose the next n depth frames, or one in `every` (0: no more): {n} or {every}",
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
"""GET /control shows this; every verb is a method of SyntheticVenue's ``control``."""


class ControlError(Exception):
    """An order to the venue that makes no sense; the text says what would."""


@dataclass
class Faults:
    """What is left to do wrong with depth frames and REST answers."""

    drop_next: int = 0
    drop_every: int = 0
    duplicate: int = 0
    reorder: int = 0
    ratelimit: int = 0
    retry_after_s: float = 1.0
    stale_snapshots: int = 0
    behind: int = 0
    held: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """stream → the first frame of a pair to be swapped."""
    dropped: int = 0
    _seen: int = 0

    def to_send(self, stream: str, frame: bytes) -> list[bytes]:
        """What goes out in this depth frame's place: nothing, itself, itself twice, or itself before the held one."""
        self._seen += 1
        if self.drop_next > 0 or (self.drop_every and self._seen % self.drop_every == 0):
            self.drop_next = max(0, self.drop_next - 1)
            self.dropped += 1
            return []
        if (earlier := self.held.pop(stream, None)) is not None:
            return [frame, earlier]
        if self.reorder > 0:
            self.reorder -= 1
            self.held[stream] = frame
            return []
        if self.duplicate > 0:
            self.duplicate -= 1
            return [frame, frame]
        return [frame]
