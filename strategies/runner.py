"""One strategy as a process: reads the log by manual assignment, decides, writes, and can be killed at any moment.

Each batch writes its trace first, then what was decided. Every ``snapshot_s`` the state is written with the offsets that
it covers. A restart makes the past since the last snapshot again; what it decides again has the same ids, and is sent
only if the log does not hold it yet.
"""

from __future__ import annotations

import gc
import logging
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from bus.errors import QueueFull
from bus.log_reader import LogReader, LogRecord, read_all, start_positions
from bus.producer import Producer
from bus.tracing import active as active_tracer
from bus.tracing import start as start_tracing
from config.settings import Settings
from schemas.codec import codec
from schemas.topics import BALANCE, BOOK, CHAIN_POOL, FUNDING, INSTRUMENT, INTENT, STATUS, STRATEGY_STATE, TRACE
from strategies.loop import Output, StrategyLoop, input_topics
from strategies.recovery import Past, load_past, make_again, snapshot, trace_record
from strategies.registry import Config, Mode
from strategies.traced import carried

log = logging.getLogger(__name__)

BOOKS_BACK_S = 130
"""How far before its first start a strategy reads books: each has a key frame at least every minute."""
FUNDING_BACK_S = 9 * 3600
BATCH_MAX = 500
QUEUE_WAIT_S = 0.05


