"""Pools read by calls at one block, many at a time; and the continuous proof that compares them with the mirror."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from collectors.dex.blocks import Header, words
from collectors.dex.chain import Chain
from collectors.dex.errors import BadAnswer, ChainError
from collectors.dex.metrics import ChainCounts
from collectors.dex.nodes import Nodes
from collectors.dex.protocol import Call, MirroredPool, Reading, Slots
from market.pools.pool import PoolError

log = logging.getLogger(__name__)

CONFIRM_S = (0.05, 0.15, 0.45)
"""Pauses before what differs is asked for again."""
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


async def read_at(chain: Chain, pools: Sequence[MirroredPool], header: Header, *, moving: bool = False) -> dict[str, Slots]:
    """``read_pools`` at a block that is the canonical one of its number still when all is read.

    A node that keeps its newest block's state and the one in the making in one place (anvil does) answers for the newest
    with what the next one has changed already, though it is asked by hash. So what was read while the next block came is
    read once more: the state of a block that is no longer the newest does not change.

    Raises ChainError when the chain cannot be asked, BadAnswer when the block was replaced.
    """
    while True:
        newest = await chain.header("latest")
        states = await read_pools(chain.nodes, pools, header.hash, moving=moving)
        if not await chain.stands(header):
            raise BadAnswer(f"block {header.hash} was replaced while {len(pools)} pools were read")
        if newest.hash != header.hash or (await chain.header("latest")).hash == header.hash:
            return states


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

    async def compare(self, changed: Sequence[MirroredPool], block_hash: str, seed: int) -> dict[str, str]:
        """What differs: ident → both sides in words; empty when everything agrees. Spends at most the budget of calls.

        ``seed`` decides what a pool is asked: the same one asks the same again. The pools must not change while this runs.
        Raises ChainError when the chain cannot be asked.
        """
        if not self._budget or not changed:
            return {}
        differing: dict[str, str] = {}
        spent = 0
        for pool in self._rng.sample(list(changed), len(changed)):
            rng = Random(f"{seed} {pool.ident}")  # noqa: S311 - a sample, not a secret
            reading = pool.protocol.check(pool, rng)
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
            elif problem := await self._quote(pool, block_hash, rng):
                differing[pool.ident] = problem
        return differing

    async def confirmed(
        self, changed: Sequence[MirroredPool], block_hash: str, stands: Callable[[], Awaitable[bool]]
    ) -> dict[str, str]:
        """``compare``, and of that what differs each time that the same is asked again, with the block canonical still.

        A node may answer from the block that it is making (see ``read_at``), or from both branches while it replaces one.
        That passes; a mirror that is wrong differs however often it is asked.
        """
        seed = self._rng.getrandbits(64)
        differing = await self.compare(changed, block_hash, seed)
        for pause_s in CONFIRM_S:
            if not differing:
                return {}
            await asyncio.sleep(pause_s)
            differing = await self.compare([p for p in changed if p.ident in differing], block_hash, seed)
        return differing if differing and await stands() else {}

    async def _quote(self, pool: MirroredPool, block_hash: str, rng: Random) -> str:
        i = rng.randrange(2)
        amount = rng.randrange(1, 10 ** rng.randint(2, 24))
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
