"""One chain's connection: which blocks there are, in which order, and what they hold, whatever the nodes say.

The ring holds the headers that were followed, deeper than finality. A new head is only a hash: its header is fetched
by that hash, missing parents are fetched by theirs, until one is in the ring. What stands above that one is replaced;
nothing is taken from `removed` flags, which nodes do not send reliably. A head that conflicts with the ring must be
confirmed by its node as the canonical block of its number, so that a late report of an orphan changes nothing; a node
that lags reports a known block, and that is no reorganisation.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from itertools import pairwise

from collectors.dex.blocks import Header, Log, checked_logs, links
from collectors.dex.errors import AllNodesFailed, BadAnswer, ChainError, DeepReorg, NodeError
from collectors.dex.metrics import ChainCounts
from collectors.dex.nodes import Nodes

log = logging.getLogger(__name__)

CATCH_UP = 6
"""A gap longer than this is fetched by numbers in batches, and checked by its links."""
RANGE = 64
RECENT = 16
"""Heads of so many blocks back are recognised without asking."""
RETRIES = 8
FIRST_RETRY_S = 0.02


@dataclass(slots=True)
class Plan:
    """What follows from a new head: blocks to undo, newest first, then headers to apply, oldest first."""

    undo: list[Header] = field(default_factory=list[Header])
    apply: list[Header] = field(default_factory=list[Header])

    def __bool__(self) -> bool:
        return bool(self.undo or self.apply)


class Chain:
    """Follows one chain. Nothing changes the ring but ``begin``, ``push`` and ``pop``."""

    def __init__(self, nodes: Nodes, counts: ChainCounts, *, history_max: int = 4096) -> None:
        self.nodes = nodes
        self.counts = counts
        self.ring: dict[int, Header] = {}
        """Followed headers by number, without a hole."""
        self.tip: Header | None = None
        self.final = -1
        """The highest number that was announced as FINAL."""
        self._history_max = history_max

    def begin(self, header: Header) -> None:
        """Start from this header; what is below it is not known."""
        self.ring = {header.number: header}
        self.tip = header

    def clear(self) -> None:
        """Know no header any more."""
        self.ring, self.tip = {}, None

    def push(self, header: Header) -> None:
        """The header follows the tip."""
        assert self.tip is None or links(header, self.tip), "a header that does not follow"
        self.ring[header.number] = header
        self.tip = header
        if len(self.ring) > self._history_max:
            del self.ring[header.number - self._history_max]

    def pop(self) -> Header:
        """Take the tip off."""
        assert self.tip is not None
        gone = self.ring.pop(self.tip.number)
        self.tip = self.ring.get(gone.number - 1)
        return gone

    async def header(self, block: str | int) -> Header:
        """A header by its hash, or by its number (or a tag's name). Raises ChainError."""
        by_hash = isinstance(block, str) and len(block) == 66
        method = "eth_getBlockByHash" if by_hash else "eth_getBlockByNumber"
        name = hex(block) if isinstance(block, int) else block
        errors: list[str] = []
        for node in self.nodes.order(rotate=by_hash):
            try:
                header: Header | None = await self.nodes.one(node, method, name, False, kind=Header | None)
            except NodeError as error:
                errors.append(str(error))
                continue
            if header is None:
                errors.append(f"{node.url} does not know {name}")
            elif (by_hash and header.hash != block) or (isinstance(block, int) and header.number != block):
                self.counts.bad_answers += 1
                errors.append(f"{node.url} answered {header.hash} ({header.number}) for {name}")
            else:
                return header
        raise AllNodesFailed("; ".join(errors)[:1000])

    async def stands(self, header: Header) -> bool:
        """Whether it is the canonical block of its number now. Raises ChainError."""
        return (await self.header(header.number)).hash == header.hash

    async def holds(self, number: int, block_hash: str) -> bool:
        """Whether a block that was written before a restart is canonical still; a node that lags a little is given a moment."""
        for delay_s in (0.05, 0.2, 0.5, 1.0):
            try:
                return (await self.header(number)).hash == block_hash
            except ChainError:
                await asyncio.sleep(delay_s)
        return False

    async def plan(self, head: str) -> Plan:
        """What has to be done to stand at the head of this hash. Raises ChainError; DeepReorg when it is too deep."""
        assert self.tip is not None
        if self._known(head):
            self.counts.heads_ignored += 1
            return Plan()
        new = await self._retried(head)
        if new.number < self._lowest():
            self.counts.heads_ignored += 1  # a node far behind: whether it is on our branch cannot be said
            return Plan()
        if (ours := self.ring.get(new.number)) is not None or new.number < self.tip.number:
            canonical = await self.header(new.number)
            if canonical.hash != new.hash:
                log.info("head %s (%d) is not canonical: ignored", head, new.number)
                self.counts.heads_ignored += 1
                return Plan()
            if ours is not None and ours.hash == new.hash:
                return Plan()
        upwards = [new]
        if new.number - self.tip.number > CATCH_UP:
            upwards = [*await self._range(self.tip.number + 1, new.number - 1), new]
            for low, high in pairwise(upwards):
                if not links(high, low):
                    raise BadAnswer(f"block {high.number} does not follow {low.hash}: the chain changed while it was read")
        while (parent := self.ring.get(upwards[0].number - 1)) is None or parent.hash != upwards[0].parent_hash:
            first = upwards[0]
            if first.number - 1 <= self.final or first.number - 1 < self._lowest():
                raise DeepReorg(f"block {first.number - 1} was final or is no longer remembered, and was replaced")
            below = await self._retried(first.parent_hash)
            if not links(first, below):
                raise BadAnswer(f"block {below.hash} says {below.number}, its child {first.number}")
            upwards.insert(0, below)
        above = range(self.tip.number, upwards[0].number - 1, -1)
        return Plan([self.ring[n] for n in above], upwards)

    def _lowest(self) -> int:
        """The number of the oldest header in the ring."""
        assert self.tip is not None
        return self.tip.number - len(self.ring) + 1

    async def logs(self, header: Header) -> list[Log]:
        """Every log of this block, checked; asked again, of another node each time, until it can be believed.

        Raises ChainError after RETRIES rounds.
        """
        delay_s, last = FIRST_RETRY_S, ""
        for _ in range(RETRIES):
            for node in self.nodes.order(rotate=True):
                try:
                    found: list[Log] = await self.nodes.one(
                        node, "eth_getLogs", {"blockHash": header.hash}, kind=list[Log]
                    )
                    return checked_logs(header, found)
                except BadAnswer as error:
                    self.counts.bad_answers += 1
                    last = f"{node.url}: {error}"
                except NodeError as error:
                    last = str(error)
            await asyncio.sleep(delay_s)
            delay_s *= 2
        raise BadAnswer(f"the logs of block {header.number} cannot be had: {last}")

    async def finality(self, tags: bool, final_depth: int) -> tuple[int, int]:
        """(highest safe number, highest final number) now, never above the tip; by tags, or by depth below the tip."""
        assert self.tip is not None
        by_depth = self.tip.number - final_depth if final_depth else -1
        if not tags:
            return by_depth, by_depth
        numbers: list[int] = []
        for tag in ("safe", "finalized"):
            try:
                header = await self.header(tag)
            except ChainError:
                numbers.append(by_depth)
                continue
            ours = self.ring.get(header.number)
            # A node on another branch (or ahead of us) must not make our blocks final.
            agrees = header.number <= self.tip.number and (ours is None or ours.hash == header.hash)
            numbers.append(header.number if agrees else -1)
        return max(numbers), numbers[1]

    async def _range(self, low: int, high: int) -> list[Header]:
        out: list[Header] = []
        for start in range(low, high + 1, RANGE):
            numbers = range(start, min(start + RANGE, high + 1))
            found: list[Header | None] = await self.nodes.batch(
                [("eth_getBlockByNumber", [hex(n), False]) for n in numbers], kind=Header | None
            )
            for number, header in zip(numbers, found, strict=True):
                if header is None or header.number != number:
                    raise BadAnswer(f"no node knows block {number}")
                out.append(header)
        return out

    async def _retried(self, block_hash: str) -> Header:
        """A header that was announced a moment ago: other nodes may need a moment to hear of it."""
        for delay_s in (FIRST_RETRY_S, 3 * FIRST_RETRY_S):
            try:
                return await self.header(block_hash)
            except AllNodesFailed:
                await asyncio.sleep(delay_s)
        return await self.header(block_hash)

    def _known(self, head: str) -> bool:
        if self.tip is None:
            return False
        recent = (self.ring.get(n) for n in range(self.tip.number, self.tip.number - RECENT, -1))
        return any(h is not None and h.hash == head for h in recent)
