"""An order of ours as a state machine: one table of transitions, and nothing ever goes back.

::

    NEW → PREPARED → SENDING → OPEN → PARTIAL → FILLED
                        │        └──────┴→ CANCELING → CANCELED
                        ├→ REJECTED, EXPIRED
                        └→ UNKNOWN → any of the above, or NEVER_EXISTED

A chain's orders go another way (chain_gateway.py)::

    PREPARED → SIGNED → BROADCAST → PENDING → MINED → FINAL, REVERTED, or DROPPED (something else has its nonce)
                            └→ UNKNOWN ─┘  ↑      └→ REORGED → PENDING …

Amending is two orders of the first table (amending.py)::

    old    … → CANCELING → CANCELED, with all its fills
    new    NEW ──────────────────────┴→ PREPARED → …, smaller by what the old one filled
            └→ EXPIRED: the old one filled, its end was not sure in time, nothing is left; REJECTED: stopped meanwhile

Fills are counted in every state, also after a final one.
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
    "UNKNOWN": frozenset(("NEVER_EXISTED", "CANCELING", "PENDING", "MINED", "DROPPED", *_SEEN)),
    "OPEN": frozenset(("PARTIAL", "FILLED", "CANCELING", "CANCELED", "EXPIRED", "REJECTED")),
    "PARTIAL": frozenset(("FILLED", "CANCELING", "CANCELED", "EXPIRED")),
    "CANCELING": frozenset(("FILLED", "CANCELED", "EXPIRED", "REJECTED", "NEVER_EXISTED")),
    "SIGNED": frozenset(("BROADCAST", "PENDING", "MINED", "UNKNOWN", "DROPPED", "EXPIRED")),
    "BROADCAST": frozenset(("PENDING", "MINED", "UNKNOWN", "DROPPED")),
    "PENDING": frozenset(("MINED", "UNKNOWN", "DROPPED")),
    # A revert is only final where the block is: in another one the same transaction may succeed.
    "MINED": frozenset(("FINAL", "REORGED", "REVERTED", "DROPPED")),
    "REORGED": frozenset(("PENDING", "MINED", "UNKNOWN", "DROPPED")),
    **{state: frozenset() for state in FINAL},
}


class InvalidTransition(Exception):
    """A step that the table does not have: a bug of ours, never a venue's message (those are ignored instead)."""


def order_id_of(intent_id: str) -> str:
    """The client order id of an intent: the same intent is always the same order. Letters and digits, 26 of them."""
    return f"vm{intent_id}"


def amends(intent: Record) -> bool:
    """Whether an intent cancels an order and places another in its stead."""
    return intent["action"] == "CANCEL" and bool(intent.get("amend"))


def places(intent: Record) -> bool:
    """Whether an order of its own may come of an intent."""
    return intent["action"] == "PLACE" or amends(intent)


OURS = "vm"
ORPHANED = ":orphaned"
"""At the end of a trade id: this fill takes the one of the id before it back, because its block is no longer in the chain."""


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
    cancel_wanted: str = ""
    """Why it is to be cancelled as soon as it can be; empty: it is not."""
    sized: int = -1
    """What goes out, where that is less than the intent's size: an amend's, less what the old order filled."""
    replaced: str = ""
    """The order that an amend places in its stead: only one ever may."""

    @property
    def size(self) -> int:
        return self.intent["size"] if self.sized < 0 else self.sized

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

    def side_of(self, trade_id: str) -> str:
        """The side of one of its fills."""
        own = self.intent["side"]
        return own if not trade_id.endswith(ORPHANED) else "SELL" if own == "BUY" else "BUY"

    def request(self) -> OrderRequest:
        """The order as it goes out."""
        i = self.intent
        return OrderRequest(
            self.order_id, i["symbol"], i["side"], i["price"], i["price_exp"], self.size, i["size_exp"],
            i["time_in_force"], i["reduce_only"], i["valid_until_ns"],
        )  # fmt: skip
