"""Instrument names: ccxt's unified symbols, built and read."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.instruments import (
    Symbol,
    SymbolError,
    future_symbol,
    option_symbol,
    parse_symbol,
    perpetual_symbol,
    spot_symbol,
)

DAY_US = 1_774_598_400_000_000  # 2026-03-27 08:00 UTC

ASSETS = st.text(st.characters(categories=["Lu", "Nd", "Lo"]), min_size=1, max_size=8)
DAYS = st.dates(date(2000, 1, 1), date(2099, 12, 31))
SYMBOLS = st.one_of(
    st.builds(Symbol, ASSETS, ASSETS),
    st.builds(Symbol, ASSETS, ASSETS, ASSETS),
    st.builds(Symbol, ASSETS, ASSETS, ASSETS, DAYS),
    st.builds(Symbol, ASSETS, ASSETS, ASSETS, DAYS, st.integers(1, 10**9).map(str), st.sampled_from(["C", "P"])),
)


@given(SYMBOLS)
def test_reading_a_symbols_text_gives_the_symbol(symbol: Symbol) -> None:
    assert parse_symbol(str(symbol)) == symbol


@given(st.text(max_size=40))
def test_any_text_is_a_symbol_or_a_symbol_error(text: str) -> None:
    try:
        symbol = parse_symbol(text)
    except SymbolError:
        return
    assert parse_symbol(str(symbol)) == symbol


@pytest.mark.parametrize(
    ("text", "kind", "inverse"),
    [
        ("BTC/USDT", "SPOT", False),
        ("BTC/USDT:USDT", "PERPETUAL", False),
        ("BTC/USD:BTC", "PERPETUAL", True),
        ("BTC/USD:BTC-260327", "FUTURE", True),
        ("ETH/USDT:USDT-260327-1900.5-P", "OPTION", False),
        ("1000SATS/USDT", "SPOT", False),
        ("币安人生/USDT", "SPOT", False),
    ],
)
def test_the_kind_shows_in_the_form(text: str, kind: str, inverse: bool) -> None:
    symbol = parse_symbol(text)
    assert (symbol.kind, symbol.inverse, str(symbol)) == (kind, inverse, text)


def test_symbols_are_built_from_their_parts() -> None:
    assert spot_symbol("BTC", "USDT") == "BTC/USDT"
    assert perpetual_symbol("BTC", "USDT", "USDT") == "BTC/USDT:USDT"
    assert future_symbol("BTC", "USD", "BTC", DAY_US) == "BTC/USD:BTC-260327"
    assert option_symbol("BTC", "USD", "BTC", DAY_US, "50000.00", "C") == "BTC/USD:BTC-260327-50000-C"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("BTCUSDT", "BASE/QUOTE"),
        ("/USDT", "base"),
        ("BTC/", "quote"),
        ("BTC/USDT:", "settle"),
        ("BTC/USDT:USDT-2603", "YYMMDD"),
        ("BTC/USDT:USDT-261327", "no date"),
        ("BTC/USDT:USDT-260327-50000", "-YYMMDD-STRIKE-C"),
        ("BTC/USDT:USDT-260327-50000-X", "C or P"),
        ("BTC/USDT:USDT-260327-0-C", "above 0"),
        ("BTC/USDT:USDT-260327-50000.0-C", "plain"),
        ("BTC|X/USDT", "one of / : |"),
        ("BT C/USDT", "space"),
        ("A" * 65 + "/USDT", "longer"),
    ],
)
def test_an_error_says_which_part_is_wrong(text: str, says: str) -> None:
    with pytest.raises(SymbolError) as caught:
        parse_symbol(text)
    assert says in str(caught.value)


@pytest.mark.parametrize("expiry_us", [-(10**30), 10**30, -62_135_596_800_000_000, 4_102_444_800_000_000])
def test_a_time_that_is_none_is_a_symbol_error(expiry_us: int) -> None:
    with pytest.raises(SymbolError):
        future_symbol("BTC", "USD", "BTC", expiry_us)
