"""Finding out: what became of orders whose fate is not known, what was filled, what rests, and that nothing does."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from execution.account import OrderReport
from execution.errors import Fenced, NotFound, Refused, Throttled, Unclear, VenueError
from execution.orders import OURS, Order

if TYPE_CHECKING:
    from execution.gateway import Gateway

log = logging.getLogger(__name__)

SECOND_NS = 1_000_000_000
OVERLAP_US = 60_000_000
"""How far a sweep for fills looks behind the newest fill known: venues show some late."""
CLOCKS_APART_US = 10_000_000
"""Our clock against the venue's."""


class Resolver:
    """A gateway's questions to its venue. All of them may be asked again; none of them sends an order."""

    def __init__(self, gateway: Gateway) -> None:
        self._g = gateway

    async def ask(self, order: Order) -> None:
        """One question about an order whose fate is not known, and what follows from the answer."""
        if order.over and not order.fills_missing:
            return
        if not self._g.budget.take(self._g.clock.now_ns(), urgent=True):
            return
        asked = self._g.clock.now_ns()
        try:
            report = await self._g.account.query(order.order_id, order.symbol)
        except NotFound:
            self._g.step("after not found")
            await self._not_found(order, asked)
        except Throttled as error:
            self._g.budget.silence(self._g.clock.now_ns(), error.retry_after_s)
        except (Unclear, Refused) as error:
            log.info("%s: no word on %s: %s", self._g.account.account, order.order_id, error)
        else:
            self._g.step("after the query")
            await self._g.take(order, report)

    async def _not_found(self, order: Order, now_ns: int) -> None:
        if order.state in ("PREPARED", "SENDING"):
            await self._g.unknown(order, "a restart found it unanswered")
        known = bool(order.venue_order_id) or order.filled or order.reported
        can = self._g.account.capabilities
        # The last moment at which it could have arrived, and then as long as the venue may keep an order from sight.
        last_ns = max(order.prepared_ns, self._g.started_ns) + can.request_expiry_ms * 1_000_000
        if not known and order.state in ("UNKNOWN", "CANCELING") and now_ns > last_ns + int(can.not_found_grace_s * SECOND_NS):
            self._g.counts.never_existed += 1
            await self._g.to(order, "NEVER_EXISTED", "the venue cannot find it, and it can no longer arrive")

    async def fetch_fills(self, symbol: str | None = None) -> None:
        """Read executions by REST; duplicates are told from new ones by their ids."""
        newest = self._g.newest_fill_us - OVERLAP_US
        for one in sorted(self._g.symbols) if symbol is None else (symbol,):
            if not self._g.budget.take(self._g.clock.now_ns(), urgent=True):
                return
            # An order that is not closed may have traded at any time since it was sent.
            sent = [o.prepared_ns // 1000 - CLOCKS_APART_US for o in self._g.unfinished() if o.symbol == one]
            try:
                for fill in await self._g.account.fills(one, max(0, min([newest, *sent]))):
                    await self._g.take_fill(fill)
            except Throttled as error:
                self._g.budget.silence(self._g.clock.now_ns(), error.retry_after_s)
            except VenueError as error:
                log.info("%s: fills of %s could not be read: %s", self._g.account.account, one, error)

    async def sweep(self) -> None:
        """Compare with the venue: fills, orders that are open there, orders that should be."""
        await self.fetch_fills()
        if not self._g.budget.take(self._g.clock.now_ns(), urgent=True):
            return
        try:
            resting = {o.order_id or o.venue_order_id: o for o in await self._g.account.open_orders()}
        except VenueError as error:
            log.info("%s: open orders could not be read: %s", self._g.account.account, error)
            return
        for report in resting.values():
            order = self._g.orders.get(report.order_id)
            if order is not None and not order.over:
                await self._g.take(order, report)
            elif report.order_id.startswith(OURS):
                await self._zombie(report)
        for order in self._g.unfinished():
            being_sent = order.state in ("NEW", "SENDING") or (order.state == "PREPARED" and self._g.ready)
            if order.order_id not in resting and not being_sent:
                await self.ask(order)
            elif order.state == "CANCELING":
                await self._g.ask_cancel(order)
        await self._unpark_foreign()

    async def _unpark_foreign(self) -> None:
        """Fills that waited for an order's answer, and now nobody's order is waiting for one."""
        for fill in list(self._g.parked.values()):
            await self._g.take_fill(fill)

    async def _zombie(self, report: OrderReport) -> None:
        """An order with our mark that we hold to be over, or never knew, rests at the venue: it is cancelled."""
        order = self._g.orders.get(report.order_id)
        if order is not None and order.state not in ("NEVER_EXISTED", "REJECTED"):
            return  # a stale list: it was over before the answer came
        self._g.counts.zombies += 1
        self._g.alarm(f"{self._g.account.account}: {report.order_id} rests at the venue, and should not")
        await self._quietly(self._g.account.cancel(report.order_id, report.venue_order_id, report.symbol))

    async def kill(self, reason: str, timeout_s: float = 30) -> bool:
        """Send nothing new, cancel everything, and look at the venue until nothing is open. False, with an alarm: not sure."""
        self._g.killed = reason or "killed"
        deadline = self._g.clock.now_ns() + int(timeout_s * SECOND_NS)
        while True:
            for order in self._g.unfinished():
                order.cancel_wanted = order.cancel_wanted or self._g.killed
            await self._quietly(self._g.account.cancel_all(set(self._g.symbols)))
            await self.sweep()
            left = await self._open_now()
            pending = [o for o in self._g.unfinished() if o.state in ("NEW", "PREPARED", "SENDING", "UNKNOWN")]
            if left == 0 and not pending:
                return True
            if self._g.clock.now_ns() > deadline:
                self._g.alarm(f"{self._g.account.account}: {left} orders open, {len(pending)} unknown after the kill")
                return False
            await self._g.clock.sleep(0.2)

    async def _open_now(self) -> int:
        """Open orders at the venue that are ours; -1 when it cannot be asked: that is not zero."""
        try:
            return sum(o.order_id.startswith(OURS) for o in await self._g.account.open_orders())
        except VenueError:
            return -1

    async def _quietly(self, call: Awaitable[Any]) -> None:
        try:
            await call
        except Fenced:
            raise
        except Throttled as error:
            self._g.budget.silence(self._g.clock.now_ns(), error.retry_after_s)
        except VenueError as error:
            log.info("%s: %s", self._g.account.account, error)
