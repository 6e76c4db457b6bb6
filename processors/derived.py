"""Derived records out, and dead letters: by confluent-kafka beside Faust, never blocking the stream."""

from __future__ import annotations

import logging
import time
from typing import Any

from bus.errors import QueueFull
from bus.producer import Producer, Producers
from processors.metrics import Counts
from processors.mirror_book import MirrorBook
from schemas.codec import codec
from schemas.topics import BBO, BBO_BY_GROUP, DEAD_LETTER, PROOF

log = logging.getLogger(__name__)

PAYLOAD_MAX = 65_536


class Derived:
    """Writes derived.bbo, derived.proof and dead.letter. A record that the full queue refuses is counted as dropped."""

    def __init__(self, producer: Producer | Producers, counts: Counts, *, groups: bool = False) -> None:
        self._producer = producer
        self._counts = counts
        self._groups = groups
        """Write each best bid and offer to derived.bbo_by_group too."""
        self._said: dict[str, tuple[str, bytes]] = {}
        """(symbol, record) by key, to be repeated."""
        self._encode_bbo = codec("Bbo").hurry().encode
        self._encode_proof = codec("BookProof").encode
        self._encode_dead_letter = codec("DeadLetter").encode
        self._last: dict[str, tuple[Any, ...]] = {}

    def bbo(self, book: MirrorBook, partition: int, state: str, *, always: bool = False) -> None:
        """Write the best bid and offer when it, or the state, changed since the last time (or ``always``)."""
        own = book.book
        bid, ask = own.bids.best() or (0, 0), own.asks.best() or (0, 0)
        now = (state, book.epoch, bid, ask, own.price_exp, own.size_exp)
        if not always and self._last.get(book.key) == now:
            return
        self._last[book.key] = now
        record = {
            "venue": book.venue, "symbol": book.symbol, "state": state, "epoch": book.epoch, "index": book.index,
            "offset": book.offset, "partition": partition, "venue_seq": book.venue_seq,
            "bid_price": bid[0], "bid_size": bid[1], "ask_price": ask[0], "ask_size": ask[1],
            "price_exp": own.price_exp, "size_exp": own.size_exp,
            "ts_venue_us": book.ts_venue_us, "ts_received_ns": book.ts_received_ns,
        }  # fmt: skip
        value = self._encode_bbo(record)
        if self.put(BBO.name, book.key, value):
            self._counts.bbo += 1
        if self._groups:
            self._said[book.key] = (book.symbol, value)
            self.put(BBO_BY_GROUP.name, book.symbol, value)

    def repeat(self, key: str) -> None:
        """Say the book's best bid and offer again to those who watch over all venues."""
        if (said := self._said.get(key)) is not None:
            self.put(BBO_BY_GROUP.name, *said)

    def proof(self, book: MirrorBook, matches: bool) -> None:
        """Write the digest of the book as it is now, at a key frame."""
        record = {
            "venue": book.venue, "symbol": book.symbol, "epoch": book.epoch, "index": book.index,
            "venue_seq": book.venue_seq, "digest": book.book.digest(), "matches": matches,
        }  # fmt: skip
        self.put(PROOF.name, book.key, self._encode_proof(record))

    def dead_letter(self, topic: str, partition: int, offset: int, payload: bytes | None, error: str) -> None:
        """Write what could not be read, with where it stands."""
        self._counts.dead_letters += 1
        log.error("%s[%d]@%d: %s", topic, partition, offset, error)
        payload = payload or b""
        record = {
            "source_topic": topic, "source_partition": partition, "source_offset": offset, "error": error[:1000],
            "payload": payload[:PAYLOAD_MAX], "payload_size": len(payload), "ts_ns": time.time_ns(),
        }  # fmt: skip
        self.put(DEAD_LETTER.name, topic, self._encode_dead_letter(record))

    def forget(self, key: str) -> None:
        """The book is another process's from now on."""
        self._last.pop(key, None)
        self._said.pop(key, None)

    def put(self, topic: str, key: str, value: bytes) -> bool:
        """Queue one record; False, and counted as dropped, when the queue is full."""
        try:
            self._producer.send(topic, key, value)
        except QueueFull:
            self._counts.dropped += 1
            return False
        return True
