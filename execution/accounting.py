"""Positions, balances and profit as a fold over fills and ledger entries: integers, no remainder lost, nothing papered over.

A spot fill moves base and quote; a derivative's fill moves nothing but its fee until it reduces the position, when the
realised profit is booked in the settlement asset. The sum of an asset's entries is its balance. The venue's own balance
is held against it; a difference that outlasts ``grace_ns`` is a BREAK, and stays one until a person enters a CORRECTION.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from execution.account import Amounts
from market.decimals import LONG_MAX, fit_long, parse_decimal, rescale
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
    key: str = ""
    """``venue|symbol`` of the newest fill: where its price is looked up."""

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

    def derivatives(self) -> dict[str, Holding]:
        """Copies of the positions that are no holding of an asset, by symbol, sizes at EXP."""
        return {
            symbol: replace(h, size_exp=EXP, size=rescale(h.size, h.size_exp, EXP))
            for symbol, h in self.holdings.items() if self.terms[h.key].kind != "SPOT"
        }  # fmt: skip

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
        holding.key = terms.key
        value = value_of(fill, terms.contract, terms.contract_exp)
        profit = holding.take(fill["side"], size, value) if size else 0
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
            # A trade that is a transaction pays gas, whether it moved anything or not.
            moves.append(("GAS" if fill["trade_id"].startswith("0x") else "FEE", fill["fee_asset"], -paid))
        at = fill["ts_ns"]
        entries = [
            entry for kind, asset, m in moves if m
            for entry in self._booked(f"{kind}:{asset}:{reference}", kind, asset, m, reference, at)
        ]  # fmt: skip
        for entry in entries:
            self.take_entry(entry)
        return entries

    def _booked(self, name: str, kind: str, asset: str, mantissa: int, reference: str, ts_ns: int) -> list[Record]:
        """One entry, or several that add up to an amount that 64 bits cannot hold: nothing is rounded."""
        parts = [(part * (1 if mantissa > 0 else -1), exponent) for part, exponent in _parts(abs(mantissa))]
        return [
            {
                "id": f"{self.account}:{name}" + (f"+{n}" if n else ""), "account": self.account, "asset": asset,
                "amount": part, "amount_exp": exponent, "kind": kind, "reference": reference, "ts_ns": ts_ns,
            }
            for n, (part, exponent) in enumerate(parts)
        ]  # fmt: skip

    def opening(self, held: Mapping[str, Amounts], ts_ns: int) -> list[Record]:
        """Entries that bring an account without a past to what the venue says it holds."""
        out: list[Record] = []
        for asset, amounts in sorted(held.items()):
            missing = amount(amounts.total, amounts.exp) - self.balances.get(asset, 0)
            if missing:
                entries = self._booked(f"OPENING:{asset}:{ts_ns}", "OPENING", asset, missing, "first balance", ts_ns)
                for entry in entries:
                    self.take_entry(entry)
                out += entries
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
        """A Balance record. What 64 bits cannot hold is rounded towards zero; ``state`` compares the exact amounts."""
        values, exponent = fit_long([self.balances.get(asset, 0), total, free], EXP)
        return {
            "account": self.account, "asset": asset, "ledger": values[0], "venue_total": values[1],
            "venue_free": values[2], "exp": exponent, "state": state, "ts_ns": now_ns,
        }  # fmt: skip

    def position(self, symbol: str, quote: str, now_ns: int) -> Record:
        """A Position record."""
        h = self.holdings[symbol]
        (cost,), cost_exp = fit_long([h.cost], EXP)
        (realized,), realized_exp = fit_long([h.realized], EXP)
        (size,), size_exp = fit_long([h.size], h.size_exp) if abs(h.size) > LONG_MAX else ([h.size], h.size_exp)
        return {
            "account": self.account, "symbol": symbol, "size": size, "size_exp": size_exp, "cost": cost,
            "cost_exp": cost_exp, "realized": realized, "realized_exp": realized_exp, "quote": quote,
            "fills": h.fills, "ts_ns": now_ns,
        }  # fmt: skip


def value_of(fill: Record, contract: int, contract_exp: int) -> int:
    """What a fill moved in quote at EXP: what it says itself, else price × size."""
    if fill.get("value"):
        return amount(*parse_decimal(fill["value"]))
    return amount(fill["price"] * fill["size"] * contract, fill["price_exp"] + fill["size_exp"] + contract_exp)


def _parts(mantissa: int) -> list[tuple[int, int]]:
    """(mantissa, exponent) of 64 bits each, that add up to a positive amount at EXP."""
    out: list[tuple[int, int]] = []
    exponent = EXP
    while mantissa:
        (whole,), coarse = fit_long([mantissa], exponent)
        if whole * 10 ** (coarse - exponent) == mantissa:
            return [*out, (whole, coarse)]
        mantissa, low = divmod(mantissa, 10**18)
        if low:
            out.append((low, exponent))
        exponent += 18
    return out


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
