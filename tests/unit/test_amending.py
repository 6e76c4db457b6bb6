"""An amend through the real executor, gate and gateway: the old order ends, and what is left goes out, or nothing does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from execution.risk import judge
from execution.risk_state import OpenOrder
from schemas.codec import codec
from simulator.trading_core import VenueOrder
from tests.chaos.execution_drill import NATIVE, OWNER
from tests.chaos.executor_room import ACCOUNT, Room, run
from tests.unit.test_risk import KEY, LIMITS, ONE, intent, state


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def amend(room: Room, target: str, price: int, **more: Any) -> str:
    return room.intent("mm", "SELL", price, "POST_ONLY", action="CANCEL", amend=True, target_id=target, **more)


async def quoted(room: Room, **more: Any) -> str:
    quote = room.intent("mm", "SELL", 5_010_000, "POST_ONLY", **more)
    await room.settle()
    assert room.at_venue(quote) == "NEW"
    return quote


def venue_order(room: Room, intent_id: str) -> VenueOrder:
    found = room.core.find(OWNER, NATIVE, f"vm{intent_id}")
    assert found is not None
    return found


def cause(room: Room, intent_id: str) -> str:
    return [r["cause"] for t, r in room.told if t == "orders.event" and r["intent_id"] == intent_id][-1]


def test_the_old_order_ends_and_the_new_one_stands_at_its_price() -> None:
    async def play(room: Room) -> None:
        quote = await quoted(room)
        new = amend(room, quote, 5_020_000)
        await room.settle()
        assert (room.at_venue(quote), room.at_venue(new)) == ("CANCELED", "NEW")
        assert (venue_order(room, new).price, venue_order(room, new).size) == (Decimal(50_200), Decimal("0.01"))
        assert cause(room, quote) == f"replaced by vm{new}"
        again = amend(room, quote, 5_030_000)
        await room.settle()
        assert not room.at_venue(again), "an order is replaced once"
        last = amend(room, new, 5_030_000)
        await room.settle()
        assert [room.at_venue(i) for i in (new, last)] == ["CANCELED", "NEW"]
        assert not room.executor.desk.alarms

    run(play, Room())


def test_what_the_old_order_fills_meanwhile_is_taken_off() -> None:
    async def play(room: Room) -> None:
        quote = await quoted(room)
        new = amend(room, quote, 5_020_000)  # decided before the fill below was known
        room.core.place("other", NATIVE, "BUY", Decimal(50_100), Decimal("0.004"), "IOC", "o", 1)
        await room.settle()
        await room.settle()
        assert room.at_venue(quote) == "CANCELED" and venue_order(room, quote).filled == Decimal("0.004")
        assert venue_order(room, new).size == Decimal("0.006")
        told = [r for t, r in room.told if t == "orders.event" and r["intent_id"] == new]
        assert {r["size"] for r in told} == {600}, "its events say what it really is"
        journal = [r for r in await room.gateway.journal.load() if r["step"] == "PREPARED"]
        assert [r["size"] for r in journal] == [1000, 600]

    run(play, Room())


def test_nothing_is_placed_after_the_old_order_filled_or_when_nothing_is_left() -> None:
    async def play(room: Room) -> None:
        quote = await quoted(room)
        new = amend(room, quote, 5_020_000, size=2000)
        room.core.place("other", NATIVE, "BUY", Decimal(50_100), Decimal("0.01"), "IOC", "o", 1)
        await room.settle()
        await room.settle()
        assert room.at_venue(quote) == "FILLED" and not room.at_venue(new)
        assert "was filled before" in cause(room, new)
        quote = await quoted(room, size=900)
        new = amend(room, quote, 5_020_000, size=400)
        room.core.place("other", NATIVE, "BUY", Decimal(50_100), Decimal("0.005"), "IOC", "p", 1)
        await room.settle()
        await room.settle()
        assert room.at_venue(quote) == "CANCELED" and not room.at_venue(new)
        assert "nothing is left of 400" in cause(room, new)
        assert new not in room.executor.desk.risk.open, "and its reservation is free"

    run(play, Room())


def test_an_amend_that_is_refused_is_a_cancel_all_the_same() -> None:
    async def play(room: Room) -> None:
        quote = await quoted(room)
        new = amend(room, quote, 6_000_000, size=10_000_000)
        await room.settle()
        verdict = room.verdict(new)
        assert verdict and verdict["rule"] == "order_size"
        assert room.at_venue(quote) == "CANCELED" and not room.at_venue(new)
        assert cause(room, quote) == f"its amend vm{new} was refused: order_size"
        lost = amend(room, quote, 5_020_000)
        verdict = room.verdict(lost)
        assert verdict and verdict["rule"] == "amend", "there is nothing to replace any more"

    run(play, Room())


def test_it_never_goes_out_late_killed_or_taken_back() -> None:
    async def play(room: Room) -> None:
        for number, end in enumerate(("late", "killed", "cancelled")):
            quote = await quoted(room, size=1000 + number)
            room.line.rate = 1.0
            new = amend(room, quote, 5_020_000 + number * 100, size=1000 + number)
            if end == "killed":
                room.gateway.killed = "enough"
            if end == "cancelled":
                room.intent("mm", "SELL", 1, "GTC", action="CANCEL", target_id=new)
            for _ in range(4):
                await room.settle(0.5 if end == "late" else 0.01)
            room.line.rate = 0.0
            room.gateway.killed = ""
            for _ in range(30):
                await room.settle(0.7)
                await room.gateway.resolver.sweep()
            assert not room.at_venue(new), end
            assert room.at_venue(quote) in ("CANCELED", "FILLED"), end
            assert new not in room.executor.desk.risk.open

    run(play, Room())


def test_cancels_and_amends_that_a_restart_swallowed_are_asked_for_again() -> None:
    async def play(room: Room) -> None:
        first, second = await quoted(room), await quoted(room, size=900)
        past = room.executor.past
        for number, (target, more) in enumerate({first: {}, second: {"amend": True}}.items()):
            record = intent(state(), id=f"{number:024x}", action="CANCEL", target_id=target, account=ACCOUNT, **more)
            past.intents[record["id"]] = record
            past.accepted.add(record["id"])
        past._publish_what_was_lost(ACCOUNT, room.gateway)  # pyright: ignore[reportPrivateUsage]
        await room.settle()
        assert [room.at_venue(i) for i in (first, second)] == ["CANCELED", "CANCELED"]
        ends = {r["intent_id"]: (r["state"], r["cause"]) for t, r in room.told if t == "orders.event"}
        assert ends[f"{1:024x}"] == ("EXPIRED", "accepted, never prepared")
        assert f"{0:024x}" not in ends, "a cancel is no order"

    run(play, Room())


def test_the_gate_judges_it_as_if_the_old_order_were_gone() -> None:
    s = state()
    s.balances[("a:main", "USDT")] = 10_000 * ONE
    s.open["old"] = OpenOrder("old", KEY, "a:main", "BUY", 4_990_000, 150, filled=50)
    wanted = intent(s, id="new", action="CANCEL", amend=True, target_id="old", size=200)
    assert judge(wanted, s).accepted, "7500 of 10000 are free again, and 150 lots are wanted, not 200"
    assert judge(wanted | {"action": "PLACE", "target_id": ""}, s).rule == "balance"
    assert judge(wanted | {"size": 50}, s).rule == "instrument", "nothing would be left"
    assert set(s.open) == {"old"}
    s.open["old"].account = "a:other"
    assert judge(wanted, s).rule == "amend"
    s.open["old"].account = "a:main"
    s.open["ask"] = OpenOrder("ask", KEY, "a:main", "SELL", 4_990_000, 10)
    assert (judge(wanted, s).rule, judge(wanted, s).way) == ("self_trade", ()), "it does not wait"
    s.cancels_ns["a:main"] = [s.now_ns] * int(LIMITS["max_cancels_per_minute"])
    assert judge(wanted, s).rule == "cancel_rate"


def test_a_reader_that_does_not_know_it_only_cancels() -> None:
    s = state()
    raw = codec("OrderIntent").encode(intent(s, action="CANCEL", amend=True, target_id="old"))
    read = codec("OrderIntent").decode(raw)
    assert (read["action"], read["target_id"], read["amend"]) == ("CANCEL", "old", True)
    assert codec("OrderIntent").decode(codec("OrderIntent").encode(intent(s)))["amend"] is False
