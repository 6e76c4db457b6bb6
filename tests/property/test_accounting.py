"""Laws of money: nothing appears, nothing is lost, whatever the order of fills and however often they are told."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from execution.account import Amounts
from execution.accounting import EXP, GRACE_NS, Accounts
from market.terms import terms_of
from schemas.codec import codec
from tests.trading_world import instrument

one = st.tuples(st.sampled_from(["BUY", "SELL"]), st.integers(1, 10**7), st.integers(1, 10**6), st.integers(-100, 10**6))
fills = st.lists(one, max_size=30)


def record(number: int, side: str, price: int, size: int, fee: int, symbol: str) -> dict[str, Any]:
    return {
        "trade_id": str(number), "order_id": "", "intent_id": "", "group_id": "", "strategy": "", "account": "a:main",
        "venue": "a", "symbol": symbol, "side": side, "price": price, "price_exp": -2, "size": size, "size_exp": -3,
        "fee": fee, "fee_exp": -8, "fee_asset": "USDT", "maker": False, "source": "REST", "ts_venue_us": 0, "ts_ns": 1,
    }  # fmt: skip


def accounts(symbol: str) -> Accounts:
    return Accounts("a:main", {f"a|{symbol}": terms_of(instrument("a", symbol))})


@given(fills)
def test_a_spot_ledger_is_the_sum_of_what_was_traded(rows: list[tuple[str, int, int, int]]) -> None:
    made = accounts("BTC/USDT")
    base = quote = Decimal(0)
    for n, (side, price, size, fee) in enumerate(rows):
        fill = record(n, side, price, size, fee, "BTC/USDT")
        for entry in made.take_fill(fill):
            codec("LedgerEntry").encode(entry)
        assert made.take_fill(fill) == [], "told again"
        sign = 1 if side == "BUY" else -1
        base += sign * Decimal(size).scaleb(-3)
        quote -= sign * Decimal(price * size).scaleb(-5) + Decimal(fee).scaleb(-8)
    assert Decimal(made.balances.get("BTC", 0)).scaleb(EXP) == base
    assert Decimal(made.balances.get("USDT", 0)).scaleb(EXP) == quote
    if rows:
        assert Decimal(made.holdings["BTC/USDT"].size).scaleb(-3) == base


@given(fills, st.integers(1, 10**7))
def test_realised_and_unrealised_are_what_was_earned(rows: list[tuple[str, int, int, int]], mark: int) -> None:
    """Money out and in, and the rest at the mark, is the profit, however it is split."""
    made = accounts("BTC/USDT:USDT")
    cash = size_now = 0
    for n, (side, price, size, _) in enumerate(rows):
        made.take_fill(record(n, side, price, size, 0, "BTC/USDT:USDT"))
        sign = 1 if side == "BUY" else -1
        cash -= sign * price * size * 10**13
        size_now += sign * size
    if not rows:
        return
    holding = made.holdings["BTC/USDT:USDT"]
    codec("Position").encode(made.position("BTC/USDT:USDT", "USDT", 1))
    worth = size_now * mark * 10**13
    assert holding.size == size_now
    assert holding.realized + holding.unrealized(worth) == cash + worth
    assert made.balances.get("USDT", 0) == holding.realized, "a derivative's ledger is its realised profit"
    if not size_now:
        assert holding.cost == 0


def test_a_difference_is_lagging_then_a_break_and_stays_one() -> None:
    made = accounts("BTC/USDT")
    made.opening({"USDT": Amounts(1000, 1000, 0)}, 1)
    assert made.opening({"USDT": Amounts(1000, 1000, 0)}, 2) == []
    right, wrong = {"USDT": Amounts(1000, 900, 0)}, {"USDT": Amounts(1001, 1001, 0)}
    assert [r["state"] for r in made.reconcile(right, 5)] == ["OK"]
    assert [r["state"] for r in made.reconcile(wrong, 10)] == ["LAGGING"]
    assert [r["state"] for r in made.reconcile(wrong, 11 + GRACE_NS)] == ["BREAK"]
    assert [r["state"] for r in made.reconcile(wrong, 12 + 9 * GRACE_NS)] == ["BREAK"]
    assert made.balances["USDT"] == 1000 * 10**-EXP, "the ledger is never bent to the venue"
    assert [r["state"] for r in made.reconcile(right, 13 + 9 * GRACE_NS)] == ["OK"]
