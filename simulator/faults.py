"""What a synthetic venue can be told, by name: listings, and what it is to do wrong."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from simulator.stream_server import Client

VERBS = {
    "list": "list a new instrument: {symbol: 'NEWUSDT'}",
    "storm": "list so many new instruments at once: {n}",
    "delist": "stop listing one: {symbol}",
    "halt": "halt one: {symbol}",
    "resume": "let it trade again: {symbol}",
    "rate": "book events a second over all instruments: {rate}",
    "drop": "lose the next n depth frames, or one in `every` (0: no more): {n} or {every}",
    "duplicate": "send the next n depth frames twice: {n}",
    "reorder": "swap the next n pairs of depth frames: {n}",
    "delay": "send the next n depth frames late, so that others overtake them: {n, seconds}",
    "checksum": "give the next n depth frames a wrong checksum: {n}",
    "garbage": "send n frames that are no JSON to every client: {n}",
    "wrongtype": "send n depth frames with a wrong-typed field: {n}",
    "unknown": "send n depth frames of a symbol that nobody knows: {n}",
    "ratelimit": "answer the next n REST calls with 429, or 418: {n, retry_after, status}",
    "slow_rest": "dribble the next n REST answers over some seconds each: {n, seconds}",
    "slow_frames": "dribble the next n frames of one connection over some seconds each: {n, seconds, connection}",
    "stale_snapshot": "answer the next n depth calls with a book from `behind` events ago: {n, behind}",
    "silence": "let nothing happen to a symbol for some seconds: {symbol, seconds}",
    "freeze": "tell nothing for some seconds, of one symbol or on one connection, else at all; what happens is not told "
    "later either, but by a protocol that has no numbers: {symbol or connection, seconds}",
    "half_open": "one connection carries nothing any more, and nobody says so: {connection}",
    "skew": "the venue's clock is wrong by so many seconds, below zero: slow: {seconds}",
    "restart": "the service of a book restarts and numbers its events anew: {symbol}",
    "maintenance": "close every websocket, then refuse clients and REST calls for some seconds: {seconds}",
    "close": "close one connection, or all, with this code (1006: without a closing frame): {code, connection or all}",
    "cut": "close every websocket",
    "calm": "end everything that is left to do wrong, and every freeze, silence, skew and maintenance",
    "script": "do seeded random faults for some seconds, one each `every` seconds on average: {seed, seconds, every}",
}
"""GET /control shows this; every verb is a method of SyntheticVenue's ``control``. ``connection`` is a number in the
order of their coming, default: any one."""

INJECTED_MAX = 100_000


class ControlError(Exception):
    """An order to the venue that makes no sense; the text says what would."""


class Injected(NamedTuple):
    """One thing that went wrong on purpose."""

    ts_ns: int
    verb: str
    native: str
    """The instrument, where it hit one."""
    connection: int
    seq: int
    """The sequence number of the event whose frame it hit."""


@dataclass
class Faults:
    """What is left to do wrong with depth frames and REST answers, and what was done."""

    drop_next: int = 0
    drop_every: int = 0
    duplicate: int = 0
    reorder: int = 0
    delay: int = 0
    delay_s: float = 0.5
    checksum: int = 0
    ratelimit: int = 0
    ratelimit_status: int = 429
    retry_after_s: float = 1.0
    slow_rest: int = 0
    slow_rest_s: float = 2.0
    maintenance_until_s: float = 0.0
    """Monotonic seconds."""
    frozen_until_s: float = 0.0
    """Monotonic seconds; no stream tells anything before."""
    skew_us: int = 0
    stale_snapshots: int = 0
    behind: int = 0
    held: dict[tuple[Client, str], bytes] = field(default_factory=dict["tuple[Client, str]", bytes])
    """(client, stream) → the first frame of a pair to be swapped."""
    dropped: int = 0
    injected: deque[Injected] = field(default_factory=lambda: deque[Injected](maxlen=INJECTED_MAX))
    counts: Counter[str] = field(default_factory=Counter[str])
    """How often each thing was done."""
    _seen: int = 0

    def calm(self) -> None:
        """Nothing more is to go wrong; what was done stays noted."""
        self.drop_next = self.drop_every = self.duplicate = self.reorder = self.delay = self.checksum = 0
        self.ratelimit = self.slow_rest = self.stale_snapshots = self.skew_us = 0
        self.maintenance_until_s = self.frozen_until_s = 0.0

    def note(self, verb: str, native: str = "", connection: int = 0, seq: int = -1) -> None:
        """Remember that this was done."""
        self.counts[verb] += 1
        self.injected.append(Injected(time.time_ns(), verb, native, connection, seq))

    def spoil_checksum(self, native: str, seq: int) -> bool:
        """Whether the frame that is being written gets a wrong checksum."""
        if self.checksum <= 0:
            return False
        self.checksum -= 1
        self.note("checksum", native, seq=seq)
        return True

    def to_send(
        self, client: Client, stream: str, frame: bytes, native: str, seq: int, *, provable: bool = True
    ) -> list[bytes]:
        """What goes out now in this depth frame's place: nothing, itself, itself twice, or itself before the held one.

        ``provable``: a client can find out that the frame is missing; others only come twice.
        """
        if (earlier := self.held.pop((client, stream), None)) is not None:
            return [frame, earlier]
        self._seen += 1
        if provable and (self.drop_next > 0 or (self.drop_every and self._seen % self.drop_every == 0)):
            self.drop_next = max(0, self.drop_next - 1)
            self.dropped += 1
            self.note("drop", native, client.number, seq)
            return []
        if provable and self.reorder > 0:
            self.reorder -= 1
            self.held[client, stream] = frame
            self.note("reorder", native, client.number, seq)
            return []
        if provable and self.delay > 0:
            self.delay -= 1
            self.note("delay", native, client.number, seq)
            asyncio.get_running_loop().call_later(self.delay_s, client.put, frame)
            return []
        if self.duplicate > 0:
            self.duplicate -= 1
            self.note("duplicate", native, client.number, seq)
            return [frame, frame]
        return [frame]

    def lose(self, client: Client, native: str, seq: int) -> None:
        """A frozen stream did not carry this event."""
        self.dropped += 1
        self.note("frozen frame", native, client.number, seq)

    def forget_client(self, client: Client) -> None:
        """It has gone."""
        for key in [k for k in self.held if k[0] is client]:
            del self.held[key]
