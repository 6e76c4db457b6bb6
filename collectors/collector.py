"""One collector process: discovery, the instruments that Kafka hands it, sockets, snapshots, records out."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bus.producer import Producers
from bus.status_page import start_server
from collectors.audit import Auditor
from collectors.ccxt_feed import CcxtFeed
from collectors.cex.ccxt_pro import CcxtVenue
from collectors.delays import Delays
from collectors.discovery import Discovery, Instrument, load_listings
from collectors.errors import CollectorError, VenueUnreachable
from collectors.heartbeat import due
from collectors.mantissas import step_exponent
from collectors.metrics import CollectorMetrics, Counts, Gauges
from collectors.ownership import DISCOVERY_PARTITION, Ownership
from collectors.pipeline import Pipeline
from collectors.polling import Poller
from collectors.pool import ConnectionPool
from collectors.publisher import Publisher
from collectors.readiness import waits_for
from collectors.rest import RestClient
from collectors.selection import Selector
from collectors.snapshots import Snapshots
from collectors.venue import adapter
from collectors.worker import BookWorker
from config.settings import ConfigError, Settings
from schemas.topics import BOOK, STATUS, TRADE

log = logging.getLogger(__name__)

FIRST_DISCOVERY_TRIES = 5
STATUS_RESERVE = 1.25
"""The producer's queue is this much longer than where books stop, so that a book can still say GAP."""
REST_LINGER_MS = 25
"""What is neither book, state nor trade waits so long for company: tickers are most of a venue's messages, and each request
to Kafka costs as much as many records."""
RESELECT_S = 2.0
LOST_S = 120.0
"""For so long instruments are followed that the group took away without asking: as long as records wait for Kafka."""


