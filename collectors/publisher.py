"""Records out: builds, encodes and hands over, and says so when Kafka is behind.

Every method returns whether the record was taken. It is not when the queue to Kafka is full; the caller then decides
what becomes of the book. Statuses may use a reserve of the queue that books may not, so that a book can still say GAP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bus.errors import QueueFull
from collectors.events import (
    FundingEvent,
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    TickerEvent,
    TradeEvent,
)
from collectors.metrics import Counts
from schemas.codec import codec
from schemas.topics import (
    BOOK,
    DEAD_LETTER,
    FUNDING,
    INSTRUMENT,
    LIQUIDATION,
    MARK_PRICE,
    OPEN_INTEREST,
    STATUS,
    TICKER,
    TRADE,
    Topic,
    market_key,
)

if TYPE_CHECKING:
    from collectors.local_book import Columns
    from collectors.venue import Listing
    from collectors.worker import BookWorker

log = logging.getLogger(__name__)

Send = Callable[[str, str, bytes], object]
"""``send(topic, key, value)``: takes it without blocking, or raises QueueFull."""

PAYLOAD_MAX = 65_536
CHECK_EVERY = 128
"""Records between two looks at the length of the queue."""


class Publisher:
    """Writes one venue's records through ``send``.

    ``beat_ms``: its statuses say that each partition hears of it that often; 0: they do not (see heartbeat.py).
    ``waiting`` tells how many records wait for Kafka; above ``limit`` the publisher is congested and refuses
    everything but statuses until fewer than half of it wait.
    """

    def __init__(
        self,
        venue: str,
        send: Send,
        counts: Counts,
        *,
        owner: str = "",
        beat_ms: int = 0,
        waiting: Callable[[], int] = int,
        limit: int = 200_000,
        exact: bool = True,
    ) -> None:
        self.venue = venue
        self.exact = exact
        self.owner = owner
        self.beat_ms = beat_ms
        self.counts = counts
        self.congested = False
        self._send = send
        self._waiting = waiting
        self._limit = limit
        self._until_check = CHECK_EVERY
        self._encode_book = codec("BookEvent").hurry().encode_row
        self._encode_status = codec("BookStatus").encode
        self._encode_trade = codec("Trade").hurry().encode_row
        self._encode_ticker = codec("Ticker").hurry().encode_row
        self._encode_instrument = codec("Instrument").encode
        self._encode_dead_letter = codec("DeadLetter").encode

    def check_queue(self) -> bool:
        """Look at the queue's length now; gives whether books may be written."""
        waiting = self._waiting()
        if self.congested:
            self.congested = waiting > self._limit // 2
        elif waiting >= self._limit:
            self.congested = True
            log.warning("%s: kafka is behind: %d records wait", self.venue, waiting)
        return not self.congested

    def book(
        self,
        worker: BookWorker,
        kind: str,
        prev_seq: int,
        columns: Columns,
        checksum: int | None = None,
    ) -> bool:
        """Write a SNAPSHOT, DELTA or KEYFRAME at the worker's epoch, index and sequence. EncodeError: beyond 64 bits."""
        self._until_check -= 1
        if not self._until_check:
            self._until_check = CHECK_EVERY
            self.check_queue()
        if self.congested:
            return False
        value = self._encode_book(
            venue=self.venue,
            symbol=worker.symbol,
            kind=kind,
            epoch=worker.epoch,
            index=worker.index,
            venue_seq=worker.last_seq,
            venue_prev_seq=prev_seq,
            ts_venue_us=worker.ts_venue_us,
            ts_received_ns=worker.ts_received_ns,
            price_exp=worker.local.prices.exponent,
            size_exp=worker.local.sizes.exponent,
            bid_prices=columns[0],
            bid_sizes=columns[1],
            ask_prices=columns[2],
            ask_sizes=columns[3],
            venue_checksum=checksum,
            exact=self.exact,
        )
        return self._put(BOOK.name, worker.key, value)

    def status(self, worker: BookWorker, reason: str) -> bool:
        """Write the worker's state."""
        return self.status_of(worker.symbol, worker.state, reason, worker.epoch, worker.since_ns)

    def status_of(self, symbol: str, state: str, reason: str, epoch: int, since_ns: int) -> bool:
        """Write the state of a book, also one that has no worker (a delisting found at the start)."""
        record = {
            "venue": self.venue,
            "symbol": symbol,
            "state": state,
            "reason": reason[:500],
            "epoch": epoch,
            "since_ns": since_ns,
            "owner": self.owner,
            "beat_ms": self.beat_ms,
        }
        taken = self._put(STATUS.name, market_key(self.venue, symbol), self._encode_status(record))
        self.counts.statuses += taken
        return taken

    def trade(self, worker: BookWorker, event: TradeEvent, price: int, size: int, ts_received_ns: int) -> bool:
        """Write one trade; a refused one is counted as dropped."""
        if self.congested:
            self.counts.dropped += 1
            return False
        value = self._encode_trade(
            venue=self.venue,
            symbol=worker.symbol,
            trade_id=event.trade_id,
            taker_side=event.taker_side,
            price=price,
            size=size,
            price_exp=worker.local.prices.exponent,
            size_exp=worker.local.sizes.exponent,
            ts_venue_us=event.ts_venue_us,
            ts_received_ns=ts_received_ns,
        )
        taken = self._put(TRADE.name, worker.key, value)
        self.counts.trades += taken
        self.counts.dropped += not taken
        return taken

    def ticker(
        self,
        worker: BookWorker,
        event: TickerEvent,
        bid_price: int,
        bid_size: int,
        ask_price: int,
        ask_size: int,
        ts_received_ns: int,
    ) -> bool:
        """Write the venue's own best bid and offer, as mantissas at the worker's exponents."""
        if self.congested:
            self.counts.dropped += 1
            return False
        value = self._encode_ticker(
            venue=self.venue,
            symbol=worker.symbol,
            venue_seq=event.seq,
            bid_price=bid_price,
            bid_size=bid_size,
            ask_price=ask_price,
            ask_size=ask_size,
            price_exp=worker.local.prices.exponent,
            size_exp=worker.local.sizes.exponent,
            ts_venue_us=event.ts_venue_us,
            ts_received_ns=ts_received_ns,
        )
        taken = self._put(TICKER.name, worker.key, value)
        self.counts.tickers += taken
        self.counts.dropped += not taken
        return taken

    def funding(self, worker: BookWorker, event: FundingEvent, rate: int, rate_exp: int, ts_received_ns: int) -> bool:
        """Write a funding rate."""
        body = {"rate": rate, "rate_exp": rate_exp, "interval_us": event.interval_us, "next_us": event.next_us}
        return self._side(FUNDING, worker, body, event.ts_venue_us, ts_received_ns)

    def mark_price(
        self,
        worker: BookWorker,
        event: MarkPriceEvent,
        mark: int | None,
        index: int | None,
        price_exp: int,
        ts_received_ns: int,
    ) -> bool:
        """Write mark and index price."""
        body = {"mark_price": mark, "index_price": index, "price_exp": price_exp}
        return self._side(MARK_PRICE, worker, body, event.ts_venue_us, ts_received_ns)

    def open_interest(
        self, worker: BookWorker, event: OpenInterestEvent, amount: int, amount_exp: int, ts_received_ns: int
    ) -> bool:
        """Write the open interest."""
        body = {"amount": amount, "amount_exp": amount_exp, "unit": event.unit}
        return self._side(OPEN_INTEREST, worker, body, event.ts_venue_us, ts_received_ns)

    def liquidation(
        self, worker: BookWorker, event: LiquidationEvent, price: int, size: int, ts_received_ns: int
    ) -> bool:
        """Write a forced order."""
        body = {
            "liquidation_id": event.liquidation_id,
            "side": event.side,
            "price": price,
            "size": size,
            "price_exp": worker.local.prices.exponent,
            "size_exp": worker.local.sizes.exponent,
        }
        return self._side(LIQUIDATION, worker, body, event.ts_venue_us, ts_received_ns)

    def _side(
        self, topic: Topic, worker: BookWorker, body: dict[str, Any], ts_venue_us: int, ts_received_ns: int
    ) -> bool:
        if self.congested:
            self.counts.dropped += 1
            return False
        body |= {"venue": self.venue, "symbol": worker.symbol}
        body |= {"ts_venue_us": ts_venue_us, "ts_received_ns": ts_received_ns}
        taken = self._put(topic.name, worker.key, codec(topic.record).encode(body))
        self.counts.derivatives += taken
        self.counts.dropped += not taken
        return taken

    def instrument(self, listing: Listing, state: str, ts_ns: int) -> bool:
        """Write an instrument in this state."""
        record = {name: getattr(listing, name) for name in listing.__dataclass_fields__}
        record |= {"venue": self.venue, "state": state, "ts_ns": ts_ns}
        key = market_key(self.venue, listing.symbol)
        taken = self._put(INSTRUMENT.name, key, self._encode_instrument(record))
        self.counts.instruments_changed += taken
        return taken

    def dead_letter(self, payload: bytes, error: str, ts_ns: int) -> bool:
        """Write bytes that nobody could read; at most the first PAYLOAD_MAX of them."""
        self.counts.dead_letters += 1
        record = {
            "source_topic": self.venue,
            "source_partition": -1,
            "source_offset": -1,
            "error": error[:1000],
            "payload": payload[:PAYLOAD_MAX],
            "payload_size": len(payload),
            "ts_ns": ts_ns,
        }
        taken = not self.congested and self._put(DEAD_LETTER.name, self.venue, self._encode_dead_letter(record))
        self.counts.dropped += not taken
        return taken

    def _put(self, topic: str, key: str, value: bytes) -> bool:
        try:
            self._send(topic, key, value)
        except QueueFull:
            if not self.congested:
                self.congested = True
                log.warning("%s: the queue to kafka is full", self.venue)
            return False
        return True
