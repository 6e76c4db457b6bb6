"""Whole batches of a partition to a synchronous handler, past Faust's two tasks for each message.

Everything else, tables, changelogs, recovery, rebalances, the leader, stays Faust's own path. An agent must exist for
each such topic, so that it is subscribed and assigned together with the app's tables. What is overridden here is
pinned by a test that fails when the base class changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

LEAVE_S = 15.0
"""For the driver's thread to end; a minute by default, which is more than a cluster gives the whole process."""
FETCH_WAIT_MS = 20
"""How long a broker may wait for a first record, 1500 by default. The driver has one fetch at a time under way to a broker,
for those partitions of which nothing waits any more; when these are quiet, all others wait with them for so long. An idle
processor asks as often: about 8 % of a core."""
BatchHandler = Callable[[TP, Sequence[Any]], None]
"""``handler(tp, records)``: in order, each with ``offset``, ``timestamp`` (ms), ``key``, ``value`` and ``headers``. Must not
block for long; what it raises stops the app."""


class BatchConsumer(driver.Consumer):
    """Takes the batches of topics with a handler out of what was fetched."""

    _follows: tuple[int, dict[TP, int]] = (-1, {})
    """(generation, the offset behind what was handled of each partition)."""
    _looked_back: dict[TP, int] = {}  # noqa: RUF012 - replaced with _follows, never shared
    """Where a hole was found and read again: what is missing still is not in the log any more."""
    _looked_behind: dict[TP, int] = {}  # noqa: RUF012 - replaced with _follows, never shared
    """The same, where no batch showed the hole."""

    _ahead: tuple[frozenset[TP], asyncio.Task[Any]] | None = None
    """What is fetched while the batch before it is handled: of which partitions, and the fetch."""

    def _new_consumer_thread(self) -> Any:
        thread = super()._new_consumer_thread()
        thread.shutdown_timeout = LEAVE_S
        create = thread._create_worker_consumer

        def create_worker_consumer(transport: Any) -> Any:
            consumer: Any = create(transport)
            consumer._fetch_max_wait_ms = FETCH_WAIT_MS
            return consumer

        thread._create_worker_consumer = create_worker_consumer
        return thread

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        app = cast(Any, self.app)
        generation = app.consumer_generation_id
        records, active = await super()._wait_next_records(timeout)
        if app.should_stop:
            # Faust takes what a rebalance gives it as assigned, but prepares nothing for it any more: its conductor knows no
            # such partition, its tables have not recovered it. What is not taken is not committed, so nothing is lost.
            return {}, active
        handlers: Mapping[str, BatchHandler] = cast(Any, self.transport).handlers
        changelogs: frozenset[str] = cast(Any, self.transport).changelogs
        if not records or not self.flow_active:
            return records, active
        moved = app.consumer_generation_id != generation
        # What may have changed hands while this waited: looked at again now, not taken from before.
        held = self._active_partitions
        self._in_generation(app.consumer_generation_id)
        rest, ours = dict[TP, Any](), dict[TP, Any]()
        for tp, batch in records.items():
            if tp.topic not in handlers:
                rest[tp] = newest(batch) if tp.topic in changelogs else batch
            elif batch and (active is None or (tp in active and held is not None and tp in held)):
                if moved:
                    await self._read_again(tp, batch[0].offset)
                elif not await self._hole(tp, batch[0].offset):
                    ours[tp] = batch
        # Only now: a fetch that was under way while a place was sought would bring what lies behind the hole.
        self._look_ahead(active, timeout)
        for tp, batch in ours.items():
            handlers[tp.topic](tp, batch)
            self._read_offset[tp] = batch[-1].offset
            self._follows[1][tp] = batch[-1].offset + 1
        return rest, active

    def _look_ahead(self, active: set[TP] | None, timeout: float) -> None:
        """Have the driver's thread fetch the next batch while this one is handled: the broker's answer is waited for once.

        Not while tables recover: then places are sought, and partitions come and go, without a new assignment.
        """
        app = cast(Any, self.app)
        if active is None or not self.flow_active or app.should_stop or app.tables.recovery.in_recovery:
            return
        asked = frozenset(active)
        task = asyncio.ensure_future(cast(Any, self)._thread.call_thread(self._fetch_ahead, asked, timeout))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # told to whoever awaits it, or to nobody
        self._ahead = (asked, task)

    async def _fetch_ahead(self, active: frozenset[TP], timeout: float) -> tuple[Any, dict[TP, Any]]:
        """In the driver's thread: (the assignment, the next batch). Nothing is taken once the assignment is over, for the
        next one would never see it."""
        consumer = cast(Any, self)._thread._ensure_consumer()
        fetcher = consumer._fetcher
        state, until_s = fetcher._subscriptions, time.monotonic() + timeout
        assignment = state.subscription.assignment if state.subscription is not None else None
        handlers: Mapping[str, BatchHandler] = cast(Any, self.transport).handlers
        with state.fetch_context():
            while assignment is not None and assignment.active and not (state.reassignment_in_progress or fetcher._closed):
                for tp, found in fetcher._records.items():
                    # None: the error of a fetch, which has no records.
                    if tp.topic in handlers and (unread := getattr(found, "_partition_records", None)) is not None:
                        unread._consumer_record = as_read
                records = await fetcher.fetched_records(active, timeout=0, max_records=consumer._max_poll_records)
                left_s = until_s - time.monotonic()
                if records or left_s <= 0:
                    return assignment, records
                came = fetcher._create_fetch_waiter()
                await asyncio.wait([came, assignment.unassign_future], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if came.done():
                    came.result()  # raises what the driver has to tell
                came.cancel()
        return None, {}

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if self._ahead is None:
            return await super()._getmany(active_partitions=active_partitions, timeout=timeout)
        (asked, task), self._ahead = self._ahead, None
        assignment, records = await task
        if assignment is None or not assignment.active:
            return {}  # the new assignment reads from what was committed
        if asked != active_partitions:
            for tp, batch in records.items():
                await self.seek(tp, batch[0].offset)
            return {}
        return records

    async def on_stop(self) -> None:
        if self._ahead is not None:
            self._ahead[1].cancel()
        await super().on_stop()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust looks at its own streams here, which take no record of ours, and would call every partition stuck
        after five minutes. What lags is watched by position (watch.py), and says so in states and metrics."""

    def _in_generation(self, generation: int) -> None:
        if self._follows[0] != generation:
            self._follows, self._looked_back, self._looked_behind = (generation, {}), {}, {}

    def _expected(self, tp: TP) -> int:
        """The offset that has to come next."""
        behind = self._follows[1].get(tp)
        # Where nothing is committed yet, recovery seeks nowhere, and what was fetched before it stays behind the position.
        return (self._committed_offset.get(tp) or 0) if behind is None else behind

    async def look_behind(self, tp: TP, position: int) -> bool:
        """Whether a batch up to ``position``, from where the driver would fetch next, was never handed on: it is read again.

        For a partition of which nothing more comes, so that no batch shows the hole. Once for each place: what is missing
        still was compacted away or has expired.
        """
        self._in_generation(cast(Any, self.app).consumer_generation_id)
        expected = self._expected(tp)
        if position <= expected or self._looked_behind.get(tp) == expected:
            return False
        self._looked_behind[tp] = expected
        await self.seek(tp, expected)
        return True

    async def _hole(self, tp: TP, first: int) -> bool:
        """Go back to what was handled last, where this batch does not follow on it: it was fetched and never handed on.

        Once for each place: compaction and retention leave holes too.
        """
        expected = self._expected(tp)
        if first <= expected or self._looked_back.get(tp) == expected:
            return False
        self._looked_back[tp] = expected
        await self.seek(tp, expected)
        return True

    async def _read_again(self, tp: TP, first: int) -> None:
        """A rebalance came in between: this batch may stand before or after the place that recovery sought.

        Reading again is always right, because books ignore what is in them already.
        """
        committed = self._committed_offset.get(tp)
        await self.seek(tp, first if committed is None else min(committed, first))


def as_read(tp: TP, record: Any) -> Any:
    """The record as the driver's parser made it: it has the offset, time, key and value that handlers ask for. Copying them
    into a ConsumerRecord makes reading a fetch half as dear again (benchmarks/steps.py)."""
    return record


def newest(batch: Sequence[Any]) -> list[Any]:
    """Each key's last record, in order. What a table becomes by them is what it becomes by all; the batch's last is there."""
    return sorted({record.key: record for record in batch}.values(), key=lambda record: record.offset)


class BatchTransport(driver.Transport):
    """Faust's Kafka transport with ``handlers`` by topic. Of ``changelogs`` it hands on what a compaction would leave.

    A changelog holds a second's checkpoints for minutes before Kafka compacts it, and Faust takes them one by one.
    """

    Consumer: ClassVar[type] = BatchConsumer

    def __init__(
        self, *args: Any, handlers: Mapping[str, BatchHandler] | None = None, changelogs: Iterable[str] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.handlers: Mapping[str, BatchHandler] = handlers or {}
        self.changelogs = frozenset(changelogs)
