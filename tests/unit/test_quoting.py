"""Market making's formulas against the papers' numbers."""

from __future__ import annotations

import random
from decimal import Decimal
from math import exp, sqrt

import pytest

from strategies.quoting import Calibration, as_reservation, as_spread, glft_distances, glft_terms

D = Decimal


@pytest.mark.parametrize(
    ("gamma", "spread", "inventory", "symmetric"),
    [
        ("0.1", "1.49", (65.0, 6.6, 2.9), (68.4, 12.7, 8.4)),
        ("0.01", None, (68.6, 8.7, 5.1), (68.8, 12.8, 8.7)),
        ("1", None, (31.4, 5.0, 1.7), (44.0, 11.0, 5.1)),
    ],
)
def test_avellaneda_and_stoikovs_table(
    gamma: str, spread: str | None, inventory: tuple[float, float, float], symmetric: tuple[float, float, float]
) -> None:
    """Their set-up, 2,000 paths: means within four standard errors and a tenth, deviations within ten percent."""
    g, sigma, k, paths = D(gamma), D(2), D("1.5"), 2000
    steps, dt = 200, 0.005
    lefts = [D(1) - D(i) * D("0.005") for i in range(steps)]
    if spread:
        # The table names the average of the whole spread over the path.
        mean = sum(as_spread(g, sigma, k, left) for left in lefts) / steps
        assert round(mean, 2) == D(spread)
    halves = [float(as_spread(g, sigma, k, left)) / 2 for left in lefts]
    shifts = [float(as_reservation(D(0), D(1), g, sigma, left)) for left in lefts]
    average = sum(halves) / steps
    rnd = random.Random(1)
    for follow, expected in ((True, inventory), (False, symmetric)):
        profits, ends = [], []
        for _ in range(paths):
            s, q, cash = 100.0, 0, 0.0
            for i in range(steps):
                middle, half = (s + q * shifts[i], halves[i]) if follow else (s, average)
                to_bid, to_ask = s - (middle - half), middle + half - s
                bought = rnd.random() < 140 * exp(-1.5 * to_bid) * dt
                sold = rnd.random() < 140 * exp(-1.5 * to_ask) * dt
                cash += (s + to_ask) * sold - (s - to_bid) * bought
                q += bought - sold
                s += 2 * sqrt(dt) * (1 if rnd.random() < 0.5 else -1)
            profits.append(cash + q * s)
            ends.append(q)
        mean, deviation = _moments(profits)
        profit, profit_deviation, q_deviation = expected
        assert abs(mean - profit) <= 4 * profit_deviation / sqrt(paths) + 0.5
        assert deviation == pytest.approx(profit_deviation, rel=0.1)
        assert _moments(ends)[1] == pytest.approx(q_deviation, rel=0.1)


def _moments(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def test_the_published_values_of_glft() -> None:
    c, s = glft_terms(D("0.01"), D("0.3"), D("0.9"), D("0.3"))
    assert round(c, 6) == D("3.278982")
    assert round(s, 6) == D("0.067866")
    assert round(glft_distances(D(0), c, s)[0], 5) == D("3.31292")
    assert round(glft_distances(D(5), c, s)[0], 5) == D("3.65224")


def test_glft_is_symmetric_in_inventory() -> None:
    c, s = glft_terms(D("0.05"), D("1"), D("2"), D("0.7"))
    for q in range(-5, 6):
        assert glft_distances(D(q), c, s)[0] == glft_distances(D(-q), c, s)[1]


def test_a_calibration_finds_what_made_the_trades() -> None:
    """Trades whose depth is exponential with k, at 2A a second over both sides; a mid of known volatility."""
    rnd = random.Random(3)
    a, k, sigma = 1.5, 0.8, 0.5
    calibration = Calibration(D("0.25"), buckets=10, window_s=3600)
    now, mid = 0, 1000.0
    for second in range(1, 3600):
        mid += rnd.gauss(0, sigma)
        now = second * 1_000_000_000
        calibration.on_mid(now, D(f"{mid:.4f}"))
        for _ in range(3):
            if rnd.random() < 2 * a / 3:
                depth = rnd.expovariate(k)
                calibration.on_trade(now, D(f"{mid + depth:.6f}"), D(f"{mid:.6f}"))
    fitted = calibration.fit(now)
    assert fitted is not None
    assert float(fitted[0]) == pytest.approx(a, rel=0.2)
    assert float(fitted[1]) == pytest.approx(k, rel=0.15)
    assert float(fitted[2]) == pytest.approx(sigma, rel=0.1)


def test_too_little_is_not_fitted() -> None:
    calibration = Calibration(D("0.1"))
    calibration.on_mid(1, D(100))
    assert calibration.fit(10**12) is None
