"""A chain's records out: chain.block, chain.pool, and its pools in market.*.

Nothing of a chain may be dropped, because a hole in it cannot be asked for again cheaply: when Kafka is behind, the
next block waits (``room``), and the chain itself is the buffer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bus.errors import QueueFull
from bus.producer import Producer
from collectors.dex.metrics import ChainCounts
from collectors.dex.mirror import Emission, MirrorBlock
from collectors.dex.protocol import fixed_lines
from schemas.codec import codec
from schemas.topics import BOOK, CHAIN_BLOCK, CHAIN_PENDING, CHAIN_POOL, DEAD_LETTER, INSTRUMENT, STATUS, market_key

WORD = 1 << 256
PAYLOAD_MAX = 65_536
HASHES = 1024
"""Hashes remembered as bytes."""


class ChainPublisher:
    """Writes one chain's records through ``producer``; ``limit`` records may wait before ``room`` holds."""

    def __init__(
        self, chain: str, producer: Producer, counts: ChainCounts, *, owner: str = "", beat_ms: int = 0, limit: int = 200_000
    ) -> None:
        self.chain = chain
        self.owner = owner
        self.beat_ms = beat_ms
        self.counts = counts
        self.received_ns = time.time_ns()
        """When the block that is written now was heard of."""
        self._producer = producer
        self._limit = limit
        self._hashes: dict[str, bytes] = {}
        self._encode_pool = codec("ChainPool").encode_row
        self._encode_block = codec("ChainBlock").encode
        self._encode_book = codec("BookEvent").hurry().encode
        self._encode_status = codec("BookStatus").encode
        self._encode_pending = codec("ChainPending").encode

    async def room(self) -> None:
        """Wait until Kafka has taken enough that a whole block can be queued."""
        while len(self._producer) > self._limit // 2:
            self.counts.waits += 1
            self._producer.poll(0)
            await asyncio.sleep(0.02)

    def pool(self, emission: Emission) -> None:
        """One record of chain.pool."""
        pool = emission.pool
        slots = emission.slots
        data = self._encode_pool(
            chain=self.chain,
            pool=pool.ident,
            kind=emission.kind,
            epoch=pool.epoch,
            index=pool.index,
            event=emission.event,
            block_number=emission.block_number,
            block_hash=self._raw(emission.block_hash),
            tx_hash=self._raw(emission.tx_hash),
            log_index=emission.log_index,
            slots=list(slots),
            values=[(v if v >= 0 else v % WORD).to_bytes(32, "big") for v in slots.values()],
            fixed=fixed_lines(pool.fixed) if emission.kind == "SNAPSHOT" else [],
            ts_received_ns=self.received_ns,
        )
        if emission.kind == "RETRACT":
            self.counts.retracts += 1
        else:
            self.counts.events += 1
        self._put(CHAIN_POOL.name, f"{self.chain}|{pool.ident}", data)

    def _raw(self, text: str) -> bytes:
        """A hash's bytes; a block's and a transaction's come many times in a row."""
        if (raw := self._hashes.get(text)) is None:
            if len(self._hashes) >= HASHES:
                self._hashes.clear()
            raw = self._hashes[text] = bytes.fromhex(text[2:])
        return raw

    def block(self, kind: str, block: MirrorBlock, events: int) -> None:
        """One record of chain.block."""
        record = {
            "chain": self.chain,
            "kind": kind,
            "number": block.number,
            "hash": bytes.fromhex(block.hash[2:]),
            "parent_hash": bytes.fromhex(block.parent_hash[2:]),
            "ts_block_us": block.ts_us,
            "base_fee_wei": block.base_fee_wei,
            "events": events,
            "logs": block.logs,
            "ts_received_ns": self.received_ns,
        }
        self._put(CHAIN_BLOCK.name, self.chain, self._encode_block(record))

    def pending(self, record: dict[str, Any]) -> None:
        """One record of chain.pending; dropped where Kafka is behind, and counted: it is worth nothing when it is late."""
        key = f"{self.chain}|0x{record['tx_hash'].hex()}"
        try:
            self._producer.send(CHAIN_PENDING.name, key, self._encode_pending({"chain": self.chain, **record}))
        except QueueFull:
            self.counts.pending_unwritten += 1

    def book(self, record: dict[str, Any]) -> None:
        """One record of market.book."""
        self.counts.book_events += 1
        self._put(BOOK.name, market_key(record["venue"], record["symbol"]), self._encode_book(record))

    def status(self, venue: str, symbol: str, state: str, reason: str, epoch: int) -> None:
        """One record of market.status."""
        self.counts.statuses += 1
        record = {
            "venue": venue, "symbol": symbol, "state": state, "reason": reason[:500], "epoch": epoch,
            "since_ns": time.time_ns(), "owner": self.owner, "beat_ms": self.beat_ms,
        }  # fmt: skip
        self._put(STATUS.name, market_key(venue, symbol), self._encode_status(record))

    def instrument(self, record: dict[str, Any]) -> None:
        """One record of market.instrument."""
        self._put(INSTRUMENT.name, market_key(record["venue"], record["symbol"]), codec("Instrument").encode(record))

    def dead_letter(self, payload: bytes, error: str) -> None:
        """What nobody could read; at most the first PAYLOAD_MAX bytes."""
        self.counts.dead_letters += 1
        record = {
            "source_topic": self.chain, "source_partition": -1, "source_offset": -1, "error": error[:1000],
            "payload": payload[:PAYLOAD_MAX], "payload_size": len(payload), "ts_ns": time.time_ns(),
        }  # fmt: skip
        self._put(DEAD_LETTER.name, self.chain, codec("DeadLetter").encode(record))

    def _put(self, topic: str, key: str, value: bytes) -> None:
        """Queue a record; with a full queue Kafka is given time right here, because the block must stay whole."""
        while True:
            try:
                self._producer.send(topic, key, value)
                return
            except QueueFull:
                self.counts.waits += 1
                self._producer.poll(0.05)
