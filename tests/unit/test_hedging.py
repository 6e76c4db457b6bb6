"""Hedge groups: what their fills left over is closed, or stands in a record with its exact amount."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from execution.hedging import AGE_MAX_NS, HEDGE, LEG_GRACE_NS, TRIES_MAX, HedgeGroups
from market.live_book import LiveBook
from market.terms import terms_of
from schemas.codec import codec
from tests.chaos.execution_drill import Drill
from tests.trading_world import World, instrument

SECOND = 1_000_000_000
SYMBOL = "BTC/USDT"


class Floor:
    """Two venues with books, and a group with a leg on each."""

    def __init__(self, **more: Any) -> None:
        world, self.books, self.terms = World(), dict[str, LiveBook](), dict[str, Any]()
        for venue in ("a", "b"):
            key = f"{venue}|{SYMBOL}"
            self.terms[key] = terms_of(instrument(venue, SYMBOL))
            live = self.books[key] = LiveBook(venue, SYMBOL)
            live.take_status(codec("BookStatus").decode(world.status(venue, SYMBOL, "LIVE").value or b""))
            better = 10_000 if venue == "b" else 0
            made = world.book(venue, SYMBOL, [(4_999_900 + better, 1000)], [(5_000_100 + better, 1000)])
            live.take(codec("BookEvent").decode(made.value or b""), 0, made.offset)
        self.now = world.now_ns
        self.groups = HedgeGroups(self.terms, self.books, **more)
        self.trade = 0
        self.legs = [self.leg(0, "a", "BUY"), self.leg(1, "b", "SELL")]

    def leg(self, number: int, venue: str, side: str) -> dict[str, Any]:
        _, made = Drill(1)._intent(1)
        return made | {
            "id": f"leg{number}", "group_id": "g", "leg": number, "legs": 2, "leg_mode": "SIMULTANEOUS", "venue": venue,
            "account": f"{venue}:main", "side": side, "size": 100, "size_exp": -3, "price": 5_000_000, "strategy": "s",
            "created_ns": self.now, "valid_until_ns": self.now + SECOND,
        }  # fmt: skip

    def fill(self, intent: dict[str, Any], size: int) -> None:
        self.trade += 1
        self.groups.fill({
            "group_id": "g", "intent_id": intent["id"], "account": intent["account"], "venue": intent["venue"],
            "symbol": SYMBOL, "trade_id": str(self.trade), "side": intent["side"], "size": size, "size_exp": -3,
            "price": intent["price"], "price_exp": -2,
        }, self.now)  # fmt: skip

    def half_filled(self) -> None:
        """The first leg bought 0.1, the second sold nothing."""
        for leg in self.legs:
            self.groups.intent(leg)
        self.fill(self.legs[0], 100)
        for leg in self.legs:
            self.groups.over(leg["id"], self.now)

    def due(self, later: float = 0.2) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        self.now += int(later * SECOND)
        return self.groups.due(self.now)


def test_what_is_left_over_is_sold_where_it_brings_most() -> None:
    floor = Floor()
    floor.half_filled()
    assert floor.due(0) == ([], []), "fills may still be on their way"
    [order], [told] = floor.due()
    assert (order["venue"], order["side"], order["size"], order["strategy_version"]) == ("b", "SELL", 100, HEDGE)
    assert (told["state"], told["assets"], told["amounts"], told["account"]) == ("HEDGING", ["BTC"], ["0.1"], "a:main")
    assert floor.groups.closes(order) == ""
    assert floor.due() == ([], []), "one try at a time"
    floor.fill(order, 100)
    floor.groups.over(order["id"], floor.now)
    assert [(r["state"], r["amounts"]) for r in floor.due()[1]] == [("CLOSED", [])]
    assert floor.groups.closes(order), "nothing is left to close"


def test_a_refused_try_is_no_try_and_goes_elsewhere() -> None:
    floor = Floor()
    floor.half_filled()
    [order], _ = floor.due()
    floor.groups.refused(order["id"], floor.now, "price_collar")
    [other], _ = floor.due()
    assert (other["venue"], other["id"] != order["id"]) == ("a", True)
    for _ in range(3 * TRIES_MAX):
        floor.groups.refused(other["id"], floor.now, "price_collar")
        orders, news = floor.due(1)
        assert news == []
        other = orders[0]
    floor.groups.refused(other["id"], floor.now, "price_collar")
    orders, [told] = floor.due(AGE_MAX_NS / SECOND)
    assert (orders, told["state"], told["amounts"]) == ([], "UNHEDGED", ["0.1"])
    assert "price_collar" in told["cause"]


def test_tries_that_fill_nothing_end_and_ones_that_fill_go_on() -> None:
    floor = Floor()
    floor.half_filled()
    [order], _ = floor.due()
    for _ in range(50):
        floor.fill(order, 1)
        floor.groups.over(order["id"], floor.now)
        [order], [told] = floor.due()
        assert told["state"] == "HEDGING"
    news: list[dict[str, Any]] = []
    for number in range(TRIES_MAX):
        floor.groups.over(order["id"], floor.now)
        orders, news = floor.due()
        assert [r["state"] for r in news] == ["UNHEDGED"] * (number == TRIES_MAX - 1)
        order = orders[0] if orders else order
    assert news[0]["amounts"] == ["0.05"]
    assert floor.due() == ([], [])
    floor.fill(order, 50)
    assert [r["state"] for r in floor.due()[1]] == ["CLOSED"], "a late fill counts in every state"


def test_no_live_book_is_not_dust() -> None:
    floor = Floor()
    floor.half_filled()
    for book in floor.books.values():
        book.status_state = "STALE"
    orders, [told] = floor.due()
    assert (orders, told["state"], "not live" in told["cause"]) == ([], "HEDGING", True)
    floor.books[f"a|{SYMBOL}"].status_state = "LIVE"
    assert [o["venue"] for o in floor.due()[0]] == ["a"]


def test_what_no_venue_takes_is_dust() -> None:
    floor = Floor()
    floor.half_filled()
    floor.fill(floor.legs[1], 100)
    floor.trade += 1
    small = floor.legs[0] | {"size_exp": -6}
    floor.groups.fill({**small, "intent_id": "leg0", "trade_id": "x", "size": 3, "price_exp": -2}, floor.now)
    orders, [told] = floor.due()
    assert (orders, told["state"], told["amounts"]) == ([], "DUST", ["0.000003"])


def test_a_kill_of_an_account_moves_the_hedge_and_one_of_all_ends_it() -> None:
    killed = {"b:main"}
    floor = Floor(unusable=lambda i: "killed" if i["account"] in killed else "")
    floor.half_filled()
    [order], _ = floor.due()
    assert order["venue"] == "a"
    killed.add("a:main")
    floor.groups.over(order["id"], floor.now)
    orders, [told] = floor.due()
    assert (orders, told["state"], told["amounts"]) == ([], "UNHEDGED", ["0.1"])


def test_a_strategy_that_died_between_two_legs_leaves_no_group_that_waits_for_ever() -> None:
    floor = Floor()
    floor.groups.intent(floor.legs[0])
    floor.fill(floor.legs[0], 100)
    floor.groups.over("leg0", floor.now)
    assert floor.due() == ([], [])
    [order], _ = floor.due((SECOND + LEG_GRACE_NS) / SECOND)
    assert (order["side"], order["size"]) == ("SELL", 100)


def test_fills_that_the_venue_told_of_are_waited_for() -> None:
    missing = {"leg1"}
    floor = Floor(incomplete=lambda intent_id: intent_id in missing)
    floor.half_filled()
    assert floor.due() == ([], [])
    floor.fill(floor.legs[1], 100)
    missing.clear()
    assert floor.due() == ([], []), "nothing was left over after all"


def test_one_executor_alone_hedges_a_group() -> None:
    floor = Floor(owns=lambda account: account == "b:main")
    floor.half_filled()
    assert floor.due() == ([], []), "the first leg's account is another's"


def test_a_hedge_does_nothing_but_close() -> None:
    floor = Floor()
    floor.half_filled()
    [order], _ = floor.due()
    for wrong in ({"side": "BUY"}, {"size": 101}, {"group_id": "other"}, {"symbol": "ETH/USDT"}):
        assert floor.groups.closes(order | wrong), wrong


def test_a_restart_goes_on_where_it_was_whatever_the_order_of_topics() -> None:
    """Intents, then fills, then verdicts and orders: as an executor reads its past."""
    floor = Floor()
    floor.half_filled()
    [order], [told] = floor.due()
    again = Floor()
    again.now = floor.now
    again.groups.remember(told)
    for intent in (*floor.legs, order):
        again.groups.intent(intent)
    again.fill(floor.legs[0], 100)
    for name in ("leg0", "leg1", order["id"]):
        again.groups.over(name, again.now)
    [second], _ = again.due()
    assert (second["id"] != order["id"], second["size"]) == (True, 100)
    assert again.groups.groups["g"].tries == 1


def test_a_group_that_was_given_up_stays_so_until_a_fill_changes_it() -> None:
    floor = Floor()
    floor.half_filled()
    first = floor.due()[1][0]
    floor = Floor()
    floor.groups.remember(first | {"state": "UNHEDGED", "cause": "too old"})
    floor.half_filled()
    assert floor.due() == ([], []), "a person was told"
    floor.fill(floor.legs[0], 1)
    orders, [told] = floor.due()
    assert (told["amounts"], len(orders)) == (["0.101"], 1)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_the_record_says_what_the_fills_left(seed: int) -> None:
    """Random fills, refusals, dead books and kills: the newest record is the residual, and in the end nothing is HEDGING."""
    rnd = random.Random(seed)
    killed: set[str] = set()
    floor = Floor(unusable=lambda i: "killed" if i["account"] in killed else "")
    for leg in floor.legs:
        floor.groups.intent(leg)
        if filled := rnd.choice((0, 1, 40, 100)):
            floor.fill(leg, filled)
        floor.groups.over(leg["id"], floor.now)
    newest: dict[str, Any] = {"state": "CLOSED", "amounts": []}
    for _ in range(400):
        for book in floor.books.values():
            book.status_state = rnd.choice(("LIVE", "LIVE", "STALE"))
        if rnd.random() < 0.01:
            killed.add(rnd.choice(("a:main", "b:main")))
        orders, news = floor.due(rnd.random())
        newest = news[-1] if news else newest
        for order in orders:
            assert floor.groups.closes(order) == ""
            if rnd.random() < 0.3:
                floor.groups.refused(order["id"], floor.now, "book_live")
                continue
            if rnd.random() < 0.5:
                floor.fill(order, rnd.randint(1, order["size"]))
            floor.groups.over(order["id"], floor.now)
    left = floor.groups.residual(floor.groups.groups["g"])
    assert newest["state"] != "HEDGING"
    assert [int(Decimal(text).scaleb(18)) for text in newest["amounts"]] == list(left.values())
    assert (newest["state"] == "CLOSED") == (not left)
