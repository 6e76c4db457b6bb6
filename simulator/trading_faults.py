"""What a trading venue can be told to do wrong with calls and private events; counted down, so that runs repeat.

Each venue says the same failures in its own words: a call is a ``place``, ``cancel``, ``query``, ``balance`` or ``other``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Call = Literal["place", "cancel", "query", "balance", "other"]


@dataclass
class TradingFaults:
    """How many of the next calls or events go wrong, by kind."""

    drop_answer: int = 0
    """Orders that are accepted, and whose answer is lost with the connection."""
    fail_but_accept: int = 0
    """Orders that are accepted, and answered with a 5xx."""
    fail_cancel: int = 0
    """Cancels that are answered with a 5xx and not done."""
    throttle: int = 0
    """Calls answered with 429 and Retry-After."""
    ban: int = 0
    """Calls answered with 418."""
    retry_after_s: int = 1
    not_found: int = 0
    """Order queries answered with 'does not exist' although it does."""
    stale: int = 0
    """Order queries answered as if nothing had happened to the order since it was placed."""
    lag_balance: int = 0
    """Balance queries answered as before the last execution."""
    fill_before_cancel: int = 0
    """Cancels that find the order filled a moment before."""
    slow_s: float = 0.0
    """Every order waits so long before it is looked at."""
    miss_fills: int = 0
    """Private executions that are never told by stream."""
    repeat_fills: int = 0
    """Private executions told twice."""
    swap_fills: int = 0
    """Pairs of private executions told in the wrong order."""
    _held: list[bytes] = field(default_factory=list)

    def before(self, call: Call) -> Literal["", "throttle", "ban", "fail"]:
        """An answer instead of doing anything."""
        if self.take("throttle"):
            return "throttle"
        if self.take("ban"):
            return "ban"
        return "fail" if call == "cancel" and self.take("fail_cancel") else ""

    def delay_s(self, call: Call) -> float:
        """How long the call waits."""
        return self.slow_s if call == "place" else 0.0

    def after(self, call: Call) -> Literal["", "drop", "fail"]:
        """What becomes of the answer of what was done."""
        if call != "place":
            return ""
        return "drop" if self.take("drop_answer") else "fail" if self.take("fail_but_accept") else ""

    def private(self, frame: bytes, fill: bool) -> list[bytes]:
        """What goes out in this event's place."""
        if not fill:
            return [frame]
        if self.take("miss_fills"):
            return []
        if self._held:
            return [frame, self._held.pop()]
        if self.take("swap_fills"):
            self._held.append(frame)
            return []
        return [frame, frame] if self.take("repeat_fills") else [frame]

    def take(self, name: str) -> bool:
        """Whether this one goes wrong; it is counted when it does."""
        left = getattr(self, name)
        if left <= 0:
            return False
        setattr(self, name, left - 1)
        return True
