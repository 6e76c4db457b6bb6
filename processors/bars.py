"""derived.bar: the bars of every instrument of this process's partitions, exact across restarts.

Open bars are checkpointed like books, and a trade that a checkpoint holds is not counted again. A bar that was written
between the last checkpoint and a crash may be written again, with the same revision or, where late trades came, at once
as the last one: readers keep the highest revision of (venue, symbol, interval, start).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from market.decimals import EXPONENT_MIN, format_decimal
from processors.bar import INTERVALS_S, LATENESS_US, NOT_WRITTEN, SECOND_US, VWAP_DIGITS, Bar, InstrumentBars
from processors.checkpoints import Marks, mark
from processors.derived import Derived
from processors.metrics import Counts
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import BAR, TRADE, market_key

Position = tuple[str, int]
Restore = Callable[[str], dict[str, Any] | None]
CLOCK_GRACE_US = 3 * SECOND_US
"""A quiet instrument's bar is closed by our clock this long after it was due: venues' clocks differ."""
FUTURE_US = 60 * SECOND_US
"""A trade this far ahead of its receive time has a broken clock: it would close every bar."""
KEPT = 240
"""Written bars of each instrument and interval that the view can show."""


class Bars:
    """Trades in, bars out; a Store of Checkpoints."""

    def __init__(
        self, derived: Derived, counts: Counts, positions: dict[Position, int], restore: Restore,
        reached: Callable[[str, int, int], None],
    ) -> None:  # fmt: skip
        self._derived = derived
        self._counts = counts
        self._positions = positions
        self._restore = restore
        self._reached = reached
        self.by_partition: dict[int, dict[str, InstrumentBars]] = {}
        self.dirty: Marks = {}
        self._written: dict[tuple[str, int], deque[tuple[int, bytes]]] = {}
        """(start_us, encoded Bar) of the newest bars by (key, interval)."""
        self._encode = codec("Bar").hurry().encode
        self._decode_bar = codec("Bar").decode
        self._decode = codec("Trade").hurry().decode
        self._encode_checkpoint = codec("BarCheckpoint").hurry().encode

    def on_trade_batch(self, tp: Any, records: Sequence[Any]) -> None:
        """A batch of market.trade. Never raises for what is in a record."""
        partition = tp.partition
        dirty = self.dirty.setdefault(partition, {})
        for record in records:
            try:
                trade = self._decode(record.value)
                key = market_key(trade["venue"], trade["symbol"])
                if key.encode() != record.key:
                    raise ValueError(f"the key is {record.key!r}, the record is of {key}")
                ts_us = trade["ts_venue_us"] or trade["ts_received_ns"] // 1000
                if ts_us > trade["ts_received_ns"] // 1000 + FUTURE_US:
                    raise ValueError(f"venue time {ts_us} lies more than a minute after the receive time")
                if trade["price"] <= 0 or trade["size"] < 0 or ts_us <= 0:
                    raise ValueError(f"price {trade['price']}, size {trade['size']}, venue time {ts_us}")
                if not (EXPONENT_MIN <= trade["price_exp"] <= 0 and EXPONENT_MIN <= trade["size_exp"] <= 0):
                    raise ValueError(f"exponents {trade['price_exp']} and {trade['size_exp']} are outside of {EXPONENT_MIN}..0")
            except (DecodeError, ValueError, TypeError) as error:
                self._derived.dead_letter(
                    tp.topic, partition, record.offset, record.value, f"{type(error).__name__}: {error}"
                )
                continue
            bars = self.get(key, partition) or self._add(partition, InstrumentBars(trade["venue"], trade["symbol"]))
            self._counts.trades += 1
            due, missed = bars.take(trade, record.offset, ts_us)
            self._counts.trades_too_late += missed
            mark(dirty, key, TRADE.name, record.offset)
            if due:
                self._write(bars, due, partition)
        self._positions[(TRADE.name, partition)] = records[-1].offset + 1
        self._reached(TRADE.name, partition, records[-1].offset + 1)

    def get(self, key: str, partition: int) -> InstrumentBars | None:
        """The bars of this instrument, from memory or from the table."""
        held = self.by_partition.setdefault(partition, {})
        bars = held.get(key)
        if bars is None and (record := self._restore(key)) is not None:
            bars = self._add(partition, InstrumentBars.restored(record))
        return bars

    def _add(self, partition: int, bars: InstrumentBars) -> InstrumentBars:
        self.by_partition.setdefault(partition, {})[market_key(bars.venue, bars.symbol)] = bars
        return bars

    def close_quiet(self, partition: int) -> None:
        """Write the bars of instruments that trade no more; only to be called when no trade waits to be read."""
        now_us = time.time_ns() // 1000 - CLOCK_GRACE_US
        dirty = self.dirty.setdefault(partition, {})
        for key, bars in self.by_partition.get(partition, {}).items():
            if any(b.revision == NOT_WRITTEN and b.end_us + LATENESS_US <= now_us for b in bars.bars.values()):
                self._write(bars, bars.due(now_us), partition)
                mark(dirty, key, TRADE.name, self._positions.get((TRADE.name, partition), 0))

    def _write(self, bars: InstrumentBars, due: list[Bar], partition: int) -> None:
        key = market_key(bars.venue, bars.symbol)
        for bar in due:
            value = self._encode(bars.record(bar, partition))
            if self._derived.put(BAR.name, key, value):
                self._counts.bars += 1
            kept = self._written.setdefault((key, bar.interval_s), deque(maxlen=KEPT))
            for number in range(len(kept) - 1, max(-1, len(kept) - 40), -1):
                if kept[number][0] == bar.start_us:
                    kept[number] = (bar.start_us, value)
                    break
            else:
                kept.append((bar.start_us, value))
        bars.too_late = 0

    def drop(self, partitions: set[int]) -> None:
        """Forget what another worker takes over (after its checkpoint)."""
        for partition in partitions:
            for key in self.by_partition.pop(partition, {}):
                for interval_s in INTERVALS_S:
                    self._written.pop((key, interval_s), None)
            self.dirty.pop(partition, None)
            self._positions.pop((TRADE.name, partition), None)

    def view(self, key: str, partition: int, interval_s: int, limit: int) -> list[dict[str, Any]] | None:
        """The newest bars as the view shows them, oldest first, the open one last; None: no trade was seen.

        Those that this worker wrote, and what it took over: the open ones and those that a late trade may still change.
        """
        bars = self.by_partition.get(partition, {}).get(key)
        if bars is None:
            return None
        written = self._written.get((key, interval_s), ())
        known = {start_us for start_us, _ in written}
        shown = [_shown(self._decode_bar(value), final=True) for _, value in written]
        shown += [
            _shown(bars.record(bar, partition), final=bar.revision != NOT_WRITTEN)
            for (own_s, start_us), bar in bars.bars.items()
            if own_s == interval_s and start_us not in known
        ]
        return sorted(shown, key=lambda bar: bar["start_us"])[-limit:]

    # For Checkpoints.

    def encoded(self, key: str, partition: int) -> bytes | None:
        """The BarCheckpoint of this key."""
        bars = self.by_partition.get(partition, {}).get(key)
        return None if bars is None else self._encode_checkpoint(bars.checkpoint())

    def weight(self, key: str, partition: int) -> int:
        """As costly as a book of so many levels."""
        bars = self.by_partition.get(partition, {}).get(key)
        return 0 if bars is None else 20 * len(bars.bars)


def _shown(record: dict[str, Any], *, final: bool) -> dict[str, Any]:
    exp = record["price_exp"]
    prices = {name: format_decimal(record[name], exp) for name in ("open", "high", "low", "close")}
    rest = ("volume", "buy_volume", "notional", "trades", "late_trades", "revision", "partition", "offset")
    return {
        "start_us": record["start_us"], **prices, "vwap": format_decimal(record["vwap"], exp - VWAP_DIGITS),
        **{name: record[name] for name in rest}, "final": final,
    }  # fmt: skip
