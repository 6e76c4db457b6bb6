"""How a book is put together and kept gapless: one named rule for each way that venues number their events.

A rule judges; the worker acts. Rules without a state of their own are shared by all books of a venue; a rule that needs
memory (the venue's own texts for a checksum, an order table for L3) is made once for each book.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Literal

from collectors.events import BookDelta, BookSnapshot
from market.book import OrderBook


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
