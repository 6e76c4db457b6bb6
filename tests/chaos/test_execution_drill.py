"""A short drill, and proof that the drill notices what it is there to notice."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from execution import amending
from execution import gateway as gateway_room
from execution.account import Capabilities, OrderReport
from execution.errors import Unclear
from execution.gateway import Gateway
from execution.orders import FINAL, TRANSITIONS, InvalidTransition, Order
from tests.chaos.execution_drill import Drill, one
from tests.chaos.faulty_account import FaultyAccount


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", range(6))
def test_every_invariant_holds_under_faults_and_kills(block: int) -> None:
    orders = fills = kills = amended = 0
    for seed in range(block * 50, block * 50 + 50):
        drill = one(seed)
        assert drill.violations == [], f"seed {seed}"
        orders, fills, kills = orders + len(drill.sent), fills + len(drill.news.fills), kills + len(drill.killed_at)
        amended += drill.amended
    assert orders > 100
    assert fills > 50
    assert kills > 20
    assert amended > 40


def _violations(patch: Any, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    patch(monkeypatch)
    found: set[str] = set()
    for seed in range(150):
        drill = Drill(seed)
        try:
            asyncio.run(drill.run())
        except InvalidTransition:
            found.add("invalid transition")
        found |= {v.partition(":")[0] for v in drill.violations}
    return found


def test_the_drill_notices_a_gateway_that_gives_up_on_orders_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def patch(m: pytest.MonkeyPatch) -> None:
        m.setattr(FaultyAccount, "capabilities", Capabilities(request_expiry_ms=0, not_found_grace_s=0))

    assert "unknown keeps its exposure" in _violations(patch, monkeypatch)


def test_the_drill_notices_an_order_that_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = FaultyAccount.place

    async def insistent(self: FaultyAccount, order: Any) -> OrderReport:
        try:
            return await place(self, order)
        except Unclear:
            return await place(self, order)

    found = _violations(lambda m: m.setattr(FaultyAccount, "place", insistent), monkeypatch)
    assert "one venue order an intent" in found


def test_the_drill_notices_fills_that_are_not_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Gateway.take_fill

    async def forgetful(self: Gateway, fill: Any) -> None:
        self.known_trades.clear()
        await take(self, fill)

    found = _violations(lambda m: m.setattr(Gateway, "take_fill", forgetful), monkeypatch)
    assert "every fill counted once" in found


def test_the_drill_notices_an_amend_that_does_not_wait_for_the_old_orders_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hasty(gateway: Gateway, old: Order, *, insist: bool) -> bool:
        return True

    found = _violations(lambda m: m.setattr(amending, "_ended", hasty), monkeypatch)
    assert "an amend is never beside its old order" in found


def test_the_drill_notices_an_amend_that_forgets_what_the_old_order_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    replaces = amending.replaces

    async def whole(gateway: Gateway, order: Order) -> str:
        reason = await replaces(gateway, order)
        order.sized = -1
        return reason

    assert "an amend within its size in total" in _violations(lambda m: m.setattr(gateway_room, "replaces", whole), monkeypatch)


def test_the_drill_notices_an_amend_that_believes_the_answer_to_a_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    async def credulous(gateway: Gateway, old: Order) -> bool:
        return True

    found = _violations(lambda m: m.setattr(amending, "_confirmed", credulous), monkeypatch)
    assert "an amend within its size in total" in found


@pytest.mark.parametrize("state", sorted(TRANSITIONS))
def test_every_transition_is_in_the_table_or_refused(state: str) -> None:
    for target in sorted(TRANSITIONS):
        order = Order("vm1", {"id": "1", "size": 10, "size_exp": 0, "symbol": "A/B"}, state)
        if target in TRANSITIONS[state]:
            assert order.to(target) == state
            assert order.state == target
        else:
            with pytest.raises(InvalidTransition):
                order.to(target)
            assert order.state == state


@pytest.mark.parametrize("state", sorted(FINAL))
@pytest.mark.parametrize("told", ["OPEN", "PARTIAL", "FILLED", "CANCELED", "REJECTED", "EXPIRED"])
def test_no_report_brings_an_order_back(state: str, told: str) -> None:
    order = Order("vm1", {"id": "1", "size": 10, "size_exp": -1, "symbol": "A/B"}, state)
    assert order.heard(OrderReport("vm1", "7", "A/B", told, 1, 0)) == ""
    assert order.state == state
    assert order.reported == 10, "what the venue says was filled is still to be accounted for"
