"""Depth, microstructure and crosses: integers against fractions, and what is written when."""

from __future__ import annotations

import asyncio
from collections import deque
from fractions import Fraction
from itertools import pairwise
from math import isqrt
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.conflation import Lane
from processors.cross import QUIET_S, Crosses, Group, Quote, best, spread_mbps
from processors.microstructure import Microstructure
from processors.mirror_book import MirrorBook
from schemas.codec import codec


def book(bid: tuple[int, int], ask: tuple[int, int], at_ns: int = 10**9, exps: tuple[int, int] = (-2, -3)) -> MirrorBook:
    one = MirrorBook("v", "A/B")
    one.book.apply([bid[0]], [bid[1]], [ask[0]], [ask[1]], *exps, replace=True)
    one.ts_received_ns = at_ns
    return one


TOP = st.tuples(st.integers(1, 10**9), st.integers(1, 10**12))


@given(TOP, TOP)
def test_mid_micro_price_and_imbalance_are_the_fractions_cut_off(bid, ask) -> None:
    one = book(bid, ask)
    record = Microstructure().record(one, 3, "LIVE")
    assert record is not None
    codec("Microstructure").encode(record)
    assert Fraction(record["mid"], 10) == Fraction(bid[0] + ask[0], 2)
    micro = Fraction(bid[0] * ask[1] + ask[0] * bid[1], bid[1] + ask[1])
    assert 0 <= micro - Fraction(record["micro_price"], 10**4) < Fraction(1, 10**4)
    imbalance = Fraction(bid[1] - ask[1], bid[1] + ask[1])
    assert abs(imbalance - Fraction(record["imbalance_ppm"], 10**6)) < Fraction(1, 10**6)
    assert abs(record["imbalance_ppm"]) <= abs(imbalance) * 10**6


def test_volatility_sums_squared_returns_of_whole_seconds_and_leaves_the_current_one_out() -> None:
    window = Microstructure()
    mids = [(0, 1000), (100, 1010), (950, 1000), (1000, 1020), (2100, 1000)]
    for ms, mid in mids:
        window.sample(book((mid - 1, 1), (mid + 1, 1), at_ns=100 * 10**9 + ms * 10**6))
    r = [abs(b - a) * 10**9 // a for (_, a), (_, b) in pairwise(mids)]
    now = book((999, 1), (1001, 1), at_ns=102 * 10**9 + 5 * 10**8)
    record = window.record(now, 0, "LIVE")
    assert record is not None
    assert record["volatility_1s_ppb"] == r[2]  # the second 101: one return
    assert record["volatility_10s_ppb"] == isqrt(r[0] ** 2 + r[1] ** 2 + r[2] ** 2)
    assert record["samples"] == 4
    assert (record["spread_min"], record["spread_max"], record["spread_mean"]) == (2, 2, 2000)


def test_no_return_is_taken_across_a_time_in_which_the_book_was_not_live() -> None:
    window = Microstructure()
    window.sample(book((99, 1), (101, 1), at_ns=10**9))
    window.lost()
    window.sample(book((199, 1), (201, 1), at_ns=10**9 + 1))
    record = window.record(book((199, 1), (201, 1), at_ns=2 * 10**9), 0, "LIVE")
    assert record is not None and record["volatility_1s_ppb"] == 0


def test_a_finer_exponent_changes_no_return() -> None:
    window = Microstructure()
    window.sample(book((99, 1), (101, 1), at_ns=10**9))
    window.sample(book((9990, 1), (10110, 1), at_ns=10**9 + 1, exps=(-4, -3)))
    record = window.record(book((9990, 1), (10110, 1), at_ns=2 * 10**9, exps=(-4, -3)), 0, "LIVE")
    assert record is not None
    assert record["volatility_1s_ppb"] == 50 * 10**9 // 10000
    assert (record["spread_min"], record["spread_max"]) == (120, 200)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 500), st.integers(0, 300)), min_size=1, max_size=80))
