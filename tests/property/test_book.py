"""Laws of the order book, judged by a naive book of Decimals in a dictionary."""

from __future__ import annotations

import sys
from decimal import Decimal, localcontext
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.book import IDLE, BookSide, OrderBook, digest_levels

PRICES = st.integers(1, 60)
SIZES = st.one_of(st.just(0), st.integers(1, 10**12))
LEVELS = st.lists(st.tuples(PRICES, SIZES), max_size=12)
EXPONENT = st.integers(-6, 0)
EVENTS = st.lists(st.tuples(LEVELS, LEVELS, EXPONENT, EXPONENT, st.integers(0, 9).map(lambda n: n == 0)), max_size=12)
Side = dict[Decimal, Decimal]


def plain(value: Decimal) -> str:
    """The text that the digest is defined by, made by another way than ours."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class NaiveBook:
    """What the book must be, in the slowest and plainest words."""

    def __init__(self) -> None:
        self.sides: tuple[Side, Side] = ({}, {})

    def apply(self, sides: list[list[tuple[int, int]]], price_exp: int, size_exp: int, replace: bool) -> None:
        for side, levels in zip(self.sides, sides, strict=True):
            if replace:
                side.clear()
            for price, size in levels:
                side[Decimal(price).scaleb(price_exp)] = Decimal(size).scaleb(size_exp)
            for price in [p for p, s in side.items() if s == 0]:
                del side[price]

    def sorted(self) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        return sorted(self.sides[0].items(), reverse=True), sorted(self.sides[1].items())


def distinct(levels: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """One entry a price, as in a snapshot."""
    return list(dict(levels).items())


def columns(levels: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [p for p, _ in levels], [s for _, s in levels]


def played(events: list[tuple[list[tuple[int, int]], list[tuple[int, int]], int, int, bool]]) -> tuple[OrderBook, NaiveBook]:
    book, naive = OrderBook(), NaiveBook()
    for bids, asks, price_exp, size_exp, replace in events:
        if replace:
            bids, asks = distinct(bids), distinct(asks)
        book.apply(*columns(bids), *columns(asks), price_exp, size_exp, replace=replace)
        naive.apply([bids, asks], price_exp, size_exp, replace)
    return book, naive


def as_decimals(book: OrderBook, side: BookSide, n: int | None = None) -> list[tuple[Decimal, Decimal]]:
    with localcontext(prec=100):
        return [(Decimal(p).scaleb(book.price_exp), Decimal(s).scaleb(book.size_exp)) for p, s in side.top(n)]


@given(EVENTS)
def test_the_book_equals_the_naive_one_whatever_exponents_the_messages_use(events) -> None:
    book, naive = played(events)
    bids, asks = naive.sorted()
    assert as_decimals(book, book.bids) == bids
    assert as_decimals(book, book.asks) == asks


@given(EVENTS)
def test_best_prices_crossing_and_order_agree_with_the_levels(events) -> None:
    book, naive = played(events)
    bids, asks = naive.sorted()
    for side, best in ((book.bids, bids), (book.asks, asks)):
        assert len(side) == len(side.order) == len(best)
        assert side.order == sorted(side.order)
        assert side.best() == (side.top(1)[0] if best else None)
    assert book.crossed() == (bool(bids) and bool(asks) and bids[0][0] >= asks[0][0])


@given(EVENTS, st.integers(0, 15))
def test_top_n_is_the_head_of_the_whole(events, n: int) -> None:
    book, _ = played(events)
    for side in (book.bids, book.asks):
        assert side.top(n) == side.top()[:n]
        assert list(zip(*side.columns(), strict=True)) == side.top()


@given(EVENTS)
def test_the_digest_is_the_one_defined_and_does_not_see_exponents(events) -> None:
    book, naive = played(events)
    bids, asks = naive.sorted()
    lines = [f"bid {plain(p)} {plain(s)}" for p, s in bids] + [f"ask {plain(p)} {plain(s)}" for p, s in asks]
    expected = sha256("\n".join(lines).encode()).hexdigest()
    assert book.digest() == expected
    book.refine(book.price_exp - 3, book.size_exp - 5)
    assert book.digest() == expected


@given(EVENTS, st.integers(-9, 0), st.integers(-9, 0))
def test_refining_never_rounds_and_never_coarsens(events, price_exp: int, size_exp: int) -> None:
    book, naive = played(events)
    before = book.price_exp, book.size_exp
    book.refine(price_exp, size_exp)
    assert (book.price_exp, book.size_exp) == (min(before[0], price_exp), min(before[1], size_exp))
    assert as_decimals(book, book.bids) == naive.sorted()[0]


@given(EVENTS, st.integers(0, 15))
def test_a_cut_keeps_the_best_and_says_how_many_fell(events, depth: int) -> None:
    book, _ = played(events)
    for side in (book.bids, book.asks):
        whole = side.top()
        assert side.cut(depth) == max(0, len(whole) - depth)
        assert side.top() == whole[:depth]
        assert len(side.levels) == len(side.order)


@given(EVENTS, st.sampled_from(["bid", "ask"]), st.integers(0, 10**15))
def test_depth_to_a_notional_is_the_shortest_walk_that_reaches_it(events, side: str, notional: int) -> None:
    book, _ = played(events)
    size, reached, complete = book.depth_to_notional(side, notional)
    walked = quantity = 0
    for price, level in (book.bids if side == "bid" else book.asks).top():
        walked += price * level
        quantity += level
        if walked >= notional:
            break
    assert (size, reached) == (quantity, walked)
    assert complete == (quantity > 0 and walked >= notional)


@given(LEVELS, LEVELS)
def test_setting_one_by_one_is_updating_at_once(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    for sign in (1, -1):
        one, all_at_once = BookSide(sign), BookSide(sign)
        for levels in (first, second):
            for price, size in levels:
                one.set(price, size)
            all_at_once.update(*columns(levels))
        assert (one.levels, one.order) == (all_at_once.levels, all_at_once.order)


@given(st.integers(0, 2**32), st.sampled_from([1, -1]))
@settings(max_examples=30)
def test_the_best_price_is_right_whether_or_not_somebody_asks_for_the_order(seed: int, sign: int) -> None:
    """Long enough for the sorted list to be dropped and made again, and for deleted levels to fill the heap."""
    chance, side, naive = Random(seed), BookSide(sign), dict[int, int]()
    for _ in range(6 * IDLE):
        prices = [chance.randrange(200) for _ in range(chance.randrange(1, 9))]
        sizes = [chance.choice((0, 0, 0, 1, 2)) for _ in prices]
        side.update(prices, sizes)
        for price, size in zip(prices, sizes, strict=True):
            naive[price] = size
        held = sorted((price for price, size in naive.items() if size), key=lambda price: -price * sign)
        assert side.best_price() == (held[0] if held else None)
        if chance.random() < 0.02:
            assert [key * sign for key in reversed(side.order)] == held
        if chance.random() < 0.02:
            assert side.columns() == (held, [naive[price] for price in held])
    assert side.levels == {price: naive[price] for price in held}


def test_what_was_deleted_does_not_fill_the_memory() -> None:
    side = BookSide(1)
    side.set(1, 1)
    for price in range(2, 10_000):
        side.update([price, price], [1, 0])
    assert sys.getsizeof(side._heap) < 4096


def test_an_empty_side_has_no_touch() -> None:
    with pytest.raises(LookupError, match="empty"):
        BookSide(1).touch()


def test_deleting_a_level_that_is_not_held_is_normal() -> None:
    side = BookSide(1)
    side.set(5, 0)
    side.update([5, 6], [0, 1])
    side.set(7, 0)
    assert side.top() == [(6, 1)]


def test_columns_of_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        OrderBook().apply([1, 2], [1], [], [], 0, 0)


def test_the_digest_of_an_example_is_what_its_definition_gives() -> None:
    book = OrderBook()
    book.apply([5871020, 5871010], [14, 20], [5871030], [3000], -2, -3, replace=True)
    text = "bid 58710.2 0.014\nbid 58710.1 0.02\nask 58710.3 3"
    assert book.digest() == sha256(text.encode()).hexdigest()
    assert OrderBook().digest() == digest_levels([], []) == sha256(b"").hexdigest()
