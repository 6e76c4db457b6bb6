"""Traces, sampled and off by default: one venue's update followed from its frame to the order, over all processes.

A frame is chosen at random when it arrives; nobody chooses later. What follows from it carries its context in the Kafka
header ``traceparent`` (W3C Trace Context, https://www.w3.org/TR/trace-context/), and each room that reads such a record
adds its span. Off, no hook is in place: rooms ask ``active()`` when they are built, not when a record passes.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from config.settings import Settings

HEADER = "traceparent"

Context = bytes
"""The value of the header: ``00-<trace id>-<span id>-<flags>`` in ASCII."""
Headers = Iterable[tuple[str, bytes | None]] | None
Attributes = Mapping[str, str | int]
Produce = Callable[..., None]
"""``produce(topic, value, key, on_delivery=…)``, as of confluent_kafka.Producer."""

_current: ContextVar[Context | None] = ContextVar("venue_mirror_trace", default=None)
_active: Tracer | None = None


def context_of(headers: Headers) -> Context | None:
    """The context that a record carries; None when it has none."""
    for name, value in headers or ():
        if name == HEADER:
            return value
    return None


class Tracer:
    """Makes spans and hands them to an OTLP collector over HTTP, in batches, from a thread of its own.

    Its queue is bounded; what a collector does not take in time is lost and logged, never waited for.
    """

    def __init__(self, provider: Any, share: float) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._spans = provider.get_tracer("venue_mirror")
        self._format = TraceContextTextMapPropagator()
        self._share = share
        self._of_key: dict[str, Context] = {}
        """Of the batch that is handled now: the context of each traced record's key."""

    @contextlib.contextmanager
    def span(
        self, name: str, parent: Context | None, attributes: Attributes, start_ns: int | None = None
    ) -> Generator[Context]:
        """A span around the block; what the block produces, and tasks begun in it, carry the context that it gives."""
        from opentelemetry.trace import set_span_in_context

        outer = self._format.extract({HEADER: parent.decode("ascii", "replace")}) if parent is not None else None
        span = self._spans.start_span(name, outer, attributes=dict(attributes), start_time=start_ns or time.time_ns())
        carrier: dict[str, str] = {}
        self._format.inject(carrier, set_span_in_context(span))
        context = carrier[HEADER].encode()
        try:
            with carries(context):
                yield context
        finally:
            span.end()

    def produces(self, produce: Produce) -> Produce:
        """``produce`` that adds the header to what follows from a traced record."""

        def traced(topic: str, value: bytes | None, key: str, on_delivery: Any = None) -> None:
            context = _current.get() or (self._of_key.get(key) if self._of_key else None)
            if context is None:
                produce(topic, value, key, on_delivery=on_delivery)
            else:
                produce(topic, value, key, on_delivery=on_delivery, headers=[(HEADER, context)])

        return traced

    def frames(self, receive: Callable[[bytes, int], None], venue: str) -> Callable[[bytes, int], None]:
        """``receive(frame, ts_received_ns)`` that begins a trace with some of the frames."""

        def traced(frame: bytes, ts_ns: int) -> None:
            if random.random() >= self._share:  # noqa: S311 - a sample, not a secret
                receive(frame, ts_ns)
                return
            with self.span("collect", None, {"venue": venue, "frame.bytes": len(frame)}, ts_ns):
                receive(frame, ts_ns)

        return traced

    def batches(self, handle: Callable[[Any, Sequence[Any]], None]) -> Callable[[Any, Sequence[Any]], None]:
        """``handle(tp, records)`` that adds a span for each traced record; what is produced for its key carries it on.

        Records are aiokafka's. The span lasts as long as the batch: that is how long the record's effects took.
        """

        def traced(tp: Any, records: Sequence[Any]) -> None:
            found = [(r, context) for r in records if r.headers and (context := context_of(r.headers)) is not None]
            if not found:
                handle(tp, records)
                return
            with contextlib.ExitStack() as spans:
                for record, context in found:
                    key = (record.key or b"").decode("utf-8", "replace")
                    attributes = place(tp.topic, tp.partition, record.offset, key) | {"batch.records": len(records)}
                    self._of_key[key] = spans.enter_context(self.span("process", context, attributes))
                try:
                    with carries(None):  # each record by its own key
                        handle(tp, records)
                finally:
                    self._of_key.clear()

        return traced


@contextlib.contextmanager
def carries(context: Context | None) -> Generator[None]:
    """What the block produces carries this context."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def following(name: str, parent: Context | None, attributes: Attributes) -> contextlib.AbstractContextManager[Any]:
    """A span around the block when it follows from a traced record (``parent``); else nothing."""
    return contextlib.nullcontext() if _active is None or parent is None else _active.span(name, parent, attributes)


def current() -> Context | None:
    """The context that this code runs in."""
    return _current.get()


def place(topic: str, partition: int, offset: int, key: str) -> dict[str, str | int]:
    """Where a record stands, in OpenTelemetry's names."""
    return {
        "messaging.destination.name": topic, "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset, "messaging.kafka.message.key": key,
    }  # fmt: skip


def start(settings: Settings, room: str) -> None:
    """Trace this process as ``venue-mirror-<room>`` if the settings say so. Call it before the room is built."""
    global _active
    own = settings.tracing
    if not own.endpoint:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    # The choice is made at the frame; a context in a header says that it was chosen.
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create({"service.name": f"venue-mirror-{room}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=own.endpoint)))
    _active = Tracer(provider, own.share)


def active() -> Tracer | None:
    """This process's tracer; None when tracing is off."""
    return _active
