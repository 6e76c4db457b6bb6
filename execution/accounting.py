"""Positions, balances and profit as a fold over fills and ledger entries: integers, no remainder lost, nothing papered over.

A spot fill moves base and quote; a derivative's fill moves nothing but its fee until it reduces the position, when the
realised profit is booked in the settlement asset. The sum of an asset's entries is its balance. The venue's own balance
is held against it; a difference that outlasts ``grace_ns`` is a BREAK, and stays one until a person enters a CORRECTION.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from execution.account import Amounts
from market.decimals import rescale
from market.terms import Terms

Record = dict[str, Any]
EXP = -18
"""Exponent of all amounts of the ledger: finer than any venue's."""
QUANTUM = 10**10
"""What a cost is split by: a hundred-millionth, at EXP."""
GRACE_NS = 10_000_000_000


def amount(mantissa: int, exponent: int) -> int:
    """An amount at EXP, exactly; raises DecimalError for one that is finer."""
    return rescale(mantissa, exponent, EXP)


@dataclass(slots=True)
class Holding:
    """One position: signed size (at the instrument's size exponent), what the open part cost, what is realised."""

    size_exp: int
    size: int = 0
    cost: int = 0
    """Signed like size, in quote at EXP."""
    realized: int = 0
    """Before fees, in quote at EXP."""
    fills: int = 0

    def take(self, side: str, size: int, value: int) -> int:
        """Fold one fill of ``value`` (quote at EXP); gives the profit that it realised."""
        signed = size if side == "BUY" else -size
        self.fills += 1
        if self.size * signed >= 0:
            self.size += signed
            self.cost += value if signed > 0 else -value
            return 0
        closing = min(abs(signed), abs(self.size))
        # The part of the cost that leaves is rounded towards zero; the rest stays, so that nothing is lost for ever.
        # Rounded to QUANTUM: a division has endless digits, and 64 bits on the wire have not.
        left_cost = abs(self.cost) * (abs(self.size) - closing) // abs(self.size) // QUANTUM * QUANTUM
        closed_cost = abs(self.cost) - left_cost
        closed_value = value if closing == size else value * closing // size // QUANTUM * QUANTUM
        profit = closed_value - closed_cost if self.size > 0 else closed_cost - closed_value
        self.realized += profit
        opening = abs(signed) - closing
        self.cost = left_cost if self.size > 0 else -left_cost
        self.size += signed
        if opening:
            self.cost = (value - closed_value) * (1 if signed > 0 else -1)
        return profit

    def unrealized(self, value_now: int) -> int:
        """Profit of the open part, given what it is worth now (signed, quote at EXP)."""
        return value_now - self.cost


