"""What the page shows, kept as the newest of everything: no I/O, one thread.

A browser asks for what changed since the version that it has. So a slow one gets fewer, newer frames, and nothing
ever queues up for it.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any

from console.metrics import Counts
from console.plain import micro_price, plain, side, text
from schemas.codec import Record, codec
from schemas.errors import DecodeError
from schemas.topics import BBO, INSTRUMENT, PROOF, STATUS, TRADE

BOOKS_MAX = 200_000
TRADES_EACH = 30
TIMELINE_MAX = 4_000
LOG_MAX = 500

Taken = tuple[str, str, bytes | None]
"""(topic, key, value)"""


class Changes:
    """Rows by key, oldest change first, each with the version of its last change."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, tuple[int, Any]] = OrderedDict()
        self.version = 0

    def put(self, key: str, row: Any) -> None:
        """Set a row; it becomes the newest."""
        self.version += 1
        self._rows[key] = (self.version, row)
        self._rows.move_to_end(key)

    def since(self, version: int) -> list[Any]:
        """The rows that changed after ``version``, newest first: as many steps as there are such rows."""
        out: list[Any] = []
        for own, row in reversed(self._rows.values()):
            if own <= version:
                break
            out.append(row)
        return out

    def __len__(self) -> int:
        return len(self._rows)


class Log:
    """The newest records of a stream, numbered."""

    def __init__(self, maximum: int) -> None:
        self._rows: deque[tuple[int, Any]] = deque(maxlen=maximum)
        self.version = 0

    def add(self, row: Any) -> None:
        """Add one; the oldest beyond the maximum is forgotten."""
        self.version += 1
        self._rows.append((self.version, row))

    def since(self, version: int) -> list[Any]:
        """What was added after ``version``, oldest first."""
        out: list[Any] = []
        for own, row in reversed(self._rows):
            if own <= version:
                break
            out.append(row)
        return out[::-1]


class Book:
    """What is known of one book."""

    __slots__ = ("bad", "bbo", "key", "ok", "status", "symbol", "trades", "trades_seen", "venue")

    def __init__(self, key: str) -> None:
        self.key = key
        self.venue, _, self.symbol = key.partition("|")
        self.status: Record | None = None
        self.bbo: Record | None = None
        self.ok = 0
        self.bad = 0
        self.trades: deque[bytes] = deque(maxlen=TRADES_EACH)
        self.trades_seen = 0

    def state(self) -> tuple[str, str]:
        """The state to show and why: LIVE only when the collector and the processor both say so of one epoch."""
        status, bbo = self.status, self.bbo
        if status is None:
            return ("SYNCING", "no status yet") if bbo is None else (bbo["state"], "")
        if status["state"] != "LIVE":
            return status["state"], status["reason"]
        if bbo is None:
            return "SYNCING", "no processor has spoken of this book"
        if bbo["epoch"] < status["epoch"]:
            return "SYNCING", "the processor has not reached this epoch"
        return bbo["state"], "" if bbo["state"] == "LIVE" else "the processor's own state"

    def row(self) -> dict[str, Any]:
        """The book as the page takes it: decimal texts, times in milliseconds since the epoch, ``imb`` in per mille."""
        state, why = self.state()
        out: dict[str, Any] = {
            "k": self.key, "v": self.venue, "s": self.symbol, "state": state, "why": why, "ok": self.ok,
            "bad": self.bad,
        }  # fmt: skip
        if self.status is not None:
            out |= {
                "epoch": self.status["epoch"], "since": self.status["since_ns"] // 1_000_000,
                "owner": self.status["owner"],
            }  # fmt: skip
        if (bbo := self.bbo) is not None:
            out |= {
                "epoch": bbo["epoch"], "index": bbo["index"], "at": bbo["ts_received_ns"] // 1_000_000,
                "bid": side(bbo, "bid"), "ask": side(bbo, "ask"), **micro_price(bbo),
            }  # fmt: skip
        return out


