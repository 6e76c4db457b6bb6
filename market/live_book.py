"""A book folded from market.book and market.status by whoever must act on it: exact and LIVE, or not tradable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from market.book import OrderBook

Record = Mapping[str, Any]


class LiveBook:
    """One instrument's book with its place in the log. ``take`` and ``take_status`` fold; nothing else changes it.

    ``state`` is LIVE only when the last status says so for this very epoch and no index was missed.
    """

    __slots__ = (
        "anchor", "book", "epoch", "exact", "index", "key", "offset", "partition", "status_epoch", "status_since_ns",
        "status_state", "symbol", "synced", "ts_received_ns", "ts_venue_us", "venue",
    )  # fmt: skip

    def __init__(self, venue: str, symbol: str) -> None:
        self.venue: str = venue
        self.symbol: str = symbol
        self.key: str = f"{venue}|{symbol}"
        self.book: OrderBook = OrderBook()
        self.epoch: int = -1
        self.index: int = -1
        self.offset: int = -1
        self.partition: int = -1
        self.anchor: int = -1
        """Offset of the last whole book (SNAPSHOT or KEYFRAME): reading on from there gives this book again."""
        self.ts_received_ns: int = 0
        self.ts_venue_us: int = 0
        self.synced: bool = False
        self.exact: bool = True
        self.status_state: str = "SYNCING"
        self.status_epoch: int = -1
        self.status_since_ns: int = 0

    @property
    def state(self) -> str:
        """A BookState; anything but LIVE must not be traded on."""
        if self.status_state != "LIVE":
            return self.status_state
        if self.status_epoch != self.epoch:
            return "SYNCING"
        return "LIVE" if self.synced else "GAP"

    @property
    def live(self) -> bool:
        """LIVE, neither empty nor crossed: prices may be taken from it."""
        own = self.book
        return (
            self.synced
            and self.status_state == "LIVE"
            and self.status_epoch == self.epoch
            and bool(own.bids.levels)
            and bool(own.asks.levels)
            and not own.crossed()
        )

    def take(self, event: Record, partition: int, offset: int) -> bool:
        """Fold one BookEvent; True when the levels or the exactness changed."""
        epoch, index, kind = event["epoch"], event["index"], event["kind"]
        if epoch < self.epoch or (offset <= self.offset and partition == self.partition):
            return False  # fenced, or read again; in another partition the raised number of them begins a new count
        if kind == "DELTA":
            if epoch != self.epoch or index != self.index + 1 or not self.synced:
                changed = self.synced
                self.synced = False
                self._advance(event, partition, offset)
                return changed
        elif epoch == self.epoch and index <= self.index and self.synced:
            self.offset = self.anchor = offset  # a key frame that repeats what is known
            return False
        self.book.apply(
            event["bid_prices"], event["bid_sizes"], event["ask_prices"], event["ask_sizes"],
            event["price_exp"], event["size_exp"], replace=kind != "DELTA",
        )  # fmt: skip
        if kind != "DELTA":
            self.synced = True
            self.anchor = offset
            self.exact = bool(event.get("exact", True))
        self._advance(event, partition, offset)
        return True

    def take_status(self, status: Record) -> bool:
        """Fold one BookStatus; False when it is older than what is known."""
        version = (status["epoch"], status["since_ns"])
        if version < (self.status_epoch, self.status_since_ns) or status["epoch"] < self.epoch:
            return False
        self.status_state = status["state"]
        self.status_epoch, self.status_since_ns = version
        return True

    def mid2(self) -> int:
        """Twice the mid price, at the book's price exponent: exact where the mid is not. The book must be live."""
        return self.book.bids.touch() + self.book.asks.touch()

    def _advance(self, event: Record, partition: int, offset: int) -> None:
        self.epoch = event["epoch"]
        self.index = event["index"]
        self.partition, self.offset = partition, offset
        self.ts_received_ns = event["ts_received_ns"]
        self.ts_venue_us = event["ts_venue_us"]