def test_the_window_is_the_last_sixty_whole_seconds_each_counted_once(samples) -> None:
    window, taken = Microstructure(), []
    for second, mid, half in sorted(samples):
        window.sample(book((10_000 + mid - half, 1), (10_000 + mid + half + 1, 1), at_ns=second * 10**9))
        taken.append((second, 2 * (10_000 + mid) + 1, 2 * half + 1))
    now = taken[-1][0]
    record = window.record(book((10_000, 1), (10_001, 1), at_ns=now * 10**9), 0, "LIVE")
    assert record is not None
    whole = [(second, spread) for second, _, spread in taken if now - 60 <= second < now]
    spreads = [spread for _, spread in whole]
    assert record["samples"] == len(whole)
    assert record["spread_min"] == min(spreads, default=1)
    assert record["spread_max"] == max(spreads, default=1)
    assert record["spread_mean"] == (sum(spreads) * 1000 // len(spreads) if spreads else 1000)
    for seconds in (1, 10, 60):
        squares = sum(
            (abs(here - before) * 10**9 // before) ** 2
            for (_, before, _), (second, here, _) in pairwise(taken) if now - seconds <= second < now
        )  # fmt: skip
        assert record[f"volatility_{seconds}s_ppb"] == isqrt(squares)


def quote(venue: str, bid: int, ask: int, exp: int = -2, state: str = "LIVE", size: int = 5) -> dict[str, Any]:
    return {
        "venue": venue, "symbol": "A/B", "state": state, "epoch": 1, "index": 2, "offset": 3, "partition": 4,
        "bid_price": bid, "bid_size": size, "ask_price": ask, "ask_size": size, "price_exp": exp, "size_exp": -3,
        "ts_received_ns": 10**18, "ts_venue_us": 1, "venue_seq": 1,
    }  # fmt: skip


def group(*quotes: dict[str, Any], heard_s: float = 1000.0) -> Group:
    made = Group("A/B")
    for one in quotes:
        made.quotes[one["venue"]] = Quote(one, heard_s)
    return made


def test_the_best_of_all_venues_is_found_across_exponents() -> None:
    found = group(quote("a", 100, 110), quote("b", 10101, 10900, exp=-4), quote("c", 1, 2, exp=0))
    record = found.cross(1000.0, 10**18 + 5_000_000, lambda *_: None)
    codec("Cross").encode(record)
    assert record["bid_venue"] == "b" and record["bid_price"] == 10101
    assert record["ask_venue"] == "b" and record["ask_price"] == 10900
    assert record["bid_age_ms"] == 5
    assert record["net_spread_mbps"] is None


def test_only_live_books_that_are_repeated_count() -> None:
    found = group(quote("a", 100, 110), quote("gap", 500, 501, state="GAP"), quote("lag", 500, 501, state="LAGGING"))
    record = found.cross(1000.0, 10**18, lambda *_: None)
    assert (record["venues"], record["known"], record["bid_venue"]) == (1, 3, "a")
    silent = found.cross(1000.0 + QUIET_S + 1, 10**18, lambda *_: None)
    assert (silent["venues"], silent["bid_venue"], silent["spread_mbps"]) == (0, "", None)
    codec("Cross").encode(silent)


def test_a_group_is_looked_at_again_only_when_a_venue_has_fallen_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[dict[str, Any]] = []
    now = [1000.0]
    monkeypatch.setattr("processors.cross.time", SimpleNamespace(time=lambda: now[0], time_ns=lambda: int(now[0] * 1e9)))

    def put(topic: str, key: str, value: bytes) -> bool:
        written.append(codec("Cross").decode(value))
        return True

    crosses = Crosses(SimpleNamespace(put=put), SimpleNamespace(crosses=0), {}, lambda *_: None)
    found = group(quote("a", 100, 110), quote("b", 101, 109))
    crosses.by_partition[0] = {"A/B": found}
    crosses.look_again()
    assert [one["venues"] for one in written] == [2]
    crosses.look_again()
    assert len(written) == 1
    found.quotes["a"].heard_s = now[0] = 1000.0 + QUIET_S
    crosses.look_again()
    crosses.look_again()
    assert [(one["venues"], one["bid_venue"]) for one in written] == [(2, "b"), (1, "a")]
    now[0] += QUIET_S
    crosses.look_again()
    assert [(one["venues"], one["bid_venue"]) for one in written[2:]] == [(0, "")]


PRICE = st.integers(1, 10**12)
FEE = st.tuples(st.integers(-500, 5000), st.integers(-2, 0))


@given(PRICE, PRICE, st.integers(-8, 0), st.integers(-8, 0), FEE, FEE)
def test_spreads_before_and_after_fees_are_the_fractions_rounded_down(bid, ask, bid_exp, ask_exp, bid_fee, ask_fee) -> None:
    sell, buy = quote("a", bid, bid, bid_exp), quote("b", ask, ask, ask_exp)
    p, q = Fraction(bid) * Fraction(10) ** bid_exp, Fraction(ask) * Fraction(10) ** ask_exp
    fees = [Fraction(m) * Fraction(10) ** e / 10**4 for m, e in (bid_fee, ask_fee)]
    net = (q * (1 + fees[1]) - p * (1 - fees[0])) / ((p + q) / 2) * 10**7
    assert spread_mbps(sell, buy, bid_fee, ask_fee) == net.__floor__()
    assert spread_mbps(sell, buy, (0, 0), (0, 0)) == ((q - p) / ((p + q) / 2) * 10**7).__floor__()


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(-3, 0)), min_size=1, max_size=8))
def test_the_best_is_the_highest_bid_and_the_lowest_offer(levels) -> None:
    quotes = [quote(str(n), price, price, exp) for n, (price, exp) in enumerate(levels)]
    values = [Fraction(price) * Fraction(10) ** exp for price, exp in levels]
    for side, wanted in (("bid", max(values)), ("ask", min(values))):
        found = best(quotes, side)
        assert found is not None
        assert Fraction(found[f"{side}_price"]) * Fraction(10) ** found["price_exp"] == wanted