class Mirror:
    """The newest of every topic that the console reads."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.books: dict[str, Book] = {}
        self.rows = Changes()
        self.instruments = Changes()
        self.timeline = Log(TIMELINE_MAX)
        self.logs: dict[str, Log] = {}
        """Opportunities, orders and whatever else the catalogue has, by topic."""
        self.records: dict[str, int] = {}
        """How many were read, by topic."""
        self.by_venue: dict[str, int] = {}
        """How many records of derived.bbo, by venue."""
        self.delays_us: deque[int] = deque(maxlen=5_000)
        """From the collector's receipt to here, of LIVE books, since the last sample."""
        self.arrivals_us: deque[int] = deque(maxlen=5_000)
        """From the venue's own time to the collector's receipt, of the same; two machines' clocks are in it."""
        self._codecs = {t.name: codec(t.record) for t in (BBO, STATUS, PROOF, INSTRUMENT)}
        self._trade = codec(TRADE.record)

    def book(self, key: str) -> Book | None:
        """The book of this key, made if there is room."""
        found = self.books.get(key)
        if found is None:
            if len(self.books) >= BOOKS_MAX:
                self.counts.refused_keys += 1
                return None
            found = self.books[key] = Book(key)
        return found

    def take(self, batch: Iterable[Taken]) -> None:
        """A batch of records; what cannot be read is counted and passed over."""
        changed: dict[str, Book] = {}
        for topic, key, value in batch:
            try:
                if (book := self._take(topic, key, value)) is not None:
                    changed[key] = book
            except (DecodeError, KeyError, TypeError, ValueError):
                self.counts.unreadable += 1
        for key, book in changed.items():
            self.rows.put(key, book.row())

    def _take(self, topic: str, key: str, value: bytes | None) -> Book | None:
        if topic not in self._codecs and topic != TRADE.name:
            if value is not None:
                record = codec(RECORD_OF[topic]).decode(value)
                self.logs.setdefault(topic, Log(LOG_MAX)).add({"key": key, **plain(record)})
            return None
        if value is None or (book := self.book(key)) is None:
            return None
        if topic == TRADE.name:
            # Decoded when somebody looks at the book.
            book.trades.append(value)
            book.trades_seen += 1
            return None
        record = self._codecs[topic].decode(value)
        if topic == BBO.name:
            book.bbo = record
            if record["state"] == "LIVE":
                self.delays_us.append(max(0, (time.time_ns() - record["ts_received_ns"]) // 1000))
                if record["ts_venue_us"] > 0:  # not every venue says
                    self.arrivals_us.append(max(0, record["ts_received_ns"] // 1000 - record["ts_venue_us"]))
        elif topic == STATUS.name:
            book.status = record
            self.timeline.add(
                {"k": key, "state": record["state"], "why": record["reason"], "at": record["since_ns"] // 1_000_000}
            )
        elif topic == PROOF.name:
            book.ok += record["matches"]
            book.bad += not record["matches"]
        else:
            names = ("base", "quote", "settle", "kind", "state", "native_id", "tick_size", "maker_fee_bps", "taker_fee_bps")
            self.instruments.put(key, {"k": key, **{name: record[name] for name in names}})
            return None
        return book

    def trades(self, key: str) -> list[dict[str, Any]]:
        """The newest trades of a book, newest first."""
        book = self.books.get(key)
        out: list[dict[str, Any]] = []
        for value in reversed(book.trades if book else ()):
            try:
                record = self._trade.decode(value)
            except DecodeError:
                self.counts.unreadable += 1
                continue
            out.append({
                "side": record["taker_side"], "price": text(record["price"], record["price_exp"]),
                "size": text(record["size"], record["size_exp"]), "at": record["ts_received_ns"] // 1_000_000,
            })  # fmt: skip
        return out

    def states(self) -> dict[str, int]:
        """How many books are in each state."""
        out: dict[str, int] = {}
        for book in self.books.values():
            state = book.state()[0]
            out[state] = out.get(state, 0) + 1
        return out


def _records() -> dict[str, str]:
    from schemas.topics import TOPICS

    return {topic.name: topic.record for topic in TOPICS.values()}


RECORD_OF = _records()
"""The record of each topic of the catalogue."""
