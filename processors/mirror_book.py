"""One mirrored book: what BookEvents and BookStatuses make of it. Pure; no I/O, no clock.

The book is LIVE only when the last status says LIVE for this very epoch and no index was missed since its SNAPSHOT
(or since a KEYFRAME made it exact again). In every other case it says what it is instead.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from market.book import OrderBook
from market.decimals import EXPONENT_MIN

Record = dict[str, Any]


class InvalidEvent(Exception):
    """The record can be decoded, but says something impossible; the text says what."""


class Outcome(Enum):
    """What an event did to the book."""

    APPLIED = "applied"
    REPLAYED = "replayed"
    """Already inside: read again after a restart."""
    FENCED = "fenced"
    """Of an older epoch: its writer no longer owns the book."""
    UNSYNCED = "unsynced"
    """A delta for a book that waits for a SNAPSHOT or KEYFRAME: nothing to apply it to."""
    GAP = "gap"
    """An index was skipped, just now."""
    KEYFRAME_OK = "keyframe ok"
    KEYFRAME_BAD = "keyframe bad"
    """The key frame held another book; its book was taken."""


class MirrorBook:
    """A processor's book of one instrument."""

    __slots__ = (
        "beat_ms", "book", "epoch", "gap_reason", "heard_ms", "index", "key", "offset", "owner", "status_epoch",
        "status_reason", "status_since_ns", "status_state", "symbol", "synced", "ts_received_ns", "ts_venue_us", "venue",
        "venue_seq",
    )  # fmt: skip

    def __init__(self, venue: str, symbol: str) -> None:
        self.venue = venue
        self.symbol = symbol
        self.key = f"{venue}|{symbol}"
        self.book = OrderBook()
        self.epoch = -1
        self.index = -1
        self.offset = -1
        """Offset on market.book of the last event inside."""
        self.venue_seq = -1
        self.synced = False
        self.gap_reason = ""
        self.ts_venue_us = 0
        self.ts_received_ns = 0
        self.heard_ms = 0
        """When a collector last wrote of this book, by Kafka's time of the record."""
        self.status_state = "SYNCING"
        self.status_reason = "no status yet"
        self.status_epoch = -1
        self.status_since_ns = 0
        self.owner = ""
        """The collector that wrote the last status."""
        self.beat_ms = 0
        """How often it promises to write into the book's partition; 0: it does not."""

    @property
    def state(self) -> str:
        """The state that may be shown and traded on: never LIVE unless the levels are exact."""
        if self.status_state == "LIVE":
            if self.status_epoch != self.epoch:
                return "SYNCING"
            return "LIVE" if self.synced else "GAP"
        return self.status_state

    @property
    def reason(self) -> str:
        """Why the book is in this state, in words."""
        if self.status_state == "LIVE":
            if self.status_epoch != self.epoch:
                return "the status speaks of another epoch than the book's"
            return "" if self.synced else self.gap_reason
        return self.status_reason

    def apply(self, event: Record, offset: int) -> Outcome:
        """Take one BookEvent. Raises InvalidEvent, and then nothing has changed."""
        epoch, index, kind = event["epoch"], event["index"], event["kind"]
        if epoch < self.epoch:
            return Outcome.FENCED
        if epoch == self.epoch and index <= self.index:
            if kind != "KEYFRAME" or index != self.index:
                return Outcome.REPLAYED
            if self.synced:
                return self._compare(event, offset)
            # The usual cure: a key frame stands right behind the delta that found the gap, at the same index.
        if kind == "DELTA":
            if epoch != self.epoch:
                # Its SNAPSHOT was missed (or retention took it): wait for a key frame.
                self._lose(event, offset, f"joined epoch {epoch} at index {index}")
                return Outcome.GAP
            if not self.synced:
                self.index, self.offset = index, offset
                return Outcome.UNSYNCED
            if index != self.index + 1:
                self._lose(event, offset, f"index {index} came after {self.index}")
                return Outcome.GAP
        _check(event, whole=kind != "DELTA")
        self._take(event, offset, whole=kind != "DELTA")
        return Outcome.APPLIED

    def take_status(self, status: Record) -> bool:
        """Take one BookStatus; False when it is older than what is known."""
        version = (status["epoch"], status["since_ns"])
        if version < (self.status_epoch, self.status_since_ns) or status["epoch"] < self.epoch:
            return False
        self.status_state, self.status_reason = status["state"], status["reason"]
        self.status_epoch, self.status_since_ns = version
        self.owner, self.beat_ms = status["owner"], status["beat_ms"]
        return True

    def _take(self, event: Record, offset: int, *, whole: bool) -> None:
        self.book.apply(
            event["bid_prices"], event["bid_sizes"], event["ask_prices"], event["ask_sizes"],
            event["price_exp"], event["size_exp"], replace=whole,
        )  # fmt: skip
        if whole:
            self.synced, self.gap_reason = True, ""
        self._advance(event, offset)

    def _advance(self, event: Record, offset: int) -> None:
        self.epoch = event["epoch"]
        self.index = event["index"]
        self.offset = offset
        self.venue_seq = event["venue_seq"]
        self.ts_venue_us = event["ts_venue_us"]
        self.ts_received_ns = event["ts_received_ns"]

    def _lose(self, event: Record, offset: int, reason: str) -> None:
        self.synced, self.gap_reason = False, reason
        self._advance(event, offset)

    def _compare(self, event: Record, offset: int) -> Outcome:
        _check(event, whole=True)
        other = OrderBook()
        other.apply(
            event["bid_prices"], event["bid_sizes"], event["ask_prices"], event["ask_sizes"],
            event["price_exp"], event["size_exp"], replace=True,
        )  # fmt: skip
        mine = self.book
        exps = min(mine.price_exp, other.price_exp), min(mine.size_exp, other.size_exp)
        mine.refine(*exps)
        other.refine(*exps)
        self.offset = offset
        if mine.bids.levels == other.bids.levels and mine.asks.levels == other.asks.levels:
            return Outcome.KEYFRAME_OK
        self.book = other
        return Outcome.KEYFRAME_BAD

    def checkpoint(self) -> Record:
        """The BookCheckpoint record."""
        bids, asks = self.book.bids.columns(), self.book.asks.columns()
        return {
            "venue": self.venue,
            "symbol": self.symbol,
            "epoch": self.epoch,
            "index": self.index,
            "offset": self.offset,
            "venue_seq": self.venue_seq,
            "synced": self.synced,
            "ts_venue_us": self.ts_venue_us,
            "ts_received_ns": self.ts_received_ns,
            "price_exp": self.book.price_exp,
            "size_exp": self.book.size_exp,
            "bid_prices": bids[0],
            "bid_sizes": bids[1],
            "ask_prices": asks[0],
            "ask_sizes": asks[1],
            "status_state": self.status_state,
            "status_reason": self.status_reason,
            "status_epoch": self.status_epoch,
            "status_since_ns": self.status_since_ns,
            "status_owner": self.owner,
            "status_beat_ms": self.beat_ms,
        }

    @classmethod
    def restored(cls, record: Record) -> MirrorBook:
        """The book of a checkpoint."""
        self = cls(record["venue"], record["symbol"])
        self.book.apply(
            record["bid_prices"], record["bid_sizes"], record["ask_prices"], record["ask_sizes"],
            record["price_exp"], record["size_exp"], replace=True,
        )  # fmt: skip
        for name in (
            "epoch", "index", "offset", "venue_seq", "synced", "ts_venue_us", "ts_received_ns",
            "status_state", "status_reason", "status_epoch", "status_since_ns",
        ):  # fmt: skip
            setattr(self, name, record[name])
        self.owner, self.beat_ms = record["status_owner"], record["status_beat_ms"]
        if not self.synced:
            self.gap_reason = "an index was missed before the restart"
        return self


def _check(event: Record, *, whole: bool) -> None:
    """Refuse what no collector writes; a corrupt record must not reach a book."""
    for side in ("bid", "ask"):
        prices, sizes = event[f"{side}_prices"], event[f"{side}_sizes"]
        if len(prices) != len(sizes):
            raise InvalidEvent(f"{len(prices)} {side}_prices, {len(sizes)} {side}_sizes")
        if sizes and min(sizes) < (1 if whole else 0):
            raise InvalidEvent(f"a {side} size of {min(sizes)}")
    if not (EXPONENT_MIN <= event["price_exp"] <= 0 and EXPONENT_MIN <= event["size_exp"] <= 0):
        raise InvalidEvent(f"exponents {event['price_exp']} and {event['size_exp']} are outside of {EXPONENT_MIN}..0")
