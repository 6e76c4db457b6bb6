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


class Reply(msgspec.Struct, gc=False):
    """The venue's answer to the subscription or cancellation with this id; ``error`` is empty when it was taken."""

    request_id: int
    error: str = ""


class StreamBroken(msgspec.Struct, gc=False):
    """The connection itself lost something (a sequence that counts frames has a hole): all its books are suspect."""

    reason: str


Event = BookDelta | BookSnapshot | TradeEvent | TickerEvent | Reply | StreamBroken
