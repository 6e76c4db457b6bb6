"""One processor: assembles books, checkpoints, derived records and views on a Faust app, and runs them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from typing import Any, cast

import faust
from faust.types import TP

from bus.connection import require_broker
from bus.errors import BusError
from bus.partitions import home
from bus.producer import Producer, Producers
from bus.tracing import active as active_tracer
from bus.tracing import start as start_tracing
from config.access import AccessError
from config.settings import Settings
from processors.bars import Bars
from processors.batch_transport import BatchTransport
from processors.books import Books
from processors.changelogs import changelog_name, prepare
from processors.checkpoints import ROUND_S, Checkpoints
from processors.cross import Crosses
from processors.derived import Derived
from processors.faust_app import make_app, make_table, subscribe
from processors.features import Features
from processors.guard import Guard, views_token
from processors.instruments import Instruments
from processors.metrics import Counts, Gauges, ProcessorMetrics
from processors.mirror_book import MirrorBook
from processors.streams import Streams
from processors.views import add_views
from processors.watch import CHECK_S, fetch_position
from schemas.codec import codec
from schemas.topics import BBO, BBO_BY_GROUP, BOOK, CROSS, STATUS, TRADE

log = logging.getLogger(__name__)

EXIT_OK, EXIT_NO_BROKER, EXIT_CONFIG, EXIT_MOVED = 0, 2, 64, 75
"""The last: the partitions were raised; a supervisor starts this worker again."""
IDLE_S = 3.0
"""A partition that gives nothing for this long, although its end is not reached, has nothing left to give."""
LANES_LINGER_MS = 50
"""Depth, microstructure and bars come at intervals of that size anyway; each request to Kafka costs as much as many records."""
SWITCH_S = 0.001
REPEAT_S = 5.0
"""Each best bid and offer is said again this often to those who watch over all venues."""


class Processor:
    """One worker: its Faust app and all that hangs on it."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        p = settings.processor
        self.settings = settings
        self.url = f"http://{p.web_host}:{p.web_port}"
        self.ready = False
        self.exit_code = EXIT_OK
        self._partitions = settings.kafka.market_partitions
        """Of market.book, as the broker had them when this worker started."""
        self._idle_since: dict[Any, tuple[int | None, float]] = {}
        self.counts = Counts()
        self.guard = Guard(p, self.counts)
        self.producer = Producers(settings, [BBO.name], [BBO_BY_GROUP.name, CROSS.name], rest_linger_ms=LANES_LINGER_MS)
        self.app = make_app(settings, bootstrap, self.url)
        self.table = make_table(self.app, settings, "books")
        self.bar_table = make_table(self.app, settings, "bars") if "bar" in p.derived else None
        self.instruments = Instruments(settings)
        self.derived = Derived(self.producer, self.counts, groups="cross" in p.derived)
        self.checkpoints = Checkpoints(p, self.app, Producer(settings), self.counts)
        read, decode, decode_bars = self.checkpoints.read, codec("BookCheckpoint").decode, codec("BarCheckpoint").decode
        self.books = Books(p, self.derived, self.counts, lambda key: read(self.table, key, decode))
        self.features = Features(p, self.books, self.derived, self.counts)
        self.bars = Bars(
            self.derived, self.counts, self.books.positions, lambda key: read(self.bar_table, key, decode_bars),
            self.books.reached,
        )  # fmt: skip
        self.crosses = Crosses(self.derived, self.counts, self.books.positions, self.instruments.taker_fee_bps)
        self.streams = Streams()
        self.checkpoints.add(self.table, self.books)
        self.handlers = {BOOK.name: self.books.on_book_batch, STATUS.name: self.books.on_status_batch}
        if self.bar_table is not None:
            self.checkpoints.add(self.bar_table, self.bars)
            self.handlers[TRADE.name] = self.bars.on_trade_batch
        if "cross" in p.derived:
            self.handlers[BBO_BY_GROUP.name] = self.crosses.on_quote_batch
        self.metrics = ProcessorMetrics(
            self.counts,
            Gauges(
                books=self.states, lag=self.lag, failed_deliveries=lambda: self.producer.failed,
                partitions=lambda: len(self.books.by_partition),
                producer_queue=self.producer.__len__, delay_ms=self.books.watch.delays_ms,
                lagging=lambda: sum(bool(self.books.watch.lagging(p)) for p in self.books.by_partition),
                loop_lag_s=self.books.watch.take_worst, streams=lambda: self.streams.clients,
                waiting=lambda: {name: len(lane.pending) for name, lane in self.features.lanes.items()},
            ),
        )  # fmt: skip
        self._wire()

    def _wire(self) -> None:
        app = self.app
        if (tracer := active_tracer()) is not None:
            self.handlers = {topic: tracer.batches(handle) for topic, handle in self.handlers.items()}
        for topic in self.handlers:
            subscribe(app, topic, self.settings.kafka.market_partitions)
        app.transport = BatchTransport(
            app.conf.broker_consumer, app, handlers=self.handlers,
            changelogs=[changelog_name(self.settings, name) for name in ("books", "bars")],
        )  # fmt: skip
        app.on_partitions_revoked.connect(cast(Any, self._on_revoked), weak=False)
        app.on_partitions_assigned.connect(cast(Any, self._on_assigned), weak=False)
        app.before_stop = self._before_stop
        self.table.on_recover(self._on_recovered)
        features, streams = self.features.touched(), self.streams

        def touched(book: MirrorBook, partition: int) -> None:
            if features is not None:
                features(book, partition)
            if streams.wanted:
                streams.changed(book.key)

        self.books.on_touched = touched
        self.books.partition_of = self.partition_of

        def crossed(symbol: str) -> None:
            if streams.wanted:
                streams.changed(f"cross {symbol}")
                streams.changed("*cross")

        self.crosses.on_change = crossed
        for seconds, callback in (
            (0.05, self._on_poll), (CHECK_S, self._on_check), (1.0, self._on_second),
        ):  # fmt: skip
            app.timer(seconds, on_leader=False)(callback)
        for task in (self._watch_loop, self._run_checkpoints, self._run_features, self._repeat_quotes):
            app.task(cast(Any, task))
        add_views(app, self.table, self)

    def _stopped(self) -> bool:
        return bool(self.app.should_stop)

    # Faust's callbacks.

    async def _watch_loop(self) -> None:
        await self.books.watch.measure_loop(self._stopped)

    async def _run_features(self) -> None:
        await self.features.run(self._stopped)

    async def _repeat_quotes(self) -> None:
        self.instruments.start()
        while not self._stopped():
            await asyncio.sleep(REPEAT_S)
            keys = [book.key for _, book in self.books.all()] if self.ready else []
            for number, key in enumerate(keys):
                self.derived.repeat(key)
                if number % 100 == 99:
                    await asyncio.sleep(0)

    async def _on_poll(self) -> None:
        self.producer.poll(0)

    async def _run_checkpoints(self) -> None:
        while not self._stopped():
            await asyncio.sleep(ROUND_S)
            if self.ready:
                await self.checkpoints.round(self.books.positions)

    async def _on_second(self) -> None:
        if not self.ready:
            return
        self.crosses.look_again()
        self.books.look_for_silence()
        for partition in list(self.bars.by_partition):
            position = self.books.positions.get((TRADE.name, partition))
            waits = (TRADE.name, partition) in self.books.catch_up
            if position is not None and not waits and self._highwater(TRADE.name, partition) <= position:
                self.bars.close_quiet(partition)

    async def _on_check(self) -> None:
        """Whether the partitions lag; and whether one that recovers has nothing more to read."""
        books, consumer = self.books, cast(Any, self.app.consumer)
        if self._partitions_changed() or not self.ready:
            return
        books.watch.check(list(books.by_partition), consumer, books.positions)
        for (topic, partition), end in list(books.catch_up.items()):
            # Nothing may be left to read before ``end``: all of it committed, compacted away or expired.
            tp = TP(topic, partition)
            committed = consumer._committed_offset.get(tp) or 0
            at = books.positions.get((topic, partition), 0)
            if max(at, committed) < end and self._idle(tp):
                at = fetch_position(consumer, tp) or 0
                if await consumer.look_behind(tp, at):
                    del self._idle_since[tp]
                    continue
            if max(at, committed) >= end:
                books.positions.setdefault((topic, partition), max(at, committed))
                books.reached(topic, partition, end)

    def _idle(self, tp: Any) -> bool:
        """Whether nothing of this partition was processed for a while."""
        now = (self.books.positions.get((tp.topic, tp.partition)), time.monotonic())
        since = self._idle_since.get(tp)
        if since is None or since[0] != now[0]:
            self._idle_since[tp] = now
            return False
        return now[1] - since[1] > IDLE_S

    async def _on_revoked(self, _: Any, revoked: Any, **__: Any) -> None:
        partitions = {tp.partition for tp in revoked if tp.topic in self.handlers}
        self.ready, self.books.suspended = False, True
        if partitions:
            # The flow is suspended: nothing is applied between this checkpoint and the next owner's first read.
            self.books.say_leaving(partitions)
            await self.checkpoints.write_all(self.books.positions, partitions)
            self.producer.poll(0)
            self._drop(partitions)

    def _drop(self, partitions: set[int]) -> None:
        self.features.drop(partitions)
        self.books.drop(partitions)
        self.bars.drop(partitions)
        self.crosses.drop(partitions)

    async def _on_assigned(self, _: Any, assigned: Any, **__: Any) -> None:
        self.counts.rebalances += 1
        self.checkpoints.forget()
        self.ready, self.books.suspended = False, True

    async def _on_recovered(self) -> None:
        """The table holds every checkpoint again: load the books, and note how far the log reaches now."""
        # Two rebalances in a row: Faust says so for the first one, of partitions that the second one has handed out and
        # whose changelogs are not read yet. It says so again when they are.
        if self._partitions_changed() or cast(Any, self.app.tables).recovery.need_recovery():
            return
        consumer: Any = self.app.consumer
        books = self.books
        self._drop(set(books.by_partition))
        mine = [tp for tp in consumer.assignment() if tp.topic in self.handlers and tp.topic != BBO_BY_GROUP.name]
        held = {tp.partition for tp in mine}
        self._idle_since.clear()
        if mine:
            ends = await consumer.highwaters(*mine)
            for tp in mine:
                books.by_partition.setdefault(tp.partition, {})
                if end := ends.get(tp, 0):
                    books.catch_up[(tp.topic, tp.partition)] = end
        for table, restore in ((self.table, books.get), (self.bar_table, self.bars.get)):
            for number, key in enumerate(list(table.keys()) if table is not None else ()):
                partition = self.partition_of(key)
                if partition in held:
                    restore(key, partition)
                if number % 50 == 49:
                    await asyncio.sleep(0)
        books.suspended = False
        books.watch.checked_s = time.monotonic()
        for partition in held:
            books.say_again(partition)
        self.ready = True

    async def _before_stop(self) -> None:
        if self.ready:
            self.books.say_leaving(list(self.books.by_partition))
            await self.checkpoints.write_all(self.books.positions)
        self.ready, self.books.suspended = False, True
        self.streams.close()
        await asyncio.to_thread(self.instruments.stop)
        await asyncio.to_thread(self.producer.flush, 10)

    # What the views ask.

    def partition_of(self, key: str) -> int:
        """The partition of a key, as every producer of the bus and Kafka's own clients hash it."""
        return home(key.encode(), self._partitions)

    def _count_partitions(self) -> int:
        """How many partitions market.book has, as far as the driver knows; 0: it does not know yet."""
        try:
            # A plain attribute of the driver's own consumer: nothing is asked of Kafka.
            cluster = cast(Any, self.app.consumer)._thread._consumer._client.cluster
            return len(cluster.partitions_for_topic(BOOK.name) or ())
        except AttributeError:  # the consumer has not started, or just ended
            return 0

    def _partitions_changed(self) -> bool:
        """Whether market.book has other partitions than at the start: keys have moved, and no book here is one's own."""
        count = self._count_partitions()
        if not count or count == self._partitions:
            return False
        self.ready, self.books.suspended = False, True
        if not self.exit_code:
            log.error("market.book had %d partitions and has %d: keys have moved; this worker ends", self._partitions, count)
            self.exit_code = EXIT_MOVED
            os.kill(os.getpid(), signal.SIGTERM)
        return True

    def find(self, key: str) -> tuple[int, MirrorBook] | None:
        """The book of this key with its partition, if this worker holds it."""
        partition = self.partition_of(key)
        book = self.books.by_partition.get(partition, {}).get(key)
        return None if book is None else (partition, book)

    def states(self) -> dict[str, int]:
        """How many books are in each state."""
        out: dict[str, int] = {}
        for partition, book in self.books.all():
            state = self.books.state(book, partition)
            out[state] = out.get(state, 0) + 1
        return out

    def lag(self) -> dict[str, int]:
        """Records of market.book that wait, by partition."""
        out: dict[str, int] = {}
        for (topic, partition), position in list(self.books.positions.items()):
            if topic == BOOK.name:
                end = self._highwater(topic, partition)
                out[str(partition)] = max(0, end - position) if end else 0
        return out

    def _highwater(self, topic: str, partition: int) -> int:
        try:
            return self.app.consumer.highwater(TP(topic, partition)) or 0
        except Exception:  # not assigned at this moment
            return 0

    def health(self) -> dict[str, Any]:
        """What ``/healthz`` says."""
        return {
            "status": "ok",
            "ready": self.ready,
            "worker": self.url,
            "books": sum(len(books) for books in self.books.by_partition.values()),
            "positions": {f"{t}-{p}": offset for (t, p), offset in sorted(self.books.positions.items())},
        }


def main(settings: Settings) -> int:
    """Run one worker until SIGTERM or SIGINT; gives the exit code (0 stopped, 2 no broker, 64 settings)."""
    import uvloop

    try:
        views_token(settings.processor)
        bootstrap = require_broker(settings)
        settings = prepare(settings)
    except BusError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_NO_BROKER
    except AccessError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG
    start_tracing(settings, "processor")
    settings.processor.data_dir.mkdir(parents=True, exist_ok=True)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    processor = Processor(settings, bootstrap)
    worker = faust.Worker(
        processor.app, loop=loop, quiet=True, loglevel="WARNING", redirect_stdouts=False, override_logging=False
    )
    print(f"views {processor.url}/books", file=sys.stderr, flush=True)
    # What was made so far lives as long as the process: the collector of cycles need not walk it between two events.
    gc.collect()
    gc.freeze()
    # Faust's consumer, a thread of its own, waits for the interpreter at most this long while the loop is busy.
    sys.setswitchinterval(SWITCH_S)
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        return processor.exit_code or int(stop.code or 0)
    return processor.exit_code
