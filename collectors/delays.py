"""How far each connection is behind its venue, by the venue's own timestamps. Does no I/O.

A collector that cannot keep up, or a network that holds frames back, shows no hole and no silence: every change comes,
in order, and late. So once a second the age of the newest change of each connection is held against the least age that
was seen lately. The difference of the two clocks is in both, and falls out; a venue whose clock is hours away is a
recording being played, of which no age says anything.

A connection that stays behind is to be opened anew: what waits in it is not worth reading any more, and a new one shows
whether it was the connection or a clock that was set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

LOOK_NS = 2_000_000_000
"""What came within this time before a look is what the connection brings now."""
MEMORY_NS = 300_000_000_000
"""The least age is remembered for this long, and up to twice as long; never forgotten while it says that it lags."""
PATIENCE_NS = 60_000_000_000
PLAYED_MS = 3_600_000


class _Connection:
    """The least age of one connection, in milliseconds: of now and of the period before."""

    __slots__ = ("before_ms", "began_ns", "lagging_ns", "least_ms")

    def __init__(self, age_ms: int, now_ns: int) -> None:
        self.least_ms = self.before_ms = age_ms
        self.began_ns = now_ns
        self.lagging_ns = 0
        """Since when every change came late; 0: the last ones did not. A pause in between says nothing of it."""

    def lag_ms(self, age_ms: int, now_ns: int) -> int:
        if now_ns - self.began_ns > MEMORY_NS and not self.lagging_ns:
            self.before_ms, self.least_ms, self.began_ns = self.least_ms, age_ms, now_ns
        self.least_ms = min(self.least_ms, age_ms)
        return age_ms - min(self.least_ms, self.before_ms)


class Delays:
    """Says of the books of each connection that they lag, and that they no longer do."""

    def __init__(self, lag_max_s: float) -> None:
        self._lag_max_ms = int(lag_max_s * 1000)
        self._connections: dict[object, _Connection] = {}

    def look(
        self, groups: Iterable[tuple[object, Iterable[str]]], workers: Mapping[str, Any], now_ns: int
    ) -> list[object]:
        """Look at every connection, ``(what tells it apart, its instruments)``, once a second; gives those to be opened anew.

        A connection that brought nothing lately is not behind: nothing waits in it that this process could have read.
        """
        if not self._lag_max_ms:
            return []
        seen: dict[object, _Connection] = {}
        behind: list[object] = []
        for name, natives in groups:
            books = [worker for native in natives if (worker := workers.get(native)) is not None]
            ages = [
                worker.ts_received_ns // 1_000_000 - worker.ts_venue_us // 1000
                for worker in books
                # A snapshot may carry the time of its last change, which may be long ago; a heartbeat brings no other.
                if worker.index > worker.beats and worker.ts_venue_us > 0 and now_ns - worker.ts_received_ns < LOOK_NS
            ]
            reason, connection = "", self._connections.get(name)
            if ages and abs(age_ms := min(ages)) < PLAYED_MS:
                connection = connection or _Connection(age_ms, now_ns)
                if (lag_ms := connection.lag_ms(age_ms, now_ns)) > self._lag_max_ms:
                    reason = f"its connection is {lag_ms / 1000:.1f} s behind the venue"
                connection.lagging_ns = (connection.lagging_ns or now_ns) if reason else 0
                if reason and now_ns - connection.lagging_ns > PATIENCE_NS:
                    behind.append(name)
            if connection is not None:
                seen[name] = connection
            for worker in books:
                worker.lags(reason)
        self._connections = seen
        return behind
