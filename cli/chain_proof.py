"""Compares the mirror's pools with the chain's own at the same block: what Kafka says of them, and their books.

The pools' slots, rebuilt from chain.pool alone, must be the contract's at the very block whose end they are at; and who
walks a pool's book must get from the router or quoter at that block what the levels promise, neither less nor more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any

from bus.consumer import TailReader
from cli.chain_fold import ChainFold
from cli.views import ViewError, Views
from config.settings import Settings
from schemas.codec import codec
from schemas.topics import BOOK, CHAIN_BLOCK, CHAIN_POOL, INSTRUMENT, market_key

SETTLE_S = 120.0
POOLS_A_STEP = 3
READ_MAX = 5000
EXACT = Fraction(1, 10**8)
"""A level's price has 12 digits, rounded against the taker, and its size whole lots: the promise may fall short by so
much of the answer, or by ROUNDING smallest units."""
ROUNDING = 16
BOOK_IS_LEFT = "its book has no key frame yet"
Levels = Sequence[tuple[Fraction, Fraction]]


class ChainProof:
    """``truth_url`` is the simulated chain's (``simulator/evm_answers.py``). Counts what was compared and what differed."""

    def __init__(self, settings: Settings, chain: str, truth_url: str, views: Views) -> None:
        self.chain = chain
        self.folded = ChainFold(chain, audit=False)
        self.compared = self.mismatches = self.books_compared = 0
        self.problems: list[str] = []
        self._url = truth_url
        self._views = views
        self._settings = settings
        self._tail: TailReader | None = None
        self._names: dict[str, tuple[str, str]] = {}
        """Ident → venue and symbol of its book."""
        self._turn = 0

    @property
    def venues(self) -> set[str]:
        """Venue ids of the chain's books."""
        return {name[0] for ident in self.folded.states if (name := self._names.get(ident)) is not None}

    async def step(self) -> None:
        """Read what is new, and compare a few pools."""
        await asyncio.to_thread(self._read)
        idents = [i for i, s in self.folded.states.items() if s is not None]
        for _ in range(min(POOLS_A_STEP, len(idents))):
            self._turn += 1
            await self._pool(idents[self._turn % len(idents)])

    async def conclude(self) -> int:
        """Let the chain come to rest and compare every pool and its book; gives how many were compared whole.

        A book is held against the chain's quotes at the block that its next key frame names: from the block on at which
        the chain rests, every block is the same to a pool.
        """
        await self._views.post_url(f"{self._url}/control/calm")
        listing = await self._views.get_url(f"{self._url}/truth")
        await asyncio.to_thread(self._read)
        names = (self._names.get(p["ident"]) for p in listing["pools"])
        frames = KeyFrames(self._settings, filter(None, names), listing["number"])
        try:
            return await self._conclude({p["ident"]: p for p in listing["pools"]}, frames)
        finally:
            frames.close()

    async def _conclude(self, pools: dict[str, dict[str, Any]], frames: KeyFrames) -> int:
        for ident in [i for i, s in self.folded.states.items() if s is not None and i not in pools]:
            self._differs(f"the chain has no pool {ident}")
        deadline, left = time.monotonic() + SETTLE_S, dict.fromkeys(pools, "not mirrored")
        while left and time.monotonic() < deadline:
            for ident in list(left):
                if left[ident] != BOOK_IS_LEFT and await self._pool(ident):
                    left[ident] = BOOK_IS_LEFT
                if left[ident] == BOOK_IS_LEFT and await self._book(ident, pools[ident], frames):
                    del left[ident]
            await asyncio.to_thread(self._read)
            await asyncio.to_thread(frames.read)
        self.problems += [f"pool {ident} {self._names.get(ident)} was not compared: {why}" for ident, why in left.items()]
        return len(pools) - len(left)

    def close(self) -> None:
        """Stop reading."""
        if self._tail is not None:
            self._tail.close()

    # How it is done.

    def _read(self) -> None:
        if self._tail is None:
            self._tail = TailReader(self._settings, [CHAIN_POOL.name, CHAIN_BLOCK.name, INSTRUMENT.name])
        pool, block, instrument = codec("ChainPool").decode, codec("ChainBlock").decode, codec("Instrument").decode
        while messages := self._tail.poll(READ_MAX, 0.05):
            for message in messages:
                topic, value = message.topic(), message.value()
                if topic == CHAIN_POOL.name:
                    self.folded.pool(pool(value))
                elif topic == CHAIN_BLOCK.name:
                    self.folded.block(block(value))
                elif value is not None:
                    record = instrument(value)
                    self._names[record["native_id"]] = record["venue"], record["symbol"]

    async def _pool(self, ident: str) -> bool:
        """Compare one pool's slots. False: no block was met at which both could be read."""
        tip, ours = self.folded.tip, self.folded.states.get(ident)
        if tip is None or ours is None:
            return False
        ours = dict(ours)
        try:
            answer = await self._views.get_url(f"{self._url}/truth/{ident}?block={tip[1]}")
        except ViewError:
            return False  # replaced meanwhile
        theirs = {name: int(value) for name, value in answer["slots"].items()}
        ours = {n: v for n, v in ours.items() if n in theirs or n.startswith("tick:")}
        self.compared += 1
        if ours != theirs:
            wrong = next(n for n in (*ours, *theirs) if ours.get(n) != theirs.get(n))
            self._differs(f"pool {ident} at block {tip[0]}: {wrong} is {ours.get(wrong)}, the chain has {theirs.get(wrong)}")
        return True

    async def _book(self, ident: str, pool: Mapping[str, Any], frames: KeyFrames) -> bool:
        name = self._names.get(ident)
        frame = frames.newest.get(market_key(*name).encode()) if name else None
        if name is None or frame is None:
            return False
        blocks = dict(self.folded.branch)
        try:
            book = await self._views.book(*name)
        except ViewError:
            return False
        if book["state"] != "LIVE" or (book["epoch"], book["index"]) != frame[:2] or frame[2] not in blocks:
            return False
        tokens = self._settings.chains[self.chain].tokens
        base = int(tokens[pool["tokens"][0]].asset != name[1].partition("/")[0])
        wrong: list[str] = []
        try:
            for side in ("bids", "asks"):
                levels = [(Fraction(price), Fraction(size)) for price, size in book[side]]
                for count in {1, len(levels)} if levels else ():
                    text = await self._walk(ident, pool, base, levels[:count], side == "bids", blocks[frame[2]])
                    if text:
                        wrong.append(f"{name[0]} {name[1]} at block {frame[2]}, {count} {side}: {text}")
        except ViewError:
            return False  # asked again
        for text in wrong:
            self._differs(text)
        self.books_compared += 1
        return True

    async def _walk(
        self, ident: str, pool: Mapping[str, Any], base: int, levels: Levels, sell: bool, block: str
    ) -> str:
        """What is wrong with the promise that walking these levels gives; empty: nothing."""
        decimals = pool["decimals"]
        amount = int(sum((size for _, size in levels), Fraction()) * 10 ** decimals[base])
        promised = sum((price * size for price, size in levels), Fraction()) * 10 ** decimals[1 - base]
        answer = await self._views.get_url(
            f"{self._url}/quote/{ident}?block={block}&token_in={base if sell else 1 - base}&amount={amount}"
            + ("" if sell else "&exact_out=1")
        )
        if answer["amount"] is None:
            return f"{amount} cannot be traded on the chain"
        # Nobody pays or gets a part of a smallest unit.
        spare = int(answer["amount"]) - floor(promised) if sell else ceil(promised) - int(answer["amount"])
        if 0 <= spare <= max(ROUNDING, promised * EXACT):
            return ""
        return f"{amount} of the base is {float(promised):.3f} of the quote, on the chain {answer['amount']}"

    def _differs(self, text: str) -> None:
        self.mismatches += 1
        self.problems.append(f"MISMATCH {text}")


class KeyFrames:
    """The newest key frame of each of these books from block ``since`` on, of those written from now on."""

    def __init__(self, settings: Settings, books: Iterable[tuple[str, str]], since: int) -> None:
        self.newest: dict[bytes, tuple[int, int, int]] = {}
        """By the record's key: (epoch, index, block number)."""
        self._keys = {market_key(*name).encode() for name in books}
        self._since = since
        self._tail = TailReader(settings, [BOOK.name], start="end")
        self._decode = codec("BookEvent").decode

    def read(self) -> None:
        """Take what has come; blocks for at least a fifth of a second, and until nothing waits."""
        while True:
            messages = self._tail.poll(READ_MAX, 0.2)
            for message in messages:
                if message.key() in self._keys:
                    event = self._decode(message.value())
                    if event["kind"] == "KEYFRAME" and event["venue_seq"] >= self._since:
                        self.newest[message.key()] = (event["epoch"], event["index"], event["venue_seq"])
            if len(messages) < READ_MAX:
                return

    def close(self) -> None:
        """Stop reading."""
        self._tail.close()
