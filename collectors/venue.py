"""The interface between a venue's file and the shared machinery: all that a venue must say about itself.

A venue is one file in ``collectors/cex``: a subclass of Venue, sans-I/O. It gives paths, frames and limits, and turns
bytes into events; it never opens a socket, sleeps or looks at a clock. Sockets, REST, reconnects, throttles, watchdogs
and metrics are shared. See ADDING_A_VENUE.md.

Promise of every parsing method: MalformedFrame is the only error it raises, whatever the bytes are.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from collectors.errors import MalformedFrame, UnknownVenue
from collectors.events import (
    Answer,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    Level,
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    StreamBroken,
    TickerEvent,
    TradeEvent,
)
from collectors.sync_rules import (
    PredecessorChain,
    RangeChain,
    StreamBook,
    StreamChain,
    SyncRule,
    TextBook,
    TextChecksum,
    Verdict,
)

__all__ = [
    "ALL_CHANNELS", "BOOK", "FUNDING", "LIQUIDATION", "MARK_PRICE", "OPEN_INTEREST", "TICKER", "TRADE", "Answer", "BookDelta",
    "BookSnapshot", "Event", "FundingEvent", "Level", "Limits", "LiquidationEvent", "Listing", "MalformedFrame",
    "MarkPriceEvent", "OpenInterestEvent", "Parser", "Poll", "PredecessorChain", "RangeChain", "Reply", "RestRequest",
    "Round", "StreamBook", "StreamBroken", "StreamChain", "SyncRule", "TextBook", "TextChecksum", "TickerEvent",
    "TradeEvent", "UnknownVenue", "Venue", "Verdict", "adapter", "adapter_ids",
]  # fmt: skip

log = logging.getLogger(__name__)

Parser = Callable[[bytes], Sequence[Event]]

BOOK, TRADE, TICKER = "book", "trade", "ticker"
FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION = "funding", "mark_price", "open_interest", "liquidation"
"""Channels: the kinds of market data, by the names that the settings use."""
ALL_CHANNELS = (BOOK, TRADE, TICKER, FUNDING, MARK_PRICE, OPEN_INTEREST, LIQUIDATION)


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A call below the venue's REST address; ``weight`` counts against Limits.rest_weight_per_minute."""

    path: str
    weight: int = 1
    method: str = "GET"
    body: bytes = b""
    """JSON, for a POST."""


@dataclass(frozen=True, slots=True)
class Poll:
    """A call to repeat."""

    request: RestRequest
    every_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """A call for each instrument that is followed, one after another, and then again from the first."""

    request: Callable[[str], RestRequest]
    """Of the venue's name of the instrument."""
    every_s: float
    """For each instrument; longer where so many calls would take too large a share of the venue's weight."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the venue tolerates. Times in seconds."""

    instruments_per_connection: int
    instruments_per_request: int
    """In one subscription frame."""
    request_interval_s: float
    """Between two frames that we send on one connection, evenly: venues count bursts."""
    connect_interval_s: float
    """Between two connections that we open, once ``connect_burst`` is used up."""
    rest_weight_per_minute: int
    rest_concurrency: int = 4
    heartbeat_s: float = 15
    """Silence after which the connection is pinged; with a heartbeat() of the venue's own, how often that is sent."""
    reply_timeout_s: float = 10
    """For an answer to a subscription; 0: the venue gives none, a sent subscription counts as taken."""
    connect_burst: int = 1
    """Connections that may be opened at once: what a venue allows in a window of time, less what the interval brings."""
    max_age_s: float = 0
    """The venue cuts a connection at this age (24 h is usual); 0: it does not say."""
    quiet: bool = False
    """A connection may be silent for as long as it likes, so only the ping finds a dead one."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One instrument as the venue describes it: the fields of the Instrument record that are the venue's to say."""

    native_id: str
    symbol: str
    base: str
    quote: str
    kind: str
    tick_size: str
    lot_size: str
    state: str = "TRADING"
    settle: str | None = None
    inverse: bool = False
    min_size: str | None = None
    min_notional: str | None = None
    contract_size: str | None = None
    maker_fee_bps: str | None = None
    taker_fee_bps: str | None = None
    expiry_us: int | None = None


