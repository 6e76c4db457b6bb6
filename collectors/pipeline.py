"""From a frame's bytes to records, without I/O: parse, route to the instrument's worker, count what makes no sense."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from bus.tracing import active as active_tracer
from collectors.errors import MalformedFrame
from collectors.events import Answer, BookDelta, BookSnapshot, Event, Reply, StreamBroken
from collectors.metrics import Counts
from collectors.publisher import Publisher
from collectors.side_channels import HANDLERS
from collectors.venue import Parser
from collectors.worker import BookWorker
from market.decimals import DecimalError
from schemas.errors import EncodeError

log = logging.getLogger(__name__)

OnReply = Callable[[Reply], None]

_HANDLERS: dict[type, Callable[[BookWorker, Any, int], object]] = {
    BookDelta: BookWorker.on_delta,
    BookSnapshot: BookWorker.on_snapshot,
    **HANDLERS,
}


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
        handle = HANDLERS.get(type(event))
        if worker is not None and handle is not None:
            try:
                handle(worker, event, ts_ns)
            except (DecimalError, EncodeError) as error:
                self._surprised(worker, event, repr(event).encode()[:4096], error, ts_ns)

    def receiver(
        self,
        parse: Parser,
        on_reply: OnReply = lambda _: None,
        on_broken: Callable[[str], None] = lambda _: None,
        on_answer: Callable[[bytes], None] = lambda _: None,
    ) -> Callable[[bytes, int], None]:
        """The function that takes one connection's frames: ``receive(frame, ts_received_ns)``. It never raises."""
        worker_of, counts, handler_of = self.workers.get, self.counts, _HANDLERS.get
        control: dict[type, Callable[[Any], None]] = {
            Reply: on_reply,
            StreamBroken: lambda event: on_broken(event.reason),
            Answer: lambda event: on_answer(event.frame),
        }

        def receive(frame: bytes, ts_ns: int) -> None:
            counts.frames += 1
            counts.frame_bytes += len(frame)
            try:
                events: Sequence[Any] = parse(frame)
            except MalformedFrame as error:
                self.publisher.dead_letter(frame, str(error), ts_ns)
                return
            for event in events:
                handle = handler_of(type(event))
                if handle is None:
                    control[type(event)](event)
                    continue
                worker = worker_of(event.native)
                if worker is None:
                    counts.unrouted += 1
                    continue
                try:
                    handle(worker, event, ts_ns)
                except Exception as error:
                    self._surprised(worker, event, frame, error, ts_ns)

        tracer = active_tracer()
        return receive if tracer is None else tracer.frames(receive, self.publisher.venue)

    def _surprised(self, worker: BookWorker, event: object, frame: bytes, error: Exception, ts_ns: int) -> None:
        """One instrument's trouble must not stop the others."""
        if type(event) in HANDLERS and isinstance(error, DecimalError | EncodeError):
            self.publisher.dead_letter(repr(event).encode()[:4096], f"of {worker.native}: {error}", ts_ns)
            return
        self.counts.internal_errors += 1
        about = {"venue": self.publisher.venue, "symbol": worker.symbol, "epoch": worker.epoch}
        log.error("%s: %s", self.publisher.venue, worker.symbol, exc_info=error, extra=about)
        raw = frame if isinstance(frame, bytes) else repr(event).encode()[:4096]  # ccxt's feed has no frames
        self.publisher.dead_letter(raw, f"{type(error).__name__}: {error}", ts_ns)
        worker.gap(f"internal error: {type(error).__name__}")
