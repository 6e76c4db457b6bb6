"""Transactions that mean to swap, from the first word of them until they are in a final block, or never will be.

    PENDING → PRECONFIRMED → MINED → (forgotten when its block is final)
       ↑           │           │
       └───────────┴───────────┘  its block was retracted, or came without it
    any of them → REPLACED (another transaction took its nonce) | DROPPED (no node knows it any more)

Does no I/O: it is told of transactions and of what nodes answer, and tells ``emit`` each change.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from collectors.dex.blocks import Quantity
from collectors.dex.errors import BadAnswer
from collectors.dex.metrics import ChainCounts
from collectors.dex.routers import IntendedSwap, intended

MISSES = 3
"""Heads in a row at which no node knew it, before it is DROPPED: pools of nodes differ for a moment."""
ENDED_KEPT_S = 120.0
"""REPLACED and DROPPED are remembered for so long: a node may bring them back."""
PENDING, PRECONFIRMED, MINED, REPLACED, DROPPED = "PENDING", "PRECONFIRMED", "MINED", "REPLACED", "DROPPED"


Hash = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-fA-F]{64}$")]
Address = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-fA-F]{40}$")]
Short = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-fA-F]{1,15}$")]
"""A number that fits a long."""


class Transaction(msgspec.Struct, rename="camel", gc=False):
    """A transaction as a node gives it; numbers as 0x texts."""

    hash: Hash
    sender: Address = msgspec.field(name="from")
    nonce: Short
    input: Annotated[str, msgspec.Meta(pattern="^0x([0-9a-fA-F]{2})*$")] = "0x"
    to: Address | None = None
    value: Quantity = "0x0"
    gas_price: Quantity | None = None
    max_fee_per_gas: Quantity | None = None
    max_priority_fee_per_gas: Quantity | None = None
    block_hash: Hash | None = None
    block_number: Short | None = None


@dataclass(slots=True)
class PendingSwap:
    """One watched transaction and what holds of it."""

    transaction: Transaction
    swaps: list[IntendedSwap]
    seen_ns: int
    state: str = PENDING
    reason: str = ""
    block_number: int = -1
    block_hash: str = ""
    replaced_by: str = ""
    misses: int = 0
    ended_s: float = 0.0


class PendingPool:
    """Watches at most ``limit`` transactions to ``routers``; what does not fit is DROPPED, says so, and is counted."""

    def __init__(
        self, routers: Iterable[str], emit: Callable[[PendingSwap], None], counts: ChainCounts, *, limit: int = 20_000
    ) -> None:
        self.routers = {r.lower() for r in routers}
        self.watched: OrderedDict[str, PendingSwap] = OrderedDict()
        """By hash, oldest first."""
        self._emit = emit
        self._counts = counts
        self._limit = limit
        self._by_nonce: dict[tuple[str, str], str] = {}

    def take(self, tx: Transaction) -> None:
        """A node has this transaction in its pool (or says that it is mined)."""
        self._counts.pending_seen += 1
        found = self.watched.get(tx.hash)
        if found is not None:
            if found.state in (REPLACED, DROPPED):
                self._by_nonce[_nonce(tx)] = tx.hash
                self._change(found, PENDING, "it came back")
            return
        other = self.watched.get(self._by_nonce.get(_nonce(tx), ""))
        if other is not None and other.state in (PENDING, PRECONFIRMED):
            self._change(other, REPLACED, "another transaction has its nonce", replaced_by=tx.hash)
        if (tx.to or "").lower() not in self.routers:
            return
        try:
            swaps = intended(tx.input, int(tx.value, 16))
        except BadAnswer:
            self._counts.pending_unreadable += 1
            return
        if not swaps:
            return
        while len(self.watched) >= self._limit:
            self._forget_oldest()
        self._counts.pending_swaps += 1
        self._by_nonce[_nonce(tx)] = tx.hash
        new = self.watched[tx.hash] = PendingSwap(tx, swaps, time.time_ns())
        self._emit(new)

    def preconfirmed(self, number: int, hashes: Iterable[str]) -> None:
        """The sequencer says that block ``number`` will hold these, so far."""
        told = set(hashes)
        for tx_hash, found in self.watched.items():
            if tx_hash in told and found.state == PENDING:
                self._change(found, PRECONFIRMED, "", block_number=number)

    def due(self, most: int) -> list[str]:
        """The transactions to ask nodes for now; those that were asked longest ago first."""
        waiting = [h for h, p in self.watched.items() if p.state in (PENDING, PRECONFIRMED)][:most]
        for tx_hash in waiting:
            self.watched.move_to_end(tx_hash)
        return waiting

    def answered(self, tx_hash: str, tx: Transaction | None, height: int) -> None:
        """What a node says of it at a head of this height; None: it does not know it."""
        found = self.watched.get(tx_hash)
        if found is None or found.state not in (PENDING, PRECONFIRMED):
            return
        if tx is None:
            found.misses += 1
            if found.misses >= MISSES:
                self._change(found, DROPPED, "no node knows it")
            return
        found.misses = 0
        if tx.block_hash is not None and tx.block_number is not None:
            number = int(tx.block_number, 16)
            if number <= height:
                self._change(found, MINED, "", block_number=number, block_hash=tx.block_hash)
        elif found.state == PRECONFIRMED and found.block_number <= height:
            self._change(found, PENDING, f"block {found.block_number} came without it")

    def at_head(self, stands: Callable[[int, str], bool], final: int) -> None:
        """The chain stands at a new head: what was mined in a block that does not ``stand`` is PENDING again."""
        now_s = time.monotonic()
        for tx_hash, found in list(self.watched.items()):
            if found.state == MINED:
                if not stands(found.block_number, found.block_hash):
                    self._change(found, PENDING, f"its block {found.block_number} was retracted")
                elif found.block_number <= final:
                    self._forget(tx_hash)
            elif found.state in (REPLACED, DROPPED) and now_s - found.ended_s > ENDED_KEPT_S:
                self._forget(tx_hash)

    def _change(
        self, found: PendingSwap, state: str, reason: str, *, block_number: int = -1, block_hash: str = "",
        replaced_by: str = "",
    ) -> None:  # fmt: skip
        found.state, found.reason = state, reason
        found.block_number, found.block_hash, found.replaced_by = block_number, block_hash, replaced_by
        found.misses = 0
        found.ended_s = time.monotonic()
        self._emit(found)
        if state != MINED or self._by_nonce.get(_nonce(found.transaction)) == found.transaction.hash:
            return
        # The one that was thought to have taken its nonce has not.
        other = self.watched.get(self._by_nonce.get(_nonce(found.transaction), ""))
        self._by_nonce[_nonce(found.transaction)] = found.transaction.hash
        if other is not None and other.state in (PENDING, PRECONFIRMED):
            self._change(other, REPLACED, "another transaction took its nonce", replaced_by=found.transaction.hash)

    def _forget_oldest(self) -> None:
        ended = next((h for h, p in self.watched.items() if p.state in (REPLACED, DROPPED)), None)
        if ended is not None:
            self._forget(ended)
            return
        tx_hash, found = next(iter(self.watched.items()))
        self._counts.pending_forgotten += 1
        if found.state != MINED:
            self._change(found, DROPPED, f"no longer watched: more than {self._limit} are pending")
        self._forget(tx_hash)

    def _forget(self, tx_hash: str) -> None:
        found = self.watched.pop(tx_hash)
        if self._by_nonce.get(_nonce(found.transaction)) == tx_hash:
            del self._by_nonce[_nonce(found.transaction)]


def _nonce(tx: Transaction) -> tuple[str, str]:
    return tx.sender, tx.nonce