@dataclass
class Accounts:
    """The fold of one account's fills and ledger. ``take_fill`` gives the entries that a fill makes."""

    account: str
    terms: Mapping[str, Terms]
    """By ``venue|symbol``."""
    holdings: dict[str, Holding] = field(default_factory=dict)
    balances: dict[str, int] = field(default_factory=dict)
    """asset → sum of entries, at EXP."""
    fees: dict[str, int] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    """asset → since when ledger and venue differ, by our clock."""
    states: dict[str, str] = field(default_factory=dict)
    strategies: dict[tuple[str, str], int] = field(default_factory=dict)
    """(strategy, symbol) → signed size of its fills, at EXP."""
    _fills: set[tuple[str, str, str]] = field(default_factory=set)
    _entries: set[str] = field(default_factory=set)

    def knows(self, fill: Record) -> bool:
        """Whether this fill is inside already."""
        return (fill["symbol"], fill["trade_id"], fill["side"]) in self._fills

    def of_strategy(self, strategy: str, symbol: str) -> int:
        """What a strategy's fills left of a symbol, at the holding's size exponent."""
        return self.strategies.get((strategy, symbol), 0) // 10 ** (self.holdings[symbol].size_exp - EXP)

    def take_fill(self, fill: Record) -> list[Record]:
        """Fold one Fill record; a repeated one changes nothing and gives nothing. Raises KeyError for unknown terms."""
        unique = (fill["symbol"], fill["trade_id"], fill["side"])
        if unique in self._fills:
            return []
        terms = self.terms[f"{fill['venue']}|{fill['symbol']}"]
        self._fills.add(unique)
        size_exp = min(terms.size_exp, fill["size_exp"])
        holding = self.holdings.setdefault(fill["symbol"], Holding(size_exp))
        if size_exp < holding.size_exp:
            holding.size *= 10 ** (holding.size_exp - size_exp)
            holding.size_exp = size_exp
        size = rescale(fill["size"], fill["size_exp"], holding.size_exp)
        exact = fill["price"] * fill["size"] * terms.contract
        value = amount(exact, fill["price_exp"] + fill["size_exp"] + terms.contract_exp)
        profit = holding.take(fill["side"], size, value)
        sign = 1 if fill["side"] == "BUY" else -1
        whose = (fill["strategy"], fill["symbol"])
        self.strategies[whose] = self.strategies.get(whose, 0) + sign * amount(fill["size"], fill["size_exp"])
        reference = f"{fill['symbol']}:{fill['trade_id']}:{fill['side']}"
        moves: list[tuple[str, str, int]] = []
        if terms.kind == "SPOT":
            moves += [("TRADE", terms.base, sign * amount(fill["size"], fill["size_exp"])), ("TRADE", terms.quote, -sign * value)]
        elif profit:
            moves.append(("TRADE", terms.settle or terms.quote, profit))
        if fill["fee"]:
            paid = amount(fill["fee"], fill["fee_exp"])
            self.fees[fill["fee_asset"]] = self.fees.get(fill["fee_asset"], 0) + paid
            moves.append(("FEE", fill["fee_asset"], -paid))
        at = fill["ts_ns"]
        entries = [self._entry(f"{kind}:{asset}:{reference}", kind, asset, m, reference, at) for kind, asset, m in moves]
        for entry in entries:
            self.take_entry(entry)
        return entries

    def _entry(self, name: str, kind: str, asset: str, mantissa: int, reference: str, ts_ns: int) -> Record:
        least, exponent = _fit(mantissa)
        return {
            "id": f"{self.account}:{name}", "account": self.account, "asset": asset, "amount": least,
            "amount_exp": exponent, "kind": kind, "reference": reference, "ts_ns": ts_ns,
        }  # fmt: skip

    def opening(self, held: Mapping[str, Amounts], ts_ns: int) -> list[Record]:
        """Entries that bring an account without a past to what the venue says it holds."""
        out: list[Record] = []
        for asset, amounts in sorted(held.items()):
            missing = amount(amounts.total, amounts.exp) - self.balances.get(asset, 0)
            if missing:
                out.append(self._entry(f"OPENING:{asset}:{ts_ns}", "OPENING", asset, missing, "first balance", ts_ns))
                self.take_entry(out[-1])
        return out

    def take_entry(self, entry: Record) -> bool:
        """Fold one LedgerEntry; False for one that is known."""
        if entry["id"] in self._entries:
            return False
        self._entries.add(entry["id"])
        asset = entry["asset"]
        self.balances[asset] = self.balances.get(asset, 0) + amount(entry["amount"], entry["amount_exp"])
        return True

    def reconcile(self, held: Mapping[str, Amounts], now_ns: int) -> list[Record]:
        """Hold the ledger against the venue's balances; gives a Balance record for each asset."""
        out: list[Record] = []
        for asset in sorted({*held, *self.balances}):
            ledger = self.balances.get(asset, 0)
            amounts = held.get(asset, Amounts(0, 0, 0))
            total, free = amount(amounts.total, amounts.exp), amount(amounts.free, amounts.exp)
            if ledger == total:
                self.breaks.pop(asset, None)
                state = "OK"
            else:
                since = self.breaks.setdefault(asset, now_ns)
                state = "BREAK" if now_ns - since > GRACE_NS else "LAGGING"
            self.states[asset] = state
            out.append(self.balance(asset, now_ns, total, free, state))
        return out

    def balance(self, asset: str, now_ns: int, total: int, free: int, state: str) -> Record:
        """A Balance record. Amounts that 64 bits cannot hold at EXP are given at a coarser exponent, where exact."""
        values, exponent = [self.balances.get(asset, 0), total, free], EXP
        while any(values) and exponent < 0 and not any(v % 10 for v in values):
            values = [v // 10 for v in values]
            exponent += 1
        return {
            "account": self.account, "asset": asset, "ledger": values[0], "venue_total": values[1],
            "venue_free": values[2], "exp": exponent if any(values) else 0, "state": state, "ts_ns": now_ns,
        }  # fmt: skip

    def position(self, symbol: str, quote: str, now_ns: int) -> Record:
        """A Position record."""
        h = self.holdings[symbol]
        cost, cost_exp = _fit(h.cost)
        realized, realized_exp = _fit(h.realized)
        return {
            "account": self.account, "symbol": symbol, "size": h.size, "size_exp": h.size_exp, "cost": cost,
            "cost_exp": cost_exp, "realized": realized, "realized_exp": realized_exp, "quote": quote,
            "fills": h.fills, "ts_ns": now_ns,
        }  # fmt: skip


def _fit(mantissa: int) -> tuple[int, int]:
    """The amount with as few digits as it needs."""
    exponent = EXP
    while mantissa and mantissa % 10 == 0 and exponent < 0:
        mantissa //= 10
        exponent += 1
    return (mantissa, exponent) if mantissa else (0, 0)


def fold(account: str, terms: Mapping[str, Terms], entries: Iterable[Record], fills: Iterable[Record]) -> Accounts:
    """The accounts as the log says; fills give positions, their money comes from the entries or from the fills alike."""
    made = Accounts(account, terms)
    for entry in entries:
        if entry["account"] == account:
            made.take_entry(entry)
    for fill in fills:
        if fill["account"] == account:
            made.take_fill(fill)
    return made
