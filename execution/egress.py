"""What leaves, counted by its own rules, knowing nothing of strategies and risk: the last guard before the socket."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class EgressCaps:
    """Hard caps of one account, from the executor's own configuration, not from the limits' topic."""

    orders_per_minute: int = 600
    notional_per_minute: int = 0
    """In whole units of the quote; 0: no order may leave."""


@dataclass
class Egress:
    """Counts one account's orders. ``check`` says why the next one must not leave; ``halted`` stays until ``reset``."""

    caps: EgressCaps
    halted: str = ""
    sent: int = 0
    _window: deque[tuple[int, int]] = field(default_factory=deque)
    """(time, notional rounded up to whole units)."""
    _by_intent: dict[str, int] = field(default_factory=dict)
    """Size sent for each intent, at its own exponent."""

    def check(self, now_ns: int, intent_id: str, wanted: int, size: int, notional: int) -> str:
        """Count an order that is about to leave; empty: it may. Anything else halts the account.

        ``wanted`` is the intent's size, ``size`` the order's; ``notional`` in whole units of the quote, rounded up.
        """
        if self.halted:
            return self.halted
        already = self._by_intent.get(intent_id, 0)
        if already + size > wanted:
            return self._halt(f"intent {intent_id} wanted {wanted}, {already} were sent, and now {size} more")
        while self._window and now_ns - self._window[0][0] >= MINUTE_NS:
            self._window.popleft()
        if len(self._window) + 1 > self.caps.orders_per_minute:
            return self._halt(f"more than {self.caps.orders_per_minute} orders in a minute")
        total = sum(n for _, n in self._window) + notional
        if total > self.caps.notional_per_minute:
            return self._halt(f"a notional of {total} in a minute, the cap is {self.caps.notional_per_minute}")
        self._window.append((now_ns, notional))
        self._by_intent[intent_id] = already + size
        self.sent += 1
        if len(self._by_intent) > 100_000:
            del self._by_intent[next(iter(self._by_intent))]
        return ""

    def remember(self, intent_id: str, size: int) -> None:
        """An order that an earlier process may have sent."""
        self._by_intent[intent_id] = self._by_intent.get(intent_id, 0) + size

    def reset(self) -> None:
        """A person looked at it."""
        self.halted = ""

    def _halt(self, text: str) -> str:
        self.halted = text
        return text


@dataclass
class RateBudget:
    """A venue's request budget for one window, with a part that only cancels and questions may use.

    ``heard`` takes the venue's own count, which includes other processes with the same key; a limit may shrink.
    """

    limit: int = 1000
    window_ns: int = MINUTE_NS
    reserve: int = 200
    silent_until_ns: int = 0
    refused: int = 0
    _used: int = 0
    _window: int = -1

    def take(self, now_ns: int, weight: int = 1, *, urgent: bool = False) -> bool:
        """Whether a call may go out now; it is counted when it may. ``urgent``: a cancel or a question."""
        if now_ns < self.silent_until_ns:
            self.refused += 1
            return False
        self._roll(now_ns)
        bound = self.limit if urgent else self.limit - min(self.reserve, self.limit // 2)
        if self._used + weight > bound:
            self.refused += 1
            return False
        self._used += weight
        return True

    def heard(self, now_ns: int, used: int | None = None, limit: int | None = None) -> None:
        """The venue told how much of the window is used, or a new limit."""
        self._roll(now_ns)
        if used is not None:
            self._used = max(self._used, used)
        if limit is not None:
            self.limit = limit

    def silence(self, now_ns: int, seconds: float) -> None:
        """The venue wants quiet (Retry-After)."""
        self.silent_until_ns = max(self.silent_until_ns, now_ns + int(seconds * 1_000_000_000))

    def _roll(self, now_ns: int) -> None:
        window = now_ns // self.window_ns
        if window != self._window:
            self._window, self._used = window, 0
