"""Kill and resume as an executor carries them out: stop at once, cancel, look at the venue until nothing is open, say so.

A kill counts from the moment its record is read, before any task runs; one that came while no executor ran counts at its
start. What was carried out is told as a Notice with the command's version; what could not be verified is an alarm.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from execution.errors import VenueError
from execution.flatten import Round, closing_round
from execution.gateway import Gateway
from execution.hedging import HEDGE
from execution.risk_state import RiskState
from schemas.topics import INTENT

if TYPE_CHECKING:
    from execution.executor import Executor

log = logging.getLogger(__name__)

Record = dict[str, Any]
VERIFY_S = 30.0
FLATTEN_S = 30.0
ROUND_S = 0.25
FLATTEN_WAIT_S = 2.0
"""How long a round waits for its orders to be over."""


def scopes(account: str) -> tuple[str, str, str]:
    """The control scopes that speak of an account."""
    return "all", f"venue:{account.partition(':')[0]}", f"account:{account}"


def stopped(state: RiskState, venue: str, account: str) -> str:
    """Which kill speaks of an account; empty: none does."""
    for scope in ("all", f"venue:{venue}", f"account:{account}"):
        known = state.control.get(scope)
        if known is not None and known["state"] != "RUN":
            return f"{scope} is {known['state']}: {known['reason']}"
    return "" if "all" in state.control else "no control record for all"


class Stopping:
    """One executor's kills. ``take`` folds orders.control; ``opened`` carries out what came before an account was open."""

    def __init__(self, executor: Executor) -> None:
        self._e = executor
        self.flattening: set[str] = set()
        """Ids of the orders that close positions."""

    def take(self, control: Record, *, live: bool) -> None:
        """One Control record; older versions than the known change nothing."""
        risk = self._e.desk.risk
        known = risk.control.get(control["scope"])
        if known is not None and known["version"] >= control["version"]:
            return
        risk.control[control["scope"]] = control
        risk.control_version = max(risk.control_version, control["version"])
        if live:
            for name in self._e.gateways:
                self._apply(name, control)

    def opened(self, name: str) -> None:
        """An account is ready: kills of before are carried out on what it finds open."""
        for control in list(self._e.desk.risk.control.values()):
            if control["state"] == "KILL":
                self._apply(name, control)

    def _apply(self, name: str, control: Record) -> None:
        gateway = self._e.gateways[name]
        if control["scope"] in scopes(name):
            if control["state"] == "KILL":
                gateway.killed = control["reason"] or "killed"  # at once, before any task runs
                self._e.spawn(self._kill(name, gateway, control))
            elif not stopped(self._e.desk.risk, name.partition(":")[0], name):
                gateway.resume()
        elif control["scope"].startswith("strategy:") and control["state"] == "KILL":
            self._e.spawn(self._kill_strategy(name, gateway, control))

    def _in_force(self, control: Record) -> bool:
        """Whether this is still the newest word on its scope."""
        return self._e.desk.risk.control[control["scope"]]["version"] == control["version"]

    async def _kill(self, name: str, gateway: Gateway, control: Record) -> None:
        sure = await gateway.resolver.kill(control["reason"] or "killed", VERIFY_S)
        self._tell("KILLED", name, control, "no open orders" if sure else "")
        if control["flatten"] and sure and self._in_force(control):
            gateway.flattening = True
            try:
                await self._flatten(name, gateway, control, "")
            finally:
                gateway.flattening = False

    async def _kill_strategy(self, name: str, gateway: Gateway, control: Record) -> None:
        """Cancel a strategy's orders until none of them is open, at the venue neither. Hedges are not among them."""
        strategy = control["scope"].partition(":")[2]
        deadline = self._e.clock.now_ns() + int(VERIFY_S * 1e9)
        left = -1
        while left and self._e.clock.now_ns() < deadline:
            if left > 0:
                await asyncio.sleep(0.2)
            own = [o for o in gateway.unfinished() if o.intent["strategy"] == strategy and o.intent["strategy_version"] != HEDGE]
            for order in own:
                await gateway.cancel(order.order_id)
            if own:
                await gateway.resolver.sweep()
            left = sum(not order.over for order in own)
            try:
                resting = {order.order_id for order in await gateway.account.open_orders()}
                left += sum(gateway.orders[i].intent["strategy"] == strategy for i in resting & gateway.orders.keys())
            except VenueError as error:
                log.info("%s: open orders could not be read: %s", name, error)
                left = max(left, 1)
        self._tell("KILLED", name, control, "" if left else "none of its orders is open")
        if control["flatten"] and not left and self._in_force(control):
            await self._flatten(name, gateway, control, strategy)

    async def _flatten(self, name: str, gateway: Gateway, control: Record, strategy: str) -> None:
        """Close what is held, round by round, until only dust is left."""
        e = self._e
        deadline = e.clock.now_ns() + int(FLATTEN_S * 1e9)
        number, found = 0, Round([], {}, {})
        while self._in_force(control) and e.clock.now_ns() < deadline:
            found = closing_round(
                e.desk.account(name), e.desk.terms, e.desk.books, strategy, control["version"], number, e.clock.now_ns()
            )
            if not found.orders and not found.left:
                break
            number += 1
            for order in found.orders:
                self.flattening.add(order["id"])
                e.send(INTENT.name, "OrderIntent", name, order)
            await self._over([order["id"] for order in found.orders])
            await asyncio.sleep(ROUND_S)
        if not self._in_force(control):
            return
        dust = ", ".join(f"{symbol} ({reason})" for symbol, reason in found.dust.items())
        if found.orders or found.left:
            left = {o["symbol"]: "not filled" for o in found.orders} | found.left
            e.desk.alarm(f"{name}: not flat {FLATTEN_S:.0f} s after the kill: {left}", name)
        else:
            self._tell("FLATTENED", name, control, f"positions closed{', but for dust: ' + dust if dust else ''}")

    async def _over(self, intents: list[str]) -> None:
        """Wait until these have had their verdict and are no longer open."""
        risk, end = self._e.desk.risk, self._e.clock.now_ns() + int(FLATTEN_WAIT_S * 1e9)
        while self._e.clock.now_ns() < end:
            if all(i in risk.judged and i not in risk.open for i in intents):
                return
            await asyncio.sleep(0.02)

    def _tell(self, kind: str, name: str, control: Record, text: str) -> None:
        took_us = (self._e.clock.now_ns() - control["ts_ns"]) // 1000
        if text:
            self._e.desk.notice(kind, name, text, control_version=control["version"], took_us=took_us)
        else:
            self._e.desk.alarm(f"{name}: NOT SURE that nothing is open after the kill of {control['scope']}", name)
        self._e.say(f"{name}: {kind.lower()} by {control['by']}: {text or 'NOT SURE'} after {took_us / 1000:.0f} ms")
