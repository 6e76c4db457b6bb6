"""When a worker's partition lags: by the age of what it processed, by Kafka's silence, by its own standstill."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from faust.types import TP

from processors import watch as module
from processors.watch import Watch
from schemas.topics import BOOK


class Clock:
    """A worker with partition 3, looked at by hand: what its driver knows, and what time it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000_000.0
        self.end, self.answered_ms = 10, 1_000_000_000
        self.position = 10
        self.changes = list[str]()
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: self.now_s, monotonic=lambda: self.now_s))
        driver = SimpleNamespace(
            highwater=lambda tp: self.end if tp == TP(BOOK.name, 3) else None, last_poll_timestamp=lambda _: self.answered_ms
        )
        self.consumer = SimpleNamespace(_thread=SimpleNamespace(_consumer=driver))
        self.watch = Watch(2.0, lambda partition: self.changes.append(self.watch.partitions[partition].reason))

    def look(self, after_s: float = 0.1, *, answered: bool = True) -> str:
        """The reason after the next look."""
        self.now_s += after_s
        if answered:
            self.answered_ms = int(self.now_s * 1000)
        self.watch.check([3], self.consumer, {(BOOK.name, 3): self.position})
        return self.watch.lagging(3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_at_the_end_of_the_log_nothing_lags_however_old_it_is(clock: Clock) -> None:
    clock.watch.batch(3, int(clock.now_s * 1000))
    assert [clock.look() for _ in range(100)] == [""] * 100
    assert clock.changes == []


def test_old_records_lag_while_more_are_waiting(clock: Clock) -> None:
    clock.watch.batch(3, int(clock.now_s * 1000) - 5000)
    assert "5000 ms old" in clock.watch.lagging(3)
    clock.end = 20
    assert "10 records wait" in clock.look()
    clock.position = 20
    assert clock.look() == ""
    assert [bool(reason) for reason in clock.changes] == [True, False]


def test_kafka_that_does_not_answer_is_told_and_believed_again_at_its_second_answer(clock: Clock) -> None:
    clock.look()
    for _ in range(40):
        clock.look(answered=False)
    assert "has not answered for" in clock.watch.lagging(3)
    assert clock.look(answered=True)
    assert clock.look(answered=False), "one answer may have been on its way since before"
    assert clock.look(answered=True) == ""


def test_after_a_standstill_the_first_answer_may_be_as_old_as_it(clock: Clock) -> None:
    clock.look()
    assert "stood still for 9.9 s" in clock.look(10.0), "the answer that lay in the socket was read before this look"
    assert clock.look(answered=False)
    assert clock.look(answered=True), "the log may have gone on: nothing was asked since, as far as is known"
    clock.end = clock.position = 300
    assert clock.look(answered=True) == ""
    clock.watch.batch(3, int(clock.now_s * 1000) - 9000)
    assert "9000 ms old" in clock.watch.lagging(3)
    assert clock.changes[0].startswith("this worker stood still")


def test_a_worker_that_stands_still_this_moment_is_not_believed_either(clock: Clock) -> None:
    clock.look()
    clock.now_s += 5
    assert "stood still for 5.0 s" in clock.watch.lagging(3)


def test_what_is_given_away_is_forgotten(clock: Clock) -> None:
    clock.watch.batch(3, int(clock.now_s * 1000) - 5000)
    clock.watch.forget([3])
    assert clock.watch.lagging(3) == ""
