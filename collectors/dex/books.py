"""The books of all mirrored pools: one for each pair of a pool's tokens, kept in step with the pools."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import combinations

from bus.partitions import home
from collectors.dex.blocks import Header
from collectors.dex.pool_book import PoolBook
from collectors.dex.protocol import MirroredPool
from collectors.dex.publisher import ChainPublisher
from collectors.dex.tokens import Tokens
from collectors.heartbeat import due
from schemas.topics import market_key

UPDATES_A_ROOM = 64
"""Books written before Kafka is asked for room again."""


class PoolBooks(dict[str, PoolBook]):
    """By the pool's ident; the books of a pool with more than two tokens by ident:i-j."""

    def __init__(
        self, publisher: ChainPublisher, tokens: Tokens, ladder_bps: tuple[int, ...], reason: Callable[[str], str]
    ) -> None:
        super().__init__()
        self._reason = reason
        self._publisher = publisher
        self._tokens = tokens
        self._bps = ladder_bps

    async def update(self, pools: Iterable[MirroredPool], header: Header, ts_ns: int) -> None:  # pyright: ignore
        """Bring every book of these pools in step; announces those that are new."""
        count = 0
        for pool in pools:
            for key, i, j in _pairs(pool):
                book = self.get(key)
                if book is None:
                    book = self[key] = self._made(pool, i, j)
                    book.announce()
                book.refusal = self._refusal(pool.token_names[i]) or self._refusal(pool.token_names[j])
                book.update(header, ts_ns)
                count += 1
                if count % UPDATES_A_ROOM == 0:
                    await self._publisher.room()

    def of(self, pool: MirroredPool) -> list[PoolBook]:
        """The pool's books that there are."""
        return [self[key] for key, _, _ in _pairs(pool) if key in self]

    def delist(self, pool: MirroredPool, reason: str) -> None:
        """The pool never was."""
        for key, _, _ in _pairs(pool):
            if (book := self.pop(key, None)) is not None:
                book.delist(reason)

    def beat(self, partitions: int, beat_ns: int) -> None:
        """Heartbeats into the partitions of market.book, of which there are so many, where nothing was written lately."""
        live = (
            (home(market_key(b.venue, b.symbol).encode(), partitions), b.written_ns, b)
            for b in self.values() if b.state == "LIVE" and b.index >= 0
        )  # fmt: skip
        for book in due(live, time.time_ns(), beat_ns):
            book.beat()

    def _refusal(self, token: str) -> str:
        """Why a pool of this token must not be traded; empty: nothing is known against it."""
        reason = self._reason(token)
        return f"{self._tokens[token].asset}: {reason}" if reason else ""

    def _made(self, pool: MirroredPool, i: int, j: int) -> PoolBook:
        names = pool.token_names
        swapped, _ = self._tokens.base_quote(names[i], names[j])
        base, quote = (j, i) if swapped else (i, j)
        tokens = tuple(self._tokens[name] for name in names)
        return PoolBook(pool, tokens, base, quote, self._publisher, self._bps)


def _pairs(pool: MirroredPool) -> list[tuple[str, int, int]]:
    count = len(pool.token_names)
    if count == 2:
        return [(pool.ident, 0, 1)]
    return [(f"{pool.ident}:{i}-{j}", i, j) for i, j in combinations(range(count), 2)]
