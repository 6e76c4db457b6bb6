"""What the subscribers of a book of limited depth hold, and what they must be told to hold the next one."""

from __future__ import annotations

from heapq import nlargest, nsmallest

from simulator.instrument import SyntheticInstrument
from simulator.order_flow import Changes


class DepthWindow:
    """The best ``depth`` levels a side, as they were told last.

    ``says_fallen``: the venue sends a delete for a level that is pushed out of the window; else the client has to cut.
    """

    def __init__(self, one: SyntheticInstrument, depth: int, *, says_fallen: bool) -> None:
        self.one = one
        self.depth = depth
        self.last_seq = one.last_u
        """The sequence number of the last event told."""
        self._says_fallen = says_fallen
        self._held = self._best()

    def advance(self, seq: int) -> tuple[int, Changes, Changes] | None:
        """(sequence number told before, changed bids, changed asks) up to now; None: nothing in the window changed."""
        now = self._best()
        changes: list[Changes] = []
        for before, after, side in zip(self._held, now, (self.one.flow.bids, self.one.flow.asks), strict=True):
            gone = [p for p in before if p not in after and (self._says_fallen or p not in side)]
            changes.append([(p, 0) for p in gone] + [(p, s) for p, s in after.items() if before.get(p) != s])
        self._held = now
        if not changes[0] and not changes[1]:
            return None
        previous, self.last_seq = self.last_seq, seq
        return previous, changes[0], changes[1]

    def levels(self) -> tuple[Changes, Changes]:
        """The whole window, best first."""
        return list(self._held[0].items()), list(self._held[1].items())

    def _best(self) -> tuple[dict[int, int], dict[int, int]]:
        bids, asks = self.one.flow.bids, self.one.flow.asks
        return (
            {p: bids[p] for p in nlargest(self.depth, bids)},
            {p: asks[p] for p in nsmallest(self.depth, asks)},
        )
