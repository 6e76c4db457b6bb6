"""Pools whose state changes by itself, without events: they are read at each head, and told of only when it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from collectors.dex.blocks import Header
from collectors.dex.mirror import Mirror
from collectors.dex.protocol import MirroredPool, Slots

Read = Callable[[list[MirroredPool], Header, bool], Awaitable[dict[str, Slots]]]
"""(pools, block, only what moves) → slots by ident. Raises ChainError."""


class Moving:
    """Those pools of a mirror, by what their protocols say of them."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._idents: set[str] = set()

    def note(self, pool: MirroredPool) -> None:
        """Its state was read: does it go on moving?"""
        if pool.protocol.moves(pool):
            self._idents.add(pool.ident)
        else:
            self._idents.discard(pool.ident)

    async def step(self, read: Read, tip: Header) -> tuple[int, list[MirroredPool]]:
        """Read them all at this head: (how many, those that moved). Raises ChainError.

        Pools that are suspect are left to be read wholly, and so is one that did not answer.
        """
        mirror = self._mirror
        self._idents &= mirror.pools.keys()
        pools = [mirror.pools[i] for i in sorted(self._idents - mirror.suspect)]
        if not pools:
            return 0, []
        found, moved = await read(pools, tip, True), []
        for pool in pools:
            slots = found.get(pool.ident)
            if slots is None:
                mirror.suspect.add(pool.ident)
            elif any(pool.slots.get(name) != value for name, value in slots.items()):
                mirror.snapshot(pool, pool.slots | slots, mirror.blocks[-1])
                self.note(pool)
                moved.append(pool)
        return len(pools), moved
