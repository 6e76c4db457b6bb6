"""What a demo says of its trading: from records to counts, profit and what differs."""

from __future__ import annotations

from typing import Any

from cli.demo_trading import WHY_FILLS, WHY_WIDTH, TradeLog, short
from config.settings import Settings
from execution.accounting import EXP

SPOT, PERP, CHAIN = "a:paper", "b:paper", "c:sandbox"


def log_of(*taken: tuple[str, dict[str, Any]]) -> TradeLog:
    log = TradeLog(Settings())  # pyright: ignore[reportCallIssue]
    for topic, record in taken:
        log.take(topic, record)
    return log


def entry(number: int, account: str, asset: str, units: int, kind: str = "TRADE") -> tuple[str, dict[str, Any]]:
    return "orders.ledger", {
        "id": str(number), "account": account, "asset": asset, "amount": units, "amount_exp": -2, "kind": kind,
    }  # fmt: skip


def fill(account: str, trade: str, side: str, size: int = 5) -> tuple[str, dict[str, Any]]:
    return "orders.fill", {
        "account": account, "symbol": "ETH/USDT", "trade_id": trade, "side": side, "size": size, "order_id": f"vm{trade[:3]}",
    }  # fmt: skip


def test_profit_is_what_was_gained_at_the_mids_of_now() -> None:
    log = log_of(
        entry(1, SPOT, "USDT", 10**9, "OPENING"), entry(2, SPOT, "USDT", -200_000), entry(3, SPOT, "ETH", 200),
        entry(4, CHAIN, "GAS", -1, "GAS"), entry(5, PERP, "USDT", -50, "FEE"),
        ("orders.position", {"account": PERP, "symbol": "ETH/USDT:USDT", "size": -2000, "size_exp": -3, "cost": -2020,
                             "cost_exp": 0}),
    )  # fmt: skip
    mids = {("a", "ETH/USDT"): 2 * 1001 * 10**-EXP, ("b", "ETH/USDT:USDT"): 2 * 1003 * 10**-EXP}
    # 2 × 1001 − 2000 on spot; −0.01 × 1001 of gas; a fee of 0.50; −2 × 1003 + 2020 of the short position.
    assert log.profit(mids) == (2 * 100100 - 200_000 - 1001 - 50 + 1400) * 10 ** (-EXP - 2)


def test_what_a_reorganisation_took_back_does_not_count() -> None:
    log = log_of(
        fill(CHAIN, "0x1:a:0", "BUY"), fill(CHAIN, "0x1:a:0:orphaned", "SELL"), fill(CHAIN, "0x1:b:2", "BUY"),
        fill(CHAIN, "0x2:c:0", "SELL", 0), fill(SPOT, "r-1", "SELL"),
    )  # fmt: skip
    assert [f["trade_id"] for f in log.standing()] == ["0x1:b:2", "r-1"] and log.swaps() == 1
    log.take("orders.intent", {"id": "r-1", "strategy_version": "hedge"})
    log.take("orders.intent", {"id": "0x1", "strategy_version": "1"})
    assert log.decided() == ["vm0x1"]


def test_a_swap_that_is_mined_is_not_over_and_a_wrong_balance_is_said() -> None:
    balance = {"account": SPOT, "asset": "USDT", "ledger": 100, "venue_total": 100, "exp": -2, "state": "OK"}
    log = log_of(entry(1, SPOT, "USDT", 100, "OPENING"), ("orders.balance", balance))
    assert not log.unfinished() and not log.differing()
    log.take("orders.event", {"order_id": "o", "account": CHAIN, "state": "MINED"})
    log.take("orders.residual", {"group_id": "g", "state": "HEDGING"})
    assert log.unfinished() == ["o on c:sandbox is MINED", "group g is HEDGING"]
    for wrong in ({"venue_total": 101}, {"state": "BREAK"}, {"ledger": 101, "venue_total": 101}):
        log.take("orders.balance", balance | wrong)
        assert len(log.differing()) == 1


def residual(group: str, state: str, cause: str) -> tuple[str, dict[str, Any]]:
    return "orders.residual", {
        "group_id": group, "state": state, "cause": cause, "strategy": "s", "assets": ["BTC"], "amounts": ["0.1"],
    }  # fmt: skip


def test_a_hedge_that_was_given_up_is_an_error_unless_somebody_killed_it() -> None:
    log = log_of(
        residual("closed", "HEDGING", ""), residual("closed", "CLOSED", ""), residual("dust", "DUST", "too little"),
        residual("killed", "UNHEDGED", "stopped: all is KILL: enough"),
        residual("halted", "UNHEDGED", "stopped: more than 6000 orders in a minute"),
        residual("tries", "UNHEDGED", "8 tries filled nothing"),
    )  # fmt: skip
    assert (log.ended("DUST"), log.ended("UNHEDGED"), log.unfinished()) == (1, 3, [])
    assert [text.split()[1] for text in log.left_over()] == ["dust", "halted", "killed", "tries"]
    assert log.unhedged() == [
        "group halted of s is UNHEDGED: 0.1 BTC left over; stopped: more than 6000 orders in a minute",
        "group tries of s is UNHEDGED: 0.1 BTC left over; 8 tries filled nothing",
    ]


def test_why_is_short() -> None:
    told = "intent 1\n  1.0 2.0  ask\n" + "x" * 300 + "\n" + "fill 1\n" * 5 + "  1.0 2.0  bid"
    assert short(told) == ["intent 1", "x" * (WHY_WIDTH - 1) + "…", *["fill 1"] * WHY_FILLS, "… 2 fills more"]
