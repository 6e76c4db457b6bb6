"""Pools that were created before: the factories' events over a range of blocks, and what the settings leave out."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from collectors.dex.blocks import Log
from collectors.dex.errors import ChainError
from collectors.dex.nodes import Nodes
from collectors.dex.protocol import MirroredPool, Protocol

log = logging.getLogger(__name__)

GROW = 2


async def logs_in_range(
    nodes: Nodes, addresses: Sequence[str], topics: Sequence[str], first: int, last: int, range_max: int
) -> list[Log]:
    """Logs of these contracts with one of these first topics, from ``first`` to ``last``.

    Providers limit ranges in many ways: any refusal halves the range, each success lets it grow again. Raises
    ChainError when even a single block is refused.
    """
    out: list[Log] = []
    size, at = range_max, first
    while at <= last:
        until = min(last, at + size - 1)
        asked = {
            "address": list(addresses), "topics": [list(topics)], "fromBlock": hex(at), "toBlock": hex(until)
        }  # fmt: skip
        try:
            found: list[Log] = await nodes.call("eth_getLogs", asked, kind=list[Log])
        except ChainError:
            if size == 1:
                raise
            size = max(1, (until - at + 1) // 2)
            continue
        out += found
        at = until + 1
        size = min(range_max, size * GROW)
    return out


async def created_before(
    nodes: Nodes, protocols: Sequence[tuple[Protocol, int]], last: int, range_max: int
) -> list[MirroredPool]:
    """The pools that the factories created from their start blocks up to ``last``; start -1: none. Raises ChainError."""
    out: dict[str, MirroredPool] = {}
    for protocol, start in protocols:
        if start < 0:
            continue
        found = await logs_in_range(nodes, [protocol.address], [protocol.creation_topic], start, last, range_max)
        for entry in found:
            try:
                pool = protocol.created(entry)
            except (ChainError, ValueError, IndexError) as error:
                log.error("%s: a creation event that cannot be read: %s", protocol.address, error)
                continue
            out[pool.ident] = pool
    return list(out.values())


class Serials:
    """Counts holes in the serial numbers that some factories give to their pools."""

    def __init__(self) -> None:
        self._seen: dict[str, set[int]] = {}

    def note(self, pool: MirroredPool) -> None:
        """A pool was created."""
        if "serial" in pool.fixed:
            self._seen.setdefault(pool.protocol.address, set()).add(int(pool.fixed["serial"]))

    def forget(self, pool: MirroredPool) -> None:
        """Its creation was retracted."""
        if "serial" in pool.fixed:
            self._seen.get(pool.protocol.address, set()).discard(int(pool.fixed["serial"]))

    def holes(self) -> int:
        """Numbers between the lowest and the highest that were not seen."""
        return sum(max(s) - min(s) + 1 - len(s) for s in self._seen.values() if s)
