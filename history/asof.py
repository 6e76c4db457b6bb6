"""Any book at any past moment, exactly: the nearest whole book before it, and every delta since.

``clock`` says what a moment is: ``receive``, when the collector had the venue's bytes (one clock for all venues, the
default), or ``venue``, what the venue itself wrote on them (venues' clocks differ from each other).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from config.settings import Settings
from history.errors import NotRecorded, WrongTime
from history.past import Entry, Past
from market.book import OrderBook
from market.live_book import LiveBook
from schemas.topics import BOOK, STATUS

Clock = Literal["receive", "venue"]
LOOK_BACK_MS = (130_000, 3_600_000, 24 * 3_600_000)
"""How far back a whole book is looked for: a key frame is written each minute while a book changes."""
LATE_MS = 10_000
"""Kafka's time of a record is later than the clocks by what it waited."""


@dataclass
class PastBook:
    """One book at a moment."""

    venue: str
    symbol: str
    state: str
    """LIVE, GAP, … as the mirror knew it then; SYNCING when no status of that time was kept."""
    epoch: int
    index: int
    offset: int
    partition: int
    venue_seq: int
    ts_venue_us: int
    ts_received_ns: int
    book: OrderBook

    def levels(self, depth: int | None = None) -> tuple[list[list[str]], list[list[str]]]:
        """(bids, asks) as decimal texts, best first."""
        return self.book.level_texts(depth)

    def shown(self, depth: int | None = None) -> dict[str, Any]:
        """As JSON."""
        bids, asks = self.levels(depth)
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "book"}
        return {**own, "bids": bids, "asks": asks}


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an ISO 8601 text with a zone (``2026-11-24T14:03:07.250Z``); raises WrongTime."""
    whole, point, rest = text.partition(".")
    digits, zone = rest, ""
    for number, sign in enumerate(rest):
        if not (sign.isascii() and sign.isdigit()):
            digits, zone = rest[:number], rest[number:]
            break
    try:
        moment = datetime.fromisoformat(whole + zone if point else text)
    except ValueError:
        raise WrongTime(f"{text!r} is no moment; write 2026-11-24T14:03:07.250Z") from None
    if moment.tzinfo is None or len(digits) > 9 or (point and not digits):
        raise WrongTime(f"{text!r} names no zone or too many digits; write 2026-11-24T14:03:07.250Z")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since.days * 86_400 + since.seconds
    return seconds * 1_000_000_000 + since.microseconds * 1000 + (int(digits.ljust(9, "0")) if point else 0)


def time_of(event: dict[str, Any], clock: Clock) -> int:
    """The moment of an event in nanoseconds, by the clock asked for."""
    return event["ts_received_ns"] if clock == "receive" else event["ts_venue_us"] * 1000


def book_at(settings: Settings, venue: str, symbol: str, moment_ns: int, clock: Clock = "receive") -> PastBook:
    """The book after its last event at or before the moment. Raises NotRecorded, BusError. Blocks."""
    past = Past(settings)
    to_ms = moment_ns // 1_000_000 + LATE_MS
    for back_ms in LOOK_BACK_MS:
        entries = list(past.entries(BOOK.name, to_ms - LATE_MS - back_ms, to_ms, venue=venue, symbol=symbol))
        found = fold(entries, moment_ns, clock)
        if found is not None:
            _add_status(past, found, moment_ns)
            return _past_book(found, entries, moment_ns, clock)
    raise NotRecorded(
        f"no whole book of {venue} {symbol} was kept in the day before that moment; "
        "is the symbol written as in `venue-mirror query books`, and does an archiver run?"
    )


def fold(entries: list[Entry], moment_ns: int, clock: Clock) -> LiveBook | None:
    """The book that the entries of one instrument give at the moment; None when no whole book is among them."""
    book: LiveBook | None = None
    # Once the partitions were raised, an instrument's later epochs may stand in a partition with a lower number.
    begun: dict[int, int] = {}
    for entry in entries:
        begun[entry.partition] = min(begun.get(entry.partition, entry.record["epoch"]), entry.record["epoch"])
    for entry in sorted(entries, key=lambda e: (begun[e.partition], e.offset)):
        event = entry.record
        if time_of(event, clock) > moment_ns:
            break
        if book is None:
            if event["kind"] == "DELTA":
                continue
            book = LiveBook(event["venue"], event["symbol"])
        book.take(event, entry.partition, entry.offset)
    return book


def _add_status(past: Past, book: LiveBook, moment_ns: int) -> None:
    """What the mirror said of the book then: the newest status of before, as far back as one was kept."""
    moment_ms = moment_ns // 1_000_000
    for back_ms in (3_600_000, 7 * 24 * 3_600_000):
        statuses = [
            e.record
            for e in past.entries(STATUS.name, moment_ms - back_ms, moment_ms + LATE_MS, venue=book.venue, symbol=book.symbol)
            if e.record["since_ns"] <= moment_ns
        ]
        for status in sorted(statuses, key=lambda s: (s["epoch"], s["since_ns"])):
            book.take_status(status)
        if statuses:
            return


def _past_book(book: LiveBook, entries: list[Entry], moment_ns: int, clock: Clock) -> PastBook:
    last = next(e.record for e in entries if (e.partition, e.offset) == (book.partition, book.offset))
    state = book.state if book.synced else "GAP"
    return PastBook(
        book.venue, book.symbol, state, book.epoch, book.index, book.offset, book.partition, last["venue_seq"],
        last["ts_venue_us"], last["ts_received_ns"], book.book,
    )  # fmt: skip


def market_at(
    settings: Settings, moment_ns: int, *, clock: Clock = "receive", venue: str | None = None
) -> dict[tuple[str, str], PastBook]:
    """Every book of every venue (or of one) at one instant, by (venue, symbol). Raises BusError. Blocks; reads two
    minutes of the whole log, so it takes a while on a large one."""
    past = Past(settings)
    to_ms = moment_ns // 1_000_000 + LATE_MS
    grouped: dict[tuple[str, str], list[Entry]] = {}
    for entry in past.entries(BOOK.name, to_ms - LATE_MS - LOOK_BACK_MS[0], to_ms, venue=venue):
        grouped.setdefault((entry.record["venue"], entry.record["symbol"]), []).append(entry)
    statuses: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in past.entries(STATUS.name, to_ms - LOOK_BACK_MS[2], to_ms, venue=venue):
        if entry.record["since_ns"] <= moment_ns:
            statuses.setdefault((entry.record["venue"], entry.record["symbol"]), []).append(entry.record)
    out: dict[tuple[str, str], PastBook] = {}
    for key, entries in grouped.items():
        book = fold(entries, moment_ns, clock)
        if book is not None:
            for status in sorted(statuses.get(key, ()), key=lambda s: (s["epoch"], s["since_ns"])):
                book.take_status(status)
            out[key] = _past_book(book, entries, moment_ns, clock)
    return out

