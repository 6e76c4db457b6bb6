"""Which of a venue's instruments become workers: the rules of the settings, applied to Instrument records."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from config.settings import VenueSettings
from market.decimals import DecimalError, parse_decimal, rescale


class Selector:
    """The rules of one venue's settings. ``volumes`` are needed for ``min_volume`` and ``top`` only."""

    def __init__(self, settings: VenueSettings) -> None:
        self._rules = settings.select
        self._symbols = frozenset(settings.symbols)
        self._by_volume: frozenset[str] | None = None

    @property
    def needs_volumes(self) -> bool:
        """Whether a rule asks for the 24-hour volume."""
        return bool(self._rules.top or self._rules.min_volume)

    def takes(self, record: Mapping[str, Any]) -> bool:
        """Whether this Instrument record is to be collected. Before the first volumes, none is where they are needed."""
        if not self._static(record):
            return False
        return not self.needs_volumes or (self._by_volume is not None and record["symbol"] in self._by_volume)

    def rank(self, instruments: Mapping[str, Mapping[str, Any]], volumes: Mapping[str, str]) -> None:
        """Decide by volume: ``volumes`` has the 24-hour volume in quote units by the venue's own name.

        An instrument without one, or with one that is no number, counts as without volume.
        """
        least = _number(self._rules.min_volume) or 0
        ranked: list[tuple[int, str]] = []
        for symbol, record in instruments.items():
            if record["state"] == "TRADING" and self._static(record):
                volume = _number(volumes.get(record["native_id"], "")) or 0
                if volume >= least:
                    ranked.append((-volume, symbol))
        ranked.sort()
        top = self._rules.top or len(ranked)
        self._by_volume = frozenset(symbol for _, symbol in ranked[:top])

    def _static(self, record: Mapping[str, Any]) -> bool:
        rules, symbol = self._rules, record["symbol"]
        if self._symbols and symbol not in self._symbols:
            return False
        if any(fnmatchcase(symbol, pattern) for pattern in rules.deny):
            return False
        if rules.allow and not any(fnmatchcase(symbol, pattern) for pattern in rules.allow):
            return False
        return (
            (not rules.quotes or record["quote"] in rules.quotes)
            and (not rules.bases or record["base"] in rules.bases)
            and (not rules.kinds or record["kind"] in rules.kinds)
        )


SCALE = -18


def _number(text: str) -> int | None:
    """The text at 18 decimals, what is finer cut off (a rank needs no more); None for what is no number."""
    try:
        mantissa, exponent = parse_decimal(text)
        if exponent < SCALE:
            return mantissa // 10 ** (SCALE - exponent)
        return rescale(mantissa, exponent, SCALE)
    except DecimalError:
        return None
