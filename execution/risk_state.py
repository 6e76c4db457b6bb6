"""All that a risk verdict may depend on, and how its numbers are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from market.decimals import format_decimal, parse_decimal
from market.live_book import LiveBook
from market.terms import Terms

Record = dict[str, Any]
MS = 1_000_000
MINUTE_NS = 60_000 * MS
UNIT_EXP = -18
"""Exponent of sums over instruments: quote and base amounts."""

NEEDED = (
    "max_intent_age_ms", "max_book_age_ms", "price_collar_bps", "median_collar_bps", "max_order_notional",
    "max_position_notional", "max_asset_notional", "max_total_notional", "max_open_orders", "max_orders_per_minute",
    "max_cancels_per_minute", "max_drawdown", "max_group_notional", "duplicate_window_ms",
)  # fmt: skip
"""Limits without which nothing is accepted. Amounts in quote; the total counts each quote asset by itself."""


@dataclass(slots=True)
class OpenOrder:
    """An order that may still trade, UNKNOWN ones included."""

    intent_id: str
    key: str
    account: str
    side: str
    price: int
    left: int
    """At the instrument's own size exponent."""
    group_id: str = ""
    strategy: str = ""
    time_in_force: str = "GTC"
    closes: bool = False
    """An order that closes something: a hedge, or a kill that flattens."""
    waits: bool = False
    """Held back until others are over (make_way.py): nothing of it is at the venue."""
    canceling: bool = False
    filled: int = 0


@dataclass
class RiskState:
    """All that a verdict may depend on. Nobody but the executor writes it."""

    now_ns: int = 0
    accounts: frozenset[str] = frozenset()
    """Accounts that this process trades for and whose gateway is ready."""
    control: dict[str, Record] = field(default_factory=dict)
    """scope → Control, newest version."""
    limits: dict[str, dict[str, str]] = field(default_factory=dict)
    """scope → name → decimal text."""
    limits_version: int = 0
    control_version: int = 0
    terms: Mapping[str, Terms] = field(default_factory=dict)
    books: Mapping[str, LiveBook] = field(default_factory=dict)
    balances: dict[tuple[str, str], int] = field(default_factory=dict)
    """(account, asset) → free amount at UNIT_EXP, by the ledger."""
    positions: dict[tuple[str, str], int] = field(default_factory=dict)
    """(account, key) → signed size in base at UNIT_EXP."""
    open: dict[str, OpenOrder] = field(default_factory=dict)
    judged: dict[str, None] = field(default_factory=dict)
    """Intent ids that have had their verdict."""
    accepted: dict[tuple[str, ...], int] = field(default_factory=dict)
    """What an order does economically → when it was last accepted."""
    sent_ns: dict[str, list[int]] = field(default_factory=dict)
    """account → times of accepted orders of the last minute."""
    cancels_ns: dict[str, list[int]] = field(default_factory=dict)
    drawdown: dict[str, int] = field(default_factory=dict)
    """quote asset → how far equity is below its peak, at UNIT_EXP."""
    priority: Mapping[str, int] = field(default_factory=dict)
    """strategy → who goes first where two would trade with each other; who is not named has 0."""


class Missing(Exception):
    """Something that a check needs is not known."""


def limit(name: str, intent: Record, state: RiskState) -> tuple[int, int]:
    """The strictest of the scopes' limits of this name as (mantissa, exponent); raises Missing when none has it."""
    scopes = ("global", intent["account"], f"strategy:{intent['strategy']}")
    found = [parse_decimal(state.limits[s][name]) for s in scopes if name in state.limits.get(s, {})]
    if not found:
        raise Missing(f"no limit {name}")
    return min(found, key=lambda pair: pair[0] * 10 ** (pair[1] + 38))


def int_limit(name: str, intent: Record, state: RiskState) -> int:
    """A limit in whole units, rounded down."""
    mantissa, exponent = limit(name, intent, state)
    return mantissa // 10**-exponent


def amount_limit(name: str, intent: Record, state: RiskState) -> int:
    """A limit at UNIT_EXP."""
    mantissa, exponent = limit(name, intent, state)
    return mantissa * 10 ** (exponent - UNIT_EXP)


def key_of(intent: Record) -> str:
    """``venue|symbol``."""
    return f"{intent['venue']}|{intent['symbol']}"


def terms_of_intent(intent: Record, state: RiskState) -> Terms:
    """The instrument's terms; raises Missing."""
    terms = state.terms.get(key_of(intent))
    if terms is None:
        raise Missing(f"the instrument {key_of(intent)} is not known")
    return terms


def book_of(intent: Record, state: RiskState) -> LiveBook:
    """The instrument's book; raises Missing."""
    book = state.books.get(key_of(intent))
    if book is None:
        raise Missing(f"the book {key_of(intent)} is not known")
    return book


def base_units(terms: Terms, size: int) -> int:
    """A size in base at UNIT_EXP (of an inverse contract: in quote)."""
    return shift_up(size * terms.contract, terms.size_exp + terms.contract_exp, UNIT_EXP)


def value_units(terms: Terms, price: int, size: int) -> int:
    """An order's worth in quote at UNIT_EXP, rounded up where its own exponent is finer."""
    return shift_up(terms.notional(price, size), terms.notional_exp, UNIT_EXP)


def shift_up(mantissa: int, exponent: int, wanted: int) -> int:
    """The amount at another exponent; digits that do not fit are rounded up."""
    return mantissa * 10 ** (exponent - wanted) if exponent >= wanted else -(-mantissa // 10 ** (wanted - exponent))


def units_text(units: int) -> str:
    """Units as plain decimal text."""
    return format_decimal(units, UNIT_EXP)
