"""The Faust app: assembles books, checkpoints, derived records and views, and runs them as one worker process."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any, cast

import faust
from faust.types import TP

from bus.connection import password, require_broker, ssl_context
from bus.errors import BusError
from bus.producer import Producer
from config.settings import Settings
from processors.batch_transport import BatchTransport
from processors.books import Books
from processors.checkpoints import ROUND_S, Checkpoints
from processors.derived import Derived
from processors.metrics import Counts, Gauges, ProcessorMetrics
from processors.mirror_book import MirrorBook
from processors.views import add_views
from processors.watch import CHECK_S
from schemas.codec import codec
from schemas.topics import BOOK, STATUS

log = logging.getLogger(__name__)

EXIT_OK, EXIT_NO_BROKER = 0, 2
MAX_POLL_RECORDS = 4000
"""Records in one turn: about 50 ms of work, between which the views answer."""
MAX_FETCH_BYTES = 16 * 1024 * 1024
TABLE = "books"
IDLE_S = 3.0
"""A partition that gives nothing for this long, although its end is not reached, has nothing left to give."""


class _App(faust.App):
    """Writes the last checkpoint while the consumer still lives."""

    before_stop: Any = None

    async def on_stop(self) -> None:
        if self.before_stop is not None:
            await self.before_stop()
        await super().on_stop()


class Processor:
    """One worker: its Faust app and all that hangs on it."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        p = settings.processor
        self.settings = settings
        self.url = f"http://{p.web_host}:{p.web_port}"
        self.ready = False
        self._asked: dict[Any, tuple[int | None, float]] = {}
        self.counts = Counts()
        self.producer = Producer(settings)
        self.app = self._make_app(bootstrap)
        self.table = self._make_table(TABLE)
        self.derived = Derived(self.producer, self.counts)
        self.checkpoints = Checkpoints(p, self.app, Producer(settings), self.counts)
        decode = codec("BookCheckpoint").decode
        self.books = Books(p, self.derived, self.counts, lambda key: self.checkpoints.read(self.table, key, decode))
        self.checkpoints.add(self.table, self.books)
        self.metrics = ProcessorMetrics(
            self.counts,
            Gauges(
                books=self.states, lag=self.lag, failed_deliveries=lambda: self.producer.failed,
                producer_queue=self.producer.__len__, delay_ms=self.books.watch.delays_ms,
                lagging=lambda: sum(bool(self.books.watch.lagging(p)) for p in self.books.by_partition),
                loop_lag_s=self.books.watch.take_worst,
                partitions=lambda: len(self.books.by_partition),
            ),
        )  # fmt: skip
        self._wire()

    def _make_app(self, bootstrap: str) -> _App:
        s, p = self.settings, self.settings.processor
        context = ssl_context(s.kafka)
        credentials: Any = None
        if s.kafka.security_protocol.startswith("SASL"):
            credentials = faust.SASLCredentials(
                username=s.kafka.sasl_username, password=password(s.kafka), ssl_context=context,
                mechanism=s.kafka.sasl_mechanism or "SCRAM-SHA-512",
            )  # fmt: skip
        elif context is not None:
            credentials = faust.SSLCredentials(context)
        return _App(
            p.app_id,
            broker=[f"kafka://{address}" for address in bootstrap.split(",")],
            broker_credentials=credentials,
            store="memory://",
            datadir=str(p.data_dir / str(p.web_port)),
            topic_partitions=s.kafka.market_partitions,
            topic_replication_factor=s.kafka.replication_factor,
            topic_allow_declare=True,
            processing_guarantee="at_least_once",
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=MAX_FETCH_BYTES,
            producer_max_request_size=MAX_FETCH_BYTES,
            producer_compression_type="lz4",
            broker_max_poll_records=MAX_POLL_RECORDS,
            broker_session_timeout=p.session_timeout_s,
            broker_heartbeat_interval=p.session_timeout_s / 5,
            stream_wait_empty=False,
            web_host=p.web_host,
            web_bind=p.web_host,
            web_port=p.web_port,
            canonical_url=self.url,
            worker_redirect_stdouts=False,
            autodiscover=False,
        )

    def _make_table(self, name: str) -> Any:
        """A table whose keys and values go to its changelog as they are.

        Faust's own default writes keys as JSON: with quotes around them they would hash to another partition than the
        instrument's records, and come back as other keys.
        """
        kafka = self.settings.kafka
        table: Any = self.app.Table(
            name, key_type=str, value_type=bytes, partitions=kafka.market_partitions, use_partitioner=True,
            changelog_topic=self.app.topic(
                f"{self.settings.processor.app_id}-{name}-changelog", key_type=str, value_type=bytes,
                key_serializer="raw", value_serializer="raw", partitions=kafka.market_partitions, compacting=True,
                internal=True, replicas=kafka.replication_factor, config={"max.message.bytes": MAX_FETCH_BYTES},
            ),
        )  # fmt: skip
        table.key_serializer = table.value_serializer = "raw"
        return table

    def _wire(self) -> None:
        app, books = self.app, self.books
        partitions = self.settings.kafka.market_partitions
        for topic in (BOOK.name, STATUS.name):
            source = app.topic(
                topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
                partitions=partitions, allow_empty=True,
            )  # fmt: skip

            async def never(stream: Any) -> None:
                # The batches go to the handlers below; the agent makes Faust subscribe and assign the topic.
                async for _ in stream:
                    pass

            app.agent(source, name=f"processors.{topic}")(never)
        app.transport = BatchTransport(
            app.conf.broker_consumer, app,
            handlers={BOOK.name: books.on_book_batch, STATUS.name: books.on_status_batch},
        )  # fmt: skip
        app.on_partitions_revoked.connect(cast(Any, self._on_revoked), weak=False)
        app.on_partitions_assigned.connect(cast(Any, self._on_assigned), weak=False)
        app.before_stop = self._before_stop
        self.table.on_recover(self._on_recovered)
        app.timer(ROUND_S, on_leader=False)(self._on_timer)
        app.timer(0.05, on_leader=False)(self._on_poll)
        app.timer(CHECK_S, on_leader=False)(self._on_check)
        app.task(cast(Any, self._on_start))
        add_views(app, self.table, self)

    # Faust's callbacks.

    async def _on_start(self) -> None:
        await self.books.watch.measure_loop(lambda: bool(self.app.should_stop))

    async def _on_poll(self) -> None:
        self.producer.poll(0)

    async def _on_timer(self) -> None:
        if self.ready:
            await self.checkpoints.round(self.books.positions)

    async def _on_check(self) -> None:
        """Whether the partitions lag; and whether one that recovers has nothing more to read."""
        books, consumer = self.books, cast(Any, self.app.consumer)
        if not self.ready:
            return
        books.watch.check(list(books.by_partition), consumer, books.positions)
        for (topic, partition), end in list(books.catch_up.items()):
            # Nothing may be left to read before ``end``: all of it committed, compacted away or expired.
            tp = TP(topic, partition)
            committed = consumer._committed_offset.get(tp) or 0
            at = books.positions.get((topic, partition), 0)
            if max(at, committed) < end:
                at = await consumer.position(tp) or 0 if self._idle(tp) else 0
            if max(at, committed) >= end:
                books.positions.setdefault((topic, partition), max(at, committed))
                books.reached(topic, partition, end)

    def _idle(self, tp: Any) -> bool:
        """Whether Kafka's last answer for this partition came well after the last batch that was processed."""
        asked = self._asked.get(tp)
        now = (self.books.positions.get((tp.topic, tp.partition)), time.monotonic())
        if asked is None or asked[0] != now[0]:
            self._asked[tp] = now
            return False
        return now[1] - asked[1] > IDLE_S

    async def _on_revoked(self, _: Any, revoked: Any, **__: Any) -> None:
        partitions = {tp.partition for tp in revoked if tp.topic in (BOOK.name, STATUS.name)}
        self.ready, self.books.suspended = False, True
        if partitions:
            # The flow is suspended: nothing is applied between this checkpoint and the next owner's first read.
            self.books.say_leaving(partitions)
            await self.checkpoints.write_all(self.books.positions, partitions)
            self.producer.poll(0)
            self.books.drop(partitions)

    async def _on_assigned(self, _: Any, assigned: Any, **__: Any) -> None:
        self.counts.rebalances += 1
        self.checkpoints.forget()
        self.ready, self.books.suspended = False, True

    async def _on_recovered(self) -> None:
        """The table holds every checkpoint again: load the books, and note how far the log reaches now."""
        consumer: Any = self.app.consumer
        books = self.books
        mine = [tp for tp in consumer.assignment() if tp.topic in (BOOK.name, STATUS.name)]
        held = {tp.partition for tp in mine}
        books.drop(set(books.by_partition) - held)
        self._asked.clear()
        if mine:
            ends = await consumer.highwaters(*mine)
            for tp in mine:
                books.by_partition.setdefault(tp.partition, {})
                if end := ends.get(tp, 0):
                    books.catch_up[(tp.topic, tp.partition)] = end
        for number, key in enumerate(list(self.table.keys())):
            partition = self.partition_of(key)
            if partition in held and books.get(key, partition) is None:
                log.warning("the table's %s is no book", key)
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
        await asyncio.to_thread(self.producer.flush, 10)

    # What the views ask.

    def partition_of(self, key: str) -> int:
        """The partition of a key, as every producer of the bus and Kafka's own clients hash it."""
        partition = self.app.consumer.key_partition(BOOK.name, key.encode())
        return -1 if partition is None else partition

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
    """Run one worker until SIGTERM or SIGINT; gives the exit code (0 stopped, 2 no broker)."""
    import uvloop

    try:
        bootstrap = require_broker(settings)
    except BusError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_NO_BROKER
    settings.processor.data_dir.mkdir(parents=True, exist_ok=True)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    processor = Processor(settings, bootstrap)
    worker = faust.Worker(
        processor.app, loop=loop, quiet=True, loglevel="WARNING", redirect_stdouts=False, override_logging=False
    )
    print(f"views {processor.url}/books", file=sys.stderr, flush=True)
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        return int(stop.code or 0)
    return EXIT_OK
