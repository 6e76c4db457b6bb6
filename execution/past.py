"""What an executor does before anything new: reads its past from the log, takes its accounts over, and tells what was lost.

A process that is killed may have journalled what it never published. Whoever waits for such news (a hedge group, a
strategy) would wait for ever, so it is published at the restart: fills, orders' last states, and accepted intents that
never became orders.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bus.log_reader import read_all, start_positions
from execution.chain_account import ChainAccount
from execution.chain_gateway import ChainGateway
from execution.config import AccountConfig, account_of
from execution.egress import Egress, EgressCaps, RateBudget
from execution.gateway import Gateway
from execution.hedging import OVER
from execution.journal import KafkaJournal
from execution.orders import Order, order_id_of, places
from execution.paper import PaperAccount
from execution.risk import Verdict
from schemas.codec import codec
from schemas.topics import (
    BOOK,
    CONTROL,
    FILL,
    INSTRUMENT,
    INTENT,
    LEDGER,
    LIMITS,
    NOTICE,
    ORDER,
    RESIDUAL,
    RISK,
    STATUS,
    TRADE,
)

if TYPE_CHECKING:
    from execution.executor import Executor

Record = dict[str, Any]
BACK_MS = 3_600_000
BOOKS_BACK_MS = 130_000


class Past:
    """One executor's past. ``load`` blocks; ``open`` is called once for each account."""

    def __init__(self, executor: Executor) -> None:
        self._e = executor
        self.began_ns = executor.clock.now_ns()
        self.intents: dict[str, Record] = {}
        self.accepted: set[str] = set()
        self.states: dict[str, str] = {}
        """intent → the newest state of its order that was published."""
        self._waiting: dict[str, list[tuple[bytes, Record]]] = {}

    def load(self) -> dict[tuple[str, int], int]:
        """Fold the log up to now; gives where to read on."""
        e, settings = self._e, self._e.settings
        now_ms = time.time_ns() // 1_000_000
        starts: dict[str, str | int] = {BOOK.name: now_ms - BOOKS_BACK_MS, STATUS.name: "beginning"}
        ends = {t.name: "end" for t in (TRADE, INSTRUMENT, LIMITS, CONTROL, RISK, ORDER, FILL)}
        positions = start_positions(settings, starts | ends | {INTENT.name: now_ms - BACK_MS})
        for topic in (INSTRUMENT, LIMITS, CONTROL):
            for record in read_all(settings, topic.name):
                e.take(record, live=False)
        for record in read_all(settings, LEDGER.name):
            entry = codec("LedgerEntry").decode(record.value or b"")
            e.desk.account(entry["account"]).take_entry(entry)
        since_ms = self._since_ms(now_ms)
        # Intents first: a fill counts for its group only when the group is known.
        for topic in (INTENT, FILL, RISK, ORDER):
            for record in read_all(settings, topic.name, "beginning" if topic is FILL else since_ms):
                e.take(record, live=False)
        for accounts in e.desk.accounts.values():
            e.desk.refresh(accounts)
        return positions

    def _since_ms(self, now_ms: int) -> int:
        """How far back groups may still be half done: to before the last sign of life, and to the oldest that is hedged."""
        back = [now_ms]
        for record in read_all(self._e.settings, RESIDUAL.name):
            residual = codec("Residual").decode(record.value or b"")
            self._e.groups.remember(residual)
        back += [r["created_ns"] // 1_000_000 for r in self._e.groups.told.values() if r["state"] == "HEDGING"]
        alive: dict[str, int] = {}
        for record in read_all(self._e.settings, NOTICE.name):
            notice = codec("Notice").decode(record.value or b"")
            if notice["account"] in self._e.config.accounts:
                alive[notice["account"]] = notice["ts_ns"] // 1_000_000
        return min(back + list(alive.values())) - BACK_MS

    def take(self, topic: str, value: Record) -> None:
        """One record of the past."""
        if topic == INTENT.name:
            self.intents[value["id"]] = value
        elif topic == RISK.name and value["verdict"] == "ACCEPT":
            self.accepted.add(value["intent_id"])
        elif topic == ORDER.name:
            self.states[value["intent_id"]] = value["state"]

    def holds_back(self, raw: bytes, intent: Record) -> bool:
        """Whether an intent of before this process must wait: the journal may know its order, where the verdict was lost."""
        name = intent["account"]
        if name in self._e.desk.risk.accounts or intent["created_ns"] >= self.began_ns:
            return False
        self._waiting.setdefault(name, []).append((raw, intent))
        return True

    async def open(self, name: str, config: AccountConfig) -> None:
        """Take an account over, and bring its past in order. Raises AccountError, Fenced."""
        e = self._e
        venue = name.partition(":")[0]
        paper_held = dict(e.desk.account(name).balances) or config.amounts()
        account = account_of(
            name, config, e.desk.books, e.desk.terms, paper_held, e.run_id, pools=e.pools, live=e.config.live,
            arm_file=e.config.arm_file,
        )  # fmt: skip
        caps = EgressCaps(config.orders_per_minute, config.notional_per_minute)
        budget = RateBudget(config.requests_per_minute, reserve=config.requests_per_minute // 5)
        kind = ChainGateway if isinstance(account, ChainAccount) else Gateway
        gateway = kind(account, KafkaJournal(e.settings, name), e.desk, e.clock, Egress(caps), e.whole_notional, budget)
        e.gateways[name] = gateway
        await account.start()
        for scope in ("all", f"venue:{venue}", f"account:{name}"):
            if (known := e.desk.risk.control.get(scope)) is not None and known["state"] == "KILL":
                gateway.killed = known["reason"] or "killed"
        await gateway.start()
        self._publish_what_was_lost(name, gateway)
        if isinstance(account, PaperAccount) and e.desk.account(name).balances:
            account.held = dict(e.desk.account(name).balances)
            account.derivatives = e.desk.account(name).derivatives()
        for order in gateway.unfinished():
            e.desk.reserve(order.intent, order.left)
        e.desk.reconciled(name, await account.balances())
        e.desk.risk.accounts |= {name}
        for raw, intent in self._waiting.pop(name, []):
            e.intent(raw, intent)
        e.desk.notice("READY", name, f"{len(gateway.unfinished())} orders open from before")
        e.say(f"{name}: ready, {len(gateway.unfinished())} orders open from before")

    def _publish_what_was_lost(self, name: str, gateway: Gateway) -> None:
        e = self._e
        # Journalled, and not published when the process died: consumers tell repeated fills from new ones.
        for fill in gateway.past_fills:
            if not e.desk.account(name).knows(fill):
                e.desk.fill(fill)
        gateway.past_fills.clear()
        for intent_id, intent in sorted(self.intents.items()):
            if intent["account"] != name:
                continue
            if intent["action"] == "CANCEL" and intent_id in self.accepted:
                # Accepted, and perhaps never asked for at the venue; asking twice does no harm.
                e.spawn(e.cancel(name, intent["target_id"], "asked to before a restart"))
            if not places(intent):
                continue
            order = gateway.orders.get(order_id_of(intent_id))
            told = self.states.get(intent_id, "")
            if order is None and intent_id in self.accepted and told not in OVER:
                # Nothing left, and nothing will.
                gone = Order(order_id_of(intent_id), intent, "EXPIRED", cause="accepted, never prepared")
                e.desk.order(gone, "NEW", e.clock.now_ns())
            elif order is not None and order.over and told != order.state:
                e.desk.order(order, told or "NEW", e.clock.now_ns())
            if order is not None and intent_id not in self.accepted and intent_id not in e.desk.risk.judged:
                # Prepared, so it had been accepted: only the verdict's record was lost.
                e.desk.verdict(intent, Verdict("", "", "", ("journal",)))
