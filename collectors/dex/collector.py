"""One process for one chain: heads, the mirror that follows them, records out, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import Any

from bus.connection import require_broker
from bus.errors import BusError
from bus.producer import Producer
from bus.status_page import start_server
from collectors.dex.errors import ChainError
from collectors.dex.follower import Follower
from collectors.dex.heads import Heads
from collectors.dex.metrics import ChainCounts, ChainMetrics
from collectors.dex.nodes import Node, Nodes
from collectors.dex.pending_feed import PendingFeed
from collectors.dex.presets import PRESETS, protocols_of, with_preset
from collectors.dex.publisher import ChainPublisher
from collectors.dex.recovery import recover
from collectors.dex.tokens import Tokens
from collectors.errors import CollectorError, UnknownVenue, VenueUnreachable
from collectors.readiness import chain_waits_for
from config.chains import ChainSettings
from config.settings import Settings
from schemas.topics import BOOK

log = logging.getLogger(__name__)

POLL_S = 0.1
"""Kafka reports only what it refused, so that asking more often would tell nothing sooner that matters."""
START_TRIES = 5
FLUSH_S = 30.0
HEAD_TRIES = 6
EXIT_OK, EXIT_ERROR, EXIT_NO_BROKER, EXIT_NO_CHAIN = 0, 1, 2, 3


class ChainCollector:
    """All mirrored pools of one chain. Construct inside a running event loop. Raises UnknownVenue."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.name = name
        own = settings.chains.get(name) or ChainSettings()  # pyright: ignore[reportCallIssue]
        self.own, preset = with_preset(name, own)
        if not self.own.http_urls:
            raise UnknownVenue(
                f"the chain {name} has no endpoints: set [chains.{name}] http_urls (and ws_urls); "
                f"presets: {', '.join(PRESETS)}"
            )
        if not self.own.factories:
            raise UnknownVenue(f"the chain {name} names no factories: set [[chains.{name}.factories]]")
        self.counts = ChainCounts()
        self.started = False
        """Every pool has been read, or read back."""
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns() // 1_000_000 % 100_000}"
        limit = settings.collector.queue_max
        self.producer = Producer(settings, queue_max=limit)
        beat_ms = int(settings.collector.beat_s * 1000)
        self.publisher = ChainPublisher(name, self.producer, self.counts, owner=self.owner, beat_ms=beat_ms, limit=limit)
        self.nodes = Nodes(
            [Node(u, self.counts, requests_per_s=self.own.requests_per_s) for u in self.own.http_urls],
            self.counts, batch_max=self.own.batch_max,
        )  # fmt: skip
        self.tokens = Tokens(self.own.tokens, self.own.quotes, preset.native)
        self.protocols = protocols_of(name, self.own)
        self.follower = Follower(self.own, self.protocols, self.nodes, self.publisher, self.tokens, self.counts)
        self.heads = Heads(self.own.ws_urls, self.nodes, self.counts, self.own.block_time_ms / 1000)
        self.pending: PendingFeed | None = None
        if self.own.pending:
            self.pending = PendingFeed(self.own, self.nodes, self.follower, self.publisher, self.counts)
        self.metrics = ChainMetrics(
            name, self.counts,
            {
                "pools": ("Pools mirrored", lambda: len(self.follower.mirror.pools)),
                "books_live": ("Books that are LIVE", self._live),
                "head_number": ("Height of the mirror", self._height),
                "final_number": ("Highest block announced as FINAL", lambda: self.follower.chain.final),
                "websockets": ("Open websockets", lambda: self.heads.open),
                "producer_queue": ("Records waiting for Kafka", lambda: len(self.producer)),
                "pending_watched": ("Pending swaps watched", lambda: len(self.pending.pool.watched) if self.pending else 0),
                "failed_deliveries": ("Records that Kafka did not take", lambda: self.producer.failed),
            },
        )  # fmt: skip

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until ``stop`` is set, then write what waits.

        Raises BusError when Kafka fails for good, VenueUnreachable when the chain cannot be read at the start.
        """
        c, ready = self.settings.collector, partial(chain_waits_for, self)
        server, _ = await start_server(c.metrics_host, c.metrics_port, self.metrics.exposition, self.health, ready)
        tasks: list[asyncio.Task[Any]] = []
        async with self.nodes:
            try:
                stopped = asyncio.create_task(stop.wait())
                tasks = [asyncio.create_task(self._poll(), name="producer")]
                main = asyncio.create_task(self._main(), name="chain")
                tasks += [main, asyncio.create_task(self._tick(), name="timer"), *self.heads.tasks()]
                tasks += self.pending.tasks() if self.pending else []
                done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                for task in done:
                    if task is not stopped:
                        task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                left = await asyncio.to_thread(self.producer.flush, 30)
                if left or self.producer.failed:
                    log.error("%s: %d records were not delivered", self.name, left + self.producer.failed)
                await server.cleanup()

    def health(self) -> dict[str, Any]:
        """What ``/healthz`` says."""
        return {
            "status": "ok", "chain": self.name, "owner": self.owner, "height": self._height(),
            "final": self.follower.chain.final, "pools": len(self.follower.mirror.pools), "live": self._live(),
            "stale": self.follower.stale,
        }  # fmt: skip

    def _height(self) -> int:
        return self.follower.chain.tip.number if self.follower.chain.tip else -1

    def _live(self) -> int:
        return sum(b.state == "LIVE" for b in self.follower.books.values())

    async def _main(self) -> None:
        await self._start()
        # Pools and books live as long as the process: the collector of cycles need not walk them between two heads.
        gc.collect()
        gc.freeze()
        with contextlib.suppress(ChainError):
            await self.follower.after()
        tries: dict[str, int] = {}
        while True:
            head = await self.heads.next(self.own.block_time_ms / 1000)
            if head is None:
                continue
            try:
                if await self.follower.follow(head):
                    if self.pending is not None:
                        await self.pending.at_head()
                    await self.follower.after()
                tries.clear()
            except ChainError as error:
                # An orphan that nobody has any more is given up; a node that was late is asked again.
                tries[head] = tries.get(head, 0) + 1
                log.warning("%s: head %s (try %d): %s", self.name, head, tries[head], error)
                if tries[head] < HEAD_TRIES:
                    await asyncio.sleep(0.02 * 2 ** tries[head])
                    self.heads.again(head)

    async def _start(self) -> None:
        protocols = [p for p, _ in self.protocols]
        for attempt in range(START_TRIES):
            # Anew for each try: what one that failed half-way has written is in the records, and is not written twice.
            if left := await asyncio.to_thread(self.producer.flush, FLUSH_S):
                raise BusError(f"{self.name}: Kafka has not taken {left} records within {FLUSH_S:g} s")
            recovered = await asyncio.to_thread(recover, self.settings, self.name, protocols, self.own.history_max)
            try:
                chain_id = int(await self.nodes.call("eth_chainId"), 16)
                if self.own.chain_id and chain_id != self.own.chain_id:
                    raise VenueUnreachable(f"{self.name}: the endpoints are of chain {chain_id}, not {self.own.chain_id}")
                await self._check_code()
                await self.follower.start(recovered)
                self.started = True
                break
            except ChainError as error:
                log.error("%s: start failed (try %d): %s", self.name, attempt + 1, error)
                await asyncio.sleep(0.5 * 2**attempt)
        else:
            raise VenueUnreachable(f"{self.name}: the chain could not be read after {START_TRIES} tries")
        with contextlib.suppress(ChainError):  # the next head is heard of without it
            self.heads.tell((await self.follower.chain.header("latest")).hash)

    async def _check_code(self) -> None:
        addresses = [p.address for p, _ in self.protocols]
        codes = await self.nodes.batch([("eth_getCode", [a, "latest"]) for a in addresses], kind=str)
        empty = [a for a, code in zip(addresses, codes, strict=True) if len(code) <= 2]
        if empty:
            raise VenueUnreachable(f"{self.name}: no contract at {', '.join(empty)}; correct [[chains.{self.name}.factories]]")

    async def _tick(self) -> None:
        """The watchdog and key frames; ten looks a block time, so that staleness is said in time."""
        beat_s = self.settings.collector.beat_s
        pause_s = min(1.0, beat_s, self.own.block_time_ms / 10_000)
        partitions = await asyncio.to_thread(self.producer.partitions, BOOK.name)
        keyframes_s = beats_s = 0.0
        while True:
            await asyncio.sleep(pause_s)
            now_s = time.monotonic()
            self.follower.watch(now_s)
            if now_s - keyframes_s >= 1.0:
                keyframes_s = now_s
                self.follower.keyframes(self.settings.collector.keyframe_max_s)
            if now_s - beats_s >= beat_s:
                beats_s = now_s
                if not self.follower.stale:
                    self.follower.books.beat(partitions, int(beat_s * 1e9))

    async def _poll(self) -> None:
        while True:
            self.producer.poll(0)
            # A hole in a chain's records cannot be mended by writing on: a restart resumes from what is there.
            self.producer.raise_failures()
            await asyncio.sleep(POLL_S)


def main(settings: Settings, name: str) -> int:
    """Run until SIGTERM or SIGINT; gives the process's exit code (0 stopped, 2 no broker, 3 no chain, 1 other).

    Raises UnknownVenue before anything starts.
    """
    import uvloop

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await ChainCollector(settings, name).run(stop)

    try:
        require_broker(settings)
        uvloop.run(run())
    except BusError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_NO_BROKER
    except VenueUnreachable as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_NO_CHAIN
    except UnknownVenue:
        raise
    except CollectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return EXIT_OK
