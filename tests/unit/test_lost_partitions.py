"""Instruments that the group took away without asking: Kafka was away, or this process stood still."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from collectors.collector import LOST_S, Collector
from schemas.codec import codec
from schemas.topics import STATUS
from tests.unit.test_collector_readiness import instrument


class Room:
    """A collector with one worker in partition 1, and the statuses that it wrote."""

    def __init__(self, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
        self.collector, self.statuses = collector, list[str]()
        self.unsubscribed: list[str] = []
        monkeypatch.setattr(collector.pool, "subscribe", lambda _: None)
        monkeypatch.setattr(collector.pool, "unsubscribe", self.unsubscribed.append)
        monkeypatch.setattr(collector.producer, "flush", lambda _: 0)
        collector.publisher._send = self._sent
        collector.on_assigned({1})
        collector.on_instrument(instrument("BTC/USDT", "BTCUSDT"), 1)
        self.statuses.clear()

    def _sent(self, topic: str, key: str, value: bytes) -> None:
        if topic == STATUS.name:
            self.statuses.append(codec("BookStatus").decode(value)["reason"])

    @property
    def worker(self) -> Any:
        return self.collector.pipeline.workers.get("BTCUSDT")

    def told(self, epoch: int) -> None:
        """Another process has written a status."""
        self.collector.on_status({"symbol": "BTC/USDT", "state": "SYNCING", "epoch": epoch, "owner": "another"})


@pytest.fixture
async def room(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Room:
    own = settings(
        kafka={"bootstrap_servers": "127.0.0.1:1"}, venues={"binance-spot": {"rest_url": "http://127.0.0.1:1", "ws_url": "ws://x"}}
    )
    return Room(Collector(own, "binance-spot"), monkeypatch)


async def test_what_comes_back_at_once_was_followed_all_along(room: Room) -> None:
    worker, epoch = room.worker, room.worker.epoch
    room.collector.on_lost({1})
    assert room.worker is worker
    room.collector.on_assigned({1})
    assert room.worker is worker and worker.epoch == epoch
    assert room.statuses == [] and room.unsubscribed == [] and room.collector.lost == {}


async def test_the_new_owners_first_word_ends_it_without_another_of_ours(room: Room) -> None:
    epoch = room.worker.epoch
    room.collector.on_lost({1})
    room.told(epoch - 1)  # from before: the owner that this one followed
    assert room.worker is not None
    room.told(epoch + 1)
    assert room.worker is None
    assert room.statuses == [] and room.unsubscribed == ["BTCUSDT"]


async def test_where_it_is_ours_another_ones_word_only_raises_the_epoch(room: Room) -> None:
    epoch = room.worker.epoch
    room.collector.on_lost({1})
    room.collector.on_assigned({1})
    room.told(epoch + 1)
    assert room.worker is not None and room.worker.epoch > epoch


async def test_what_nobody_takes_over_is_given_up_in_the_end(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.monotonic()
    room.collector.on_lost({1})
    monkeypatch.setattr("collectors.collector.time", SimpleNamespace(monotonic=lambda: now_s + LOST_S + 1, time_ns=time.time_ns))
    monkeypatch.setattr("collectors.collector.asyncio.sleep", _once())
    with pytest.raises(StopAsyncIteration):
        await room.collector._tick()
    assert room.worker is None and room.collector.lost == {}
    assert room.statuses == ["its collector has given it up"]


def _once() -> Any:
    """A sleep that returns once, and ends who calls it the second time."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        if slept:
            raise StopAsyncIteration
        slept.append(seconds)

    return sleep
