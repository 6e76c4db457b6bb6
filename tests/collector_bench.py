"""A collector without Kafka: an adapter's connections, workers and snapshots against a venue, records kept in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from collectors.discovery import load_listings
from collectors.mantissas import step_exponent
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.pool import ConnectionPool
from collectors.publisher import Publisher
from collectors.rest import RestClient
from collectors.snapshots import Snapshots
from collectors.venue import ALL_CHANNELS, Listing, Venue, adapter
from collectors.worker import BookWorker
from config.settings import CollectorSettings
from simulator.synthetic import SyntheticVenue
from simulator.truth import TruthError


@dataclass
class Bench:
    """What runs, and what it wrote."""

    venue: Venue
    simulated: SyntheticVenue
    pipeline: Pipeline
    pool: ConnectionPool
    counts: Counts
    listings: dict[str, Listing]
    topics: Counter[str] = field(default_factory=Counter[str])
    statuses: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    async def live(self, count: int, timeout_s: float = 20) -> None:
        """Wait until so many books are LIVE."""
        async with asyncio.timeout(timeout_s):
            while self.pipeline.states().get("LIVE", 0) < count:
                await asyncio.sleep(0.02)

    def compare(self, native: str) -> bool | None:
        """Whether a LIVE book is the venue's own at the moment it says it is of; None: it cannot be told now."""
        worker, truth = self.pipeline.workers[native], self.simulated.books.get(native)
        if worker.state != "LIVE" or truth is None:
            return None
        with contextlib.suppress(TruthError):
            seq = worker.last_seq
            if self.simulated.wire.by_time:
                seq = truth.seq_at_time(worker.ts_venue_us)
            _, bids, asks = truth.at(seq)
            return worker.local.book.level_texts() == (bids, asks)
        return None


@contextlib.asynccontextmanager
async def bench(simulated: SyntheticVenue, **settings: Any) -> AsyncIterator[Bench]:
    """Discover, subscribe everything in every channel, mirror; the venue is started and stopped with it."""
    await simulated.start()
    venue = adapter(simulated.adapter)(channels=ALL_CHANNELS)
    counts = Counts()
    publisher = Publisher("bench", lambda topic, key, value: found.topics.update([topic]), counts)
    pipeline = Pipeline(publisher, counts)
    rest = RestClient(simulated.rest_url, counts, weight_per_minute=1_000_000, concurrency=4, timeout_s=10)
    own = CollectorSettings(**{"stale_connection_s": 5, "stale_s": 5, **settings})  # pyright: ignore
    pool = ConnectionPool(
        "bench", venue, simulated.ws_url, pipeline, counts, silence_s=own.stale_connection_s, rest=rest,
        beside=venue.beside(),
    )  # fmt: skip
    snapshots = Snapshots(venue, rest, pipeline, counts)
    found = Bench(venue, simulated, pipeline, pool, counts, {})
    loop = asyncio.get_running_loop()

    def renew(worker: BookWorker, delay_s: float) -> None:
        epoch = worker.epoch

        def ask() -> None:
            if worker.epoch == epoch and not worker.synced:
                pool.renew(worker.native)

        loop.call_later(delay_s, ask)

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.2)
            for worker in list(pipeline.workers.values()):
                worker.on_timer(time.time_ns())

    async with rest:
        found.listings = {one.native_id: one for one in await load_listings(venue, rest)}
        for one in found.listings.values():
            rule = venue.rule(one.native_id)
            worker = BookWorker(
                one.symbol, one.native_id, rule, publisher, counts, own,
                snapshots.want if rule.snapshot_from == "rest" else renew,
                price_exp=step_exponent(one.tick_size), size_exp=step_exponent(one.lot_size),
            )  # fmt: skip
            pipeline.workers[one.native_id] = worker
            worker.announce()
        pool.subscribe(found.listings)
        tasks = [asyncio.create_task(snapshots.run()), asyncio.create_task(tick())]
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await pool.close()
            await simulated.stop()
