"""Plays a capture through a venue's adapter, rule and workers, without sockets: frames in the recorder's order, REST
answers given to the worker that asks for them. What it writes is what a collector would have written.

Instruments are found in the frames and keep the venue's own names: a capture says nothing about their unified symbols.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from collectors.errors import MalformedFrame
from collectors.events import BookDelta, BookSnapshot
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.publisher import Publisher
from collectors.venue import Venue
from collectors.worker import BookWorker
from config.settings import CollectorSettings


class Line(Protocol):
    """One line of a capture: a received frame, or a REST answer with the address that was asked."""

    @property
    def kind(self) -> str: ...
    @property
    def ts_ns(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def url(self) -> str: ...


def book_natives(venue: Venue, frames: Iterable[bytes]) -> set[str]:
    """The instruments whose books these frames speak of."""
    parse, found = venue.connection(), set[str]()
    for frame in frames:
        try:
            found |= {event.native for event in parse(frame) if isinstance(event, BookDelta | BookSnapshot)}
        except MalformedFrame:
            continue  # it will be a dead letter when it is played
    return found


class Player:
    """One venue's capture."""

    def __init__(self, venue: Venue, lines: Sequence[Line], publisher: Publisher, settings: CollectorSettings) -> None:
        self.venue = venue
        self.lines = sorted((line for line in lines if line.kind in ("frame", "rest")), key=lambda line: line.ts_ns)
        self.counts: Counts = publisher.counts
        self.played = 0
        self.pipeline = Pipeline(publisher, self.counts)
        self._wanted: list[BookWorker] = []
        natives = book_natives(venue, (line.data for line in self.lines if line.kind == "frame"))
        for native in sorted(natives):
            worker = self.pipeline.workers[native] = BookWorker(
                native, native, venue.rule(native), publisher, self.counts, settings, self._want
            )
            worker.announce()
            worker.on_subscribed()

    def play(self, pause: Callable[[], None] = lambda: None) -> None:
        """All lines; ``pause`` is called every thousand of them, so that Kafka can catch up."""
        receive = self.pipeline.receiver(self.venue.connection())
        answers: dict[str, Line] = {}
        for line in self.lines:
            if line.kind == "rest":
                if native := self._native_of(line.url):
                    answers[native] = line
            else:
                receive(line.data, line.ts_ns)
            for worker in self._wanted[:]:
                if (answer := answers.pop(worker.native, None)) is not None:
                    self._wanted.remove(worker)
                    self._answer(worker, answer, line.ts_ns)
            self.played += 1
            if self.played % 1000 == 0:
                pause()

    def _answer(self, worker: BookWorker, answer: Line, now_ns: int) -> None:
        try:
            snapshot = self.venue.parse_snapshot(worker.native, answer.data)
        except MalformedFrame as error:
            self.pipeline.publisher.dead_letter(answer.data, str(error), now_ns)
            return
        self.counts.snapshots += 1
        worker.on_snapshot(snapshot, now_ns, worker.epoch)

    def _want(self, worker: BookWorker, delay_s: float) -> None:
        if worker not in self._wanted:
            self._wanted.append(worker)

    def _native_of(self, url: str) -> str:
        """Whose book this address asks for, the only one's where there is no address; empty: nobody's that is played."""
        if not url and len(self.pipeline.workers) == 1:
            return next(iter(self.pipeline.workers))
        parts = set(re.split(r"[=/&?]", url))
        return next((native for native in self.pipeline.workers if native in parts), "")
