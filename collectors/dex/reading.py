"""Pools read by calls at one block, many at a time; and the continuous proof that compares them with the mirror."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from collectors.dex.blocks import words
from collectors.dex.errors import ChainError
from collectors.dex.metrics import ChainCounts
from collectors.dex.nodes import Nodes
from collectors.dex.protocol import Call, MirroredPool, Reading, Slots
from market.pools.pool import PoolError

log = logging.getLogger(__name__)

CONFIRM_S = 0.1
TOGETHER = 32
"""Pools whose readings run in step, so that their calls share requests."""
TOGETHER_MOVING = 400
"""The same for what moves by itself: few calls a pool, of many pools, at every head."""


async def read_pools(
    nodes: Nodes, pools: Sequence[MirroredPool], block_hash: str, *, moving: bool = False
) -> dict[str, Slots]:
    """The whole states of these pools at this block (``moving``: what moves by itself), by ident.

    Those that are not there then, or answer what cannot be, are left out.

    Raises ChainError when the chain cannot be asked.
    """
    out: dict[str, Slots] = {}
    together = TOGETHER_MOVING if moving else TOGETHER
    for start in range(0, len(pools), together):
        part = pools[start : start + together]
        readings = {p.ident: p.protocol.read_moving(p) if moving else p.protocol.read(p) for p in part}
        out |= await _together(nodes, readings, block_hash)
    return out


async def _together(nodes: Nodes, readings: dict[str, Reading], block_hash: str) -> dict[str, Slots]:
    out: dict[str, Slots] = {}
    wanted: dict[str, list[Call]] = {ident: next(reading) for ident, reading in readings.items()}
    while wanted:
        calls = [c for batch in wanted.values() for c in batch]
        answers = iter([a or "0x" for a in await nodes.calls(calls, block_hash, reverts=True)])
        following: dict[str, list[Call]] = {}
        for ident, batch in wanted.items():
            mine = [next(answers) for _ in batch]
            try:
                following[ident] = readings[ident].send(mine)
            except StopIteration as done:
                out[ident] = done.value
            except (ChainError, ValueError, IndexError) as error:
                log.warning("pool %s cannot be read at %s: %s", ident, block_hash, error)
        wanted = following
    return out


class Proof:
    """Compares a sample of the changed pools with the chain at that very block: state, and one quote each."""

    def __init__(self, nodes: Nodes, counts: ChainCounts, budget: int, seed: int = 0) -> None:
        self._nodes = nodes
        self._counts = counts
        self._budget = budget
        self._rng = Random(seed)  # noqa: S311 - a sample, not a secret

    async def compare(self, changed: Sequence[MirroredPool], block_hash: str) -> dict[str, str]:
        """What differs: ident → both sides in words; empty when everything agrees. Spends at most the budget of calls.

        The pools must not change while this runs. Raises ChainError when the chain cannot be asked.
        """
        if not self._budget or not changed:
            return {}
        differing: dict[str, str] = {}
        spent = 0
        for pool in self._rng.sample(list(changed), len(changed)):
            reading = pool.protocol.check(pool, self._rng)
            cost = len(first := next(reading))
            if spent and spent + cost + 1 > self._budget:
                break
            spent += cost + 1
            theirs = await _drive(self._nodes, reading, first, block_hash)
            self._counts.proofs += 1
            wrong = {n: (pool.slots.get(n, 0), v) for n, v in theirs.items() if pool.slots.get(n, 0) != v}
            if wrong:
                name, (ours, their) = next(iter(wrong.items()))
                differing[pool.ident] = f"{name}: mirror {ours}, chain {their} ({len(wrong)} slots differ)"
            elif problem := await self._quote(pool, block_hash):
                differing[pool.ident] = problem
        return differing

    async def confirmed(
        self, changed: Sequence[MirroredPool], block_hash: str, stands: Callable[[], Awaitable[bool]]
    ) -> dict[str, str]:
        """``compare``, and what differs once more a moment later, with the block still the canonical one.

        Nodes look up a block's state by its number, and one that is replacing that block answers from both branches.
        """
        differing = await self.compare(changed, block_hash)
        if not differing:
            return {}
        await asyncio.sleep(CONFIRM_S)
        again = await self.compare([p for p in changed if p.ident in differing], block_hash)
        return {i: t for i, t in again.items() if i in differing} if await stands() else {}

    async def _quote(self, pool: MirroredPool, block_hash: str) -> str:
        i = self._rng.randrange(2)
        amount = self._rng.randrange(1, 10 ** self._rng.randint(2, 24))
        asked = pool.protocol.quote_call(pool, i, amount)
        if asked is None:
            return ""
        try:
            ours = pool.pool.amount_out(i, 1 - i, amount)
        except PoolError:
            return ""  # beyond what the pool holds: contracts answer that in many ways
        (answer,) = await self._nodes.calls([asked], block_hash, reverts=True)
        theirs = words(answer)[0] if answer and len(answer) > 2 else None
        self._counts.proof_quotes += 1
        return "" if theirs == ours else f"{amount} of token{i} buys: mirror {ours}, chain {theirs}"


async def _drive(nodes: Nodes, reading: Reading, batch: list[Call], block_hash: str) -> Slots:
    while True:
        answers = [a or "0x" for a in await nodes.calls(batch, block_hash, reverts=True)]
        try:
            batch = reading.send(answers)
        except StopIteration as done:
            return done.value
        except (ValueError, IndexError) as error:
            raise ChainError(f"an answer that cannot be read: {error}") from error
