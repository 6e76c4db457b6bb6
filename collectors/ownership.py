"""Which instruments are this process's: Kafka hands them out, as partitions of market.instrument.

Two threads, because librdkafka's polls block: one is the member of the group ``collector.<venue>``, one reads all of
market.instrument and market.status. Both call back into the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from bus.consumer import TailReader, group_consumer
from bus.errors import BusError
from config.settings import Settings
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import INSTRUMENT, STATUS

log = logging.getLogger(__name__)

REVOKE_TIMEOUT_S = 10
DISCOVERY_PARTITION = 0
"""Whoever holds it runs discovery: there is always exactly one."""


class Owner(Protocol):
    """What is called, always on the event loop."""

    def on_instrument(self, record: dict[str, Any], partition: int) -> None:
        """An Instrument record of this venue."""
        ...

    def on_status(self, record: dict[str, Any]) -> None:
        """A BookStatus record of this venue, one's own too."""
        ...

    def on_assigned(self, partitions: set[int]) -> None:
        """These partitions are ours from now on."""
        ...

    async def on_revoked(self, partitions: set[int]) -> None:
        """These are about to be another's; when this returns, nothing more is written for them."""
        ...

    def on_lost(self, partitions: set[int]) -> None:
        """These were ours until the group took this process for dead; they may come back at once, or be another's already."""
        ...

    def on_fatal(self, error: Exception) -> None:
        """Kafka can no longer be read."""
        ...


class Ownership:
    """Runs both threads. ``start`` blocks until what is in the topics now has been told."""

    def __init__(self, settings: Settings, venue: str, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._venue = venue
        self._owner = owner
        self._loop = loop
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._tail: TailReader | None = None

    def start(self) -> None:
        """Read the topics to their end, then join the group. Call in a thread; raises BusError."""
        self._tail = TailReader(self._settings, [INSTRUMENT.name, STATUS.name])
        self._tell(self._tail.read_to_end())
        for run in (self._run_tail, self._run_group):
            thread = threading.Thread(target=self._guard, args=(run,), name=run.__name__, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Leave the group and end the threads; blocks. Call in a thread, the loop must go on running."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:  # a thread that ends in silence would look like a quiet venue
            log.exception("%s", run.__name__)
            self._loop.call_soon_threadsafe(self._owner.on_fatal, error)

    def _run_tail(self) -> None:
        assert self._tail is not None
        while not self._stop.is_set():
            if messages := self._tail.poll(2000, 0.2):
                self._tell(messages)
        self._tail.close()

    def _tell(self, messages: list[Any]) -> None:
        prefix = f"{self._venue}|".encode()
        decode_instrument, decode_status = codec("Instrument").decode, codec("BookStatus").decode
        calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        for message in messages:
            value = message.value()
            if value is None or not (message.key() or b"").startswith(prefix):
                continue
            try:
                if message.topic() == STATUS.name:
                    calls.append((self._owner.on_status, (decode_status(value),)))
                else:
                    calls.append((self._owner.on_instrument, (decode_instrument(value), message.partition())))
            except DecodeError as error:
                log.error("%s[%d]@%d: %s", message.topic(), message.partition(), message.offset(), error)
        if calls:
            self._loop.call_soon_threadsafe(_call_all, calls)

    def _run_group(self) -> None:
        consumer = group_consumer(
            self._settings,
            f"collector.{self._venue}",
            [INSTRUMENT.name],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
            session_timeout_ms=self._settings.collector.session_timeout_ms,
        )
        try:
            while not self._stop.is_set():
                message = consumer.poll(0.2)  # rebalances happen in here; the records come by the tail reader
                if message is not None and (error := message.error()) is not None and error.fatal():
                    raise BusError(f"the group collector.{self._venue} failed: {error}")
        finally:
            consumer.close()

    def _on_assign(self, _: Any, partitions: list[Any]) -> None:
        numbers = {p.partition for p in partitions}
        if numbers:
            self._loop.call_soon_threadsafe(self._owner.on_assigned, numbers)

    def _on_revoke(self, _: Any, partitions: list[Any]) -> None:
        numbers = {p.partition for p in partitions}
        if not numbers:
            return
        done = asyncio.run_coroutine_threadsafe(self._owner.on_revoked(numbers), self._loop)
        try:
            done.result(REVOKE_TIMEOUT_S)
        except TimeoutError:
            log.error(
                "giving partitions back took longer than %d s; the new owner's epoch fences us off", REVOKE_TIMEOUT_S
            )

    def _on_lost(self, _: Any, partitions: list[Any]) -> None:
        if numbers := {p.partition for p in partitions}:
            self._loop.call_soon_threadsafe(self._owner.on_lost, numbers)


def _call_all(calls: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    for function, arguments in calls:
        try:
            function(*arguments)
        except Exception:  # one record's surprise must not hide the rest of the batch
            log.exception("%s", getattr(function, "__name__", function))
