"""All pools of one chain, in step with its blocks and undone with its reorgs. Does no I/O.

Blocks are applied in order and undone newest-first. Every change remembers what it overwrote, so that undoing needs
no second copy of a pool. What happens is told to ``emit`` at once, in the order in which it is to be published.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from collectors.dex.blocks import Header, Log
from collectors.dex.errors import BadAnswer
from collectors.dex.protocol import MirroredPool, Protocol, Slots

CREATED, SNAPSHOT = "Created", "Snapshot"


@dataclass(slots=True)
class Emission:
    """One record of chain.pool."""

    pool: MirroredPool
    kind: str
    event: str
    block_number: int
    block_hash: str
    tx_hash: str
    log_index: int
    slots: Slots


@dataclass(slots=True)
class Applied:
    """One change that a block made."""

    pool: MirroredPool
    event: str
    tx_hash: str
    log_index: int
    before: Slots


@dataclass(slots=True)
class MirrorBlock:
    """One applied block and its changes, in the order of their logs."""

    number: int
    hash: str
    parent_hash: str
    ts_us: int
    base_fee_wei: int = -1
    changes: list[Applied] = field(default_factory=list[Applied])
    logs: int = 0
    events: int = 0
    """What its COMPLETE said: of a block whose retraction was begun before a restart fewer changes are left."""
    complete: bool = True
    """False: restored from the log of records, and some of its events may be missing still."""

    @classmethod
    def of(cls, header: Header) -> MirrorBlock:
        """The block of this header, before anything was applied."""
        return cls(header.number, header.hash, header.parent_hash, header.ts_us, header.base_fee_wei)

    @property
    def header(self) -> Header:
        """Its header, as far as links are concerned."""
        return Header(hex(self.number), self.hash, self.parent_hash, hex(self.ts_us // 1_000_000))


@dataclass(slots=True)
class Outcome:
    """What one block, applied or undone, touched."""

    block: MirrorBlock
    changed: dict[str, MirroredPool] = field(default_factory=dict[str, MirroredPool])
    created: list[MirroredPool] = field(default_factory=list[MirroredPool])
    removed: list[MirroredPool] = field(default_factory=list[MirroredPool])
    reread: int = 0
    """Events that did not say what they changed."""


class Mirror:
    """Pools by ident, and the blocks that can be undone.

    ``emit`` takes each record; ``unreadable(log, error)`` is told of events that make no sense, after which their pool
    is in ``suspect`` until it is read anew. ``wants`` decides which created pools are mirrored.
    """

    def __init__(
        self,
        protocols: Iterable[Protocol],
        emit: Callable[[Emission], None],
        *,
        unreadable: Callable[[Log, str], None] = lambda log, error: None,
        wants: Callable[[MirroredPool], bool] = lambda pool: True,
        history_max: int = 4096,
    ) -> None:
        self.protocols = list(protocols)
        self.pools: dict[str, MirroredPool] = {}
        self.blocks: deque[MirrorBlock] = deque(maxlen=history_max)
        self.suspect: set[str] = set()
        """Pools whose state can no longer be trusted: read them by calls."""
        self._emit = emit
        self._unreadable = unreadable
        self._wants = wants
        self._aliases: dict[str, str] = {}
        """Other addresses whose events speak of a pool."""
        self._creators = {(p.address, topic): p for p in self.protocols for topic in p.creation_topics}
        self._some_move = any(type(p).moves is not Protocol.moves for p in self.protocols)
        self._factories = {p.address: p.shared for p in self.protocols}
        """Whether all of a factory's pools speak from its own address."""

    def adopt(self, pools: dict[str, MirroredPool]) -> None:
        """Take these as all pools there are."""
        self.pools = pools
        self._aliases = {alias: i for i, p in pools.items() if (alias := p.protocol.alias(i))}

    def creations(self, logs: Iterable[Log]) -> list[MirroredPool]:
        """The pools that these logs would create, for looking up their tokens before; changes nothing."""
        out: list[MirroredPool] = []
        for log in logs:
            if log.address not in self._factories or not log.topics:
                continue
            if (protocol := self._creators.get((log.address, log.topics[0]))) is not None:
                try:
                    out.append(protocol.created(log))
                except (BadAnswer, ValueError):
                    continue
        return out

    def apply(self, header: Header, logs: list[Log], block: MirrorBlock | None = None) -> Outcome:
        """Apply a block's logs (checked, in order).

        ``block`` is given where some of its changes were made before (restored from records): those are not repeated.
        """
        if block is None:
            block = MirrorBlock.of(header)
        already = frozenset(c.log_index for c in block.changes)
        if not already or not any(b is block for b in self.blocks):
            block.parent_hash, block.ts_us, block.base_fee_wei = header.parent_hash, header.ts_us, header.base_fee_wei
            self.blocks.append(block)
        block.logs, block.complete = len(logs), True
        outcome = Outcome(block)
        pools, factories, aliases = self.pools, self._factories, self._aliases
        for log in logs:
            if not log.topics:
                continue
            ident, first = log.address, log.topics[0]
            pool = pools.get(ident)
            if pool is None:
                # Most logs of a block speak of none of our pools, and go no further than here.
                if (own := aliases.get(ident)) is not None:
                    ident = own
                elif ident in factories:
                    ident = self._named(log)
                else:
                    continue
                pool = pools.get(ident)
            if pool is None:
                protocol = self._creators.get((log.address, first))
                if protocol is not None and log.log_index not in already:
                    self._create(outcome, protocol, log)
                continue
            handler = pool.handlers.get(first)
            if handler is None:
                continue
            if already and log.log_index in already:
                outcome.changed[ident] = pool
                continue
            try:
                event, slots = handler(pool, log)
            except (BadAnswer, ValueError, IndexError, TypeError) as error:
                self._unreadable(log, str(error))
                self.suspect.add(ident)
                continue
            self._change(block, pool, event, log, slots)
            if first in pool.protocol.rereads:
                self.suspect.add(ident)
                outcome.reread += 1
            outcome.changed[ident] = pool
        if already:
            block.changes.sort(key=lambda c: c.log_index)
        block.events = len(block.changes)
        return outcome

    def _named(self, log: Log) -> str:
        """The pool that a factory's log speaks of, where the pools speak from there; else the factory."""
        return log.topics[1] if self._factories[log.address] and len(log.topics) > 1 else log.address

    def _create(self, outcome: Outcome, protocol: Protocol, log: Log) -> None:
        try:
            pool = protocol.created(log)
        except (BadAnswer, ValueError, IndexError) as error:
            self._unreadable(log, str(error))
            return
        if pool.ident in self.pools or not self._wants(pool):
            return
        block = outcome.block
        pool.created = (block.number, log.log_index)
        pool.epoch, pool.index = time.time_ns() // 1000, 0
        self._add(pool)
        block.changes.append(Applied(pool, CREATED, log.transaction_hash or "", log.log_index, {}))
        outcome.created.append(pool)
        outcome.changed[pool.ident] = pool
        self._tell(pool, "SNAPSHOT", CREATED, block, log.transaction_hash or "", log.log_index, dict(pool.slots))

    def _change(self, block: MirrorBlock, pool: MirroredPool, event: str, log: Log, slots: Slots) -> None:
        before = set_slots(pool, slots)
        pool.index += 1
        tx_hash, log_index = log.transaction_hash or "", log.log_index
        block.changes.append(Applied(pool, event, tx_hash, log_index, before))
        self._tell(pool, "DELTA", event, block, tx_hash, log_index, slots)

    def undo(self, block: MirrorBlock | None = None) -> Outcome:
        """Undo the newest block (or an unfinished one above it), newest event first."""
        block = block or self.blocks.pop()
        outcome = Outcome(block)
        for change in reversed(block.changes):
            pool = change.pool
            if self.pools.get(pool.ident) is not pool:
                continue
            pool.index += 1
            before = change.before
            if change.event == CREATED:
                del self.pools[pool.ident]
                self.suspect.discard(pool.ident)
                outcome.removed.append(pool)
                outcome.changed.pop(pool.ident, None)
            else:
                if pool.snapshot_block >= block.number:
                    # Its state was read at or after this block: what the event overwrote is not what would come back.
                    self.suspect.add(pool.ident)
                    before = {}
                set_slots(pool, before)
                outcome.changed[pool.ident] = pool
            self._tell(pool, "RETRACT", change.event, block, change.tx_hash, change.log_index, before)
        if self._some_move:
            # What moves by itself was read at a block that is gone, and may no longer be where it was seen to be.
            self.suspect |= {
                i for i, p in self.pools.items()
                if p.snapshot_block >= block.number and type(p.protocol).moves is not Protocol.moves
            }  # fmt: skip
        return outcome

    def snapshot(self, pool: MirroredPool, slots: Slots, block: MirrorBlock) -> None:
        """Take a state that was read by calls at ``block`` (the newest) as a new epoch's start."""
        stale = {name: 0 for name in pool.slots if name.startswith("tick:") and name not in slots}
        set_slots(pool, stale | slots)
        pool.epoch, pool.index = max(time.time_ns() // 1000, pool.epoch + 1), 0
        pool.snapshot_block = block.number
        self._add(pool)
        self.suspect.discard(pool.ident)
        self._tell(pool, "SNAPSHOT", SNAPSHOT, block, "", -1, dict(pool.slots))

    def _add(self, pool: MirroredPool) -> None:
        self.pools[pool.ident] = pool
        if alias := pool.protocol.alias(pool.ident):
            self._aliases[alias] = pool.ident

    def _tell(
        self, pool: MirroredPool, kind: str, event: str, block: MirrorBlock, tx_hash: str, log_index: int, slots: Slots
    ) -> None:
        self._emit(Emission(pool, kind, event, block.number, block.hash, tx_hash, log_index, slots))


def set_slots(pool: MirroredPool, slots: Slots) -> Slots:
    """Set slots absolutely; gives what they were (0 for a tick that was not there)."""
    state = pool.slots
    before = {name: state.get(name, 0) for name in slots}
    for name, value in slots.items():
        if value == 0 and name.startswith("tick:"):
            state.pop(name, None)
        else:
            state[name] = value
    if slots:
        pool.protocol.set_slots(pool.pool, slots)
    return before
