"""The mirror in step with the chain: begins or resumes, follows each head, retracts, announces finality, proves.

Everything that changes the mirror happens in one task, block by block; a failure leaves it at a whole block, and the
next head starts from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from itertools import takewhile

from collectors.dex.blocks import Header, Log, links
from collectors.dex.books import PoolBooks
from collectors.dex.chain import Chain
from collectors.dex.discovery import Serials, created_before, located
from collectors.dex.errors import BadAnswer, ChainError, DeepReorg
from collectors.dex.metrics import ChainCounts
from collectors.dex.mirror import Mirror, MirrorBlock, Outcome
from collectors.dex.moving import Moving
from collectors.dex.nodes import Nodes
from collectors.dex.protocol import MirroredPool, Protocol, Slots
from collectors.dex.publisher import ChainPublisher
from collectors.dex.reading import Proof, read_at
from collectors.dex.recovery import Recovered
from collectors.dex.tokens import Tokens
from collectors.dex.transfers import Transfers
from config.chains import ChainSettings

log = logging.getLogger(__name__)

START_BEHIND = 32
"""Blocks below the head where a mirror without records begins."""
AHEAD = 32
"""Blocks whose logs are fetched before the first of them is applied."""


class Follower:
    """One chain's mirror, books and records."""

    def __init__(
        self,
        settings: ChainSettings,
        protocols: list[tuple[Protocol, int]],
        nodes: Nodes,
        publisher: ChainPublisher,
        tokens: Tokens,
        counts: ChainCounts,
    ) -> None:
        self.settings = settings
        self.nodes = nodes
        self.publisher = publisher
        self.tokens = tokens
        self.counts = counts
        self.chain = Chain(nodes, counts, history_max=settings.history_max)
        self.mirror = Mirror(
            [p for p, _ in protocols],
            publisher.pool,
            unreadable=self._unreadable,
            wants=self._wants,
            history_max=settings.history_max,
        )
        self._transfers = Transfers(nodes, counts)
        self.books = PoolBooks(publisher, tokens, settings.ladder_bps, self._transfers.reason)
        self.serials = Serials()
        self.stale = False
        self.idle = True
        """The books are in step with the mirror, and the mirror with its tip."""
        self.advanced_s = time.monotonic()
        """When a head was last followed."""
        self._protocols = protocols
        self._proof = Proof(nodes, counts, settings.proof_calls)
        self._open: dict[str, MirrorBlock] = {}
        self._only = {p.lower() for p in settings.pools}
        self._safe = -1
        self._changed: dict[str, MirroredPool] = {}
        """Pools whose books are not yet in step: kept when a head fails half-way."""
        self._last_changed: list[MirroredPool] = []
        self._moving = Moving(self.mirror)

    # Starting.

    async def start(self, recovered: Recovered) -> None:
        """Resume where the records end, or begin at the present head. Raises ChainError; then start from records read anew."""
        self.mirror.blocks.clear()
        self.mirror.suspect.clear()
        self._open.clear()
        self.chain.clear()
        if recovered.blocks and recovered.cut:
            # A pool whose last record has expired would be missing in silence: every pool is read anew instead.
            log.warning("chain.pool no longer holds its beginning: all pools are read anew")
            self.mirror.adopt(dict(recovered.pools))
            self.chain.final = self._safe = recovered.final
        elif recovered.blocks:
            try:
                await self._resume(recovered)
                return
            except DeepReorg as error:
                log.error("%s", error)
        await self._begin()

    async def _begin(self) -> None:
        """Every pool is read by calls at one block; its events before that are not told.

        The block is a little below the head, so that a reorganisation right after the start can be undone as any.
        """
        latest = await self.chain.header("latest")
        header = await self.chain.header(max(0, latest.number - START_BEHIND))
        known = [p for p in self.mirror.pools.values() if p.created[0] <= header.number]
        found = await created_before(self.nodes, self._protocols, header, self.settings.range_max)
        await self._load_tokens([*known, *found], header)
        pools = {p.ident: p for p in found if self._wants(p)} | {p.ident: p for p in known}
        states = await self._read(list(pools.values()), header)
        for old in reversed(self.mirror.blocks):
            if old.number <= self.chain.final or await self.chain.holds(old.number, old.hash):
                break
            # Its events are not retracted one by one: each of its pools begins a new epoch below.
            self.publisher.block("RETRACTED", old, 0)
        self.chain.begin(header)
        self._open.clear()
        self.mirror.blocks.clear()
        block = MirrorBlock.of(header)
        self.mirror.blocks.append(block)
        self.publisher.received_ns = time.time_ns()
        for ident in [i for i in self.mirror.pools if i not in states]:
            self.books.delist(self.mirror.pools.pop(ident), "the block that created it was replaced")
        for ident, slots in states.items():
            self.counts.snapshots += 1
            self.mirror.snapshot(pools[ident], slots, block)
            self.serials.note(pools[ident])
            self._moving.note(pools[ident])
        self.publisher.block("COMPLETE", block, 0)
        await self._update_books([pools[i] for i in states], header)

    async def _resume(self, recovered: Recovered) -> None:
        mirror, chain = self.mirror, self.chain
        mirror.adopt(recovered.pools)
        mirror.blocks.extend(recovered.blocks)
        chain.final = self._safe = recovered.final
        for block in sorted(recovered.open.values(), key=lambda b: b.number, reverse=True):
            if await self.chain.holds(block.number, block.hash):
                self._open[block.hash] = block
            else:
                mirror.undo(block)
        while mirror.blocks and not await chain.holds(mirror.blocks[-1].number, mirror.blocks[-1].hash):
            if mirror.blocks[-1].number <= chain.final:
                raise DeepReorg(f"block {mirror.blocks[-1].number} was final and is no longer in the chain")
            await self._undo()
        if not mirror.blocks:
            raise DeepReorg("no block of the records is in the chain any more")
        for block in mirror.blocks:
            header = block.header
            if chain.tip is None or header.number != chain.tip.number + 1:
                chain.begin(header)
            else:
                chain.push(header)
        await self._load_tokens(mirror.pools.values(), await chain.header(mirror.blocks[-1].hash))
        incomplete = next((n for n, b in enumerate(mirror.blocks) if not b.complete), len(mirror.blocks))
        for block in list(mirror.blocks)[incomplete:]:
            header = await chain.header(block.hash)
            ((header, logs),) = await self._fetch([header], await chain.header("latest"))
            mirror.apply(header, logs, block)
        for pool in mirror.pools.values():
            self.serials.note(pool)
            self._moving.note(pool)
            if pool.protocol.read_when_created and pool.snapshot_block < 0:
                mirror.suspect.add(pool.ident)  # it was killed before it could be read
        await self._finish_open()
        assert chain.tip is not None
        with contextlib.suppress(ChainError):  # a node may hold no state so old any more: then they are read at the first head
            await self._read_suspects(chain.tip, {})
        await self._update_books([p for p in mirror.pools.values() if p.ident not in mirror.suspect], chain.tip)

    async def _finish_open(self) -> None:
        """Follow to the end of the newest block of which the records hold some events, and no COMPLETE.

        Their pools stand in that block already. At the tip below it they would be told as what they are not yet there, and
        the proof, which finds them differing, would put them back to a state that these events are never applied to again.
        """
        newest = max((block.number for block in self._open.values()), default=-1)
        self.publisher.received_ns = time.time_ns()
        while (tip := self.chain.tip) is not None and tip.number < newest:
            header = await self.chain.header(tip.number + 1)
            if not links(header, tip):
                raise BadAnswer(f"block {header.hash} does not follow {tip.hash}: the chain changed while it was resumed")
            ((header, logs),) = await self._fetch([header], header)
            await self.publisher.room()
            self._apply(header, logs)

    # Following.

    async def follow(self, head: str) -> bool:
        """Bring everything in step with this head; False when there was nothing to do. Raises ChainError."""
        self.idle = False
        received_ns = time.time_ns()
        try:
            plan = await self.chain.plan(head)
        except DeepReorg as error:
            log.error("%s", error)
            self.counts.deep_reorgs += 1
            await self._begin()
            return True
        if not plan:
            self.idle = not self._changed
            return False
        changed = self._changed
        if plan.undo:
            # The new branch is fetched first: what cannot be read must not leave the books on an orphan's parent.
            self.counts.reorgs += 1
        headers = plan.apply
        fetched = await self._fetch(headers[:AHEAD], headers[-1])
        await self.publisher.room()
        self.publisher.received_ns = received_ns
        if plan.undo:
            self._retract_open(self._open.values())
        for _ in plan.undo:
            outcome = await self._undo()
            changed.update(outcome.changed)
            for pool in outcome.removed:
                changed.pop(pool.ident, None)
        for start in range(0, len(headers), AHEAD):
            if start:
                fetched = await self._fetch(headers[start : start + AHEAD], headers[-1])
            for header, logs in fetched:
                await self.publisher.room()
                changed.update(self._apply(header, logs).changed)
        tip = self.chain.tip
        assert tip is not None
        count, moved = await self._moving.step(self._read, tip)
        self.counts.rereads += count
        changed.update((pool.ident, pool) for pool in moved)
        await self._read_suspects(tip, changed)
        await self._update_books([p for i, p in changed.items() if self.mirror.pools.get(i) is p], tip)
        changed.clear()
        self.idle = True
        self.advanced_s = time.monotonic()
        if self.stale:
            self._fresh(tip)
        return True

    async def after(self) -> None:
        """What has time until the books are out: finality, and the proof at this head. Raises ChainError."""
        await self._finality()
        tip = self.chain.tip
        if tip is None:
            return
        pools = [p for p in self._last_changed if self.mirror.pools.get(p.ident) is p]
        if self.settings.check_transfers and (judged := await self._transfers.check(pools, tip)):
            touched = [p for p in self.mirror.pools.values() if not judged.isdisjoint(p.token_names)]
            await self.books.update(touched, tip, self.publisher.received_ns)
        differing = await self._proof.confirmed(pools, tip.hash, lambda: self.chain.stands(tip))
        for ident, text in differing.items():
            self.counts.mismatches += 1
            log.error("pool %s differs from the chain at block %d: %s", ident, tip.number, text)
            self.publisher.dead_letter(ident.encode(), f"block {tip.number} {tip.hash}: {text}")
            self.mirror.suspect.add(ident)
        if differing:
            changed_now: dict[str, MirroredPool] = {}
            await self._read_suspects(tip, changed_now)
            await self._update_books(changed_now.values(), tip)

    def watch(self, now_s: float) -> None:
        """Say STALE for every book when no head was followed for three block times."""
        limit_s = 3 * self.settings.block_time_ms / 1000
        if not self.stale and self.chain.tip is not None and now_s - self.advanced_s > limit_s:
            self.stale = True
            self.counts.stale += 1
            for book in self.books.values():
                if book.state == "LIVE":
                    book.set_state("STALE", f"no new block for {now_s - self.advanced_s:.1f} s")

    def keyframes(self, max_s: float) -> None:
        """Repeat the books whose key frame is due; not while a head is on its way into them."""
        if self.chain.tip is not None and self.idle and not self.stale:
            now_ns = time.time_ns()
            for book in self.books.values():
                book.keyframe(self.chain.tip, now_ns, max_s)

    # How it is done.

    async def _fetch(self, headers: list[Header], newest: Header) -> list[tuple[Header, list[Log]]]:
        if len(headers) == 1:
            logs = [await self.chain.logs(headers[0])]  # the usual head: no task is made for it
        else:
            logs = await asyncio.gather(*(self.chain.logs(h) for h in headers))
        logs = await located(self.nodes, self.mirror.protocols, logs, headers[-1], newest, self.settings.range_max)
        for header, found in zip(headers, logs, strict=True):
            await self._load_tokens(self.mirror.creations(found), header)
        return list(zip(headers, logs, strict=True))

    def _apply(self, header: Header, logs: list[Log]) -> Outcome:
        self._retract_open([b for b in self._open.values() if b.number <= header.number and b.hash != header.hash])
        outcome = self.mirror.apply(header, logs, self._open.pop(header.hash, None))
        self.chain.push(header)
        self.publisher.block("COMPLETE", outcome.block, outcome.block.events)
        self.counts.blocks += 1
        self.counts.logs += len(logs)
        for pool in outcome.created:
            self.counts.pools_created += 1
            self.serials.note(pool)
            if pool.protocol.read_when_created:
                self.mirror.suspect.add(pool.ident)
        self.counts.rereads += outcome.reread
        self.counts.serial_holes = self.serials.holes()
        return outcome

    async def _undo(self) -> Outcome:
        outcome = self.mirror.undo()
        if self.chain.tip is not None and self.chain.tip.hash == outcome.block.hash:
            self.chain.pop()
        self.publisher.block("RETRACTED", outcome.block, outcome.block.events)
        self.counts.retracted_blocks += 1
        for pool in outcome.removed:
            self.serials.forget(pool)
            self.books.delist(pool, "the block that created it was replaced")
        await self.publisher.room()
        return outcome

    def _retract_open(self, blocks: Iterable[MirrorBlock]) -> None:
        for block in sorted(blocks, key=lambda b: b.number, reverse=True):
            self.mirror.undo(block)
            del self._open[block.hash]

    async def _read_suspects(self, tip: Header, changed: dict[str, MirroredPool]) -> None:
        suspects = [self.mirror.pools[i] for i in self.mirror.suspect if i in self.mirror.pools]
        self.mirror.suspect.clear()
        if not suspects:
            return
        try:
            states = await self._read(suspects, tip)
        except ChainError:
            self.mirror.suspect.update(p.ident for p in suspects)
            for book in (b for pool in suspects for b in self.books.of(pool)):
                book.set_state("GAP", "its state could not be read")
            raise
        for pool in suspects:
            if pool.ident not in states:
                self.mirror.suspect.add(pool.ident)
                for book in self.books.of(pool):
                    book.set_state("GAP", "its state could not be read")
                continue
            self.counts.resyncs += 1
            self.mirror.snapshot(pool, states[pool.ident], self.mirror.blocks[-1])
            self._moving.note(pool)
            changed[pool.ident] = pool

    async def _read(self, pools: list[MirroredPool], header: Header, moving: bool = False) -> dict[str, Slots]:
        """States at this block, or what moves of them; raises BadAnswer when it was replaced while they were read."""
        return await read_at(self.chain, pools, header, moving=moving)

    async def _finality(self) -> None:
        safe, final = await self.chain.finality(self.settings.finality == "tags", self.settings.final_depth)
        said = min(self._safe, self.chain.final)
        newer = list(takewhile(lambda block: block.number > said, reversed(self.mirror.blocks)))
        for block in reversed(newer):
            if self._safe < block.number <= safe:
                self.publisher.block("SAFE", block, block.events)
                self._safe = block.number
            if self.chain.final < block.number <= final:
                self.publisher.block("FINAL", block, block.events)
                self.chain.final = block.number
                self.counts.finals += 1

    async def _update_books(self, pools: Iterable[MirroredPool], header: Header) -> None:
        self._last_changed = list(pools)
        await self.books.update(self._last_changed, header, self.publisher.received_ns)

    def _fresh(self, tip: Header) -> None:
        self.stale = False
        for book in self.books.values():
            if book.state == "STALE":
                book.update(tip, self.publisher.received_ns)

    async def _load_tokens(self, pools: Iterable[MirroredPool], header: Header) -> None:
        names = [name for p in pools for name in p.token_names]
        await self.tokens.load(self.nodes, names, header.hash)

    def _wants(self, pool: MirroredPool) -> bool:
        names = pool.token_names
        wanted = not self._only or pool.ident in self._only
        if self.settings.only_known_tokens:
            wanted = wanted and all(self.tokens.is_known(n) for n in names)
        if not wanted:
            self.counts.pools_unwanted += 1
            return False
        if pool.protocol.name == "solidly":
            for n, name in enumerate(names):
                pool.fixed[f"decimals{n}"] = str(self.tokens[name].decimals)
            pool.pool = pool.protocol.build(pool.fixed)
            pool.protocol.set_slots(pool.pool, pool.slots)
        return True

    def _unreadable(self, entry: Log, error: str) -> None:
        log.error("an event of %s that cannot be read: %s", entry.address, error)
        self.publisher.dead_letter(repr(entry).encode(), f"{entry.address}: {error}")
