"""One pass over a change's texts gives what reading them and then applying them gives, whatever exponents they need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collectors.local_book import LocalBook

PRICES = st.integers(1, 400).map(lambda n: f"{n // 100}.{n % 100:02d}"[: 4 - (n % 3)].rstrip("."))
SIZES = st.sampled_from(["0", "1", "2.5", "0.001", "7", "0.00", "12.0000001"])
ROWS = st.lists(st.tuples(PRICES, SIZES), max_size=12)
CHANGES = st.lists(st.tuples(ROWS, ROWS, st.booleans()), min_size=1, max_size=12)


@given(CHANGES, st.integers(-3, 0), st.integers(-3, 0))
def test_one_pass_gives_what_two_passes_give(changes, price_exp: int, size_exp: int) -> None:
    one, two = LocalBook(price_exp, size_exp), LocalBook(price_exp, size_exp)
    for bids, asks, ordered in changes:
        if ordered:  # a side whose order somebody asks for is kept in another way
            assert one.book.bids.order is not None and one.book.asks.order is not None
        columns, uncrossed = one.take(bids, asks)
        wanted = two.columns(bids, asks)
        assert (columns, uncrossed) == (wanted, two.apply(wanted))
        assert one.exponents() == two.exponents()
        for side in ("bids", "asks"):
            assert getattr(one.book, side).levels == getattr(two.book, side).levels
            assert getattr(one.book, side).best() == getattr(two.book, side).best()
            if ordered:
                held = getattr(two.book, side).levels.items()
                assert getattr(one.book, side).top() == sorted(held, reverse=side == "bids")
