"""The gateway's write-ahead journal: what it says is durable before anything leaves, and it tells who may write.

One partition of orders.journal holds all accounts. A gateway begins with a FENCE of a higher writer epoch. Before each
order it must know that nobody fenced it off meanwhile: the offset at which PREPARED became durable shows whether other
records lie between, and those are read before the append returns.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from typing import Any

from bus.connection import client_config
from bus.log_reader import LogReader, read_all, start_positions
from config.settings import Settings
from execution.errors import Fenced
from schemas.codec import codec
from schemas.topics import JOURNAL

Record = dict[str, Any]

BLANK: Record = {
    "order_id": "", "intent_id": "", "venue_order_id": "", "state": "NEW", "cause": "", "filled": 0, "size_exp": 0,
    "trade_id": "", "price": 0, "price_exp": 0, "size": 0, "fee": 0, "fee_exp": 0, "fee_asset": "", "maker": False,
    "ts_venue_us": 0, "intent": None, "value": "", "raw": None,
}  # fmt: skip
"""The fields that a step need not name."""


class Journal(ABC):
    """One account's journal. ``append`` returns when the record is durable, and raises Fenced when it must not count."""

    writer: int = 0
    """Our writer epoch."""

    @abstractmethod
    async def load(self) -> list[Record]:
        """All that was ever written for this account, oldest first."""

    @abstractmethod
    async def append(self, record: Record) -> None:
        """Write one step; ``account``, ``writer`` and ``seq`` are filled in."""

    async def open(self) -> list[Record]:
        """Read the past, take the account over, and give the past as it was then: nobody else adds to it."""
        past = await self.load()
        self.writer = max((r["writer"] for r in past), default=0) + 1
        await self.append({"step": "FENCE", "ts_ns": 0})
        # What the one before wrote until our FENCE became durable counts too.
        return [r for r in await self.load() if r["writer"] < self.writer]

    async def close(self) -> None:  # noqa: B027 - not every journal holds anything
        """Leave."""


class KafkaJournal(Journal):
    """The journal on Kafka. One producer with acks=all, idempotent, no linger; a reader that follows the partition."""

    def __init__(self, settings: Settings, account: str) -> None:
        from confluent_kafka import Producer

        self.account = account
        self.writer = 0
        self._settings = settings
        self._seq = 0
        self._fenced = False
        self._own: set[bytes] = set()
        """Records that we wrote and the follower has not met yet: it need not decode them while the order waits."""
        self._seen = -1
        """Offset up to which the follower has read."""
        self._last = -1
        self._moved = threading.Condition()
        self._stop = threading.Event()
        self._codec = codec("JournalRecord")
        self._producer = Producer(
            {
                **client_config(settings), "enable.idempotence": True, "acks": "all", "linger.ms": 0,
                "queue.buffering.max.messages": 10_000, "delivery.timeout.ms": 30_000, "partitioner": "murmur2_random",
            }
        )  # fmt: skip
        self._reader: LogReader | None = None
        self._threads: list[threading.Thread] = []

    async def load(self) -> list[Record]:
        return await asyncio.to_thread(self._load)

    def _load(self) -> list[Record]:
        if self._reader is None:
            ends = start_positions(self._settings, {JOURNAL.name: "end"})
            self._reader = LogReader(self._settings, ends)
            self._seen = self._last = max(ends.values()) - 1
            for work in (self._deliver, self._follow):
                thread = threading.Thread(target=work, daemon=True, name=f"journal-{self.account}")
                thread.start()
                self._threads.append(thread)
        key, out = self.account.encode(), list[Record]()
        for record in read_all(self._settings, JOURNAL.name):
            if record.key == key and record.value is not None:
                out.append(self._codec.decode(record.value))
        return out

    async def append(self, record: Record) -> None:
        if self._fenced:
            raise Fenced(f"{self.account}: a newer gateway has taken over")
        self._seq += 1
        full = BLANK | record | {"account": self.account, "writer": self.writer, "seq": self._seq}
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()

        def delivered(error: Any, message: Any) -> None:
            loop.call_soon_threadsafe(_settle, done, error, -1 if error else message.offset())

        value = self._codec.encode(full)
        self._own.add(value)
        self._producer.produce(JOURNAL.name, value, self.account, partition=0, on_delivery=delivered)
        offset = await done
        between = offset != self._last + 1
        self._last = max(self._last, offset)
        if between:
            # Another account's records, or a FENCE of ours: the follower knows in a moment.
            await asyncio.to_thread(self._wait_for, offset)
        if self._fenced:
            raise Fenced(f"{self.account}: a newer gateway has taken over")

    def _wait_for(self, offset: int) -> None:
        with self._moved:
            if not self._moved.wait_for(lambda: self._seen >= offset, timeout=30):
                raise Fenced(f"{self.account}: the journal cannot be read, so that nobody knows who may write")

    def _deliver(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(0.05)

    def _follow(self) -> None:
        assert self._reader is not None
        key = self.account.encode()
        while not self._stop.is_set():
            batch = self._reader.batch(1000, 0.05)
            if not batch:
                continue
            for record in batch:
                if record.value in self._own:
                    self._own.discard(record.value)
                elif record.key == key and record.value is not None:
                    step = self._codec.decode(record.value)
                    if step["writer"] > self.writer and self.writer:
                        self._fenced = True
            with self._moved:
                self._seen = max(self._seen, batch[-1].offset)
                self._moved.notify_all()

    async def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 2)
        if self._reader is not None:
            self._reader.close()
        await asyncio.to_thread(self._producer.flush, 5)


def _settle(done: asyncio.Future[int], error: Any, offset: int) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(Fenced(f"the journal was not written: {error}"))
    else:
        done.set_result(offset)
