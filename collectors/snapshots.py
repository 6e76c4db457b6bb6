"""Fetches the REST snapshots that workers ask for, a few at a time, inside the venue's weight limit."""

from __future__ import annotations

import asyncio
import logging
import time

from collectors.errors import MalformedFrame, RestError
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.rest import RestClient
from collectors.venue import Venue
from collectors.worker import BookWorker

log = logging.getLogger(__name__)


class Snapshots:
    """A queue of at most one question for each worker and epoch; bounded by the number of workers."""

    def __init__(self, venue: Venue, rest: RestClient, pipeline: Pipeline, counts: Counts) -> None:
        self._venue = venue
        self._rest = rest
        self._pipeline = pipeline
        self._counts = counts
        self._queue: asyncio.Queue[tuple[BookWorker, int]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def waiting(self) -> int:
        """Questions that wait for their turn."""
        return self._queue.qsize()

    def want(self, worker: BookWorker, delay_s: float) -> None:
        """Ask for the worker's present epoch, not before ``delay_s`` from now. Does not block."""
        question = (worker, worker.epoch)
        if delay_s > 0:
            self._loop.call_later(delay_s, self._queue.put_nowait, question)
        else:
            self._queue.put_nowait(question)

    async def run(self) -> None:
        """Serve the queue until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._venue.limits.rest_concurrency):
                group.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            worker, epoch = await self._queue.get()
            if not self._asked_still(worker, epoch):
                continue
            body = b""
            try:
                body = await self._rest.call(self._venue.snapshot_request(worker.native))
                ts_ns = time.time_ns()
                snapshot = self._venue.parse_snapshot(worker.native, body)
            except RestError as error:
                log.info("snapshot of %s: %s", worker.native, error)
                worker.on_snapshot_failed(epoch)
                continue
            except MalformedFrame as error:
                self._pipeline.publisher.dead_letter(body, str(error), time.time_ns())
                worker.on_snapshot_failed(epoch)
                continue
            self._counts.snapshots += 1
            if self._asked_still(worker, epoch):
                worker.on_snapshot(snapshot, ts_ns, epoch)

    def _asked_still(self, worker: BookWorker, epoch: int) -> bool:
        return worker.epoch == epoch and not worker.synced and self._pipeline.workers.get(worker.native) is worker
