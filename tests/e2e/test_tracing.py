"""One trace from a venue's frame to the order, through collector, processor, strategy and executor as separate processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from bus.log_reader import start_positions
from bus.tracing import context_of
from schemas.topics import BBO, BOOK, INTENT, RISK
from simulator.synthetic import SyntheticVenue
from tests.conftest import ROOT
from tests.e2e.rooms import rooms_of, section, unified
from tests.e2e.test_trading import LIMITS

pytestmark = pytest.mark.broker


class Span(NamedTuple):
    """What a collector of traces was sent."""

    trace: str
    id: str
    parent: str
    service: str
    name: str
    start_ns: int
    end_ns: int


class Receiver(ThreadingHTTPServer):
    """Takes OTLP over HTTP as an OpenTelemetry collector does."""

    daemon_threads = True

    def __init__(self) -> None:
        self.spans: list[Span] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def chain(self) -> dict[str, Span] | None:
        """The spans by name from a frame to an order that was placed: each is the next one's parent."""
        spans = {span.id: span for span in tuple(self.spans)}
        for last in spans.values():
            found, span = dict[str, Span](), last
            while span is not None:
                found[span.name], span = span, spans.get(span.parent)
            beside = (s for s in spans.values() if s.name == "process" and s.parent == found.get("collect", last).id)
            if list(found) == ["place", "judge", "decide", "collect"] and (process := next(beside, None)) is not None:
                return {"process": process, **found}
        return None


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        from gzip import decompress

        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.server.spans += [
                Span(s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), service, s.name,
                     s.start_time_unix_nano, s.end_time_unix_nano)
                for scope in resource.scope_spans for s in scope.spans
            ]  # fmt: skip
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.shutdown()
    made.server_close()


async def test_an_update_is_followed_from_the_venue_to_the_order(
    kafka, settings, unique, tmp_path, receiver, run_cli, monkeypatch
):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "300")
    simulated, venue = SyntheticVenue("binance-usdm", instruments=1, rate=40, levels=20), f"traced-{unique}"
    await simulated.start()
    symbol = unified(next(iter(simulated.books)))
    own = settings(
        kafka={"bootstrap_servers": kafka},
        tracing={"endpoint": receiver.url, "share": 1},
        venues={venue: section("binance-usdm", simulated)},
    )
    strategy, accounts = tmp_path / "mm.toml", tmp_path / "accounts.toml"
    strategy.write_text(
        f'kind = "market_making"\nname = "mm-{unique}"\n[fees.{venue}]\nmaker_bps = "0"\ntaker_bps = "0"\n'
        f'[parameters]\nvenues = ["{venue}"]\nsymbols = ["{symbol}"]\n'
        'size = "1"\nmax_inventory = "100"\na = "1"\nk = "1"\nsigma = "1"\n'
    )
    accounts.write_text(
        f'[accounts."{venue}:paper"]\nadapter = "paper"\nnotional_per_minute = 50000000\nlatency_ms = 2\n'
        f'[accounts."{venue}:paper".balances]\nUSDT = "100000000"\n'
    )
    env = {"KAFKA_BOOTSTRAP_SERVERS": kafka}

    async def cli(*arguments: str) -> None:
        told = await asyncio.to_thread(run_cli, *arguments, env=env)
        assert told.returncode == 0, told.stderr

    try:
        async with rooms_of(own, tmp_path) as rooms:
            await cli("limits", "set", "global", *(f"{k}={v}" for k, v in LIMITS.items()), "--reason", "test")
            await cli("resume", "--all", "--reason", "test")
            await rooms.processor()
            await rooms.collector(venue)
            await rooms.live(venue, 1)
            executor = await rooms.stack.start("executor", "execute", str(accounts))
            await rooms.stack.until("an executor that is ready", lambda: ": ready" in executor.tail(), 120)
            await rooms.stack.start("strategy", "trade", str(strategy), "--mode", "paper")
            trace = await rooms.stack.until("a trace from the venue to the order", receiver.chain, 180)
    finally:
        await simulated.stop()
    assert {name: span.service for name, span in trace.items()} == {
        "collect": "venue-mirror-collector", "process": "venue-mirror-processor", "decide": "venue-mirror-strategy",
        "judge": "venue-mirror-executor", "place": "venue-mirror-executor",
    }  # fmt: skip
    assert len({span.trace for span in trace.values()}) == 1
    assert trace["collect"].parent == ""
    assert trace["collect"].start_ns <= trace["decide"].start_ns <= trace["judge"].start_ns <= trace["place"].end_ns
    # The contexts stand in the records' own headers, on the way there and on the way back.
    for topic, name in ((BOOK, "collect"), (INTENT, "decide"), (RISK, "judge")):
        assert f"00-{trace[name].trace}-{trace[name].id}" in await asyncio.to_thread(contexts, own, topic.name), topic.name
    # Of several updates in one batch the newest is carried on: any of the processor's.
    processed = {f"00-{s.trace}-{s.id}" for s in receiver.spans if s.name == "process"}
    assert processed & await asyncio.to_thread(contexts, own, BBO.name)


def contexts(own, topic: str) -> set[str]:
    """The contexts in the headers of a topic, without their flags."""
    from confluent_kafka import Consumer, TopicPartition

    from bus.connection import client_config

    starts = start_positions(own, {topic: "beginning"})
    left = start_positions(own, {topic: "end"})
    consumer, found = Consumer({**client_config(own), "group.id": "headers"}), set[str]()
    consumer.assign([TopicPartition(t, p, at) for (t, p), at in starts.items()])
    records = sum(end - starts[position] for position, end in left.items())
    for _ in range(records):
        message = consumer.poll(10)
        assert message is not None and message.error() is None
        if (context := context_of(message.headers())) is not None:
            found.add(context.decode().rpartition("-")[0])
    consumer.close()
    return found


async def test_off_there_is_no_hook(kafka):
    # In a process of its own: what another test switched on must not show here.
    code = (
        "import sys\nfrom bus.producer import Producer\nfrom bus.tracing import active, start\n"
        "from config.settings import load_settings\ns = load_settings(None)\nstart(s, 'collector')\n"
        "p = Producer(s)\nassert active() is None and p._produce == p._producer.produce\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)\n"
    )
    told = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
