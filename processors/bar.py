"""The bars of one instrument: trades in, open, high, low, close, volume out. Pure; time is the venue's.

A bar is written when a trade shows that its interval has been over for LATENESS_US, or when the clock says so and
nothing more waits to be read. A trade that comes later still changes its bar, which is written again with the next
revision, for KEEP_US; what comes after that is counted as too late and changes nothing.
"""

from __future__ import annotations

from typing import Any

from market.decimals import format_decimal

INTERVALS_S = (1, 60, 3600)
SECOND_US = 1_000_000
LATENESS_US = 1 * SECOND_US
KEEP_US = 30 * SECOND_US
VWAP_DIGITS = 4
NOT_WRITTEN = -1
FIELDS = (
    "interval_s", "start_us", "open", "high", "low", "close", "volume", "buy_volume", "notional", "trades",
    "late_trades", "revision", "first_offset", "offset", "open_ts_us", "close_ts_us",
)  # fmt: skip
TEXTS = ("volume", "buy_volume", "notional")
"""Sums that may exceed 64 bits: integer texts in a checkpoint."""


class Bar:
    """One interval. Mantissas in the exponents of its instrument's bars."""

    __slots__ = (*FIELDS, "_saved", "end_us")

    def __init__(self, interval_s: int, start_us: int) -> None:
        self.interval_s = interval_s
        self.start_us = start_us
        self.end_us = start_us + interval_s * SECOND_US
        """Behind the interval."""
        self._saved: dict[str, Any] | None = None
        self.open = self.high = self.low = self.close = 0
        self.volume = self.buy_volume = self.notional = self.trades = self.late_trades = 0
        self.revision = NOT_WRITTEN
        self.first_offset = self.offset = -1
        self.open_ts_us = self.close_ts_us = 0

    def add(self, price: int, size: int, ts_us: int, bought: bool, offset: int) -> None:
        """Take one trade; their order in the log decides between trades of the same microsecond."""
        self._saved = None
        if not self.trades:
            self.open = self.high = self.low = self.close = price
            self.open_ts_us = self.close_ts_us = ts_us
            self.first_offset = offset
        else:
            self.high, self.low = max(self.high, price), min(self.low, price)
            if ts_us < self.open_ts_us:
                self.open, self.open_ts_us = price, ts_us
            if ts_us >= self.close_ts_us:
                self.close, self.close_ts_us = price, ts_us
        self.trades += 1
        self.volume += size
        self.notional += price * size
        if bought:
            self.buy_volume += size
        self.offset = offset

    def refine(self, price_factor: int, size_factor: int) -> None:
        """To finer exponents."""
        self._saved = None
        self.open, self.high = self.open * price_factor, self.high * price_factor
        self.low, self.close = self.low * price_factor, self.close * price_factor
        self.volume, self.buy_volume = self.volume * size_factor, self.buy_volume * size_factor
        self.notional *= price_factor * size_factor

    def revise(self, revision: int) -> None:
        """Number what is written next."""
        self.revision = revision
        self._saved = None

    def saved(self) -> dict[str, Any]:
        """Its part of a checkpoint; not to be changed. Most bars are over and stay as they are from one to the next."""
        if self._saved is None:
            self._saved = {name: str(value) if name in TEXTS else value for name in FIELDS for value in (getattr(self, name),)}
        return self._saved


