"""How a book is put together and kept gapless: one named rule for each way that venues number their events.

A rule judges; the worker acts. Rules without a state of their own are shared by all books of a venue; a rule that needs
memory (the venue's own texts for a checksum, an order table for L3) is made once for each book.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Literal

from collectors.events import BookDelta, BookSnapshot
from collectors.mantissas import price_mantissas
from market.book import BookSide, OrderBook
from market.checksums import INTERLEAVED_DEPTH, interleaved_crc32_of


class Verdict(Enum):
    """What a rule says about a delta."""

    APPLY = "apply"
    STALE = "stale"
    """Already in the book: skip it."""
    GAP = "gap"
    """Something before it is missing."""


APPLY, STALE, GAP = Verdict.APPLY, Verdict.STALE, Verdict.GAP


class SyncRule:
    """Judges one book's events. The defaults suit a venue without sequence numbers and without checksums."""

    snapshot_from: ClassVar[Literal["rest", "stream"]] = "rest"
    """``rest``: fetched beside the stream; ``stream``: the venue sends one after each subscription."""
    has_checksum: ClassVar[bool] = False
    max_depth: ClassVar[int | None] = None
    """Levels a side that the subscription covers, where the venue sends no delete for what falls out."""

    def bridges(self, snapshot_seq: int, delta: BookDelta) -> Verdict:
        """Judge the first delta after a snapshot. GAP: the snapshot is older than the stream."""
        return APPLY

    def follows(self, last_seq: int, delta: BookDelta) -> Verdict:
        """Judge a delta after another one that ended at ``last_seq``."""
        return APPLY

    def verify(self, book: OrderBook, event: BookDelta | BookSnapshot) -> bool | None:
        """After the event is in the book: does the venue's checksum agree? None: the event carries none."""
        return None

    def reset(self) -> None:
        """Forget everything; the book synchronises anew."""


class RangeChain(SyncRule):
    """Each event covers the ids [first_seq, last_seq], and the next one starts right behind.

    Source: Binance Spot, "How to manage a local order book correctly".
    """

    def bridges(self, snapshot_seq: int, delta: BookDelta) -> Verdict:
        if delta.last_seq <= snapshot_seq:
            return STALE
        return APPLY if delta.first_seq <= snapshot_seq + 1 else GAP

    def follows(self, last_seq: int, delta: BookDelta) -> Verdict:
        if delta.first_seq == last_seq + 1 and delta.last_seq > last_seq:
            return APPLY
        return STALE if delta.last_seq <= last_seq else GAP


class PredecessorChain(SyncRule):
    """Each event names the last id of the one before it; ids are shared between instruments and jump.

    Source: Binance USD-M Futures, "How to manage a local order book correctly". The page's start condition
    ``U <= lastUpdateId <= u`` fails where no id of this instrument falls on the snapshot's; ``pu <= lastUpdateId <= u``
    covers it and that case. An event that ends exactly at the snapshot's id is the starting one, so only ids below go.
    """

    def bridges(self, snapshot_seq: int, delta: BookDelta) -> Verdict:
        if delta.last_seq < snapshot_seq:
            return STALE
        return APPLY if delta.prev_seq <= snapshot_seq else GAP

    def follows(self, last_seq: int, delta: BookDelta) -> Verdict:
        if delta.prev_seq == last_seq and delta.last_seq >= last_seq:
            return APPLY
        return STALE if delta.last_seq <= last_seq else GAP


class StreamChain(SyncRule):
    """The snapshot comes in the stream, and each event names the id before it exactly; ids jump, and may fall.

    Source: OKX API v5, "Order book channel", section "Sequence ID"; Deribit v2, "book.{instrument_name}.raw".
    """

    snapshot_from = "stream"

    def bridges(self, snapshot_seq: int, delta: BookDelta) -> Verdict:
        return self.follows(snapshot_seq, delta)

    def follows(self, last_seq: int, delta: BookDelta) -> Verdict:
        if delta.prev_seq == last_seq:
            return APPLY
        return STALE if delta.last_seq <= last_seq else GAP


class StreamBook(SyncRule):
    """The book begins in the stream, and nothing numbers what follows: changes as they come, or whole books.

    Where the connection itself counts its frames, a hole is the parser's to find: it says StreamBroken.
    Source: Gemini Market Data v2, "Level 2 data"; HTX, "Market Depth"; Coinbase Advanced Trade, "sequence_num".
    """

    snapshot_from = "stream"


class TextBook:
    """The venue's own texts of one book's levels, beside the exact integers: ``0.5410`` is not ``0.541`` in a checksum.

    ``price:size``, as the venues join them: written once when a level comes, not each time that a checksum needs it.
    """

    __slots__ = ("_exponent", "_mantissas", "asks", "bids")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget every text."""
        self.bids: dict[int, str] = {}
        self.asks: dict[int, str] = {}
        self._exponent = 0
        self._mantissas = price_mantissas(0)

    def take(self, book: OrderBook, event: BookDelta | BookSnapshot) -> None:
        """Remember the texts of an event that is in the book already."""
        if book.price_exp != self._exponent:
            factor = 10 ** max(0, self._exponent - book.price_exp)
            self.bids = {price * factor: level for price, level in self.bids.items()}
            self.asks = {price * factor: level for price, level in self.asks.items()}
            self._exponent = book.price_exp
            self._mantissas = price_mantissas(book.price_exp)
        mantissas = self._mantissas
        for texts, changed, side in ((self.bids, event.bids, book.bids), (self.asks, event.asks, book.asks)):
            for level in changed:
                texts[mantissas[level[0]]] = f"{level[0]}:{level[1]}"
            if len(texts) > 2 * len(side.levels) + 1000:  # deleted levels are swept now and then
                for price in [price for price in texts if price not in side.levels]:
                    del texts[price]

    def best(self, book: OrderBook, depth: int) -> tuple[list[str], list[str]]:
        """The texts of the best ``depth`` bids and asks, best first. KeyError: the book holds what never was taken."""
        return self._side(self.bids, book.bids, depth), self._side(self.asks, book.asks, depth)

    @staticmethod
    def _side(texts: dict[int, str], side: BookSide, depth: int) -> list[str]:
        best = side.order[: -depth - 1 : -1]
        return [texts[key] for key in best] if side.sign == 1 else [texts[-key] for key in best]


class TextChecksum(StreamChain):
    """A chain in the stream and, where the venue sends one, the CRC32 over its own texts of the best levels.

    One object a book. A checksum of 0 is none: OKX sends it since 2026, Bitget in snapshots.
    Source: OKX API v5, "Order book channel", section "Checksum"; Bitget v2, "Depth Channel".
    """

    has_checksum = True

    def __init__(self) -> None:
        self._texts = TextBook()

    def verify(self, book: OrderBook, event: BookDelta | BookSnapshot) -> bool | None:
        self._texts.take(book, event)
        if not event.checksum:
            return None
        return interleaved_crc32_of(*self._texts.best(book, INTERLEAVED_DEPTH)) == event.checksum

    def reset(self) -> None:
        self._texts.clear()
