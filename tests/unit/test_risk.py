"""The risk gate: one story a rule, closed whenever something is not known, the same answer for the same question."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from execution.risk import CHECKS, economics, judge
from execution.risk_state import MS, NEEDED, OpenOrder, RiskState
from market.live_book import LiveBook
from market.terms import terms_of
from tests.chaos.execution_drill import Drill
from tests.trading_world import START_NS, World, instrument

ONE = 10**18
KEY = "a|BTC/USDT"
LIMITS = {
    "max_intent_age_ms": "1000", "max_book_age_ms": "1000", "price_collar_bps": "100", "median_collar_bps": "100",
    "max_order_notional": "10000", "max_position_notional": "50000", "max_asset_notional": "60000",
    "max_total_notional": "70000", "max_open_orders": "3", "max_orders_per_minute": "5", "max_cancels_per_minute": "2",
    "max_drawdown": "100", "max_group_notional": "8000", "duplicate_window_ms": "100",
}  # fmt: skip


def state() -> RiskState:
    world, books, terms = World(), {}, {}
    for venue in ("a", "b"):
        record = instrument(venue, "BTC/USDT")
        terms[f"{venue}|BTC/USDT"] = terms_of(record)
        live = books[f"{venue}|BTC/USDT"] = LiveBook(venue, "BTC/USDT")
        from schemas.codec import codec

        decode, status = codec("BookEvent").decode, codec("BookStatus").decode
        live.take_status(status(world.status(venue, "BTC/USDT", "LIVE").value or b""))
        made = world.book(venue, "BTC/USDT", [(4_999_900, 1000)], [(5_000_100, 1000)])
        live.take(decode(made.value or b""), 0, made.offset)
    run = {"state": "RUN", "reason": "", "version": 1}
    return RiskState(
        now_ns=world.now_ns, accounts=frozenset({"a:main"}), control={"all": run}, limits={"global": LIMITS}, terms=terms,
        books=books, balances={("a:main", "USDT"): 100_000 * ONE, ("a:main", "BTC"): ONE},
    )  # fmt: skip


def intent(s: RiskState, **more: Any) -> dict[str, Any]:
    _, made = Drill(1)._intent(1)
    return made | {
        "account": "a:main", "venue": "a", "symbol": "BTC/USDT", "side": "BUY", "price": 5_000_000, "price_exp": -2,
        "size": 100, "size_exp": -3, "created_ns": s.now_ns - MS, "valid_until_ns": s.now_ns + 1000 * MS, "group_id": "",
        "input_keys": [KEY], "input_epochs": [1], "input_states": ["LIVE"], "strategy": "s",
    } | more  # fmt: skip


def test_an_order_inside_all_bounds_is_accepted() -> None:
    s = state()
    verdict = judge(intent(s), s)
    assert verdict.accepted, verdict
    assert verdict.passed == tuple(name for name, _ in CHECKS)


def _own(side: str, price: int, left: int = 10, group: str = "") -> OpenOrder:
    return OpenOrder("x", KEY, "a:main", side, price, left, group)


def _with(s: RiskState, **more: Any) -> None:
    for name, value in more.items():
        setattr(s, name, value)


STORIES: list[tuple[str, dict[str, Any], Callable[[RiskState], Any]]] = [
    ("control", {}, lambda s: s.control.clear()),
    ("control", {}, lambda s: s.control.update({"strategy:s": {"state": "KILL", "reason": "r", "version": 2}})),
    ("control", {}, lambda s: s.control.update({"all": {"state": "KILL", "reason": "r", "version": 2}})),
    ("account", {"account": "a:other"}, lambda s: None),
    ("intent_age", {"valid_until_ns": START_NS}, lambda s: None),
    ("intent_age", {"created_ns": START_NS - 2000 * MS}, lambda s: None),
    ("intent_age", {"created_ns": START_NS + 5000 * MS}, lambda s: None),
    ("duplicate", {"id": "again"}, lambda s: s.judged.update({"again": None})),
    ("instrument", {"symbol": "ETH/USDT"}, lambda s: None),
    ("instrument", {"price_exp": -3}, lambda s: None),
    ("instrument", {"size": 0}, lambda s: None),
    ("book_live", {}, lambda s: setattr(s.books[KEY], "status_state", "STALE")),
    ("book_live", {}, lambda s: setattr(s.books[KEY], "ts_received_ns", s.now_ns - 1500 * MS)),
    ("book_live", {"input_epochs": [2]}, lambda s: None),
    ("book_live", {"input_states": ["GAP"]}, lambda s: None),
    ("book_live", {"input_keys": ["c|BTC/USDT"]}, lambda s: None),
    ("price_collar", {"price": 5_060_000}, lambda s: None),
    ("price_collar", {"side": "SELL", "price": 4_940_000}, lambda s: None),
    ("order_size", {"size": 201}, lambda s: None),
    ("order_size", {"reduce_only": True}, lambda s: None),
    ("balance", {}, lambda s: s.balances.clear()),
    ("balance", {}, lambda s: s.balances.update({("a:main", "USDT"): 4_999 * ONE})),
    ("balance", {}, lambda s: _with(s, balances={("a:main", "USDT"): 9_999 * ONE}, open={"x": _own("BUY", 5_000_000, 100)})),
    ("balance", {"side": "SELL"}, lambda s: s.balances.update({("a:main", "BTC"): ONE // 20})),
    ("position", {}, lambda s: s.positions.update({("a:main", KEY): ONE})),
    ("asset_exposure", {}, lambda s: s.positions.update({("a:main", KEY): ONE // 2, ("b:main", "b|BTC/USDT"): -ONE * 4 // 5})),
    ("open_orders", {}, lambda s: _with(s, open={str(n): _own("BUY", 4_000_000) for n in range(3)})),
    ("self_trade", {}, lambda s: _with(s, open={"x": _own("SELL", 4_999_000)})),
    ("rate", {}, lambda s: s.sent_ns.update({"a:main": [s.now_ns] * 5})),
    ("drawdown", {}, lambda s: s.drawdown.update({"USDT": 101 * ONE})),
    ("leg_budget", {"group_id": "g"}, lambda s: _with(s, open={"x": _own("BUY", 5_000_000, 80, "g")})),
]


@pytest.mark.parametrize(("rule", "more", "change"), STORIES, ids=lambda v: v if isinstance(v, str) else "")
def test_each_rule_refuses_its_story(rule: str, more: dict[str, Any], change: Callable[[RiskState], Any]) -> None:
    s = state()
    wanted = intent(s, **more)
    change(s)
    verdict = judge(wanted, s)
    assert verdict.rule == rule, verdict
    assert verdict.measured
    assert verdict.bound


@pytest.mark.parametrize("name", NEEDED)
def test_without_a_limit_nothing_is_accepted(name: str) -> None:
    s = state()
    s.limits["global"] = {k: v for k, v in LIMITS.items() if k != name}
    cancels = name == "max_cancels_per_minute"
    wanted = intent(s, action="CANCEL") if cancels else intent(s, group_id="g")
    s.accepted[economics(wanted)] = 0
    verdict = judge(wanted, s)
    assert not verdict.accepted
    assert name in verdict.measured


def test_the_strictest_scope_counts() -> None:
    s = state()
    s.limits["strategy:s"] = {"max_order_notional": "4999"}
    assert judge(intent(s), s).rule == "order_size"
    s.limits["strategy:s"] = {"max_order_notional": "999999"}
    assert judge(intent(s, size=201), s).rule == "order_size"


def test_the_same_thing_twice_is_refused_although_its_id_is_new() -> None:
    s = state()
    wanted = intent(s)
    s.accepted[economics(wanted)] = s.now_ns - 50 * MS
    assert judge(wanted | {"id": "other"}, s).rule == "economic_duplicate"
    s.accepted[economics(wanted)] = s.now_ns - 150 * MS
    assert judge(wanted | {"id": "other"}, s).accepted


def test_reducing_is_free_of_size_caps_but_not_of_collars() -> None:
    s = state()
    s.balances[("a:main", "BTC")] = 5 * ONE
    s.positions[("a:main", KEY)] = 5 * ONE
    s.drawdown["USDT"] = 10**6 * ONE
    assert judge(intent(s, side="SELL", size=3000), s).accepted
    assert judge(intent(s, side="SELL", size=3000, price=4_900_000), s).rule == "price_collar"
    assert judge(intent(s, side="SELL", size=5001), s).rule == "order_size"


def test_cancels_pass_whatever_is_wrong_and_have_their_own_rate() -> None:
    s = state()
    s.control["all"] = {"state": "KILL", "reason": "", "version": 2}
    for book in s.books.values():
        book.status_state = "GAP"
    s.sent_ns["a:main"] = [s.now_ns] * 100
    assert judge(intent(s, action="CANCEL"), s).accepted
    s.cancels_ns["a:main"] = [s.now_ns] * 2
    assert judge(intent(s, action="CANCEL"), s).rule == "cancel_rate"


def _resting(**more: Any) -> OpenOrder:
    """Somebody's ask that the intent's bid would trade with."""
    made = _own("SELL", 4_999_000)
    made.strategy, made.time_in_force = "mm", "POST_ONLY"
    for name, value in more.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(("mine", "its", "priority", "gives_way"), [
    ({}, {}, {}, True),
    ({"time_in_force": "GTC"}, {"time_in_force": "GTC"}, {}, True),
    ({"time_in_force": "POST_ONLY"}, {}, {}, False),
    ({"time_in_force": "POST_ONLY"}, {}, {"s": 1}, True),
    ({}, {}, {"mm": 1}, False),
    ({"strategy": "mm"}, {}, {}, True),
    ({"strategy_version": "hedge"}, {}, {"mm": 1}, True),
    ({"strategy_version": "flatten"}, {"closes": True}, {}, True),
    ({}, {"closes": True}, {"s": 9}, False),
    ({}, {"time_in_force": "IOC"}, {"s": 9}, False),
    ({}, {"waits": True}, {"s": 9}, False),
    ({"group_id": "g"}, {"group_id": "g"}, {"s": 9}, False),
])  # fmt: skip
def test_who_gives_way(mine: dict[str, Any], its: dict[str, Any], priority: dict[str, int], gives_way: bool) -> None:
    s = state()
    wanted = intent(s, **{"time_in_force": "IOC"} | mine)
    _with(s, open={"x": _resting(**its)}, priority=priority)
    verdict = judge(wanted, s)
    assert (verdict.accepted, verdict.rule) == (False, "self_trade")
    assert verdict.way == (("x",) if gives_way else ())
    s.open.clear()
    assert judge(wanted, s).accepted


def test_all_that_is_in_the_way_gives_way_or_nothing_does() -> None:
    s = state()
    _with(s, open={"x": _resting(intent_id="x"), "far": _resting(intent_id="far", price=5_000_001), "y": _resting(intent_id="y")})
    s.limits["global"] = LIMITS | {"max_open_orders": "9"}
    assert judge(intent(s, time_in_force="IOC"), s).way == ("x", "y")
    s.open["y"].time_in_force = "FOK"
    assert judge(intent(s, time_in_force="IOC"), s).way == ()


def test_nobody_gives_way_to_what_another_rule_refuses_or_past_the_cancels_rate() -> None:
    s = state()
    _with(s, open={"x": _resting()})
    s.drawdown["USDT"] = 101 * ONE
    verdict = judge(intent(s, time_in_force="IOC"), s)
    assert (verdict.rule, verdict.way) == ("drawdown", ())
    s.drawdown.clear()
    s.cancels_ns["a:main"] = [s.now_ns] * 2
    verdict = judge(intent(s, time_in_force="IOC"), s)
    assert (verdict.rule, verdict.way) == ("self_trade", ())
    assert "3 cancels a minute" in verdict.measured
    s.open["x"].canceling = True
    assert judge(intent(s, time_in_force="IOC"), s).way == ("x",), "it is being cancelled already"


def test_the_gate_is_pure() -> None:
    s = state()
    s.open["x"] = _resting()
    wanted = intent(s, time_in_force="IOC")

    def seen() -> tuple[Any, ...]:
        return (wanted, {f.name: getattr(s, f.name) for f in dataclasses.fields(s) if f.name != "books"})

    before = copy.deepcopy(seen())
    first = judge(wanted, s)
    assert judge(wanted, s) == first
    assert seen() == before


def test_what_goes_wrong_inside_is_a_refusal() -> None:
    s = state()
    broken = intent(s)
    del broken["input_keys"]
    assert judge(broken, s).rule == "book_live"
