"""The Faust app: assembles books, checkpoints, derived records and views, and runs them as one worker process."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, cast

import faust

from bus.connection import password, require_broker, ssl_context
from bus.errors import BusError
from bus.producer import Producer
from config.settings import Settings
from processors.batch_transport import BatchTransport
from processors.books import Books
from processors.checkpoints import Checkpoints
from processors.derived import Derived
from processors.metrics import Counts, Gauges, ProcessorMetrics
from processors.mirror_book import MirrorBook
from processors.views import add_views
from schemas.topics import BOOK, STATUS

log = logging.getLogger(__name__)

EXIT_OK, EXIT_NO_BROKER = 0, 2
MAX_POLL_RECORDS = 4000
"""Records in one turn: about 50 ms of work, between which the views answer."""
MAX_FETCH_BYTES = 16 * 1024 * 1024
TABLE = "books"


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
        self.counts = Counts()
        self.producer = Producer(settings)
        self.app = self._make_app(bootstrap)
        self.table = self.app.Table(
            TABLE, key_type=str, value_type=bytes, partitions=settings.kafka.market_partitions, use_partitioner=True,
            changelog_topic=self.app.topic(
                f"{p.app_id}-{TABLE}-changelog", key_type=str, value_type=bytes, key_serializer="raw",
                value_serializer="raw", partitions=settings.kafka.market_partitions, compacting=True, internal=True,
                replicas=settings.kafka.replication_factor, config={"max.message.bytes": MAX_FETCH_BYTES},
            ),
        )  # fmt: skip
        self.derived = Derived(self.producer, self.counts)
        self.checkpoints = Checkpoints(p, self.app, self.table, self.counts)
        self.books = Books(p, self.derived, self.counts, self.checkpoints.restore)
        self.metrics = ProcessorMetrics(
            self.counts,
            Gauges(
                books=self.states, lag=self.lag, failed_deliveries=lambda: self.producer.failed,
                producer_queue=self.producer.__len__,
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
            broker_session_timeout=10.0,
            broker_heartbeat_interval=2.0,
            stream_wait_empty=False,
            web_host=p.web_host,
            web_bind=p.web_host,
            web_port=p.web_port,
            canonical_url=self.url,
            worker_redirect_stdouts=False,
            autodiscover=False,
        )

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
        app.timer(self.settings.processor.checkpoint_s / 2, on_leader=False)(self._on_timer)
        app.timer(0.05, on_leader=False)(self._on_poll)
        add_views(app, self.table, self)

    # Faust's callbacks.

    async def _on_poll(self) -> None:
        self.producer.poll(0)

    async def _on_timer(self) -> None:
        if self.ready:
            await self.checkpoints.write(self.books)

    async def _on_revoked(self, _: Any, revoked: Any, **__: Any) -> None:
        partitions = {tp.partition for tp in revoked if tp.topic in (BOOK.name, STATUS.name)}
        self.ready = False
        if partitions:
            # The flow is suspended: nothing is applied between this checkpoint and the next owner's first read.
            await self.checkpoints.write(self.books, everything=True, partitions=partitions)
            self.producer.poll(0)
            self.books.drop(partitions)

    async def _on_assigned(self, _: Any, assigned: Any, **__: Any) -> None:
        self.counts.rebalances += 1
        self.checkpoints.forget()
        self.ready = False

    async def _on_recovered(self) -> None:
        """The table holds every checkpoint again: load the books, and note how far the log reaches now."""
        consumer: Any = self.app.consumer
        mine = [tp for tp in consumer.assignment() if tp.topic in (BOOK.name, STATUS.name)]
        self.books.drop(set(self.books.by_partition) - {tp.partition for tp in mine})
        if mine:
            ends = await consumer.highwaters(*mine)
            for tp in mine:
                self.books.by_partition.setdefault(tp.partition, {})
                self.books.catch_up[(tp.topic, tp.partition)] = ends.get(tp, 0)
                if (position := consumer._committed_offset.get(tp)) is not None:
                    self.books.positions.setdefault((tp.topic, tp.partition), position)
        held = {tp.partition for tp in mine}
        for key in list(self.table.keys()):
            partition = self.partition_of(key)
            if partition in held:
                self.books.get(key, partition)
        self.ready = True

    async def _before_stop(self) -> None:
        if self.ready:
            await self.checkpoints.write(self.books, everything=True)
        self.ready = False
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
        from faust.types import TP

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
