"""Closing positions after a kill: which orders trade an account back to nothing, one round at a time.

Each is reduce-only, IOC, through the touch within the hedges' collar, a new intent through the same risk gate. Of spot,
a position is what this account's fills bought or sold; no more is sold than is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from execution.accounting import EXP, Accounts
from execution.hedging import closing_order, collared
from market.live_book import LiveBook
from market.terms import Terms

Record = dict[str, Any]
FLATTEN = "flatten"
"""In place of a strategy's version."""


@dataclass(frozen=True)
class Round:
    """What one look gave: orders to send, and what is still open by symbol with the reason why nothing is sent for it."""

    orders: list[Record]
    left: dict[str, str]
    dust: dict[str, str]
    """Open positions that the venue takes no order for: too small."""


def closing_round(
    accounts: Accounts, terms: Mapping[str, Terms], books: Mapping[str, LiveBook], strategy: str, version: int, number: int,
    now_ns: int,
) -> Round:  # fmt: skip
    """The orders that close what an account (or, where named, one strategy on it) holds now.

    ``version`` is the kill's, ``number`` the round's: together they make the orders' ids.
    """
    made = Round([], {}, {})
    for symbol, holding in sorted(accounts.holdings.items()):
        key = holding.key
        own, live = terms[key], books.get(key)
        size = accounts.of_strategy(strategy, symbol) if strategy else holding.size
        if not size:
            continue
        if live is None or not live.live:
            made.left[symbol] = f"{key} is not live"
            continue
        side = "SELL" if size > 0 else "BUY"
        shift = own.size_exp - holding.size_exp
        wanted = abs(size) // 10**shift if shift >= 0 else abs(size) * 10**-shift
        if own.kind == "SPOT" and side == "SELL":
            # A fee may have been taken from what was bought.
            wanted = min(wanted, max(0, accounts.balances.get(own.base, 0)) // 10 ** (own.size_exp - EXP))
        wanted, price = own.size_down(wanted), collared(own, live, side)
        if reason := own.tradable(price, wanted):
            made.dust[symbol] = reason
            continue
        name = f"flatten\x1f{accounts.account}\x1f{symbol}\x1f{strategy}\x1f{version}\x1f{number}"
        play = accounts.account.partition(":")[2].partition("-")[0] in ("paper", "sandbox")
        mode = "PAPER" if play else "LIVE"
        made.orders.append({
            "opportunity_id": "", "group_id": "", "strategy": strategy or FLATTEN, "mode": mode, "action": "PLACE",
            "target_id": "", "account": accounts.account, "venue": own.venue, "symbol": symbol,
            **closing_order(hashlib.sha256(name.encode()).hexdigest()[:24], FLATTEN, own, live, side, price, wanted, now_ns),
            "reduce_only": True,
        })  # fmt: skip
    return made
