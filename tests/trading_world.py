"""Small worlds for strategies and execution: instruments, books and trades as records, numbered like a real log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.log_reader import LogRecord
from schemas.codec import codec
from schemas.topics import BOOK, FUNDING, INSTRUMENT, STATUS, TOPICS, TRADE

START_NS = 1_700_000_000_000_000_000
Levels = Sequence[tuple[int, int]]


def instrument(venue: str, symbol: str, **more: Any) -> dict[str, Any]:
    """An Instrument record with plain terms: tick 0.01, lot 0.001, taker 10 bps."""
    pair, _, settle = symbol.partition(":")
    base, quote = pair.split("/")
    return {
        "venue": venue, "symbol": symbol, "native_id": f"{base}{quote}", "base": base, "quote": quote,
        "settle": settle or None, "kind": "PERPETUAL" if settle else "SPOT", "state": "TRADING", "inverse": False,
        "tick_size": "0.01", "lot_size": "0.001", "min_size": "0.001", "min_notional": "5", "contract_size": None,
        "maker_fee_bps": "10", "taker_fee_bps": "10", "expiry_us": None, "ts_ns": START_NS, **more,
    }  # fmt: skip


class World:
    """Makes log records; offsets grow by topic, indexes by book, time by ``step_ns``."""

    def __init__(self, step_ns: int = 1_000_000) -> None:
        self.now_ns = START_NS
        self.step_ns = step_ns
        self._offsets: dict[str, int] = {}
        self._indexes: dict[str, int] = {}
        self.log: list[LogRecord] = []

    def record(self, topic: str, value: dict[str, Any]) -> LogRecord:
        """Any record, appended to the log."""
        offset = self._offsets.get(topic, 0)
        self._offsets[topic] = offset + 1
        name = TOPICS[topic].record
        made = LogRecord(topic, 0, offset, self.now_ns, None, codec(name).encode(value))
        self.log.append(made)
        return made

    def list(self, venue: str, symbol: str, **more: Any) -> list[LogRecord]:
        """An instrument and its LIVE status."""
        return [
            self.record(INSTRUMENT.name, instrument(venue, symbol, **more)),
            self.status(venue, symbol, "LIVE"),
        ]

    def status(self, venue: str, symbol: str, state: str, epoch: int = 1) -> LogRecord:
        self.now_ns += self.step_ns
        return self.record(STATUS.name, {
            "venue": venue, "symbol": symbol, "state": state, "reason": "", "epoch": epoch, "since_ns": self.now_ns,
            "owner": "",
        })  # fmt: skip

    def book(
        self, venue: str, symbol: str, bids: Levels, asks: Levels, kind: str = "DELTA", price_exp: int = -2, size_exp: int = -3,
        epoch: int = 1,
    ) -> LogRecord:  # fmt: skip
        """A book event; the first of a book is a SNAPSHOT."""
        self.now_ns += self.step_ns
        key = f"{venue}|{symbol}"
        index = self._indexes.get(key, -1) + (kind != "KEYFRAME")
        kind = "SNAPSHOT" if index == 0 else kind
        self._indexes[key] = index
        return self.record(BOOK.name, {
            "venue": venue, "symbol": symbol, "kind": kind, "epoch": epoch, "index": index, "venue_seq": index,
            "venue_prev_seq": index - 1, "ts_venue_us": self.now_ns // 1000, "ts_received_ns": self.now_ns,
            "price_exp": price_exp, "size_exp": size_exp, "bid_prices": [p for p, _ in bids],
            "bid_sizes": [s for _, s in bids], "ask_prices": [p for p, _ in asks], "ask_sizes": [s for _, s in asks],
            "venue_checksum": None,
        })  # fmt: skip

    def trade(self, venue: str, symbol: str, price: int, size: int, taker_side: str, number: int) -> LogRecord:
        self.now_ns += self.step_ns
        return self.record(TRADE.name, {
            "venue": venue, "symbol": symbol, "trade_id": str(number), "taker_side": taker_side, "price": price,
            "size": size, "price_exp": -2, "size_exp": -3, "ts_venue_us": self.now_ns // 1000,
            "ts_received_ns": self.now_ns,
        })  # fmt: skip

    def funding(self, venue: str, symbol: str, rate: int, rate_exp: int, interval_us: int) -> LogRecord:
        return self.record(FUNDING.name, {
            "venue": venue, "symbol": symbol, "rate": rate, "rate_exp": rate_exp, "interval_us": interval_us,
            "next_us": 0, "ts_venue_us": 0, "ts_received_ns": self.now_ns,
        })  # fmt: skip
