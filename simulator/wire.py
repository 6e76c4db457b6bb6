"""The interface between a synthetic venue and the protocol that it speaks: all that a protocol must say for itself.

A protocol is one file, ``simulator/<venue>_wire.py``, written from the venue's documentation alone and knowing nothing of
collectors: it names instruments, answers REST calls and clients' frames, and puts one book event into frames. Order
flow, truth, sockets and faults are shared.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest, nsmallest
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from zlib import crc32

from aiohttp import web

from simulator.depth_window import DepthWindow
from simulator.faults import ControlError, Faults
from simulator.instrument import BASES, Name, SyntheticInstrument, decimal_text
from simulator.order_flow import Changes
from simulator.stream_server import Client, StreamServer

if TYPE_CHECKING:
    from collections.abc import Mapping

SLACK = 3
"""A book never grows beyond its first levels times this."""


@dataclass(slots=True)
class Change:
    """One event of a book, as every protocol tells it in its own words."""

    one: SyntheticInstrument
    first: int
    """The first of the ids that the event covers, where the venue's events cover several."""
    seq: int
    previous: int
    """The sequence number of the event before it."""
    ts_us: int
    """The venue's clock; no two events of an instrument have the same."""
    bids: Changes
    asks: Changes
    trade: tuple[int, int, bool] | None
    """(price, size, buyer is maker) in ticks and lots."""
    held: tuple[frozenset[int], frozenset[int]]
    """Of the changed bids and asks, the prices that the book held before."""


class World(Protocol):
    """What a protocol may ask of its venue."""

    faults: Faults
    events: int
    next_id: int

    @property
    def instruments(self) -> Mapping[str, SyntheticInstrument]:
        """What is listed now, by the venue's names."""
        ...

    def now_us(self) -> int:
        """The venue's clock, as wrong as it was told to be."""
        ...

    def book_frame(self, client: Client, stream: str, frame: bytes, change: Change) -> None:
        """Send a book's frame through the faults."""


