"""The formulas of market making, and what they are calibrated from, in decimals: the same on every machine.

Avellaneda & Stoikov, "High-frequency trading in a limit order book", Quantitative Finance 8(3), 2008: reservation price
and spread. Guéant, Lehalle & Fernandez-Tapia, "Dealing with the inventory risk", Mathematics and Financial Economics
2013 (arXiv 1105.3115): the asymptotic distances. Both assume fills at distance δ with intensity λ(δ) = A·e^(−kδ).
Units: prices, δ, S in quote; σ in quote per √second; A in fills a second; k per quote; q in units of the order size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

DIGITS = 20
ZERO, ONE, TWO = Decimal(0), Decimal(1), Decimal(2)


def as_reservation(s: Decimal, q: Decimal, gamma: Decimal, sigma: Decimal, left: Decimal) -> Decimal:
    """The price at which one is indifferent to one more unit: r = s − q·γ·σ²·(T−t). Equation (8) of the paper."""
    return s - q * gamma * sigma * sigma * left


def as_spread(gamma: Decimal, sigma: Decimal, k: Decimal, left: Decimal) -> Decimal:
    """The whole spread around it: γ·σ²·(T−t) + (2/γ)·ln(1 + γ/k)."""
    return gamma * sigma * sigma * left + TWO / gamma * (ONE + gamma / k).ln()


def glft_terms(gamma: Decimal, sigma: Decimal, a: Decimal, k: Decimal) -> tuple[Decimal, Decimal]:
    """(c, S): c = (1/γ)·ln(1 + γ/k), S = √(σ²γ/(2kA)·(1 + γ/k)^(1 + k/γ))."""
    with localcontext() as context:
        context.prec = DIGITS
        ratio = ONE + gamma / k
        power = ((ONE + k / gamma) * ratio.ln()).exp()
        return ratio.ln() / gamma, (sigma * sigma * gamma / (TWO * k * a) * power).sqrt()


def glft_distances(q: Decimal, c: Decimal, s: Decimal) -> tuple[Decimal, Decimal]:
    """(δbid, δask) at inventory q: c + (2q+1)/2·S and c − (2q−1)/2·S."""
    return c + (TWO * q + ONE) / TWO * s, c - (TWO * q - ONE) / TWO * s


class Calibration:
    """A, k and σ from what the log shows, over a sliding window of log time.

    A trade that went δ beyond the mid would have filled an order at every distance up to δ: the rate of such trades
    at bucket δ is λ(δ), and ln λ = ln A − k·δ is fitted by least squares over the near buckets. σ² is the mean squared
    change of the mid a second, sampled once a second.
    """

    def __init__(self, step: Decimal, buckets: int = 10, window_s: int = 300) -> None:
        self._step = step
        self._buckets = buckets
        self._window_ns = window_s * 1_000_000_000
        self._hits: deque[tuple[int, int]] = deque(maxlen=100_000)
        """(time, bucket that the trade reached)."""
        self._mids: deque[tuple[int, str]] = deque(maxlen=window_s + 2)
        self._since_ns = 0

    def on_mid(self, now_ns: int, mid: Decimal) -> None:
        """The mid price now; kept once a second."""
        self._since_ns = self._since_ns or now_ns
        if not self._mids or now_ns - self._mids[-1][0] >= 1_000_000_000:
            self._mids.append((now_ns, str(mid)))

    def on_trade(self, now_ns: int, price: Decimal, mid: Decimal) -> None:
        """A trade at ``price`` while the mid was ``mid``."""
        reached = int(abs(price - mid) / self._step)
        self._hits.append((now_ns, min(reached, self._buckets - 1)))

    def fit(self, now_ns: int) -> tuple[Decimal, Decimal, Decimal] | None:
        """(A, k, σ), or None while there is too little to fit."""
        while self._hits and now_ns - self._hits[0][0] > self._window_ns:
            self._hits.popleft()
        elapsed_ns = min(self._window_ns, now_ns - self._since_ns)
        if elapsed_ns <= 0 or len(self._hits) < 20 or len(self._mids) < 10:
            return None
        counts = [0] * self._buckets
        for _, bucket in self._hits:
            counts[bucket] += 1
        for bucket in reversed(range(self._buckets - 1)):
            counts[bucket] += counts[bucket + 1]
        with localcontext() as context:
            context.prec = DIGITS
            seconds = Decimal(elapsed_ns) / 1_000_000_000
            # One trade takes from one side only: each side sees half of them.
            points = [
                ((Decimal(i) + Decimal("0.5")) * self._step, (Decimal(n) / 2 / seconds).ln())
                for i, n in enumerate(counts) if n >= 3
            ]  # fmt: skip
            fitted = _line(points)
            sigma = self._sigma()
            if fitted is None or sigma is None:
                return None
            intercept, slope = fitted
            return (intercept.exp(), -slope, sigma) if slope < 0 else None

    def _sigma(self) -> Decimal | None:
        total, seconds = ZERO, ZERO
        before: tuple[int, Decimal] | None = None
        for at, text in self._mids:
            mid = Decimal(text)
            if before is not None:
                total += (mid - before[1]) ** 2
                seconds += Decimal(at - before[0]) / 1_000_000_000
            before = (at, mid)
        return (total / seconds).sqrt() if seconds and total else None

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {"hits": list(self._hits), "mids": list(self._mids), "since_ns": self._since_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self._hits = deque(((t, b) for t, b in state["hits"]), maxlen=self._hits.maxlen)
        self._mids = deque(((t, m) for t, m in state["mids"]), maxlen=self._mids.maxlen)
        self._since_ns = state["since_ns"]


def _line(points: list[tuple[Decimal, Decimal]]) -> tuple[Decimal, Decimal] | None:
    """(intercept, slope) by least squares; None with fewer than two points."""
    n = len(points)
    if n < 2:
        return None
    mean_x = sum((x for x, _ in points), ZERO) / n
    mean_y = sum((y for _, y in points), ZERO) / n
    spread = sum(((x - mean_x) ** 2 for x, _ in points), ZERO)
    slope = sum(((x - mean_x) * (y - mean_y) for x, y in points), ZERO) / spread
    return mean_y - slope * mean_x, slope
