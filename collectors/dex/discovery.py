"""Pools that were created before: the factories' events over a range of blocks, completed where they do not name them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from collectors.dex.blocks import Header, Log
from collectors.dex.errors import BadAnswer, ChainError
from collectors.dex.nodes import Nodes
from collectors.dex.protocol import Locating, MirroredPool, Protocol

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
    nodes: Nodes, protocols: Sequence[tuple[Protocol, int]], last: Header, range_max: int
) -> list[MirroredPool]:
    """The pools that the factories created from their start blocks up to ``last``; start -1: none. Raises ChainError."""
    out: dict[str, MirroredPool] = {}
    for protocol, start in protocols:
        if start < 0:
            continue
        topics = protocol.creation_topics
        found = await logs_in_range(nodes, [protocol.address], topics, start, last.number, range_max)
        (found,) = await located(nodes, [protocol], [found], last, last, range_max)
        for entry in found:
            try:
                pool = protocol.created(entry)
            except (ChainError, ValueError, IndexError) as error:
                log.error("%s: a creation event that cannot be read: %s", protocol.address, error)
                continue
            out[pool.ident] = pool
    return list(out.values())


async def located(
    nodes: Nodes, protocols: Sequence[Protocol], logs: Sequence[list[Log]], last: Header, at: Header, range_max: int
) -> list[list[Log]]:
    """The logs of consecutive blocks up to ``last``, with their creation events completed; asked for at block ``at``.

    ``at`` is the newest block, because nodes forget the states of old ones; what was created between the two is counted
    by its events. An event that cannot be completed stays as it is. Raises ChainError when the chain cannot be asked.
    """
    out = [list(block) for block in logs]
    for protocol in protocols:
        if not protocol.locates:
            continue
        topics = set(protocol.creation_topics)
        places = [
            (b, n) for b, block in enumerate(out) for n, e in enumerate(block)
            if e.address == protocol.address and e.topics and e.topics[0] in topics
        ]  # fmt: skip
        if not places:
            continue
        later = 0
        if last.number < at.number:
            span = (last.number + 1, at.number, range_max)
            later = len(await logs_in_range(nodes, [protocol.address], protocol.creation_topics, *span))
        entries = [out[b][n] for b, n in places]
        try:
            found = await _driven(nodes, protocol.locate(entries, later), at.hash)
        except (BadAnswer, ValueError, IndexError) as error:
            log.error("%s: %d created pools cannot be found: %s", protocol.address, len(entries), error)
            continue
        for (b, n), entry, more in zip(places, entries, found, strict=True):
            out[b][n] = msgspec.structs.replace(entry, topics=[*entry.topics, *more])
    return out


async def _driven(nodes: Nodes, locating: Locating, block_hash: str) -> list[list[str]]:
    batch = next(locating)
    while True:
        answers = [a or "0x" for a in await nodes.calls(batch, block_hash, reverts=True)]
        try:
            batch = locating.send(answers)
        except StopIteration as done:
            return done.value


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
