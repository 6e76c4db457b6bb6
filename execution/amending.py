"""Amending an order: the old one is cancelled, its end and all its fills are known, and only then a new one goes out.

Never both live, and never more in total than the amend's own size: what the old order filled, also while it was being
cancelled, is taken off the new one. Where that cannot be known in time nothing is placed, and the amend was a cancel.

``size`` is the whole, as in FIX's OrderQty: what the old order filled and what still may trade. No venue's own amend is
used, because none gives all of this (docs/decisions/008-amending-is-cancel-then-place.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from execution.errors import NotFound, Throttled, VenueError
from execution.orders import Order, order_id_of

if TYPE_CHECKING:
    from execution.gateway import Gateway

FIRST_S, MOST_S = 0.02, 0.5
"""Between two looks at the old order: the second and all later ones double, up to the most."""
NEVER_THERE = frozenset(("REJECTED", "NEVER_EXISTED"))


async def replaces(gateway: Gateway, order: Order) -> str:
    """Make room for an amend's order: end the one that it replaces, and set ``order.sized`` to what is left.

    Gives why the order cannot go out; empty: it may. The old one is being cancelled in either case. Raises Fenced.
    """
    intent = order.intent
    old = gateway.orders.get(order_id_of(intent["target_id"]))
    if old is None:
        return f"vm{intent['target_id']}, which it replaces, is not known here"
    if any(intent[name] != old.intent[name] for name in ("symbol", "side", "size_exp")):
        return f"{old.order_id}, which it replaces, is of another instrument, side or exponent"
    if old.replaced not in ("", order.order_id):
        return f"{old.order_id} is replaced by {old.replaced} already"
    old.replaced = order.order_id
    gateway.step("before the old order's end")
    await gateway.cancel(old.order_id, f"replaced by {order.order_id}")
    pause_s = FIRST_S
    while not await _ended(gateway, old, insist=pause_s == MOST_S):
        if reason := _too_late(gateway, order):
            return f"{reason}; {old.order_id} is {old.state}"
        await gateway.clock.sleep(pause_s)
        pause_s = min(2 * pause_s, MOST_S)
    gateway.step("after the old order's end")
    if old.state == "FILLED":
        return f"{old.order_id} was filled before it could be replaced"
    order.sized = max(0, intent["size"] - old.filled)
    if not order.sized:
        return f"nothing is left of {intent['size']}: {old.order_id} filled {old.filled}"
    return _too_late(gateway, order)


def _too_late(gateway: Gateway, order: Order) -> str:
    if order.cancel_wanted:
        return f"cancelled before it left: {order.cancel_wanted}"
    late = gateway.clock.now_ns() > order.intent["valid_until_ns"]
    return gateway.stopped(order.intent) or ("too late to leave" if late else "")


async def _ended(gateway: Gateway, old: Order, *, insist: bool) -> bool:
    """One look: whether the old order is over by the venue's own word, and every fill that it had is counted.

    ``insist`` asks to cancel again: the first time may have been lost.
    """
    if old.state in ("NEW", "PREPARED", "SENDING"):
        return False  # another task is sending it at this moment, and cancels it then
    if not old.over:
        await (gateway.ask_cancel(old) if insist and old.state != "UNKNOWN" else gateway.resolver.ask(old))
    if not old.over:
        return False
    if old.state not in NEVER_THERE and not await _confirmed(gateway, old):
        return False
    if old.fills_missing:
        await gateway.resolver.fetch_fills(old.symbol)
    return not old.fills_missing


async def _confirmed(gateway: Gateway, old: Order) -> bool:
    """Ask for the finished order once more: the answers to a cancel of some venues leave out what was filled."""
    if not gateway.budget.take(gateway.clock.now_ns(), urgent=True):
        return False
    try:
        report = await gateway.account.query(old.order_id, old.symbol)
    except NotFound:
        return not old.venue_order_id  # it never left us
    except Throttled as error:
        gateway.budget.silence(gateway.clock.now_ns(), error.retry_after_s)
        return False
    except VenueError:
        return False
    gateway.step("after the old order was asked for")
    old.heard(report)
    return report.state not in ("OPEN", "PARTIAL")