class Venue(ABC):
    """One venue's protocol. Stateless; what depends on a connection lives in what ``connection()`` gives."""

    id: ClassVar[str]
    rest_url: ClassVar[str]
    """Public endpoint, without a slash at the end; the settings may override it, as they may ``ws_url``."""
    ws_url: ClassVar[str]
    limits: ClassVar[Limits]
    offers: ClassVar[frozenset[str]] = frozenset({BOOK, TRADE})
    """The channels that this file speaks."""
    headers: ClassVar[Mapping[str, str]] = {}
    """HTTP headers that the venue wants with every REST call and with a websocket's handshake."""
    exact: ClassVar[bool] = True
    """False: the source drops updates or the wire's digits, so that nothing proves a book of it."""

    def __init__(self, *, channels: Collection[str] = (BOOK, TRADE)) -> None:
        self.channels = self.offers & frozenset(channels)
        """The channels to subscribe: those asked for that the venue has."""

    @abstractmethod
    def instruments_requests(self) -> list[RestRequest]:
        """The calls that together list every instrument."""

    @abstractmethod
    def parse_instruments(self, body: bytes) -> list[Listing]:
        """One answer. An entry that cannot be read or named is left out, so that one bad symbol hides no other."""

    def next_instruments_request(self, request: RestRequest, body: bytes) -> RestRequest | None:
        """The call for the page behind this answer; None: it was the last. The answer has been parsed without error."""
        return None

    def volumes_requests(self) -> list[RestRequest]:
        """The calls that together tell every instrument's 24-hour volume; none: the settings cannot select by volume."""
        return []

    def parse_volumes(self, body: bytes) -> dict[str, str]:
        """One answer: the volume in quote units, as the venue writes it, by the venue's name of the instrument."""
        raise NotImplementedError(f"{self.id} tells no volumes")

    def endpoint_request(self) -> RestRequest | None:
        """The call that tells the websocket's address, made before each connection; None: it is ws_url + ws_path()."""
        return None

    def parse_endpoint(self, body: bytes) -> str:
        """Its answer: the whole websocket address."""
        raise NotImplementedError(f"{self.id} has a fixed websocket address")

    def snapshot_request(self, native: str) -> RestRequest:
        """The call for one whole book, where the sync rule takes snapshots from REST."""
        raise NotImplementedError(f"{self.id} sends its snapshots in the stream")

    def parse_snapshot(self, native: str, body: bytes) -> BookSnapshot:
        """Its answer."""
        raise NotImplementedError(f"{self.id} sends its snapshots in the stream")

    @abstractmethod
    def rule(self, native: str) -> SyncRule:
        """How this book synchronises; a shared object where the rule has no memory."""

    def ws_path(self) -> str:
        """Path and query below ``ws_url``."""
        return ""

    def beside(self) -> Venue | None:
        """Those of the channels that do not travel with the books, as a venue with a websocket of its own; None: all do.

        Of it only the address, the limits, the frames and the parser are asked. What is lost there is no book's loss.
        """
        return None

    def polls(self) -> list[Poll]:
        """What has to be asked for again and again because no stream says it."""
        return []

    def rounds(self) -> list[Round]:
        """The same, where the venue tells of one instrument at a time; parse_poll() reads these answers too."""
        return []

    def parse_poll(self, request: RestRequest, body: bytes) -> Sequence[Event]:
        """The events in one answer; those of instruments that nobody follows are ignored."""
        raise NotImplementedError(f"{self.id} polls nothing")

    @abstractmethod
    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        """The frames that subscribe these instruments (at most Limits.instruments_per_request) to the channels.

        Where there are several, the first is the books' and carries the id; what the others are answered is the
        adapter's to leave out unless it is an error.
        """

    @abstractmethod
    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        """The frames that cancel them."""

    @abstractmethod
    def parse(self, frame: bytes) -> Sequence[Event]:
        """The events of one received frame, in order; none for a frame that says nothing about books or trades."""

    def connection(self) -> Parser:
        """The parser of one new connection; override where frames only make sense with what came before them."""
        return self.parse

    def heartbeat(self) -> bytes | None:
        """A frame that keeps the connection alive, sent every heartbeat_s; None: the websocket's own ping does."""
        return None

    @classmethod
    def sniff(cls, frames: Sequence[bytes]) -> bool:
        """Whether these received frames (and REST answers) are of this venue: how a capture finds its adapter."""
        return False


@cache
def _registry() -> dict[str, type[Venue]]:
    found: dict[str, type[Venue]] = {}
    package = importlib.import_module("collectors.cex")
    for module in pkgutil.iter_modules(package.__path__):
        try:
            values = vars(importlib.import_module(f"collectors.cex.{module.name}")).values()
        except Exception as error:  # one venue's mistake must not stop the others; the conformance suite finds it
            log.error("collectors/cex/%s.py cannot be loaded: %s: %s", module.name, type(error).__name__, error)
            continue
        for value in values:
            if isinstance(value, type) and issubclass(value, Venue) and "id" in vars(value):
                found[value.id] = value
    return dict(sorted(found.items()))


def adapter_ids() -> tuple[str, ...]:
    """The ids of all adapters: every Venue with an ``id`` in a module of collectors/cex is registered by being there."""
    return tuple(_registry())


def adapter(name: str) -> type[Venue]:
    """The adapter of this id; raises UnknownVenue."""
    try:
        return _registry()[name]
    except KeyError:
        pass
    from collectors.cex.ccxt_pro import ccxt_adapter

    try:
        return ccxt_adapter(name)
    except UnknownVenue:
        raise UnknownVenue(
            f"no adapter named {name!r}, and ccxt.pro has none; there are: {', '.join(_registry())}"
        ) from None
