"""Compares the mirror's books, as its views serve them, with the venues' own at the same sequence number."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cli.views import ViewError, Views

TRIES = 40
PAUSE_S = 0.05
PATIENCE_S = 60.0
"""For what is not LIVE at the end, as on a machine that is busy with other things: books that lag say so and catch up."""


@dataclass(frozen=True)
class Truth:
    """A simulated venue: its addresses; its exact books stand at ``/truth/NATIVE``."""

    rest_url: str
    ws_url: str


class Proof:
    """Counts what was compared and what differed. ``problems`` describes the differences."""

    def __init__(self, views: Views, truths: Mapping[str, Truth]) -> None:
        self._views = views
        self._truths = truths
        self._natives: dict[tuple[str, str], str] = {}
        self._by_time: set[str] = set()
        """Venues whose books have no sequence number: their clock tells the moment."""
        self._turn = 0
        self.compared = 0
        self.mismatches = 0
        self.problems: list[str] = []

    async def step(self, seconds: float) -> None:
        """Compare LIVE books one after another for about this long."""
        if not self._truths:
            return
        deadline = time.monotonic() + seconds
        books = [b for b in await self._views.books() if b["state"] == "LIVE" and b["venue"] in self._truths]
        while books and time.monotonic() < deadline:
            book = books[self._turn % len(books)]
            self._turn += 1
            await self.compare(book["venue"], book["symbol"], tries=3)

    async def all_books(self, books: Sequence[Mapping[str, Any]]) -> int:
        """Compare each book once, those that are not LIVE when they are; gives how many could be compared."""
        waiting = [(book["venue"], book["symbol"]) for book in books if book["venue"] in self._truths]
        count, until_s = len(waiting), time.monotonic() + PATIENCE_S
        while waiting:
            waiting = [one for one in waiting if not await self.compare(*one, tries=TRIES)]
            if time.monotonic() >= until_s:
                break
        return count - len(waiting)

    async def compare(self, venue: str, symbol: str, tries: int) -> bool:
        """Compare one book, all levels, at one sequence number. False: no common number was met, or it is not LIVE."""
        native = await self._native(venue, symbol)
        base, by_time = f"{self._truths[venue].rest_url}/truth/{quote(native)}", venue in self._by_time
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(PAUSE_S)
            mirrored = await self._views.book(venue, symbol)
            if mirrored["state"] != "LIVE":
                continue
            try:
                moment = f"ts_us={mirrored['ts_venue_us']}" if by_time else f"seq={mirrored['venue_seq']}"
                truth = await self._views.get_url(f"{base}?{moment}")
            except ViewError:
                continue  # that moment is too old by now, or between two of the venue's events
            if not by_time and truth["seq"] != mirrored["venue_seq"]:
                continue
            self.compared += 1
            if truth["bids"] != mirrored["bids"] or truth["asks"] != mirrored["asks"]:
                self.mismatches += 1
                self.problems.append(f"MISMATCH {venue} {symbol} at {truth['seq']}: {_difference(mirrored, truth)}")
            return True
        return False

    async def _native(self, venue: str, symbol: str) -> str:
        if (venue, symbol) not in self._natives:
            listing = await self._views.get_url(f"{self._truths[venue].rest_url}/truth")
            for native in listing["symbols"]:
                self._natives[(venue, native)] = native
            for unified, native in listing.get("unified", {}).items():
                self._natives[(venue, unified)] = native
            if listing.get("by_time"):
                self._by_time.add(venue)
            if (venue, symbol) in self._natives:
                return self._natives[(venue, symbol)]
            # A capture's symbols are BASE + QUOTE [+ _PERP]: the unified name without its signs finds them.
            wanted = symbol.partition(":")[0].replace("/", "")
            for native in listing["symbols"]:
                if native.partition("_")[0] == wanted:
                    self._natives[(venue, symbol)] = native
        try:
            return self._natives[(venue, symbol)]
        except KeyError:
            raise ViewError(f"{venue} has no truth for {symbol}") from None


def _difference(mirrored: Mapping[str, Any], truth: Mapping[str, Any]) -> str:
    for side in ("bids", "asks"):
        ours, theirs = mirrored[side], truth[side]
        for number, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            if a != b:
                return f"{side}[{number}] is {a}, the venue has {b}"
        if len(ours) != len(theirs):
            return f"{len(ours)} {side}, the venue has {len(theirs)}"
    return "equal"
