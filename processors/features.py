"""derived.depth and derived.microstructure: one lane each, fed by the books that a batch changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from config.settings import ProcessorSettings
from market.book import BookSide
from processors.books import Books
from processors.conflation import Lane
from processors.derived import Derived
from processors.metrics import Counts
from processors.microstructure import Microstructure
from processors.mirror_book import MirrorBook
from schemas.codec import codec
from schemas.topics import DEPTH, MICROSTRUCTURE

DEPTH_S, DEPTH_SHARE = 0.05, 0.1
SAMPLE_S, SAMPLE_SHARE = 0.1, 0.1


class Features:
    """Both lanes of one process."""

    def __init__(self, settings: ProcessorSettings, books: Books, derived: Derived, counts: Counts) -> None:
        self._books = books
        self._derived = derived
        self._counts = counts
        self._levels = settings.depth_levels
        self._windows: dict[str, Microstructure] = {}
        self._encode_depth = codec("Depth").hurry().encode
        self._encode_micro = codec("Microstructure").hurry().encode
        self.lanes: dict[str, Lane] = {}
        if "depth" in settings.derived:
            self.lanes["depth"] = Lane(DEPTH_S, DEPTH_SHARE, self._write_depth)
        if "microstructure" in settings.derived:
            self.lanes["microstructure"] = Lane(SAMPLE_S, SAMPLE_SHARE, self._write_microstructure)

    def touched(self) -> Callable[[MirrorBook, int], None] | None:
        """What the books have to call; None when nothing is wanted."""
        lanes = list(self.lanes.values())
        if not lanes:
            return None
        if len(lanes) == 1:
            return lanes[0].touch

        def touch(book: MirrorBook, partition: int) -> None:
            entry = (book, partition)
            for lane in lanes:
                lane.pending[book.key] = entry

        return touch

    async def run(self, stopped: Callable[[], bool]) -> None:
        """All lanes, until ``stopped()``."""
        await asyncio.gather(*(lane.run(stopped) for lane in self.lanes.values()))

    def drop(self, partitions: set[int]) -> None:
        """Forget what another worker takes over; call it before the books are dropped."""
        for lane in self.lanes.values():
            lane.drop(partitions)
        for partition in partitions:
            for key in self._books.by_partition.get(partition, {}):
                self._windows.pop(key, None)

    def depth_record(self, book: MirrorBook, partition: int) -> dict[str, Any]:
        """The Depth record of the book as it is now."""
        own = book.book
        bids, asks = _best(own.bids, self._levels), _best(own.asks, self._levels)
        return {
            "venue": book.venue, "symbol": book.symbol, "state": self._books.state(book, partition),
            "epoch": book.epoch, "index": book.index, "offset": book.offset, "partition": partition,
            "venue_seq": book.venue_seq, "price_exp": own.price_exp, "size_exp": own.size_exp,
            "bid_prices": bids[0], "bid_sizes": bids[1], "ask_prices": asks[0], "ask_sizes": asks[1],
            "ts_venue_us": book.ts_venue_us, "ts_received_ns": book.ts_received_ns,
        }  # fmt: skip

    def _write_depth(self, book: MirrorBook, partition: int) -> None:
        if self._derived.put(DEPTH.name, book.key, self._encode_depth(self.depth_record(book, partition))):
            self._counts.depth += 1

    def _write_microstructure(self, book: MirrorBook, partition: int) -> None:
        window = self._windows.get(book.key)
        if window is None:
            window = self._windows[book.key] = Microstructure()
        state = self._books.state(book, partition)
        if state == "LIVE" and book.book.bids.levels and book.book.asks.levels:
            window.sample(book)
        else:
            window.lost()
        record = window.record(book, partition, state)
        if record is not None and self._derived.put(MICROSTRUCTURE.name, book.key, self._encode_micro(record)):
            self._counts.microstructure += 1


def _best(side: BookSide, levels: int) -> tuple[list[int], list[int]]:
    sign, sizes = side.sign, side.levels
    prices = [key * sign for key in side.order[: -levels - 1 : -1]]
    return prices, [sizes[price] for price in prices]
