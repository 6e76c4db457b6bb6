"""What a venue's frames say, in neutral words: the output of every adapter's ``parse``.

Prices and sizes stay the venue's own texts here; the worker turns them into exact integers. ``native`` is the venue's
name of the instrument. Times are microseconds since the epoch, 0 where the venue gives none; sequence numbers are -1
where the venue has none.
"""

from __future__ import annotations

import msgspec

Level = tuple[str, str]
"""(price text, size text); in a delta a size of zero deletes the level."""


class BookDelta(msgspec.Struct, gc=False):
    """Levels that changed, with absolute sizes, and where the event stands in the venue's sequence."""

    native: str
    first_seq: int
    last_seq: int
    prev_seq: int
    bids: list[Level]
    asks: list[Level]
    ts_venue_us: int = 0
    checksum: int | None = None


class BookSnapshot(msgspec.Struct, gc=False):
    """A whole book, from REST or in the stream."""

    native: str
    last_seq: int
    bids: list[Level]
    asks: list[Level]
    ts_venue_us: int = 0
    checksum: int | None = None
    refresh: bool = False
    """The venue's updates are whole books: while LIVE, what differs from the last one becomes a delta."""


class TradeEvent(msgspec.Struct, gc=False):
    """One public trade; ``taker_side`` is BUY, SELL or UNKNOWN."""

    native: str
    trade_id: str
    taker_side: str
    price: str
    size: str
    ts_venue_us: int = 0


class TickerEvent(msgspec.Struct, gc=False):
    """The venue's own best bid and offer."""

    native: str
    seq: int
    bid_price: str
    bid_size: str
    ask_price: str
    ask_size: str
    ts_venue_us: int = 0


class FundingEvent(msgspec.Struct, gc=False):
    """A perpetual's funding rate for one interval, as a fraction (0.0001 is one basis point); negative: shorts pay."""

    native: str
    rate: str
    interval_us: int = 0
    """How long one rate holds; 0: the venue does not say."""
    next_us: int = 0
    """When it is paid next; 0: the venue does not say."""
    ts_venue_us: int = 0


class MarkPriceEvent(msgspec.Struct, gc=False):
    """The price that positions are valued at, and the index below it; an empty text where the frame has none."""

    native: str
    mark: str
    index: str = ""
    ts_venue_us: int = 0


class OpenInterestEvent(msgspec.Struct, gc=False):
    """Open positions of one side, in ``unit``: CONTRACT, BASE or QUOTE."""

    native: str
    amount: str
    unit: str = "CONTRACT"
    ts_venue_us: int = 0


class LiquidationEvent(msgspec.Struct, gc=False):
    """A forced order. ``side`` is the order's own: SELL closes a long position."""

    native: str
    side: str
    price: str
    size: str
    liquidation_id: str = ""
    ts_venue_us: int = 0


class Reply(msgspec.Struct, gc=False):
    """The venue's answer to a subscription or cancellation; ``error`` is empty when it was taken.

    With ``native`` it speaks of that instrument alone, whatever the id (venues that answer each channel); an answer
    without either that carries an error is logged.
    """

    request_id: int = -1
    error: str = ""
    native: str = ""


class Answer(msgspec.Struct, gc=False):
    """A frame that the venue expects back on this connection (its own ping)."""

    frame: bytes


class StreamBroken(msgspec.Struct, gc=False):
    """The connection itself lost something (a sequence that counts frames has a hole): all its books are suspect."""

    reason: str


MarketEvent = FundingEvent | MarkPriceEvent | OpenInterestEvent | LiquidationEvent
"""What derivatives say beside book, trades and ticker."""

Event = BookDelta | BookSnapshot | TradeEvent | TickerEvent | MarketEvent | Reply | Answer | StreamBroken
