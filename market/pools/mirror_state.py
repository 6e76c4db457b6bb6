"""Pools folded from chain.pool, and their chain's head from chain.block, by whoever must act on them.

A pool may be traded on when it was followed without a hole from a SNAPSHOT on, and its chain's last word is a COMPLETE
block, heard of no earlier than the pool's newest change: between a RETRACT and the new branch's COMPLETE nothing is
canonical.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from market.pools.families import pool_of
from market.pools.pool import Pool, PoolError

Record = Mapping[str, Any]

FAMILIES = {"uniswap-v2": "uniswap_v2", "uniswap-v3": "uniswap_v3", "uniswap-v4": "uniswap_v4"}
"""A protocol's name in chain.pool → the family of its maths. Others have slots that need more than names."""
UINT128 = (1 << 128) - 1


@dataclass(slots=True)
class Head:
    """The newest word on a chain's blocks."""

    number: int = -1
    ts_received_ns: int = 0
    base_fee_wei: int = -1
    complete: bool = False
    """False: the last block was taken back, and its successor is not there yet."""


@dataclass(slots=True)
class MirroredState:
    """One pool's slots and its place in the log."""

    epoch: int = -1
    index: int = -1
    block: int = -1
    """Of the newest change, retractions included."""
    synced: bool = False
    ts_ns: int = 0
    """When the collector heard of the newest change: only a head heard of then or later makes it canonical."""
    fixed: dict[str, str] = field(default_factory=dict[str, str])
    slots: dict[str, int] = field(default_factory=dict[str, int])
    built: Pool | None = None

    def take(self, record: Record) -> None:
        """Fold one ChainPool record."""
        kind, epoch, index = record["kind"], record["epoch"], record["index"]
        if epoch < self.epoch:
            return
        if kind != "SNAPSHOT" and (epoch != self.epoch or index <= self.index):
            self.synced = self.synced and epoch == self.epoch
            return
        values = {n: _value(n, v) for n, v in zip(record["slots"], record["values"], strict=True)}
        if kind == "SNAPSHOT":
            self.fixed = dict(line.split("=", 1) for line in record["fixed"])
            self.slots = values
            self.synced, self.built = True, None
        else:
            self.synced = self.synced and index == self.index + 1
            self.slots |= values
            if self.built is not None:
                _set(self.built, values)
        if kind == "RETRACT" and record["event"] == "Created":
            self.synced = False
        self.slots = {n: v for n, v in self.slots.items() if v or not n.startswith("tick:")}
        self.epoch, self.index, self.block = epoch, index, record["block_number"]
        self.ts_ns = max(self.ts_ns, record["ts_received_ns"])

    def pool(self) -> Pool | None:
        """The pool as it stands; None for one of an unknown protocol, or without a state that holds."""
        if self.built is None and self.fixed.get("protocol") in FAMILIES:
            ticks = {
                n[5:]: dict(zip(("gross", "net"), _tick(v), strict=True))
                for n, v in self.slots.items() if n.startswith("tick:")
            }  # fmt: skip
            plain = {n: v for n, v in self.slots.items() if not n.startswith("tick:")}
            try:
                self.built = pool_of(
                    {**self.fixed, **plain, "ticks": ticks, "family": FAMILIES[self.fixed["protocol"]]}
                )
            except PoolError:
                return None
        return self.built


@dataclass
class ChainView:
    """What a strategy may know of chains: only pools that it named are kept, so that it stays small."""

    pools: dict[tuple[str, str], MirroredState] = field(default_factory=dict[tuple[str, str], MirroredState])
    """(chain, address or id) → state."""
    heads: dict[str, Head] = field(default_factory=dict[str, Head])

    def watch(self, chain: str, ident: str) -> None:
        """Keep this pool from now on."""
        self.pools.setdefault((chain, ident.lower()), MirroredState())
        self.heads.setdefault(chain, Head())

    def take(self, is_pool: bool, record: Record) -> None:
        """Fold one record of chain.pool or chain.block; those of others are passed over."""
        if is_pool:
            state = self.pools.get((record["chain"], record["pool"]))
            if state is not None:
                state.take(record)
            return
        head = self.heads.get(record["chain"])
        if head is None or record["kind"] not in ("COMPLETE", "RETRACTED"):
            return
        head.complete = record["kind"] == "COMPLETE"
        head.number = record["number"] if head.complete else record["number"] - 1
        head.ts_received_ns = max(head.ts_received_ns, record["ts_received_ns"])
        head.base_fee_wei = record["base_fee_wei"]

    def canonical(self, chain: str, ident: str) -> tuple[Pool, MirroredState, Head] | None:
        """The pool, when it may be traded on; see the head of this file."""
        state, head = self.pools.get((chain, ident.lower())), self.heads.get(chain)
        if state is None or head is None or not state.synced or not head.complete or head.ts_received_ns < state.ts_ns:
            return None
        pool = state.pool()
        return (pool, state, head) if pool is not None else None

    def state(self) -> Record:
        """All of it, as JSON."""
        return {
            "pools": [
                [chain, ident, p.epoch, p.index, p.block, p.synced, p.ts_ns, p.fixed, {n: str(v) for n, v in p.slots.items()}]
                for (chain, ident), p in self.pools.items()
            ],
            "heads": [[c, h.number, h.ts_received_ns, h.base_fee_wei, h.complete] for c, h in self.heads.items()],
        }  # fmt: skip

    def restore(self, state: Record) -> None:
        """Become what ``state`` described."""
        pools: Iterable[Any] = state.get("pools", ())
        for chain, ident, epoch, index, block, synced, ts_ns, fixed, slots in pools:
            self.pools[(chain, ident)] = MirroredState(
                epoch, index, block, synced, ts_ns, dict(fixed), {n: int(v) for n, v in slots.items()}
            )
        heads: Iterable[Any] = state.get("heads", ())
        for chain, number, ts_ns, fee, complete in heads:
            self.heads[chain] = Head(number, ts_ns, fee, complete)


def _value(name: str, raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=not name.startswith("tick:"))


def _tick(word: int) -> tuple[int, int]:
    """(gross, net) of a tick's word."""
    return word & UINT128, (word >> 128) - (1 << 128 if word >> 255 else 0)


def _set(pool: Any, values: Mapping[str, int]) -> None:
    """Bring a built pool in step with some slots."""
    for name, value in values.items():
        if name.startswith("tick:"):
            pool.set_tick(int(name[5:]), *_tick(value))
        else:
            setattr(pool, name, value)