class Wire(ABC):
    """One venue's protocol. ``stream`` is set by the venue before anything else is called."""

    ws_paths: tuple[str, ...]
    unknown_deletes: ClassVar[bool] = True
    """Whether the venue also tells of deletes for levels that its book does not hold."""
    has_checksum: ClassVar[bool] = False
    by_time: ClassVar[bool] = False
    """Whether a book's moment is told by the venue's clock, for want of a sequence number of the book's own."""
    loss_shows: ClassVar[bool] = True
    """Whether a client finds out about any lost frame by the next one. Where not, only provable() ones are lost on
    purpose, and a frozen stream catches up when it goes on."""
    halted: str = "halted"
    """What the venue calls an instrument that does not trade for now."""
    trading: str = "trading"
    stream: StreamServer

    def __init__(self, venue: World) -> None:
        self.venue = venue
        self._windows: dict[str, DepthWindow] = {}

    @abstractmethod
    def names(self) -> Iterator[Name]:
        """Instruments to begin with, without end."""

    @abstractmethod
    def name_of(self, native: str) -> Name:
        """The instrument of this name, for a listing; raises ControlError."""

    @abstractmethod
    def routes(self) -> list[tuple[str, Any]]:
        """REST: (path, handler)."""

    @abstractmethod
    def receive(self, client: Client, text: str) -> None:
        """A client's frame: answer it with ``stream.put``."""

    @abstractmethod
    def publish(self, change: Change) -> None:
        """Send one event's frames: the book's, the trade's, the ticker's, to those who want them."""

    def greet(self, client: Client) -> None:  # noqa: B027 - most venues say nothing
        """A client has connected."""

    def stamp(self, client: Client, frame: bytes) -> bytes:
        """The frame with what depends on the connection (a sequence number of its own)."""
        return frame

    def tick(self, client: Client) -> None:  # noqa: B027 - most venues have no heartbeat
        """Once a second for each client: heartbeats."""

    def farewell(self) -> bytes | None:
        """What the venue says to every client before maintenance; None: it just goes."""
        return None

    def refusal(self, status: int) -> dict[str, Any]:
        """The JSON of a refused REST call: 429, 418, or 503 for maintenance."""
        return {"error": status}

    def number(self, one: SyntheticInstrument) -> tuple[int, int]:
        """(first id, last id) of an instrument's next event. By default ids are shared by all and jump."""
        span = 1 + self.venue.events % 4
        self.venue.next_id += span
        return self.venue.next_id - span + 1, self.venue.next_id

    def restart(self, one: SyntheticInstrument) -> None:
        """The service of this book restarts and numbers its events anew, as the venue documents it for its clients."""
        raise ControlError("this venue says of no such restart")

    def provable(self, change: Change) -> bool:
        """Whether a client must be able to find out when this event's frame is lost."""
        return True

    def forget(self, one: SyntheticInstrument) -> None:
        """It is no longer listed."""
        for stream in [s for s, window in self._windows.items() if window.one is one]:
            del self._windows[stream]

    def bad_frames(self, native: str) -> tuple[bytes, bytes]:
        """(a book frame of this instrument with a wrong-typed field, a book frame of an instrument that nobody knows)."""
        raise ControlError("this protocol has no such frames")

    # What several protocols share.

    def open_book(
        self, client: Client, stream: str, one: SyntheticInstrument, depth: int, *, says_fallen: bool = True
    ) -> tuple[int, Changes, Changes]:
        """Subscribe a client to a book of limited depth; gives what its snapshot holds: (seq, bids, asks), best first.

        ``says_fallen``: the venue sends a delete for a level that is pushed out of the depth.
        """
        if not self.stream.wanted(stream):
            self._windows.pop(stream, None)
        self.stream.subscribe(client, stream)
        if SLACK * one.flow.levels <= depth:
            return one.last_u, *best(one, depth)
        window = self._windows.get(stream)
        if window is None:
            window = self._windows[stream] = DepthWindow(one, depth, says_fallen=says_fallen)
        return window.last_seq, *window.levels()

    def told(self, stream: str, change: Change) -> tuple[int, Changes, Changes] | None:
        """(seq told before, bids, asks) of an event in a book of limited depth; None: nothing in it changed."""
        if (window := self._windows.get(stream)) is None:
            return change.previous, change.bids, change.asks
        return window.advance(change.seq)

    def send_book(self, stream: str, frame: bytes, change: Change) -> None:
        """Send a book's frame to its subscribers, through the faults."""
        for client in self.stream.subscribers(stream):
            self.venue.book_frame(client, stream, self.stamp(client, frame), change)

    def listed(self, native: Any) -> SyntheticInstrument | None:
        """The instrument, if it is listed."""
        return self.venue.instruments.get(native) if isinstance(native, str) else None


def bases() -> Iterator[str]:
    """BTC, …, ONE, BTC1, …, without end."""
    number = 0
    while True:
        yield BASES[number % len(BASES)] + (str(number // len(BASES)) if number >= len(BASES) else "")
        number += 1


def checked_base(native: str, base: str, ending: str) -> str:
    """The base, if it can be one; raises ControlError."""
    if not base or not (base.isascii() and base.isalnum() and base.isupper()):
        raise ControlError(f"a symbol here is capitals and digits before {ending}, {native!r} is not")
    return base


def best(one: SyntheticInstrument, depth: int) -> tuple[Changes, Changes]:
    """The best ``depth`` bids and asks in ticks and lots, best first."""
    bids, asks = one.flow.bids, one.flow.asks
    return (
        [(p, bids[p]) for p in (nlargest(depth, bids) if depth < len(bids) else sorted(bids, reverse=True))],
        [(p, asks[p]) for p in (nsmallest(depth, asks) if depth < len(asks) else sorted(asks))],
    )


def signed_crc32(text: str) -> int:
    """A CRC32 as a signed 32-bit number."""
    value = crc32(text.encode())
    return value - (1 << 32) if value >= 1 << 31 else value


def json_number(mantissa: int, decimals: int) -> str:
    """The number as JSON writes it: no zeros at the end, one after the point at least."""
    whole, _, fraction = decimal_text(mantissa, decimals).partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def iso_us(ts_us: int) -> str:
    """RFC 3339 with microseconds, from integers alone."""
    seconds, micros = divmod(ts_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"


def compact(value: Any) -> bytes:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()


def answer(value: Any, status: int = 200) -> web.Response:
    """A REST answer."""
    return web.Response(body=compact(value), status=status, content_type="application/json")
