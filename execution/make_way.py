"""Two strategies on one account that would trade with each other: the resting order goes, then the other one is sent.

The gate says which orders must give way (``Verdict.way``; who goes first: ``risk.gives_way``). They are cancelled, and
the intent waits until the venue's word is that they are over, all their fills known. Then the whole gate is asked again,
as of that moment: the intent's age, books, balances. So at no time two of our orders are at the venue at prices that meet.

While it waits the intent holds its reservation like an order that is out. What gave way cannot come back at a price that
meets it: neither of the two can starve the other. What happens at the venue in between is in the fills, as ever: an order
that trades while it is cancelled has traded.

Venues have modes of their own against trading with oneself. They differ (Binance and OKX may expire the maker, Kraken
expires the newer), act only once both orders are at the venue, and on paper there is none: they are not relied on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from execution.risk import Verdict

if TYPE_CHECKING:
    from execution.executor import Executor

Record = dict[str, Any]
AGAIN_NS = 500_000_000
"""A cancel whose answer was lost is asked for again after this."""


@dataclass
class Waiting:
    """An intent that is held back, and the orders that it waits for with the time at which their cancel was last asked."""

    raw: bytes
    intent: Record
    since_ns: int
    asked: dict[str, int] = field(default_factory=dict[str, int])


class MakeWay:
    """One executor's intents that wait. ``look`` at each order that is over, and from time to time: ages pass."""

    def __init__(self, executor: Executor) -> None:
        self._e = executor
        self.waiting: dict[str, Waiting] = {}

    def wait(self, raw: bytes, intent: Record, way: tuple[str, ...]) -> None:
        """Hold an intent back until these orders are over."""
        self.waiting[intent["id"]] = Waiting(raw, intent, self._e.clock.now_ns())
        self._hold(self.waiting[intent["id"]], way)

    def _hold(self, one: Waiting, way: tuple[str, ...]) -> None:
        desk, now, intent = self._e.desk, self._e.clock.now_ns(), one.intent
        desk.reserve(intent, intent["size"], waits=True)
        for other in way:
            if now - one.asked.get(other, 0) < AGAIN_NS:
                continue
            if other not in one.asked:
                desk.gives_way(desk.risk.open[other])
            one.asked[other] = now
            why = f"makes way for vm{intent['id']} of {intent['strategy']}"
            self._e.spawn(self._e.cancel(intent["account"], other, why))

    def look(self) -> None:
        """Judge again what waits: it goes on waiting, leaves, or is refused for good."""
        for name in list(self.waiting):
            if (one := self.waiting.get(name)) is None:
                continue  # a step further up this very call let it go
            self._e.desk.risk.open.pop(name, None)  # an intent is not in its own way
            verdict = self._e.judged_again(one.intent)
            if verdict.way:
                self._hold(one, verdict.way)
            else:
                self._end(one, verdict)

    def withdraw(self, intent_id: str) -> None:
        """Its strategy cancels what waits: it never leaves."""
        if (one := self.waiting.get(intent_id)) is not None:
            self._e.desk.risk.open.pop(intent_id, None)
            self._end(one, Verdict("self_trade", "cancelled while it waited", "wanted", ()))

    def _end(self, one: Waiting, verdict: Verdict) -> None:
        del self.waiting[one.intent["id"]]
        waited_us = max(1, (self._e.clock.now_ns() - one.since_ns) // 1000)
        self._e.decided(one.raw, one.intent, verdict, tuple(one.asked), waited_us)