async def test_a_lane_writes_the_newest_of_each_book_once_and_the_longest_waiting_first() -> None:
    written: deque[str] = deque()
    lane = Lane(0.05, 1.0, lambda one, _: written.append(one.key))
    for key in ("a", "b", "a", "c", "a"):
        lane.touch(SimpleNamespace(key=key), 0)  # pyright: ignore[reportArgumentType]
    await lane.turn()
    assert list(written) == ["a", "b", "c"]
    await lane.turn()
    assert len(written) == 3


async def test_a_lane_stops_at_its_share_and_goes_on_with_what_waits() -> None:
    import time

    written: list[str] = []

    def slow(one: Any, _: int) -> None:
        time.sleep(0.004)
        written.append(one.key)

    lane = Lane(0.05, 0.2, slow)
    for number in range(10):
        lane.touch(SimpleNamespace(key=str(number)), 0)  # pyright: ignore[reportArgumentType]
    await lane.turn()
    first = len(written)
    assert 1 <= first < 10
    assert lane.conflated_turns == 1
    while lane.pending:
        await lane.turn()
    assert written == [str(number) for number in range(10)]


async def test_a_lane_never_writes_a_book_twice_within_its_interval() -> None:
    times: dict[str, list[float]] = {}
    loop = asyncio.get_running_loop()
    lane = Lane(0.05, 0.5, lambda one, _: times.setdefault(one.key, []).append(loop.time()))
    until = loop.time() + 0.5
    task = asyncio.create_task(lane.run(lambda: loop.time() > until))
    while not task.done():
        lane.touch(SimpleNamespace(key="a"), 0)  # pyright: ignore[reportArgumentType]
        await asyncio.sleep(0.001)
    gaps = [b - a for a, b in pairwise(times["a"])]
    assert len(gaps) >= 4
    assert min(gaps) > 0.045