class Runner:
    """Runs one instance until ``stop`` is set. ``start`` recovers or begins; ``step`` takes one batch."""

    def __init__(self, settings: Settings, config: Config, mode: Mode, *, snapshot_s: float = 30) -> None:
        self.settings = settings
        self.config = config
        self.mode: Mode = mode
        self.stop = False
        self.run_id = uuid.uuid4().hex[:12]
        self.recovered = 0
        """Decisions made again at the start."""
        self.resent = 0
        """Of those, the ones that the log did not hold."""
        self._snapshot_s = snapshot_s
        self._producer = Producer(settings, queue_max=100_000, linger_ms=0)
        self._seq = 0
        self._tracer = active_tracer()
        self._loop: StrategyLoop | None = None
        self._reader: LogReader | None = None
        self._snapshot_at = 0.0

    @property
    def loop(self) -> StrategyLoop:
        """The loop; only after ``start``."""
        assert self._loop is not None
        return self._loop

    def start(self) -> None:
        """Continue where the instance was, or begin. Blocks; raises BusError, StrategyError."""
        past = load_past(self.settings, self.config.name)
        loop = StrategyLoop(self.config, self.mode)
        positions = self._recover(past, loop)
        if positions is None:
            positions = start_positions(self.settings, self._starts(loop))
            # Continues the numbering of any earlier version's trace, so that no number comes twice.
            self._seq = max((t["seq"] for t in past.traces), default=0)
            self._loop = loop
        self._reader = LogReader(self.settings, positions, market=True)
        if not self.recovered:
            # What never changes again is read before the books: a book without its instrument would be dropped.
            self._read_instruments(self._reader)
        self._write_snapshot()

    def _recover(self, past: Past, fresh: StrategyLoop) -> dict[tuple[str, int], int] | None:
        version, config = fresh.strategy.version, msgspec.json.encode(self.config)
        states = [s for s in past.states if s["strategy_version"] == version and s["config"] == config]
        if not states or states[-1] is not past.states[-1]:
            return None
        state = states[-1]
        loop, out, positions, self._seq = make_again(self.settings, state, past.traces, mode=self.mode)
        self._loop = loop
        self.recovered = 1 + sum(o.topic == INTENT.name for o in out)
        self._resend(out)
        # Partitions that were added since, and what retention or a move of keys took, have no saved place that is still
        # there: they are read from their beginning, where the log's reader alone would go to their end.
        known = {topic for topic, _ in positions}
        starts = {topic: "beginning" if topic in known else start for topic, start in self._starts(loop).items()}
        return {p: max(at, positions.get(p, at)) for p, at in start_positions(self.settings, starts).items()}

    def _starts(self, loop: StrategyLoop) -> dict[str, str | int]:
        """Where each topic is begun that was never read."""
        now_ms = time.time_ns() // 1_000_000
        starts: dict[str, str | int] = dict.fromkeys(input_topics(loop), "end")
        starts |= {INSTRUMENT.name: "beginning", STATUS.name: "beginning", BALANCE.name: "beginning"}
        if CHAIN_POOL.name in starts:
            starts[CHAIN_POOL.name] = "beginning"
        return starts | {BOOK.name: now_ms - BOOKS_BACK_S * 1000, FUNDING.name: now_ms - FUNDING_BACK_S * 1000}

    def _resend(self, out: list[Output]) -> None:
        wanted = {o.value: o for o in out if o.topic == INTENT.name}
        if not wanted:
            return
        oldest_ms = min(codec("OrderIntent").decode(v)["created_ns"] for v in wanted) // 1_000_000 - 60_000
        held = {record.value for record in read_all(self.settings, INTENT.name, max(0, oldest_ms))}
        for value, output in wanted.items():
            if value not in held:
                # Too old by now, most likely: risk drops it for that, and says so.
                self._send(output)
                self.resent += 1

    def _read_instruments(self, reader: LogReader) -> None:
        """Take market.instrument to its end first; as every other batch, by the trace."""
        found = read_all(self.settings, INSTRUMENT.name)
        for start in range(0, len(found), BATCH_MAX):
            self._take(found[start : start + BATCH_MAX])
        positions = dict(reader.positions)
        for record in found:
            positions[(record.topic, record.partition)] = record.offset + 1
        reader.close()
        self._reader = LogReader(self.settings, positions, market=True)

    def step(self, timeout_s: float = 0.1) -> int:
        """Take one batch; gives how many records it held. Raises BusError."""
        assert self._reader is not None
        batch = self._reader.batch(BATCH_MAX, timeout_s)
        if batch:
            self._take(batch)
        self._producer.poll(0)
        if time.monotonic() >= self._snapshot_at:
            self._write_snapshot()
        return len(batch)

    def _take(self, batch: list[LogRecord]) -> None:
        loop = self.loop
        began_ns = time.time_ns()
        out = loop.feed(batch)
        self._seq += 1
        self._send(Output(TRACE.name, self.config.name, trace_record(self.config.name, self.run_id, self._seq, batch, loop)))
        if self._tracer is None:
            for output in out:
                self._send(output)
        else:
            for output in carried(self._tracer, self.config.name, batch, out, began_ns):
                self._send(output)

    def _write_snapshot(self) -> None:
        assert self._reader is not None
        value = snapshot(self.loop, self._seq, self._reader.positions, time.time_ns())
        self._send(Output(STRATEGY_STATE.name, self.config.name, value))
        self._snapshot_at = time.monotonic() + self._snapshot_s

    def _send(self, output: Output) -> None:
        while True:
            try:
                self._producer.send(output.topic, output.key, output.value)
                return
            except QueueFull:
                # Nothing may be lost between trace and decisions: the strategy waits for Kafka, its books stay behind.
                self._producer.poll(QUEUE_WAIT_S)
                self._producer.raise_failures()

    def close(self) -> None:
        """Write what is left and leave; raises DeliveryFailed when Kafka refused records."""
        if self._reader is not None and self._loop is not None:
            self._write_snapshot()
            self._reader.close()
        self._producer.flush(10)
        self._producer.raise_failures()

    def run(self, on_step: Callable[[Runner], None] | None = None) -> None:
        """Run until ``stop``."""
        while not self.stop:
            self.step()
            if on_step is not None:
                on_step(self)


def run_process(settings: Settings, config: Config, mode: Mode, say: Callable[[str], None]) -> int:
    """Run one instance until SIGTERM or SIGINT; gives the exit code."""
    start_tracing(settings, "strategy")
    runner = Runner(settings, config, mode)

    def end(*_: Any) -> None:
        runner.stop = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    runner.start()
    # What was made so far lives as long as the process: the collector of cycles need not walk it between two events.
    gc.collect()
    gc.freeze()
    say(
        f"{config.name} ({config.kind} {runner.loop.strategy.version}) runs {mode}; instruments: {len(runner.loop.view.terms)}; "
        f"recovered: {bool(runner.recovered)}"
    )
    try:
        runner.run()
    finally:
        runner.close()
    counts = runner.loop.counts
    say(f"{config.name}: {counts.records} records, {counts.decisions} decisions, {counts.intents} intents, "
        f"{counts.unreadable} unreadable, {counts.not_live} on books not live")  # fmt: skip
    return 0
