"""An order of ours as a state machine: one table of transitions, and nothing ever goes back.

::

    NEW → PREPARED → SENDING → OPEN → PARTIAL → FILLED
                        │        └──────┴→ CANCELING → CANCELED
                        ├→ REJECTED, EXPIRED
                        └→ UNKNOWN → any of the above, or NEVER_EXISTED

The chain's states lie beside them: PREPARED → SIGNED → BROADCAST → PENDING → MINED → FINAL, with REVERTED, DROPPED and
REORGED. Fills are counted in every state, also after a final one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from execution.account import OrderReport, OrderRequest
from market.decimals import rescale

Record = dict[str, Any]

FINAL = frozenset(("FILLED", "CANCELED", "REJECTED", "EXPIRED", "NEVER_EXISTED", "FINAL", "REVERTED", "DROPPED"))
"""Nothing follows these but late fills."""

_SEEN = ("OPEN", "PARTIAL", "FILLED", "CANCELED", "REJECTED", "EXPIRED")
TRANSITIONS: dict[str, frozenset[str]] = {
    "NEW": frozenset(("PREPARED", "REJECTED", "EXPIRED")),
    "PREPARED": frozenset(("SENDING", "UNKNOWN", "EXPIRED", "REJECTED", "SIGNED", *_SEEN)),
    "SENDING": frozenset(("UNKNOWN", "CANCELING", *_SEEN)),
    "UNKNOWN": frozenset(("NEVER_EXISTED", "CANCELING", *_SEEN)),
    "OPEN": frozenset(("PARTIAL", "FILLED", "CANCELING", "CANCELED", "EXPIRED", "REJECTED")),
    "PARTIAL": frozenset(("FILLED", "CANCELING", "CANCELED", "EXPIRED")),
    "CANCELING": frozenset(("FILLED", "CANCELED", "EXPIRED", "REJECTED", "NEVER_EXISTED")),
    "SIGNED": frozenset(("BROADCAST", "DROPPED", "EXPIRED")),
    "BROADCAST": frozenset(("PENDING", "MINED", "UNKNOWN", "DROPPED", "REVERTED")),
    "PENDING": frozenset(("MINED", "DROPPED", "REVERTED")),
    "MINED": frozenset(("FINAL", "REORGED", "REVERTED")),
    "REORGED": frozenset(("PENDING", "MINED", "DROPPED", "REVERTED")),
    **{state: frozenset() for state in FINAL},
}


class InvalidTransition(Exception):
    """A step that the table does not have: a bug of ours, never a venue's message (those are ignored instead)."""


def order_id_of(intent_id: str) -> str:
    """The client order id of an intent: the same intent is always the same order. Letters and digits, 26 of them."""
    return f"vm{intent_id}"


OURS = "vm"


@dataclass(slots=True)
class Order:
    """One order. ``intent`` is the OrderIntent record that it came from."""

    order_id: str
    intent: Record
    state: str = "NEW"
    venue_order_id: str = ""
    filled: int = 0
    """By fills, at the intent's size_exp."""
    reported: int = 0
    """The greatest filled size that the venue has told without naming all its fills yet."""
    prepared_ns: int = 0
    cause: str = ""
    trades: set[str] = field(default_factory=set)
    cancel_wanted: bool = False

    @property
    def size(self) -> int:
        return self.intent["size"]

    @property
    def left(self) -> int:
        """What may still trade: everything but what has, until the order is over."""
        return 0 if self.state in FINAL else max(0, self.size - self.filled)

    @property
    def over(self) -> bool:
        return self.state in FINAL

    @property
    def symbol(self) -> str:
        return self.intent["symbol"]

    @property
    def fills_missing(self) -> bool:
        """The venue told of more than the fills we know: they must be fetched before the books can be closed."""
        return self.reported > self.filled

    def may(self, state: str) -> bool:
        """Whether the table has this step from here."""
        return state in TRANSITIONS[self.state]

    def to(self, state: str, cause: str = "") -> str:
        """Go there; gives the state before. Raises InvalidTransition."""
        if not self.may(state):
            raise InvalidTransition(f"{self.order_id}: {self.state} → {state} ({cause})")
        before, self.state, self.cause = self.state, state, cause
        return before

    def heard(self, report: OrderReport) -> str:
        """What a venue's report makes of the state; empty when it is nothing new (a stale or repeated one)."""
        self.venue_order_id = self.venue_order_id or report.venue_order_id
        exponent = self.intent["size_exp"]
        told = rescale(report.filled, report.size_exp, min(exponent, report.size_exp))
        if report.size_exp < exponent:
            told //= 10 ** (exponent - report.size_exp)
        self.reported = max(self.reported, told)
        state = report.state
        if self.state == "CANCELING" and state in ("OPEN", "PARTIAL"):
            return ""
        return state if self.may(state) else ""

    def request(self) -> OrderRequest:
        """The order as it goes out."""
        i = self.intent
        return OrderRequest(
            self.order_id, i["symbol"], i["side"], i["price"], i["price_exp"], i["size"], i["size_exp"],
            i["time_in_force"], i["reduce_only"], i["valid_until_ns"],
        )  # fmt: skip