class InstrumentBars:
    """All bars of one instrument that may still change."""

    __slots__ = ("_due_us", "bars", "newest_us", "offset", "price_exp", "size_exp", "symbol", "too_late", "venue")

    def __init__(self, venue: str, symbol: str) -> None:
        self.venue = venue
        self.symbol = symbol
        self.price_exp = self.size_exp = 0
        self.offset = -1
        """Of the last trade inside."""
        self.newest_us = 0
        """The latest venue time of a trade."""
        self.too_late = 0
        """Trades since the last bar was written that no kept bar could take."""
        self.bars: dict[tuple[int, int], Bar] = {}
        self._due_us = 0
        """Before this venue time no bar is to be written or forgotten."""

    def take(self, trade: dict[str, Any], offset: int, ts_us: int) -> tuple[list[Bar], bool]:
        """Take one trade; gives the bars to write now, oldest first, and whether the trade was too late for a bar.

        A trade whose offset is not above ``self.offset`` is inside already: nothing happens.
        """
        if offset <= self.offset:
            return [], False
        self.offset = offset
        price, size = self._scaled(trade)
        bought = trade["taker_side"] == "BUY"
        late: list[Bar] = []
        missed = False
        for interval_s in INTERVALS_S:
            start_us = ts_us - ts_us % (interval_s * SECOND_US)
            bar = self.bars.get((interval_s, start_us))
            if bar is None:
                if start_us + interval_s * SECOND_US + KEEP_US <= self.newest_us:
                    missed = True
                    continue
                bar = self.bars[(interval_s, start_us)] = Bar(interval_s, start_us)
                self._due_us = 0
            bar.add(price, size, ts_us, bought, offset)
            if bar.revision != NOT_WRITTEN:
                bar.late_trades += 1
                bar.revise(bar.revision + 1)
                late.append(bar)
        self.too_late += missed
        self.newest_us = max(self.newest_us, ts_us)
        due = self.due(self.newest_us) if self.newest_us >= self._due_us else []
        return late + due, missed

    def due(self, now_us: int) -> list[Bar]:
        """The bars to write for the first time at this venue time, oldest first; forgets those kept long enough."""
        due: list[Bar] = []
        gone: list[tuple[int, int]] = []
        next_us = 0
        for key, bar in self.bars.items():  # one pass: each closed bar leads here, and half a minute of them is kept
            at_us = bar.end_us + LATENESS_US if bar.revision == NOT_WRITTEN else bar.end_us + KEEP_US
            if at_us <= now_us:
                if bar.revision == NOT_WRITTEN:
                    bar.revise(0)
                    due.append(bar)
                    at_us = bar.end_us + KEEP_US
                if at_us <= now_us:
                    gone.append(key)
                    continue
            if not next_us or at_us < next_us:
                next_us = at_us
        for key in gone:
            del self.bars[key]
        self._due_us = next_us
        return sorted(due, key=lambda b: (b.end_us, b.interval_s))

    def _scaled(self, trade: dict[str, Any]) -> tuple[int, int]:
        price_exp, size_exp = trade["price_exp"], trade["size_exp"]
        if price_exp == self.price_exp and size_exp == self.size_exp:
            return trade["price"], trade["size"]
        price_factor = 10 ** max(0, self.price_exp - price_exp)
        size_factor = 10 ** max(0, self.size_exp - size_exp)
        for bar in self.bars.values():
            bar.refine(price_factor, size_factor)
        self.price_exp, self.size_exp = min(self.price_exp, price_exp), min(self.size_exp, size_exp)
        return trade["price"] * 10 ** (price_exp - self.price_exp), trade["size"] * 10 ** (size_exp - self.size_exp)

    def record(self, bar: Bar, partition: int) -> dict[str, Any]:
        """The Bar record."""
        notional_exp = self.price_exp + self.size_exp
        return {
            "venue": self.venue, "symbol": self.symbol, "interval_s": bar.interval_s, "start_us": bar.start_us,
            "open": bar.open, "high": bar.high, "low": bar.low, "close": bar.close, "price_exp": self.price_exp,
            "vwap": bar.notional * 10**VWAP_DIGITS // bar.volume if bar.volume else bar.close * 10**VWAP_DIGITS,
            "volume": format_decimal(bar.volume, self.size_exp),
            "buy_volume": format_decimal(bar.buy_volume, self.size_exp),
            "notional": format_decimal(bar.notional, notional_exp),
            "trades": bar.trades, "late_trades": bar.late_trades, "too_late": self.too_late,
            "revision": max(0, bar.revision), "partition": partition, "first_offset": bar.first_offset,
            "offset": bar.offset, "open_ts_us": bar.open_ts_us, "close_ts_us": bar.close_ts_us,
        }  # fmt: skip

    def checkpoint(self) -> dict[str, Any]:
        """The BarCheckpoint record."""
        return {
            "venue": self.venue, "symbol": self.symbol, "offset": self.offset, "newest_us": self.newest_us,
            "too_late": self.too_late, "price_exp": self.price_exp, "size_exp": self.size_exp,
            "bars": [bar.saved() for bar in self.bars.values()],
        }  # fmt: skip

    @classmethod
    def restored(cls, record: dict[str, Any]) -> InstrumentBars:
        """The bars of a checkpoint."""
        self = cls(record["venue"], record["symbol"])
        for name in ("offset", "newest_us", "too_late", "price_exp", "size_exp"):
            setattr(self, name, record[name])
        for fields in record["bars"]:
            bar = Bar(fields["interval_s"], fields["start_us"])
            for name in FIELDS:
                setattr(bar, name, int(fields[name]))
            self.bars[(bar.interval_s, bar.start_us)] = bar
        return self
