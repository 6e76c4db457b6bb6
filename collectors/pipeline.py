"""From a frame's bytes to records, without I/O: parse, route to the instrument's worker, count what makes no sense."""

from __future__ import annotations

import logging
from collections.abc import Callable

from collectors.errors import MalformedFrame
from collectors.events import Answer, BookDelta, BookSnapshot, Event, Reply, StreamBroken
from collectors.metrics import Counts
from collectors.publisher import Publisher
from collectors.side_channels import HANDLERS, publish
from collectors.venue import Parser
from collectors.worker import BookWorker

log = logging.getLogger(__name__)

OnReply = Callable[[Reply], None]


class Pipeline:
    """The workers of one process and venue, by the venue's name of the instrument."""

    def __init__(self, publisher: Publisher, counts: Counts) -> None:
        self.publisher = publisher
        self.counts = counts
        self.workers: dict[str, BookWorker] = {}

    def states(self) -> dict[str, int]:
        """How many books are in each state."""
        out: dict[str, int] = {}
        for worker in self.workers.values():
            out[worker.state] = out.get(worker.state, 0) + 1
        return out

    def route_polled(self, event: Event, ts_ns: int) -> None:
        """An event that no stream brought; those of instruments that are not this process's are nobody's loss."""
        worker = self.workers.get(getattr(event, "native", ""))
        if worker is not None and type(event) in HANDLERS:
            publish(worker, event, ts_ns)

    def receiver(
        self,
        parse: Parser,
        on_reply: OnReply = lambda _: None,
        on_broken: Callable[[str], None] = lambda _: None,
        on_answer: Callable[[bytes], None] = lambda _: None,
    ) -> Callable[[bytes, int], None]:
        """The function that takes one connection's frames: ``receive(frame, ts_received_ns)``. It never raises."""
        workers, counts = self.workers, self.counts

        def receive(frame: bytes, ts_ns: int) -> None:
            counts.frames += 1
            counts.frame_bytes += len(frame)
            try:
                events = parse(frame)
            except MalformedFrame as error:
                self.publisher.dead_letter(frame, str(error), ts_ns)
                return
            for event in events:
                kind = type(event)
                if kind is Reply:
                    on_reply(event)  # pyright: ignore[reportArgumentType]
                    continue
                if kind is StreamBroken:
                    on_broken(event.reason)  # pyright: ignore[reportAttributeAccessIssue]
                    continue
                if kind is Answer:
                    on_answer(event.frame)  # pyright: ignore[reportAttributeAccessIssue]
                    continue
                worker = workers.get(event.native)  # pyright: ignore[reportAttributeAccessIssue]
                if worker is None:
                    counts.unrouted += 1
                    continue
                try:
                    if kind is BookDelta:
                        worker.on_delta(event, ts_ns)  # pyright: ignore[reportArgumentType]
                    elif kind in HANDLERS:
                        publish(worker, event, ts_ns)
                    elif kind is BookSnapshot:
                        worker.on_snapshot(event, ts_ns)  # pyright: ignore[reportArgumentType]
                except Exception as error:  # one instrument's surprise must not stop the others
                    counts.internal_errors += 1
                    log.exception("%s: %s", self.publisher.venue, worker.symbol)
                    self.publisher.dead_letter(frame, f"{type(error).__name__}: {error}", ts_ns)
                    worker.gap(f"internal error: {type(error).__name__}")

        return receive
