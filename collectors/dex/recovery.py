"""A chain's mirror rebuilt from its own records in Kafka, so that a restart neither loses nor repeats an event.

A killed process leaves, in each partition, the beginning of what it wanted to write: chain.block may be ahead of some
pools, and some pools ahead of chain.block. What was written is taken as it is: changes in blocks that chain.block
does not (or no longer) have are ``open``, and a block with fewer changes than its COMPLETE says is not complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bus.consumer import TailReader
from collectors.dex.mirror import CREATED, SNAPSHOT, Applied, MirrorBlock, set_slots
from collectors.dex.protocol import MirroredPool, Protocol, Slots, fixed_of
from config.settings import Settings
from schemas.codec import codec
from schemas.topics import CHAIN_BLOCK, CHAIN_POOL

RECENT = 256
"""Only so many of the newest blocks can be incomplete: more never wait for Kafka at once."""


@dataclass
class Recovered:
    """What the records say."""

    pools: dict[str, MirroredPool] = field(default_factory=dict[str, MirroredPool])
    blocks: list[MirrorBlock] = field(default_factory=list[MirrorBlock])
    """Complete and not retracted, oldest first; the newest ones may turn out to be incomplete."""
    open: dict[str, MirrorBlock] = field(default_factory=dict[str, MirrorBlock])
    """Changes of blocks that chain.block does not have, by hash."""
    final: int = -1
    cut: bool = False
    """The topic no longer holds its beginning: pools that were quiet since then are not among these."""


def recover(settings: Settings, chain: str, protocols: Iterable[Protocol], history_max: int) -> Recovered:
    """Read both topics to their ends; blocks. Raises BusError. Pools of other factories are left out."""
    tail = TailReader(settings, [CHAIN_BLOCK.name, CHAIN_POOL.name])
    try:
        ends = tail.ends()
        cut = any(offset > 0 for (topic, _), offset in tail.positions.items() if topic == CHAIN_POOL.name)
        rebuild = Rebuild(chain, protocols, history_max)
        decode_block, decode_pool = codec("ChainBlock").decode, codec("ChainPool").decode
        prefix = chain.encode()
        while any(tail.positions[p] < end for p, end in ends.items()):
            for message in tail.poll(5000, 0.2):
                if not (message.key() or b"").startswith(prefix):
                    continue
                if message.topic() == CHAIN_BLOCK.name:
                    rebuild.block(decode_block(message.value()))
                else:
                    rebuild.pool(decode_pool(message.value()))
    finally:
        tail.close()
    found = rebuild.result()
    found.cut = cut
    return found


class Rebuild:
    """Folds records of one chain, each pool's in their order."""

    def __init__(self, chain: str, protocols: Iterable[Protocol], history_max: int) -> None:
        self.chain = chain
        self.pools: dict[str, MirroredPool] = {}
        self.changes: dict[str, list[tuple[int, str, Applied]]] = {}
        """For each pool its changes that were not retracted: (block number, block hash, change)."""
        self.blocks: list[MirrorBlock] = []
        self.expected: dict[str, int] = {}
        self.final = -1
        self._by_address = {p.address: p for p in protocols}
        self._history_max = history_max

    def block(self, record: dict[str, Any]) -> None:
        """A record of chain.block."""
        if record["chain"] != self.chain:
            return
        block_hash = "0x" + record["hash"].hex()
        if record["kind"] == "COMPLETE":
            self.expected[block_hash] = record["events"]
            self.blocks.append(
                MirrorBlock(
                    record["number"], block_hash, "0x" + record["parent_hash"].hex(), record["ts_block_us"],
                    record["base_fee_wei"], logs=record["logs"], events=record["events"],
                )
            )  # fmt: skip
            del self.blocks[: -self._history_max]
        elif record["kind"] == "RETRACTED":
            self.blocks = [b for b in self.blocks if b.hash != block_hash]
        elif record["kind"] == "FINAL":
            self.final = max(self.final, record["number"])

    def pool(self, record: dict[str, Any]) -> None:
        """A record of chain.pool."""
        if record["chain"] != self.chain:
            return
        ident, kind = record["pool"], record["kind"]
        slots = slots_of(record)
        where = (record["block_number"], "0x" + record["block_hash"].hex())
        pool = self.pools.get(ident)
        if kind == "SNAPSHOT":
            self._snapshot(record, slots, where)
            return
        if pool is None:
            return  # its SNAPSHOT is older than what the topic keeps
        pool.epoch, pool.index = record["epoch"], record["index"]
        changes = self.changes[ident]
        if kind == "DELTA":
            before = set_slots(pool, slots)
            tx_hash = "0x" + record["tx_hash"].hex()
            changes.append((*where, Applied(pool, record["event"], tx_hash, record["log_index"], before)))
            return
        if changes and changes[-1][1] == where[1] and changes[-1][2].log_index == record["log_index"]:
            changes.pop()
        if record["event"] == CREATED:
            del self.pools[ident]
        else:
            set_slots(pool, slots)

    def _snapshot(self, record: dict[str, Any], slots: Slots, where: tuple[int, str]) -> None:
        ident = record["pool"]
        fixed = fixed_of(record["fixed"])
        protocol = self._by_address.get(fixed.get("factory", ""))
        if protocol is None:
            return
        pool = protocol.new_pool(ident, fixed, slots)
        pool.epoch, pool.index = record["epoch"], record["index"]
        old = self.pools.get(ident)
        self.pools[ident] = pool
        if record["event"] == CREATED:
            pool.created = (where[0], record["log_index"])
            created = Applied(pool, CREATED, "0x" + record["tx_hash"].hex(), record["log_index"], {})
            self.changes[ident] = [(*where, created)]
        elif record["event"] == SNAPSHOT:
            pool.snapshot_block = where[0]
            if old is not None:
                pool.created = old.created
            kept = self.changes.setdefault(ident, [])
            for _, _, change in kept:
                change.pool = pool

    def result(self) -> Recovered:
        """What the records amount to."""
        out = Recovered(self.pools, self.blocks, {}, self.final)
        by_hash = {b.hash: b for b in self.blocks}
        for changes in self.changes.values():
            for number, block_hash, change in changes:
                block = by_hash.get(block_hash)
                if block is None:
                    if self.blocks and number <= self.blocks[0].number:
                        continue  # too old to be undone
                    block = out.open.setdefault(block_hash, MirrorBlock(number, block_hash, "", 0))
                block.changes.append(change)
        for block in [*out.blocks, *out.open.values()]:
            block.changes.sort(key=lambda c: c.log_index)
        for block in out.blocks[-RECENT:]:
            block.complete = len(block.changes) >= self.expected.get(block.hash, 0)
        return out


def slots_of(record: dict[str, Any]) -> Slots:
    """A ChainPool record's slots as integers: signed, but a tick's word, which is two numbers side by side."""
    return {
        name: int.from_bytes(value, "big", signed=not name.startswith("tick:"))
        for name, value in zip(record["slots"], record["values"], strict=True)
    }
