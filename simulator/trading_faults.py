"""What a trading venue can be told to do wrong with calls and private events; counted down, so that runs repeat."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Refusal = tuple[int, dict[str, Any], dict[str, str]]


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
    slow_s: float = 0.0
    """Every order waits so long before it is looked at."""
    miss_fills: int = 0
    """Private executions that are never told by stream."""
    repeat_fills: int = 0
    """Private executions told twice."""
    swap_fills: int = 0
    """Pairs of private executions told in the wrong order."""
    _held: list[bytes] = field(default_factory=list)

    def before(self, method: str, path: str) -> Refusal | None:
        """An answer instead of doing anything."""
        for name, status in (("throttle", 429), ("ban", 418)):
            if self._count(name):
                body = {"code": -1003, "msg": "Too many requests."}
                return status, body, {"Retry-After": str(self.retry_after_s)}
        if method == "DELETE" and self._count("fail_cancel"):
            return 503, {"code": -1001, "msg": "Internal error; unable to process your request."}, {}
        return None

    def delay_s(self, method: str, path: str) -> float:
        """How long the call waits."""
        return self.slow_s if (method, path.rsplit("/", 1)[1]) == ("POST", "order") else 0.0

    def loses_answer(self, method: str, path: str) -> bool:
        """Whether the answer of what was done is lost."""
        return (method, path.rsplit("/", 1)[1]) == ("POST", "order") and self._count("drop_answer")

    def after(self, method: str, path: str) -> tuple[int, dict[str, Any]] | None:
        """A wrong answer after it was done."""
        if (method, path.rsplit("/", 1)[1]) == ("POST", "order") and self._count("fail_but_accept"):
            return 503, {"code": -1006, "msg": "An unexpected response was received; execution status unknown."}
        return None

    def hides_orders(self) -> bool:
        """Whether this query does not find what is there."""
        return self._count("not_found")

    def private(self, frame: bytes, fill: bool) -> list[bytes]:
        """What goes out in this event's place."""
        if not fill:
            return [frame]
        if self._count("miss_fills"):
            return []
        if self._held:
            return [frame, self._held.pop()]
        if self._count("swap_fills"):
            self._held.append(frame)
            return []
        return [frame, frame] if self._count("repeat_fills") else [frame]

    def _count(self, name: str) -> bool:
        left = getattr(self, name)
        if left <= 0:
            return False
        setattr(self, name, left - 1)
        return True
