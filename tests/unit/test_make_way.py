"""Two strategies on one account, through the real executor, gate and gateway, at a venue that would let them trade with
each other: they never do, and none of them starves."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.chaos.execution_drill import NATIVE, OWNER
from tests.chaos.executor_room import Room, run

MM, ARB = "mm", "arb"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def test_a_resting_order_is_cancelled_confirmed_and_then_the_other_is_sent() -> None:
    async def play(room: Room) -> None:
        quote = room.intent(MM, "SELL", 5_000_000, "POST_ONLY")
        await room.settle()
        assert room.at_venue(quote) == "NEW"
        taker = room.intent(ARB, "BUY", 5_000_100, "IOC")
        assert room.verdict(taker) is None and not room.at_venue(taker), "nothing is said before it is sure"
        again = room.intent(MM, "SELL", 5_000_000, "POST_ONLY", size=900)
        refused = room.verdict(again)
        assert refused and refused["rule"] == "self_trade", "what made way does not come back meanwhile"
        await room.settle()
        assert room.at_venue(quote) == "CANCELED"
        assert room.at_venue(taker) == "EXPIRED", "it was sent, and found nobody"
        verdict = room.verdict(taker)
        assert verdict and verdict["verdict"] == "ACCEPT"
        assert verdict["made_way"] == [quote] and verdict["waited_us"] > 0
        causes = [r["cause"] for t, r in room.told if t == "orders.event" and r["intent_id"] == quote]
        assert causes[-1] == f"makes way for vm{taker} of {ARB}"
        once_more = room.intent(MM, "SELL", 5_000_000, "POST_ONLY", size=800)
        await room.settle()
        assert room.at_venue(once_more) == "NEW", "and the maker is back"
        assert not room.executor.desk.alarms and room.no_wash()

    run(play, Room())


def test_a_strategy_of_higher_priority_keeps_its_order() -> None:
    async def play(room: Room) -> None:
        quote = room.intent(MM, "SELL", 5_000_000, "POST_ONLY")
        await room.settle()
        taker = room.intent(ARB, "BUY", 5_000_100, "IOC")
        await room.settle()
        verdict = room.verdict(taker)
        assert verdict and verdict["rule"] == "self_trade" and MM in verdict["measured"]
        assert room.at_venue(quote) == "NEW" and not room.at_venue(taker)

    run(play, Room(mm=1))


def test_it_is_judged_again_as_of_the_moment_when_the_way_is_free() -> None:
    async def play(room: Room) -> None:
        quote = room.intent(MM, "SELL", 5_000_000, "POST_ONLY")
        await room.settle()
        room.line.rate = 1.0  # every cancel fails, in one way or another
        taker = room.intent(ARB, "BUY", 5_000_100, "IOC")
        await room.settle(1.5)
        room.line.rate = 0.0
        await room.settle()
        verdict = room.verdict(taker)
        assert verdict and verdict["rule"] == "intent_age" and verdict["made_way"] == [quote]
        assert not room.at_venue(taker) and taker not in room.executor.desk.risk.open

    run(play, Room())


def test_what_the_resting_order_trades_while_it_is_cancelled_has_traded() -> None:
    async def play(room: Room) -> None:
        quote = room.intent(MM, "SELL", 5_000_000, "POST_ONLY")
        await room.settle()
        taker = room.intent(ARB, "BUY", 5_000_100, "IOC")
        room.core.place("other", NATIVE, "BUY", Decimal(50_000), Decimal("0.01"), "IOC", "o", 1)
        await room.settle()
        await room.settle()
        assert room.at_venue(quote) == "FILLED"
        verdict = room.verdict(taker)
        assert verdict and verdict["verdict"] == "ACCEPT" and room.at_venue(taker)

    run(play, Room())


def test_a_strategy_may_take_back_what_waits_and_a_kill_ends_it() -> None:
    async def play(room: Room) -> None:
        room.intent(MM, "SELL", 5_000_000, "POST_ONLY")
        await room.settle()
        first = room.intent(ARB, "BUY", 5_000_100, "IOC")
        room.intent(ARB, "BUY", 5_000_100, "IOC", action="CANCEL", target_id=first)
        verdict = room.verdict(first)
        assert verdict and verdict["measured"] == "cancelled while it waited"
        await room.settle()
        room.intent(MM, "SELL", 5_000_000, "POST_ONLY", size=2000)
        await room.settle()
        second = room.intent(ARB, "BUY", 5_000_100, "IOC")
        room.executor.desk.risk.control["strategy:arb"] = {"state": "KILL", "reason": "enough", "version": 2}
        await room.settle()
        verdict = room.verdict(second)
        assert verdict and verdict["rule"] == "control"
        assert not room.at_venue(first) and not room.at_venue(second)

    run(play, Room())


@pytest.mark.parametrize("seed", range(12))
def test_under_faults_they_never_meet_and_neither_starves(seed: int) -> None:
    async def play(room: Room) -> None:
        rnd, sent = random.Random(seed), {MM: list[str](), ARB: list[str]()}
        for _ in range(60):
            quotes = [o.intent_id for o in room.executor.desk.risk.open.values() if o.strategy == MM]
            for quote in quotes:  # as a maker does: the old one first, and a new one when it is over
                room.intent(MM, "BUY", 1, "GTC", action="CANCEL", target_id=quote)
            mid = 5_000_000 + rnd.randint(-20, 20) * 100
            side, other, sign = rnd.choice((("BUY", "SELL", 1), ("SELL", "BUY", -1)))
            await room.settle(0.1)
            if not quotes:
                sent[MM].append(room.intent(MM, side, mid - sign * 100, "POST_ONLY", size=rnd.randint(900, 1100)))
                await room.settle(rnd.choice((0.0, 0.05)))
            sent[ARB].append(room.intent(ARB, other, mid - sign * 100, "IOC", size=rnd.randint(900, 1100)))
            for _ in range(rnd.randint(2, 6)):
                await room.settle(rnd.choice((0.05, 0.3, 1.0)))
                assert room.no_wash()
            await room.gateway.resolver.sweep()
        for _ in range(30):
            await room.settle(1.0)
            await room.gateway.resolver.sweep()
        assert not room.executor.way.waiting
        assert all(room.verdict(i) for i in (*sent[MM], *sent[ARB])), "everybody had a verdict"
        for strategy, ids in sent.items():
            arrived = sum(bool(room.at_venue(i)) for i in ids)
            assert arrived >= max(10, len(ids) // 4), f"{strategy}: {arrived} of {len(ids)}"
        assert any(v["made_way"] and v["verdict"] == "ACCEPT" for i in sent[ARB] if (v := room.verdict(i)))
        ours = [e for e in room.core.executions if e.owner == OWNER]
        assert len({e.trade_id for e in ours}) == len(ours), "both sides of a trade are ours"

    run(play, Room(seed, rate=0.15))
