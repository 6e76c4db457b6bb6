"""One instrument of a capture: its exact book, from the capture's snapshot on, and when clients may have it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from simulator.truth import TruthBook

WAITING_MAX = 100_000
"""Depth events kept while no snapshot has come: the first ones after it arrive before it."""


class CapturedBook:
    """The venue's own book. ``depth_left`` counts the depth frames of this instrument that are still to be played."""

    def __init__(self, futures: bool, depth_frames: int) -> None:
        self.truth = TruthBook()
        self.depth_left = depth_frames
        self.asked = asyncio.Event()
        """A client asked for the depth since the book was last lost."""
        self.loaded = asyncio.Event()
        """The truth is known; cleared by a hole in the recording until its next snapshot."""
        self.verbatim: bytes | None = None
        """The capture's own snapshot, for the first client that asks."""
        self._futures = futures
        self._last_u: int | None = None
        self._waiting: deque[Mapping[str, Any]] = deque(maxlen=WAITING_MAX)

    def load(self, body: bytes, answer: Mapping[str, Any]) -> None:
        """Start from a snapshot, then apply the events that were recorded before it and go beyond it."""
        self.truth.load(answer["lastUpdateId"], answer["bids"], answer["asks"])
        self._last_u = None
        self.loaded.set()
        self.verbatim = body if self.asked.is_set() else None
        waiting, self._waiting = self._waiting, deque(maxlen=WAITING_MAX)
        for data in waiting:
            self.take(data)

    def take(self, data: Mapping[str, Any]) -> bool:
        """Bring the truth up to date with one depth event; gives whether it changed the book.

        Start and chain are the documented ones: spot by U = last u + 1, futures by pu = last u.
        """
        if not self.loaded.is_set():
            self._waiting.append(data)
            return False
        seq, u = self.truth.seq, data["u"]
        before = data["pu"] if self._futures else data["U"] - 1
        if self._last_u is None:
            # Futures share ids: an event that ends exactly at the snapshot's is the starting one.
            if u < seq or (u == seq and not self._futures):
                return False
            follows = before <= seq
        else:
            if u <= self._last_u and before != self._last_u:
                return False  # recorded twice, as where two files overlap
            follows = before == self._last_u
        if not follows:
            self._lose(data)
            return False
        self._last_u = u
        self.truth.apply(u, data["b"], data["a"])
        return True

    def _lose(self, data: Mapping[str, Any]) -> None:
        """A hole in the recording itself: nothing is known until its next snapshot."""
        self.loaded.clear()
        self.asked.clear()
        self.verbatim = None
        self._waiting.append(data)
