"""Whole batches of a partition to a synchronous handler, past Faust's two tasks for each message.

Everything else, tables, changelogs, recovery, rebalances, the leader, stays Faust's own path. An agent must exist for
each such topic, so that it is subscribed and assigned together with the app's tables. What is overridden here is
pinned by a test that fails when the base class changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

LEAVE_S = 15.0
"""For the driver's thread to end; a minute by default, which is more than a cluster gives the whole process."""
BatchHandler = Callable[[TP, Sequence[Any]], None]
"""``handler(tp, records)``: aiokafka ConsumerRecords in order. Must not block for long; what it raises stops the app."""


class BatchConsumer(driver.Consumer):
    """Takes the batches of topics with a handler out of what was fetched."""

    _follows: tuple[int, dict[TP, int]] = (-1, {})
    """(generation, the offset behind what was handled of each partition)."""
    _looked_back: dict[TP, int] = {}  # noqa: RUF012 - replaced with _follows, never shared
    """Where a hole was found and read again: what is missing still is not in the log any more."""
    _looked_behind: dict[TP, int] = {}  # noqa: RUF012 - replaced with _follows, never shared
    """The same, where no batch showed the hole."""

    def _new_consumer_thread(self) -> Any:
        thread = super()._new_consumer_thread()
        thread.shutdown_timeout = LEAVE_S
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
        rest = {}
        for tp, batch in records.items():
            handler = handlers.get(tp.topic)
            if handler is None:
                rest[tp] = newest(batch) if tp.topic in changelogs else batch
            elif batch and (active is None or (tp in active and held is not None and tp in held)):
                if moved:
                    await self._read_again(tp, batch[0].offset)
                    continue
                if await self._hole(tp, batch[0].offset):
                    continue
                handler(tp, batch)
                self._read_offset[tp] = batch[-1].offset
                self._follows[1][tp] = batch[-1].offset + 1
        return rest, active

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
