"""Binance's books rebuilt from a capture by the rules of the venue's documentation, with exact decimals only.

Shares nothing with the program: the test's own idea of what is right.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any


class Rebuilt:
    """The book after each depth event; ``events()`` yields the last id of each one as it is applied."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sides: dict[str, dict[Decimal, Decimal]] = {"b": {}, "a": {}}
        self.seq = 0
        self.applied = 0

    def _lines(self) -> Iterator[str]:
        with gzip.open(self.path, "rt") as file:
            yield from file

    def events(self) -> Iterator[int]:
        """Apply the capture event by event."""
        early: list[dict[str, Any]] = []
        synced = False
        for line in self._lines():
            text = line.split(" ", 1)[1]
            if text.startswith('{"lastUpdateId"'):
                snapshot = json.loads(text)
                self.seq = snapshot["lastUpdateId"]
                for side, name in (("b", "bids"), ("a", "asks")):
                    self.sides[side] = {Decimal(p): Decimal(s) for p, s in snapshot[name]}
                synced = True
                yield self.seq
                for event in early:
                    if self._apply(event):
                        yield self.seq
                continue
            if "@depth" not in text[:60]:
                continue
            event = json.loads(text)["data"]
            if not synced:
                early.append(event)
            elif self._apply(event):
                yield self.seq

    def _apply(self, event: dict[str, Any]) -> bool:
        futures = "pu" in event
        if not self.applied:
            if event["u"] < self.seq + (0 if futures else 1):
                return False
            start = event["U"] <= self.seq <= event["u"] if futures else event["U"] <= self.seq + 1 <= event["u"]
            assert start, f"the first event does not span the snapshot: {event['U']}..{event['u']}, {self.seq}"
        elif futures:
            assert event["pu"] == self.seq, "the capture has a hole"
        else:
            assert event["U"] == self.seq + 1, "the capture has a hole"
        for side in ("b", "a"):
            for price, size in event[side]:
                if Decimal(size):
                    self.sides[side][Decimal(price)] = Decimal(size)
                else:
                    self.sides[side].pop(Decimal(price), None)
        self.seq = event["u"]
        self.applied += 1
        return True

    def to_end(self) -> Rebuilt:
        """Apply everything."""
        for _ in self.events():
            pass
        return self

    def levels(self) -> tuple[list[list[str]], list[list[str]]]:
        """(bids, asks) as plain decimal texts, best first."""
        return (
            [[plain(p), plain(self.sides["b"][p])] for p in sorted(self.sides["b"], reverse=True)],
            [[plain(p), plain(self.sides["a"][p])] for p in sorted(self.sides["a"])],
        )

    def digest(self) -> str:
        """SHA-256 of the lines ``bid PRICE SIZE`` …, ``ask PRICE SIZE`` …"""
        bids, asks = self.levels()
        lines = [f"bid {p} {s}" for p, s in bids] + [f"ask {p} {s}" for p, s in asks]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def plain(value: Decimal) -> str:
    """Without exponent or trailing zeros."""
    text = format(value.normalize(), "f")
    return text if text != "-0" else "0"
