"""A price that several venues share and wander about: a seeded function of the wall clock, so that nobody need tell it.

Venues and chains of other processes that are given the same seed know the same price at the same moment; each adds a
noise of its own, by which their prices come apart and together again. In parts per million of where a price began:
integers, drawn straight between random nodes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

PARTS = 1_000_000
COMMON_PARTS, COMMON_MS = 4000, 5000
"""How far the common price goes to each side, and how long from node to node."""
OWN_PARTS, OWN_MS = 1200, 2000


def now_ms() -> int:
    """The clock that all share."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class CommonPrice:
    """One asset's. ``seed`` is common to all, ``own`` is one venue's; None: the common price alone."""

    seed: int
    asset: str
    own: int | None = None
    clock: Callable[[], int] = now_ms

    def parts(self) -> int:
        """Where the price stands now, in parts per million of where it began."""
        at = self.clock()
        moved = _noise(f"{self.seed}:{self.asset}", at, COMMON_MS, COMMON_PARTS)
        if self.own is not None:
            moved += _noise(f"{self.seed}:{self.asset}:{self.own}", at, OWN_MS, OWN_PARTS)
        return PARTS + moved

    def of(self, amount: int) -> int:
        """An amount of the beginning at the price of now, rounded down."""
        return amount * self.parts() // PARTS


def _noise(name: str, at_ms: int, every_ms: int, most: int) -> int:
    number, rest = divmod(at_ms, every_ms)
    before, after = (_node(f"{name}:{n}", most) for n in (number, number + 1))
    return before + (after - before) * rest // every_ms


def _node(name: str, most: int) -> int:
    drawn = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    return drawn % (2 * most + 1) - most
