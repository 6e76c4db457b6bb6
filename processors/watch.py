"""Watches how far this worker stands behind: the log, the broker and its own event loop.

A partition is LAGGING while its newest processed record is older than ``lag_max_s`` and more are waiting, while Kafka
does not answer for it, or when this process itself stood still, and then until Kafka has answered twice more. A book of
such a partition is never shown as LIVE.
The rule needs clocks that agree within ``lag_max_s`` only while records wait; at the end of the log it needs none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from schemas.topics import BOOK

CHECK_S = 0.1
ANSWER_S = 3.0
"""Kafka answers a waiting fetch twice a second, with or without records."""
STANDSTILL_S = 1.5
"""A check that is this late: the process was stopped, or its loop was held up."""
ANSWERS = 2
"""After a standstill the first answer may have lain in the socket all the while, and knows an old end of the log."""


class Partition:
    """What is known of one partition of market.book."""

    __slots__ = ("answered_ms", "appended_ms", "awaited", "reason")

    def __init__(self) -> None:
        self.appended_ms = 0
        """When the newest processed record was written to the log, by Kafka's timestamp."""
        self.answered_ms: int | None = None
        """When Kafka's last answer was read."""
        self.awaited = 0
        """Answers that have to come before it is believed again that nothing waits."""
        self.reason = ""
        """Why it is LAGGING, in words; empty: it is not."""


class Watch:
    """Knows for each partition held whether it lags; ``on_change(partition)`` is called when that turns."""

    def __init__(self, lag_max_s: float, on_change: Callable[[int], None]) -> None:
        self.lag_max_ms = int(lag_max_s * 1000)
        self._on_change = on_change
        self.partitions: dict[int, Partition] = {}
        self.checked_s = time.monotonic()
        self.back_ms = 0
        """The last moment at which Kafka was silent for any partition; 0: it was not, as far as anybody still cares."""
        self.loop_lag_s = 0.0
        """How late the event loop ran the last check."""
        self.loop_lag_max_s = 0.0
        """The worst since the last scrape."""

    def batch(self, partition: int, appended_ms: int) -> None:
        """A batch was processed whose last record was written then. The hot path: once a batch."""
        one = self.partitions.get(partition)
        if one is None:
            one = self.partitions[partition] = Partition()
        one.appended_ms = appended_ms
        late_ms = int(time.time() * 1000) - appended_ms
        if late_ms > self.lag_max_ms and not one.reason:
            # Said at once, from the batch itself; that it is over is for the careful look of check() to say.
            one.reason = f"the newest event processed was {late_ms} ms old"
            self._on_change(partition)

    def lagging(self, partition: int) -> str:
        """Why this partition lags, or an empty text."""
        if time.monotonic() - self.checked_s > STANDSTILL_S:
            return f"this worker stood still for {time.monotonic() - self.checked_s:.1f} s"
        one = self.partitions.get(partition)
        return "" if one is None else one.reason

    def delays_ms(self) -> dict[str, int]:
        """Age of the newest processed record, by partition."""
        now = int(time.time() * 1000)
        return {str(p): max(0, now - one.appended_ms) for p, one in self.partitions.items() if one.appended_ms}

    def forget(self, partitions: Iterable[int]) -> None:
        """These are another worker's now."""
        for partition in partitions:
            self.partitions.pop(partition, None)

    def check(self, held: Iterable[int], consumer: Any, positions: dict[tuple[str, int], int]) -> None:
        """Look at every partition held. Cheap: attributes only, nothing is asked of Kafka."""
        from faust.types import TP

        late = max(0.0, time.monotonic() - self.checked_s - CHECK_S)
        self.checked_s = time.monotonic()
        now_ms = int(time.time() * 1000)
        for partition in held:
            one = self.partitions.setdefault(partition, Partition())
            tp = TP(BOOK.name, partition)
            reason = ""
            end, answered_ms = _log_end(consumer, tp)
            behind = 0 if end is None else end - positions.get((BOOK.name, partition), end)
            if answered_ms != one.answered_ms:
                one.answered_ms, one.awaited = answered_ms, max(0, one.awaited - 1)
            if late > STANDSTILL_S:
                reason, one.awaited = f"this worker stood still for {late:.1f} s", ANSWERS
            elif answered_ms is not None and now_ms - answered_ms > ANSWER_S * 1000:
                reason, one.awaited = f"Kafka has not answered for {(now_ms - answered_ms) / 1000:.1f} s", ANSWERS
                self.back_ms = now_ms
            elif one.awaited:
                reason = one.reason
            elif behind > 0 and one.appended_ms and now_ms - one.appended_ms > self.lag_max_ms:
                reason = f"{behind} records wait; the newest event processed is {now_ms - one.appended_ms} ms old"
            if bool(reason) != bool(one.reason):
                one.reason = reason
                self._on_change(partition)
            else:
                one.reason = reason

    async def measure_loop(self, stopped: Callable[[], bool]) -> None:
        """Measure for ever how late the event loop runs what is due."""
        while not stopped():
            due = time.monotonic() + CHECK_S
            await asyncio.sleep(CHECK_S)
            self.loop_lag_s = max(0.0, time.monotonic() - due)
            self.loop_lag_max_s = max(self.loop_lag_max_s, self.loop_lag_s)

    def take_worst(self) -> float:
        """The worst delay of the loop since this was asked last, in seconds."""
        worst, self.loop_lag_max_s = self.loop_lag_max_s, 0.0
        return worst


def fetch_position(consumer: Any, tp: Any) -> int | None:
    """The next offset that will be fetched, without waiting; None while it is not known.

    The driver's own position() waits until there is one, and with it every other call of the consumer's thread: the
    worker would fall out of its group.
    """
    try:
        state = consumer._thread._consumer._subscription.subscription.assignment.state_value(tp)
        return state.position if state.has_valid_position else None
    except Exception:  # not assigned at this moment
        return None


def _log_end(consumer: Any, tp: Any) -> tuple[int | None, int | None]:
    """(offset behind the last record, when Kafka last answered in ms); None where not known yet."""
    try:
        # The driver's own consumer lives in another thread; these two read plain attributes of it.
        driver = consumer._thread._consumer if consumer._thread is not None else None
        if driver is None:
            return None, None
        return driver.highwater(tp), driver.last_poll_timestamp(tp)
    except Exception:  # not assigned at this moment
        return None, None
