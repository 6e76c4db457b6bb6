"""Legs under HEDGE_OF at the gate: the first goes out only when all are here and the gate would let its hedges out too.

The hedges' own intents are never sent: what is hedged goes by the first leg's fills (hedging.py). Until that leg is over
they keep their reservations, so that what the hedge will need is still there when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from execution.desk import Desk
from execution.hedging import HEDGE, OVER
from execution.orders import Order, order_id_of
from execution.risk import Verdict, judge

Record = dict[str, Any]
GROUPS_MAX = 10_000


@dataclass
class GroupGate:
    """``take`` gives the first leg, judged, once all legs came; ``over`` lets the hedges' reservations go."""

    desk: Desk
    clock: Callable[[], int]
    _waiting: dict[str, dict[int, Record]] = field(default_factory=dict[str, dict[int, Record]])
    _held: dict[str, list[Record]] = field(default_factory=dict[str, list[Record]])

    @staticmethod
    def concerns(intent: Record) -> bool:
        """Whether an intent waits for the others of its group."""
        return intent["leg_mode"] == "HEDGE_OF" and intent["strategy_version"] != HEDGE and intent["action"] == "PLACE"

    def take(self, intent: Record) -> tuple[Record, Verdict] | None:
        """One leg; None while others are missing. Publishes the hedges' verdicts, not the first leg's."""
        legs = self._waiting.setdefault(intent["group_id"], {})
        legs[intent["leg"]] = intent
        if len(legs) < intent["legs"]:
            if len(self._waiting) > GROUPS_MAX:
                del self._waiting[next(iter(self._waiting))]
            return None
        del self._waiting[intent["group_id"]]
        first = legs.pop(0)
        held: list[Record] = []
        refused = ""
        for leg in legs.values():
            verdict = Verdict("hedge", f"another hedge: {refused}", "accepted", ()) if refused else judge(leg, self.desk.risk)
            if verdict.way:
                # It never leaves itself: the hedge that follows from fills makes its own way.
                verdict = Verdict("", "", "", verdict.passed)
            self.desk.judged(leg, verdict)
            if verdict.accepted:
                held.append(leg)
            else:
                refused = refused or f"{verdict.rule}: {verdict.measured}"
        verdict = Verdict("hedge", refused[:400], "accepted", ()) if refused else judge(first, self.desk.risk)
        self._held[first["id"]] = held
        if not verdict.accepted and not verdict.way:
            self.over(first["id"])
        return first, verdict

    def heard(self, intent_id: str, state: str) -> None:
        """An order's new state."""
        if state in OVER:
            self.over(intent_id)

    def over(self, intent_id: str) -> None:
        """A first leg is over, or never went out."""
        for leg in self._held.pop(intent_id, ()):
            gone = Order(order_id_of(leg["id"]), leg, "EXPIRED", cause="hedged by the first leg's fills")
            self.desk.order(gone, "NEW", self.clock())
