"""Traces without a broker: what is sampled, what is carried on, and that nothing is touched when they are off."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bus import tracing
from bus.log_reader import LogRecord
from bus.tracing import HEADER, Tracer, carries, context_of, current, following
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.publisher import Publisher
from config.settings import ConfigError, load_settings
from schemas.codec import codec
from schemas.topics import BOOK, INTENT
from strategies.loop import Output
from strategies.traced import carried
from tests.e2e.test_console_trading import record


class Bench(NamedTuple):
    tracer: Tracer
    exporter: InMemorySpanExporter

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = Tracer(provider, 1.0)
    monkeypatch.setattr(tracing, "_active", tracer)
    yield Bench(tracer, exporter)
    provider.shutdown()


class Sent:
    """Stands where confluent_kafka's produce does."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str, bytes | None]] = []

    def __call__(self, topic: str, value: bytes | None, key: str, on_delivery: Any = None, headers: Any = None) -> None:
        self.headers.append((topic, key, context_of(headers)))


class Fetched(NamedTuple):
    """A record as aiokafka gives it."""

    key: bytes
    offset: int
    headers: tuple[tuple[str, bytes], ...] = ()


class Place(NamedTuple):
    topic: str
    partition: int


def test_off_the_very_same_functions_are_called() -> None:
    assert tracing.active() is None
    pipeline = Pipeline(Publisher("v", lambda *_: None, Counts()), Counts())
    assert pipeline.receiver(lambda _: ()).__qualname__ == "Pipeline.receiver.<locals>.receive"
    assert current() is None
    with following("judge", b"00-x-y-01", {}) as context:
        assert context is None


def test_a_frame_begins_a_trace_and_its_records_carry_it(bench: Bench) -> None:
    sent = Sent()
    produce = bench.tracer.produces(sent)
    receive = bench.tracer.frames(lambda frame, ts: produce("market.book", frame, "v|S"), "v")
    receive(b"frame", 5_000)
    produce("market.book", b"another", "v|S")
    span = bench.spans()["collect"]
    (_, _, context), after = sent.headers
    assert context is not None and after == ("market.book", "v|S", None)
    version, trace, parent, flags = context.decode().split("-")
    assert (version, trace, parent) == ("00", f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}")
    assert int(flags, 16) & 1, "sampled"
    assert span.start_time == 5_000 and span.parent is None and span.attributes["venue"] == "v"


def test_a_share_of_the_frames_is_taken(bench: Bench) -> None:
    bench.tracer._share = 0.25
    taken: list[bytes | None] = []
    receive = bench.tracer.frames(lambda *_: taken.append(current()), "v")
    for _ in range(2000):
        receive(b"", 1)
    assert 350 < sum(one is not None for one in taken) < 650


def test_a_batch_carries_each_record_s_own_trace_on(bench: Bench) -> None:
    a, b = (f"00-{n:032x}-{n:016x}-01".encode() for n in (1, 2))
    sent = Sent()
    produce = bench.tracer.produces(sent)
    records = [Fetched(b"v|A", 1, ((HEADER, a),)), Fetched(b"v|C", 2), Fetched(b"v|B", 3, (("other", b"x"), (HEADER, b)))]

    def handle(tp: Any, batch: Any) -> None:
        for key in ("v|A", "v|B", "v|C"):
            produce("derived.bbo", b"", key)

    handler = bench.tracer.batches(handle)
    handler(Place("market.book", 0), records)
    handler(Place("market.book", 0), [Fetched(b"v|A", 4)])
    traces = {key: context and context.split(b"-")[1] for _, key, context in sent.headers[:3]}
    assert traces == {"v|A": a.split(b"-")[1], "v|B": b.split(b"-")[1], "v|C": None}
    assert [context for _, _, context in sent.headers[3:]] == [None] * 3, "nothing is left over for the next batch"
    parents = {span.parent.trace_id: span.attributes["messaging.kafka.offset"] for span in bench.exporter.get_finished_spans()}
    assert parents == {1: 1, 2: 3}


def test_a_handler_that_fails_ends_its_spans(bench: Bench) -> None:
    def handle(tp: Any, batch: Any) -> None:
        raise RuntimeError

    context = b"00-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01"
    with pytest.raises(RuntimeError):
        bench.tracer.batches(handle)(Place("t", 0), [Fetched(b"k", 1, ((HEADER, context),))])
    assert "process" in bench.spans() and current() is None


def test_an_intent_belongs_to_the_traced_update_that_it_was_decided_on(bench: Bench) -> None:
    context = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"

    def update(offset: int, key: bytes, context: bytes | None = None) -> LogRecord:
        return LogRecord(BOOK.name, 0, offset, 0, key, b"", context)

    def intent(offset: int) -> Output:
        value = record("OrderIntent", trigger_topic=BOOK.name, trigger_partition=0, trigger_offset=offset)
        return Output(INTENT.name, "account", codec("OrderIntent").encode(value))

    batch = [update(1, b"v|A", context), update(2, b"v|B"), update(3, b"v|A")]
    # A's book was decided on at its newest update, 3, in which the traced one, 1, is.
    found = [current() for _ in carried(bench.tracer, "s", batch, [intent(3), intent(2)], 1)]
    assert found[0] is not None and found[0].split(b"-")[1] == b"a" * 32
    assert found[1] is None and current() is None
    assert bench.spans()["decide"].attributes["strategy"] == "s"
    assert [current() for _ in carried(bench.tracer, "s", batch[1:], [intent(3)], 1)] == [None]


async def test_a_task_goes_on_in_the_trace_of_who_began_it(bench: Bench) -> None:
    seen: list[bytes | None] = []

    async def act() -> None:
        await asyncio.sleep(0)
        with following("place", current(), {"account": "a"}) as own:
            seen.append(own)

    with following("judge", b"00-" + b"c" * 32 + b"-" + b"d" * 16 + b"-01", {}):
        task = asyncio.create_task(act())
    with carries(None):
        await task
    judge, place = bench.spans()["judge"], bench.spans()["place"]
    assert place.parent.span_id == judge.context.span_id and seen[0] is not None


@pytest.mark.parametrize("header", [b"", b"garbage", b"\xff" * 55, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
def test_a_header_that_is_no_context_begins_a_trace_of_its_own(bench: Bench, header: bytes) -> None:
    with bench.tracer.span("process", header, {}):
        pass
    assert bench.spans()["process"].parent is None


def test_an_endpoint_needs_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.settings.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"venue-mirror\[tracing\]"):
        load_settings(None, tracing={"endpoint": "http://localhost:4318/v1/traces"})
    assert load_settings(None).tracing.endpoint == ""
