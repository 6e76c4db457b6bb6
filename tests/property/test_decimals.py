"""Laws of exact decimals, judged by Python's own decimal module."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.mantissas import FinerExponent, Mantissas, step_exponent
from market.decimals import (
    LONG_MAX,
    DecimalError,
    format_decimal,
    parse_decimal,
    rescale,
    strip_zeros,
    to_mantissa,
)

MANTISSAS = st.integers(-(10**30), 10**30)
EXPONENTS = st.integers(-30, 0)
WIRE = st.from_regex(r"-?[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


def exact(mantissa: int, exponent: int) -> Decimal:
    with localcontext(prec=200):
        return Decimal(mantissa).scaleb(exponent)


@given(WIRE)
def test_a_wire_number_is_read_exactly(text: str) -> None:
    if abs(int(text.lower().partition("e")[2] or 0)) > 38:
        with pytest.raises(DecimalError):
            parse_decimal(text)
        return
    mantissa, exponent = parse_decimal(text)
    assert exponent <= 0
    assert exact(mantissa, exponent) == Decimal(text)


@given(MANTISSAS, EXPONENTS, st.booleans())
def test_format_and_parse_are_inverse(mantissa: int, exponent: int, strip: bool) -> None:
    text = format_decimal(mantissa, exponent, strip=strip)
    assert "e" not in text.lower()
    assert exact(*parse_decimal(text)) == exact(mantissa, exponent)


@given(MANTISSAS, EXPONENTS)
def test_a_stripped_text_has_no_zero_at_its_end(mantissa: int, exponent: int) -> None:
    text = format_decimal(mantissa, exponent)
    assert not ("." in text and text.endswith(("0", ".")))
    assert text != "-0"


@given(MANTISSAS, EXPONENTS)
def test_stripping_zeros_keeps_the_value_and_is_the_coarsest(mantissa: int, exponent: int) -> None:
    short, coarse = strip_zeros(mantissa, exponent)
    assert exact(short, coarse) == exact(mantissa, exponent)
    assert coarse == 0 or short % 10


@given(MANTISSAS, EXPONENTS, EXPONENTS)
def test_rescaling_is_exact_or_refused(mantissa: int, source: int, target: int) -> None:
    try:
        result = rescale(mantissa, source, target)
    except DecimalError:
        assert strip_zeros(mantissa, source)[1] < target
    else:
        assert exact(result, target) == exact(mantissa, source)


@given(st.text(max_size=60))
def test_any_other_text_is_a_decimal_error_and_nothing_else(text: str) -> None:
    try:
        mantissa, exponent = parse_decimal(text)
    except DecimalError:
        return
    assert exact(mantissa, exponent) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "+", "-.", "nan", "NaN", "inf", "-Infinity", "1_000", " 1", "1 ", "1e", "1e+", "1e1.5", "0x10", "1,5",
     "١٢", "1..2", "1.2.3", "--1", "1e9999", "9" * 39, "1e-39", "1e39"],
)  # fmt: skip
def test_what_is_no_plain_number_is_refused(text: str) -> None:
    with pytest.raises(DecimalError):
        parse_decimal(text)


@pytest.mark.parametrize(
    ("text", "mantissa", "exponent"),
    [("58710.20", 5871020, -2), ("0", 0, 0), ("-3", -3, 0), ("1e-8", 1, -8), ("0.00000001", 1, -8), ("2.5E3", 2500, 0),
     ("0.10e1", 10, -1), ("-0.5", -5, -1)],
)  # fmt: skip
def test_examples_from_the_wire(text: str, mantissa: int, exponent: int) -> None:
    assert parse_decimal(text) == (mantissa, exponent)


def test_a_number_finer_than_the_exponent_is_refused_not_rounded() -> None:
    assert to_mantissa("1.50", -1) == 15
    with pytest.raises(DecimalError):
        to_mantissa("1.55", -1)


@given(st.integers(0, LONG_MAX), st.integers(-18, 0), st.integers(-18, 0))
def test_the_collectors_fast_reader_agrees_or_refuses(mantissa: int, written: int, held: int) -> None:
    text = format_decimal(mantissa, written, strip=False)
    reader = Mantissas(held)
    try:
        value = reader[text]
    except FinerExponent as error:
        assert error.exponent < held
        assert rescale(mantissa, written, error.exponent) is not None
    except DecimalError:
        assert rescale(mantissa, written, min(written, held)) > LONG_MAX
    else:
        assert exact(value, held) == exact(mantissa, written)
        assert reader[text] == value


@given(st.text(max_size=30), st.integers(-18, 0))
def test_the_collectors_fast_reader_takes_what_the_exact_one_takes(text: str, held: int) -> None:
    try:
        value = Mantissas(held)[text]
    except DecimalError:
        return
    assert exact(value, held) == exact(*parse_decimal(text))


@pytest.mark.parametrize(
    ("step", "exponent"), [("0.01000000", -2), ("1", 0), ("10", 0), ("0.00000001", -8), ("x", 0), ("", 0)]
)
def test_a_tick_gives_its_exponent(step: str, exponent: int) -> None:
    assert step_exponent(step) == exponent
