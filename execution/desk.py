"""What the executor knows and publishes: the risk state, the accounts' folds, and the records that follow from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from execution.account import Amounts
from execution.accounting import Accounts, amount
from execution.orders import Order, places
from execution.risk import Verdict, closes, economics
from execution.risk_state import MINUTE_NS, OpenOrder, RiskState
from market.live_book import LiveBook
from market.terms import Terms
from schemas.topics import ALIVE, BALANCE, FILL, LEDGER, NOTICE, ORDER, POSITION, RISK

log = logging.getLogger(__name__)

Record = dict[str, Any]
REMEMBERED = 100_000
Send = Callable[[str, str, str, Record], None]
"""``send(topic, record name, key, record)``"""


@dataclass
class Desk:
    """One executor's knowledge. Implements the gateway's Outbox for each account (see ``outbox``)."""

    send: Send
    clock: Callable[[], int]
    terms: dict[str, Terms] = field(default_factory=dict)
    books: dict[str, LiveBook] = field(default_factory=dict)
    accounts: dict[str, Accounts] = field(default_factory=dict)
    venue_totals: dict[str, dict[str, Amounts]] = field(default_factory=dict)
    equity_peak: dict[str, int] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    freed: Callable[[], None] = lambda: None
    """Called when an order is over, with all its fills."""

    def __post_init__(self) -> None:
        self.risk = RiskState(terms=self.terms, books=self.books)

    def account(self, name: str) -> Accounts:
        """The fold of an account, begun when it is first named."""
        return self.accounts.setdefault(name, Accounts(name, self.terms))

    # Verdicts.

    def judged(self, intent: Record, verdict: Verdict, made_way: Sequence[str] = (), waited_us: int = 0) -> None:
        """Publish a verdict and remember what an acceptance reserves; ``made_way`` as in RiskDecision."""
        state, now = self.risk, self.risk.now_ns
        self._remember(intent["id"])
        if verdict.accepted:
            if intent["action"] == "CANCEL":
                self._counted(state.cancels_ns, intent["account"], now)
            if places(intent):
                self._counted(state.sent_ns, intent["account"], now)
                state.accepted[economics(intent)] = now
                if len(state.accepted) > REMEMBERED:
                    del state.accepted[next(iter(state.accepted))]
                old = state.open.get(intent["target_id"])
                self.reserve(intent, intent["size"] - (old.filled if old else 0))
        self.verdict(intent, verdict, made_way, waited_us)

    @staticmethod
    def _counted(sent: dict[str, list[int]], account: str, now_ns: int) -> None:
        times = sent.setdefault(account, [])
        times.append(now_ns)
        while times and now_ns - times[0] >= MINUTE_NS:
            times.pop(0)

    def gives_way(self, order: OpenOrder) -> None:
        """One of our own orders is about to be cancelled for another: it counts as a cancel."""
        order.canceling = True
        self._counted(self.risk.cancels_ns, order.account, self.risk.now_ns)

    def verdict(self, intent: Record, verdict: Verdict, made_way: Sequence[str] = (), waited_us: int = 0) -> None:
        """Publish a verdict."""
        state = self.risk
        self._remember(intent["id"])
        self.send(RISK.name, "RiskDecision", intent["account"], {
            "intent_id": intent["id"], "account": intent["account"], "strategy": intent["strategy"],
            "verdict": "ACCEPT" if verdict.accepted else "REFUSE", "rule": verdict.rule,
            "measured": verdict.measured[:500], "bound": verdict.bound[:200], "limits_version": state.limits_version,
            "control_version": state.control_version, "rules_passed": list(verdict.passed),
            "ts_ns": state.now_ns or self.clock(), "made_way": list(made_way), "waited_us": waited_us,
        })  # fmt: skip

    def _remember(self, intent_id: str) -> None:
        self.risk.judged[intent_id] = None
        if len(self.risk.judged) > REMEMBERED:
            del self.risk.judged[next(iter(self.risk.judged))]

    def decided(self, decision: Record) -> None:
        """A verdict read from the log, ours of an earlier life among them."""
        self._remember(decision["intent_id"])

    def reserve(
        self, intent: Record, left: int, *, waits: bool = False, canceling: bool = False, filled: int = 0
    ) -> None:
        """An order may trade so much from now on."""
        self.risk.open[intent["id"]] = OpenOrder(
            intent["id"], f"{intent['venue']}|{intent['symbol']}", intent["account"], intent["side"], intent["price"], left,
            intent["group_id"], intent["strategy"], intent["time_in_force"], closes(intent), waits, canceling,
            filled,
        )  # fmt: skip

    # The gateway's news.

    def order(self, order: Order, previous: str, now_ns: int) -> None:
        """A step of an order."""
        i = order.intent
        if order.over and not order.fills_missing:
            self.risk.open.pop(i["id"], None)
        else:
            self.reserve(i, max(order.size - order.filled, 0), canceling=bool(order.cancel_wanted), filled=order.filled)
        self.send(ORDER.name, "OrderEvent", i["account"], {
            "order_id": order.order_id, "intent_id": i["id"], "group_id": i["group_id"], "strategy": i["strategy"],
            "account": i["account"], "venue": i["venue"], "symbol": i["symbol"], "side": i["side"], "state": order.state,
            "previous": previous, "cause": order.cause[:500], "venue_order_id": order.venue_order_id, "price": i["price"],
            "price_exp": i["price_exp"], "size": order.size, "size_exp": i["size_exp"], "filled": order.filled, "ts_ns": now_ns,
        })  # fmt: skip
        if i["id"] not in self.risk.open:
            self.freed()

    def fill(self, fill: Record) -> None:
        """A new execution: published, booked, and the positions and balances that follow."""
        self.send(FILL.name, "Fill", fill["account"], fill)
        accounts = self.account(fill["account"])
        try:
            entries = accounts.take_fill(fill)
        except KeyError:
            self.alarm(f"{fill['account']}: a fill of {fill['symbol']}, whose terms are not known, cannot be booked")
            return
        order = self.risk.open.get(fill["intent_id"])
        if order is not None:
            terms = self.terms[order.key]
            size = fill["size"] * 10 ** max(0, fill["size_exp"] - terms.size_exp)
            order.left, order.filled = max(0, order.left - size), order.filled + size
        for entry in entries:
            self.send(LEDGER.name, "LedgerEntry", f"{entry['account']}|{entry['asset']}", entry)
        self._publish(accounts, fill, {e["asset"] for e in entries})

    def _publish(self, accounts: Accounts, fill: Record, assets: set[str]) -> None:
        terms, now = self.terms[f"{fill['venue']}|{fill['symbol']}"], self.clock()
        position = accounts.position(fill["symbol"], terms.quote, now)
        self.send(POSITION.name, "Position", f"{accounts.account}|{fill['symbol']}", position)
        totals = self.venue_totals.get(accounts.account, {})
        for asset in sorted(assets):
            held = totals.get(asset, Amounts(0, 0, 0))
            total, free = amount(held.total, held.exp), amount(held.free, held.exp)
            state = "OK" if total == accounts.balances.get(asset, 0) else "LAGGING"
            # So that the next reconciliation tells when they agree again.
            accounts.states[asset] = state
            self.send(BALANCE.name, "Balance", f"{accounts.account}|{asset}", accounts.balance(asset, now, total, free, state))
        self.refresh(accounts)

    def refresh(self, accounts: Accounts) -> None:
        """Bring the risk state's balances and positions up to the account's fold."""
        for asset, total in accounts.balances.items():
            self.risk.balances[(accounts.account, asset)] = total
        for holding in accounts.holdings.values():
            key, terms = holding.key, self.terms[holding.key]
            size = holding.size * terms.contract * 10 ** (holding.size_exp + terms.contract_exp + 18)
            if size:
                self.risk.positions[(accounts.account, key)] = size
            else:
                self.risk.positions.pop((accounts.account, key), None)

    def reconciled(self, name: str, held: Mapping[str, Amounts]) -> None:
        """The venue's balances, beside the ledger's."""
        accounts, now = self.account(name), self.clock()
        if not accounts.balances and not accounts.holdings:
            for entry in accounts.opening(held, now):
                self.send(LEDGER.name, "LedgerEntry", f"{name}|{entry['asset']}", entry)
        self.venue_totals[name] = dict(held)
        before = dict(accounts.states)
        for record in accounts.reconcile(held, now):
            asset = record["asset"]
            if record["state"] != before.get(asset) or record["state"] != "OK":
                self.send(BALANCE.name, "Balance", f"{name}|{asset}", record)
            if record["state"] == "BREAK" != before.get(asset):
                self.alarm(f"BREAK: {name} {asset}: the ledger and the venue differ")
        self.refresh(accounts)

    def equity(self) -> dict[str, int]:
        """Realised and unrealised profit by quote asset at 10^-18, fees in the quote taken off; updates drawdowns.

        A position without a live price keeps the whole figure unknown: the last one stands.
        """
        out: dict[str, int] = {}
        for accounts in self.accounts.values():
            for holding in accounts.holdings.values():
                terms, book = self.terms[holding.key], self.books.get(holding.key)
                worth = 0
                if holding.size:
                    if book is None or not book.live:
                        return {}
                    exponent = book.book.price_exp + holding.size_exp + terms.contract_exp
                    worth = holding.size * terms.contract * book.mid2() * 10 ** (exponent + 18) // 2
                out[terms.quote] = out.get(terms.quote, 0) + holding.realized + holding.unrealized(worth)
            for asset, paid in accounts.fees.items():
                if asset in out:
                    out[asset] -= paid
        for asset, value in out.items():
            peak = self.equity_peak[asset] = max(self.equity_peak.get(asset, value), value)
            self.risk.drawdown[asset] = peak - value
        return out

    def alarm(self, text: str, account: str = "", group_id: str = "") -> None:
        """Something that a person must see."""
        log.error("ALARM %s", text)
        self.alarms.append(text)
        del self.alarms[:-1000]
        self.notice("ALARM", account, text, group_id=group_id)

    def alive(self, account: str, run: str, open_orders: int) -> None:
        """Say that an account's orders were just looked after: a watchdog listens."""
        sign = {"account": account, "run": run, "open_orders": open_orders, "ts_ns": self.clock()}
        self.send(ALIVE.name, "SignOfLife", account, sign)

    def notice(
        self, kind: str, account: str, text: str, *, group_id: str = "", control_version: int = 0, took_us: int = 0
    ) -> None:
        """Publish a Notice."""
        self.send(NOTICE.name, "Notice", account, {
            "account": account, "kind": kind, "text": text[:1000], "group_id": group_id, "control_version": control_version,
            "took_us": took_us, "ts_ns": self.clock(),
        })  # fmt: skip
