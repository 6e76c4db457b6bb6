"""A venue's own exact books, kept apart from everything that mirrors them, and remembered for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

Texts = list[list[str]]
"""[price, size] decimal texts, best first."""


class TruthError(Exception):
    """There is no book at that sequence number; the text says why."""


class TooOld(TruthError):
    """The venue no longer remembers it."""


class TruthBook:
    """One book: price → size as Decimal, plus what each event overwrote, so that a past moment can be rebuilt."""

    def __init__(self, remember: int = 20_000) -> None:
        self.sides: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]] = ({}, {})
        self.seq = 0
        self.ts_us = 0
        """The venue's time of the last event, where events are told apart by it."""
        self._undo: deque[tuple[int, int, tuple[tuple[int, Decimal, Decimal], ...]]] = deque(maxlen=remember)
        """(sequence number and time before the event, ((side, price, size before), …)), oldest first."""

    def load(self, seq: int, bids: Iterable[Sequence[str]], asks: Iterable[Sequence[str]], ts_us: int = 0) -> None:
        """Replace the book by a snapshot; the past is forgotten."""
        self.sides = tuple({Decimal(p): Decimal(s) for p, s, *_ in side} for side in (bids, asks))  # pyright: ignore
        self.seq, self.ts_us = seq, ts_us
        self._undo.clear()

    def apply(self, seq: int, bids: Iterable[tuple[str, str]], asks: Iterable[tuple[str, str]], ts_us: int = 0) -> None:
        """Apply one event that ends at ``seq``."""
        before: list[tuple[int, Decimal, Decimal]] = []
        for number, levels in enumerate((bids, asks)):
            side = self.sides[number]
            for price_text, size_text in levels:
                price, size = Decimal(price_text), Decimal(size_text)
                before.append((number, price, side.get(price, Decimal(0))))
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)
        self._undo.append((self.seq, self.ts_us, tuple(before)))
        self.seq, self.ts_us = seq, ts_us

    def holds(self, price_text: str, *, bid: bool) -> bool:
        """Whether there is such a level now."""
        return Decimal(price_text) in self.sides[not bid]

    def seq_behind(self, events: int) -> int:
        """The sequence number of ``events`` events ago, as far back as it is remembered."""
        if not events or not self._undo:
            return self.seq
        return self._undo[-min(events, len(self._undo))][0]

    def at(self, seq: int | None = None) -> tuple[int, Texts, Texts]:
        """(seq, bids, asks) now, or exactly at a past ``seq``. Raises TruthError."""
        sides = self.sides
        if seq is not None and seq != self.seq:
            if seq > self.seq:
                raise TruthError(f"{seq} is not reached yet, the venue is at {self.seq}")
            sides = (dict(self.sides[0]), dict(self.sides[1]))
            for at, _, changes in reversed(self._undo):
                for number, price, size in reversed(changes):
                    if size:
                        sides[number][price] = size
                    else:
                        sides[number].pop(price, None)
                if at == seq:
                    break
                if at < seq:
                    raise TruthError(f"{seq} lies inside of an event")
            else:
                raise TooOld(f"{seq} is too long ago, the venue remembers {len(self._undo)} events and is at {self.seq}")
        return (self.seq if seq is None else seq, *_texts(sides))

    def shows(self, seq: int, lost: Collection[int]) -> bool:
        """Whether a client that got none of the events ending at ``lost`` differs in any level from this book by the first
        event from ``seq`` on that it did get. Not so when that one wrote the same levels: then its book is right again.

        Raises TruthError when there is no event that ends at ``seq``, or none behind it that was not lost.
        """
        ends = [*[at for at, _, _ in self._undo][1:], self.seq]
        if not self._undo or seq not in ends:
            raise TruthError(f"no remembered event ends at {seq}")
        theirs: dict[tuple[int, Decimal], Decimal] = {}
        for end, (_, _, before) in zip(ends, self._undo, strict=True):
            if end < seq:
                continue
            if end in lost:
                for side, price, size in before:
                    theirs.setdefault((side, price), size)
                continue
            for side, price, _ in before:
                theirs.pop((side, price), None)
            _, *now = self.at(end)
            ours = {(side, Decimal(p)): Decimal(s) for side, levels in enumerate(now) for p, s in levels}
            return any(ours.get(level, Decimal(0)) != size for level, size in theirs.items())
        raise TruthError(f"nothing that was sent follows {seq}")

    def seq_at_time(self, ts_us: int) -> int:
        """The sequence number of the event at exactly this time of the venue's clock. Raises TruthError."""
        if ts_us == self.ts_us:
            return self.seq
        for seq, at_us, _ in reversed(self._undo):
            if at_us == ts_us:
                return seq
        raise TruthError(f"no remembered event has the time {ts_us}, the last one {self.ts_us}")


def _texts(sides: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]) -> tuple[Texts, Texts]:
    bids, asks = sides
    return (
        [[plain(p), plain(bids[p])] for p in sorted(bids, reverse=True)],
        [[plain(p), plain(asks[p])] for p in sorted(asks)],
    )


def plain(value: Decimal) -> str:
    """Plain decimal text without an exponent or trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