class Collector:
    """All of one venue's instruments that are this process's. Construct inside a running event loop."""

    def __init__(self, settings: Settings, name: str, read_settings: Callable[[], Settings] | None = None) -> None:
        own = settings.venue(name)
        self.selector = Selector(own)
        self._read_settings = read_settings
        self._config_error = ""
        self.settings = settings
        self.name = name
        self.counts = Counts()
        self.venue = adapter(own.adapter)(channels=own.channels)
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns() // 1_000_000 % 100_000}"
        limit = settings.collector.queue_max
        self.producer = Producers(
            settings, [BOOK.name, STATUS.name], [TRADE.name], queue_max=int(limit * STATUS_RESERVE), rest_linger_ms=REST_LINGER_MS
        )
        self.publisher = Publisher(
            name, self.producer.send, self.counts, owner=self.owner, beat_ms=int(settings.collector.beat_s * 1000),
            waiting=self.producer.__len__, limit=limit, exact=self.venue.exact,
        )  # fmt: skip
        self.pipeline = Pipeline(self.publisher, self.counts)
        self.rest = RestClient(
            own.rest_url or self.venue.rest_url,
            self.counts,
            weight_per_minute=own.rest_weight_per_minute or self.venue.limits.rest_weight_per_minute,
            concurrency=self.venue.limits.rest_concurrency,
            headers=self.venue.headers,
        )
        self.feed = (
            CcxtFeed(name, self.venue, own, self.pipeline, self.counts)
            if isinstance(self.venue, CcxtVenue) else None
        )  # fmt: skip
        self.pool = self.feed or ConnectionPool(
            name, self.venue, own.ws_url.rstrip("/"), self.pipeline, self.counts,
            silence_s=settings.collector.stale_connection_s, rest=self.rest, beside=self.venue.beside(),
        )  # fmt: skip
        self.poller = Poller(name, self.venue, self.rest, self.pipeline)
        self.snapshots = Snapshots(self.venue, self.rest, self.pipeline, self.counts)
        self.auditor = Auditor(self.venue, self.rest, self.pipeline, self.counts, settings.collector.audit_s)
        self.delays = Delays(settings.collector.lag_max_s)
        self.known: dict[str, Instrument] = {}
        """Instrument records by symbol: the whole venue's."""
        self.partition_of: dict[str, int] = {}
        self.partitions: set[int] = set()
        self.lost: dict[int, float] = {}
        """Until when (monotonic) those are followed that the group took away without asking."""
        load = self.feed.listings if self.feed else partial(load_listings, self.venue, self.rest)
        self.discovery = Discovery(load, self.publisher, self.counts, self.known, own.symbols)
        self.metrics = CollectorMetrics(
            name, self.counts,
            Gauges(
                books=self.pipeline.states,
                producer_queue=self.producer.__len__,
                connections=self.pool.open_count,
                snapshots_waiting=self.snapshots.waiting,
                pending_deltas=lambda: sum(len(w.pending) for w in self.pipeline.workers.values()),
                failed_deliveries=lambda: self.producer.failed,
            ),
        )  # fmt: skip
        self._statuses: dict[str, tuple[str, int]] = {}
        self._failed_seen = 0
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._discover_now = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until ``stop`` is set; then write what waits, leave the group, return.

        Raises BusError when Kafka fails for good, VenueUnreachable when the first discovery fails.
        """
        c, ready = self.settings.collector, partial(waits_for, self)
        server, _ = await start_server(c.metrics_host, c.metrics_port, self.metrics.exposition, self.health, ready)
        loop = asyncio.get_running_loop()
        ownership = Ownership(self.settings, self.name, self, loop)
        tasks: list[asyncio.Task[Any]] = []
        async with self.rest:
            try:
                await asyncio.to_thread(ownership.start)
                tasks = [
                    asyncio.create_task(self._discover(), name="discovery"),
                    asyncio.create_task(self.snapshots.run(), name="snapshots"),
                    asyncio.create_task(self._tick(), name="timer"),
                    asyncio.create_task(self._poll(), name="producer"),
                    asyncio.create_task(self._reselect(), name="selection"),
                    asyncio.create_task(self.pool.renew_old(), name="renewal"),
                    *([asyncio.create_task(self.auditor.run(), name="audit")] if c.audit_s else []),
                    *(asyncio.create_task(job, name="poll") for job in self.poller.jobs()),
                ]
                stopped = asyncio.create_task(stop.wait())
                # A venue may have nothing to audit or to renew.
                ends = [task for task in tasks if task.get_name() not in ("audit", "renewal")]
                done, _ = await asyncio.wait([stopped, self._fatal, *ends], return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                for task in done:
                    if task is not stopped:
                        task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.to_thread(ownership.stop)
                await self.pool.close()
                self.pipeline.workers.clear()
                left = await asyncio.to_thread(self.producer.flush, 30)
                if left or self.producer.failed:
                    log.error("%s: %d records were not delivered", self.name, left + self.producer.failed)
                await server.cleanup()

    def health(self) -> dict[str, Any]:
        """What ``/healthz`` says."""
        return {
            "status": "ok",
            "venue": self.name,
            "owner": self.owner,
            "partitions": sorted(self.partitions),
            "books": self.pipeline.states(),
            "congested": self.publisher.congested,
        }

    # What Kafka says (see ownership.Owner).

    def on_instrument(self, record: dict[str, Any], partition: int) -> None:
        symbol = record["symbol"]
        self.known[symbol] = record
        self.partition_of[symbol] = partition
        if partition in self.partitions:
            self._follow(symbol)

    def on_status(self, record: dict[str, Any]) -> None:
        symbol, epoch = record["symbol"], record["epoch"]
        self._statuses[symbol] = (record["state"], max(epoch, self._statuses.get(symbol, ("", 0))[1]))
        instrument = self.known.get(symbol)
        if record["owner"] != self.owner and instrument is not None:
            worker = self.pipeline.workers.get(instrument["native_id"])
            if worker is not None and self.partition_of[symbol] in self.lost and epoch >= worker.epoch:
                self._drop(instrument["native_id"])  # the new owner has spoken
            elif worker is not None:
                worker.fence(epoch)

    def on_assigned(self, partitions: set[int]) -> None:
        self.partitions |= partitions
        self.lost = {p: until_s for p, until_s in self.lost.items() if p not in partitions}
        log.info("%s: holds partitions %s", self.name, sorted(self.partitions))
        for symbol, partition in list(self.partition_of.items()):
            if partition in partitions:
                self._follow(symbol)
        if DISCOVERY_PARTITION in partitions:
            self._discover_now.set()

    async def on_revoked(self, partitions: set[int]) -> None:
        self._give_up(partitions)
        await asyncio.to_thread(self.producer.flush, 5)

    def on_lost(self, partitions: set[int]) -> None:
        # Kafka was away for longer than a session, or this process stood still. In the first case they come back at once,
        # and a thousand snapshots are not asked for; in the second the new owner's epochs fence us off.
        self.partitions -= partitions
        self.lost |= dict.fromkeys(partitions, time.monotonic() + LOST_S)
        log.warning("%s: lost partitions %s", self.name, sorted(partitions))

    def _give_up(self, partitions: set[int]) -> None:
        self.partitions -= partitions
        self.lost = {p: until_s for p, until_s in self.lost.items() if p not in partitions}
        log.info("%s: gave up partitions %s", self.name, sorted(partitions))
        for symbol, partition in self.partition_of.items():
            if partition in partitions:
                native = self.known[symbol]["native_id"]
                worker = self.pipeline.workers.get(native)
                if worker is not None and worker.state not in ("HALTED", "DELISTED"):
                    # Until another collector has taken it over, and if none does: nobody follows it.
                    worker.refused("its collector has given it up")
                self._drop(native)

    def on_fatal(self, error: Exception) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    # What we do about it.

    def _follow(self, symbol: str) -> None:
        """Make the worker agree with the instrument's state."""
        record = self.known[symbol]
        native, state = record["native_id"], record["state"]
        worker = self.pipeline.workers.get(native)
        if not self.selector.takes(record):
            if worker is not None:
                worker.refused("not selected by the settings")
                self._drop(native)
            return
        if state == "TRADING":
            if worker is None:
                self.pipeline.workers[native] = self._worker(record)
                self.pool.subscribe([native])
            return
        reason = "the venue halted it" if state == "HALTED" else "the venue no longer lists it"
        if worker is not None:
            worker.halt(reason) if state == "HALTED" else worker.delist(reason)
            self._drop(native)
        elif self._statuses.get(symbol, ("", 0))[0] != state:
            self.publisher.status_of(symbol, state, reason, self._statuses.get(symbol, ("", 0))[1], time.time_ns())

    def _worker(self, record: Instrument) -> BookWorker:
        worker = BookWorker(
            record["symbol"],
            record["native_id"],
            self.venue.rule(record["native_id"]),
            self.publisher,
            self.counts,
            self.settings.collector,
            self.snapshots.want if self.venue.rule(record["native_id"]).snapshot_from == "rest" else self._renew,
            price_exp=step_exponent(record["tick_size"]),
            size_exp=step_exponent(record["lot_size"]),
            last_epoch=self._statuses.get(record["symbol"], ("", 0))[1],
        )
        worker.announce()
        return worker

    def _renew(self, worker: BookWorker, delay_s: float) -> None:
        """Ask for the snapshot that only comes in the stream, if it is missing still."""
        epoch = worker.epoch

        def renew() -> None:
            if worker.epoch == epoch and not worker.synced and self.pipeline.workers.get(worker.native) is worker:
                self.pool.renew(worker.native)

        asyncio.get_running_loop().call_later(delay_s, renew)

    def _drop(self, native: str) -> None:
        if self.pipeline.workers.pop(native, None) is not None:
            self.pool.unsubscribe(native)

    async def _reselect(self) -> None:
        """Apply the selection again when the settings or, each discovery_s, the volumes have changed."""
        ranked_s = -math.inf
        while True:
            changed = self._reload()
            now_s = time.monotonic()
            if self.selector.needs_volumes and (changed or now_s - ranked_s >= self.settings.collector.discovery_s):
                try:
                    volumes: dict[str, str] = {}
                    for request in self.venue.volumes_requests():
                        volumes |= self.venue.parse_volumes(await self.rest.call(request))
                    self.selector.rank(self.known, volumes)
                    ranked_s, changed = now_s, bool(self.known)
                    if not self.known:
                        ranked_s = -math.inf
                except CollectorError as error:
                    log.error("%s: the volumes cannot be had: %s", self.name, error)
            if changed:
                for symbol, partition in list(self.partition_of.items()):
                    if partition in self.partitions:
                        self._follow(symbol)
            await asyncio.sleep(RESELECT_S)

    def _reload(self) -> bool:
        """Read the settings again; gives whether what to collect of this venue has changed."""
        if self._read_settings is None:
            return False
        try:
            new, own = self._read_settings().venue(self.name), self.settings.venue(self.name)
        except ConfigError as error:
            if str(error) != self._config_error:
                self._config_error = str(error)
                log.error("%s: the settings changed and do not hold; the old ones stay: %s", self.name, error)
            return False
        if (new.select, new.symbols) == (own.select, own.symbols):
            return False
        self.settings = self.settings.model_copy(update={"venues": {**self.settings.venues, self.name: new}})
        self.selector = Selector(new)
        self.discovery.symbols = frozenset(new.symbols)
        self._discover_now.set()
        log.warning("%s: the selection changed", self.name)
        return True

    async def _discover(self) -> None:
        """Load the instruments each discovery_s, while partition 0 is ours."""
        tries = 0
        while True:
            await self._discover_now.wait()
            if DISCOVERY_PARTITION not in self.partitions:
                self._discover_now.clear()
                continue
            try:
                await self.discovery.once()
                tries = 0
            except CollectorError as error:
                self.counts.discovery_errors += 1
                tries += 1
                log.error("%s: discovery failed (try %d): %s", self.name, tries, error)
                if not self.known and tries >= FIRST_DISCOVERY_TRIES:
                    raise VenueUnreachable(
                        f"{self.name}: the venue could not be read after {tries} tries: {error}"
                    ) from error
                await asyncio.sleep(min(self.settings.collector.discovery_s, 0.5 * 2**tries))
                continue
            await asyncio.sleep(self.settings.collector.discovery_s)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.settings.collector.beat_s))
            self.publisher.check_queue()
            now_ns = time.time_ns()
            workers = list(self.pipeline.workers.values())
            if self.producer.failed > self._failed_seen:
                # Consumers will find a hole in an index; the books are told before they ask.
                self._failed_seen = self.producer.failed
                log.error("%s: kafka refused records: %s", self.name, self.producer.first_failure)
                for worker in workers:
                    if worker.synced:
                        worker.gap("kafka refused records")
            if over := {p for p, until_s in self.lost.items() if time.monotonic() >= until_s}:
                self._give_up(over)
                workers = list(self.pipeline.workers.values())
            for worker in workers:
                worker.on_timer(now_ns)
            live = ((self.partition_of[w.symbol], w.ts_received_ns, w) for w in workers if w.state == "LIVE")
            for worker in due(live, now_ns, int(self.settings.collector.beat_s * 1e9)):
                worker.beat()
            if behind := self.delays.look(self.pool.groups(), self.pipeline.workers, now_ns):
                self.pool.open_anew(behind, "it stays behind the venue")

    async def _poll(self) -> None:
        while True:
            self.producer.poll(0)
            await asyncio.sleep(0.05)
