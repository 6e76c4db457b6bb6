"""A chain's pools rebuilt from its records alone, as a reader without any knowledge of protocols would do it."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

EventKey = tuple[str, int, str]
"""(block hash, log index, pool)"""
PoolSlots = dict[str, int]
BRANCH_MAX = 4096


class ChainFold:
    """Fed with every record of chain.pool and chain.block of one chain, each topic in its order.

    Raises ValueError where a pool's index has a hole, or a block is retracted that is not the newest. ``audit``: keep in
    ``standing`` what stands of every event ever; without it the memory does not grow with the chain.
    """

    def __init__(self, chain: str, *, audit: bool = True) -> None:
        self.chain = chain
        self._audit = audit
        self.states: dict[str, PoolSlots | None] = {}
        """Slots by pool; None: its creation was retracted."""
        self.fixed: dict[str, list[str]] = {}
        """What its newest SNAPSHOT says of a pool that never changes, as name=value."""
        self.standing: Counter[EventKey] = Counter()
        """How often each event stands: 1, or 0 once it was retracted."""
        self.branch: deque[tuple[int, str]] = deque(maxlen=BRANCH_MAX)
        """(number, hash) of the newest blocks that are COMPLETE and not retracted, oldest first."""
        self.events = self.retracts = self.heads = self.retracted_blocks = self.reorgs = 0
        self._places: dict[str, tuple[int, int]] = {}
        self._open: Counter[str] = Counter()
        """By block: events that stand, less those that chain.block says it has. Empty when both topics say the same."""
        self._retracting = False

    def pool(self, record: dict[str, Any]) -> None:
        """One record of chain.pool; another chain's is passed over."""
        if record["chain"] != self.chain:
            return
        ident, kind = record["pool"], record["kind"]
        slots = {n: slot_value(n, v) for n, v in zip(record["slots"], record["values"], strict=True)}
        block = "0x" + record["block_hash"].hex()
        key = (block, record["log_index"], ident)
        if kind != "SNAPSHOT" and self._places.get(ident) != (record["epoch"], record["index"] - 1):
            raise ValueError(f"pool {ident}: {record['epoch']}/{record['index']} after {self._places.get(ident)}")
        self._places[ident] = (record["epoch"], record["index"])
        if kind == "SNAPSHOT":
            self.fixed[ident] = record["fixed"]
            self.states[ident] = {n: v for n, v in slots.items() if v or not n.startswith("tick:")}
            if record["event"] == "Created":
                self._count(key, 1)
            return
        self._count(key, -1 if kind == "RETRACT" else 1)
        if kind == "RETRACT":
            self.retracts += 1
            if record["event"] == "Created":
                self.states[ident] = None
                return
        else:
            self.events += 1
        state = self.states[ident]
        assert state is not None
        state.update(slots)
        for slot in [n for n, v in slots.items() if not v and n.startswith("tick:")]:
            state.pop(slot, None)

    def block(self, record: dict[str, Any]) -> None:
        """One record of chain.block; another chain's is passed over."""
        if record["chain"] != self.chain:
            return
        number, found = record["number"], "0x" + record["hash"].hex()
        if record["kind"] == "COMPLETE":
            parent = "0x" + record["parent_hash"].hex()
            if self.branch and self.branch[-1][1] != parent:
                # Every pool is read anew, after a reorganisation deeper than what can be undone.
                self.branch.clear()
                self._open.clear()
            self.heads += 1
            self.branch.append((number, found))
            self._settle(found, -record["events"])
            self._retracting = False
        elif record["kind"] == "RETRACTED":
            if not self.branch or self.branch.pop()[1] != found:
                raise ValueError(f"block {number} {found} is retracted and was not the newest")
            self._settle(found, record["events"])
            self.retracted_blocks += 1
            self.reorgs += not self._retracting
            self._retracting = True

    @property
    def tip(self) -> tuple[int, str] | None:
        """(number, hash) of the block whose end the states are at; None while records of some block are missing."""
        return self.branch[-1] if self.branch and not self._retracting and not self._open else None

    def _count(self, key: EventKey, change: int) -> None:
        if self._audit:
            self.standing[key] += change
        self._settle(key[0], change)

    def _settle(self, block: str, change: int) -> None:
        self._open[block] += change
        if not self._open[block]:
            del self._open[block]


def slot_value(name: str, raw: bytes) -> int:
    """A slot's integer; a tick's word is unsigned, all others are signed."""
    return int.from_bytes(raw, "big", signed=not name.startswith("tick:"))
