"""Whole batches of a partition to a synchronous handler, past Faust's two tasks for each message.

Everything else, tables, changelogs, recovery, rebalances, the leader, stays Faust's own path. An agent must exist for
each such topic, so that it is subscribed and assigned together with the app's tables. What is overridden here is
pinned by a test that fails when the base class changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

BatchHandler = Callable[[TP, Sequence[Any]], None]
"""``handler(tp, records)``: aiokafka ConsumerRecords in order. Must not block for long; what it raises stops the app."""


class BatchConsumer(driver.Consumer):
    """Takes the batches of topics with a handler out of what was fetched."""

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        app = cast(Any, self.app)
        generation = app.consumer_generation_id
        records, active = await super()._wait_next_records(timeout)
        handlers: Mapping[str, BatchHandler] = cast(Any, self.transport).handlers
        if not records or not self.flow_active:
            return records, active
        moved = app.consumer_generation_id != generation
        # What may have changed hands while this waited: looked at again now, not taken from before.
        held = self._active_partitions
        rest = {}
        for tp, batch in records.items():
            handler = handlers.get(tp.topic)
            if handler is None:
                rest[tp] = batch
            elif batch and (active is None or (tp in active and held is not None and tp in held)):
                if moved:
                    await self._read_again(tp, batch[0].offset)
                    continue
                handler(tp, batch)
                self._read_offset[tp] = batch[-1].offset
        return rest, active

    async def _read_again(self, tp: TP, first: int) -> None:
        """A rebalance came in between: this batch may stand before or after the place that recovery sought.

        Reading again is always right, because books ignore what is in them already.
        """
        committed = self._committed_offset.get(tp)
        await self.seek(tp, first if committed is None else min(committed, first))


class BatchTransport(driver.Transport):
    """Faust's Kafka transport with ``handlers`` by topic."""

    Consumer: ClassVar[type] = BatchConsumer

    def __init__(self, *args: Any, handlers: Mapping[str, BatchHandler] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.handlers: Mapping[str, BatchHandler] = handlers or {}
