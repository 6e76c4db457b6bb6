"""What the gateway asks of a venue account, whatever stands behind it: paper, ccxt, a simulation's drill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from execution.errors import NotFound


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """An order as it goes out; price and size at their exponents. ``order_id`` is ours, in every venue's charset."""

    order_id: str
    symbol: str
    side: Literal["BUY", "SELL"]
    price: int
    price_exp: int
    size: int
    size_exp: int
    time_in_force: str
    reduce_only: bool
    valid_until_ns: int


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What the venue says about one order; ``state`` is OPEN, PARTIAL, FILLED, CANCELED, REJECTED or EXPIRED."""

    order_id: str
    """Ours; empty for an order that somebody else placed."""
    venue_order_id: str
    symbol: str
    state: str
    filled: int
    size_exp: int


@dataclass(frozen=True, slots=True)
class FillReport:
    """One execution as the venue tells it; ``order_id`` is empty where it only tells its own order id."""

    trade_id: str
    order_id: str
    venue_order_id: str
    symbol: str
    side: Literal["BUY", "SELL"]
    price: int
    price_exp: int
    size: int
    size_exp: int
    fee: int
    fee_exp: int
    fee_asset: str
    maker: bool
    ts_venue_us: int
    source: Literal["STREAM", "REST", "ACK", "PAPER"] = "STREAM"
    value: str = ""
    """Exact amount of quote, decimal text, where price × size cannot say it."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """A balance at one exponent."""

    total: int
    free: int
    exp: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a venue can do for our safety, and how long its answers may lag behind its truth."""

    query_by_client_id: bool = True
    request_expiry_ms: int = 5000
    """A request that arrives later than this after it was signed is refused by the venue itself; 0: no such thing."""
    not_found_grace_s: float = 15.0
    """An order that cannot be found for so long after the last moment it could have arrived never existed."""
    cancel_all_after: bool = False
    """A dead man's switch at the venue."""
    cancel_all: bool = True
    client_id: str = "[A-Za-z0-9]{1,32}"
    """What the venue takes as a client order id, as a regular expression."""
    client_id_uuid: bool = False
    """Ids of our length only as a UUID's 32 hexadecimal digits."""
    page: int = 500
    """Rows that one page of fills or of open orders has at most."""
    newest_first: bool = False
    """A page of fills holds the newest of its span, not the oldest."""


class VenueAccount(ABC):
    """One account at one venue. Every call may raise VenueError's kinds, and nothing else that is foreseen."""

    venue: str
    account: str
    capabilities: Capabilities = Capabilities()

    async def start(self) -> None:  # noqa: B027 - not every venue needs it
        """Make ready; raises AccountError."""

    async def connect(self) -> None:  # noqa: B027 - not every venue needs it
        """Make ready for questions alone; raises AccountError."""

    async def close(self) -> None:  # noqa: B027 - not every venue needs it
        """Leave. Open orders stay as they are: cancelling them is the gateway's part."""

    @abstractmethod
    async def place(self, order: OrderRequest) -> OrderReport:
        """Send it once. Refused and Throttled are sure; after Unclear it may exist."""

    @abstractmethod
    async def cancel(self, order_id: str, venue_order_id: str, symbol: str) -> OrderReport | None:
        """Ask to cancel; may be repeated. NotFound: it is over, or not there. None: taken, the outcome comes later."""

    @abstractmethod
    async def query(self, order_id: str, symbol: str) -> OrderReport:
        """The order by our id, newest of that id; NotFound when the venue knows none now."""

    @abstractmethod
    async def open_orders(self) -> list[OrderReport]:
        """All that rests, whoever placed it."""

    @abstractmethod
    async def fills(self, symbol: str, since_us: int) -> list[FillReport]:
        """Executions from a venue time on, oldest first."""

    @abstractmethod
    async def balances(self) -> dict[str, Amounts]:
        """By asset."""

    async def positions(self) -> dict[str, tuple[int, int]]:
        """Of derivatives: symbol → (signed size, exponent); none where the account only holds assets."""
        return {}

    @abstractmethod
    def events(self) -> AsyncIterator[OrderReport | FillReport | None]:
        """The private stream, for ever; it reconnects by itself. None: the connection was lost, so events may be missing."""

    async def cancel_all(self, symbols: set[str]) -> None:
        """Cancel all that rests in these symbols; one by one where the venue has no such call."""
        for order in await self.open_orders():
            if order.symbol in symbols:
                try:
                    await self.cancel(order.order_id, order.venue_order_id, order.symbol)
                except NotFound:
                    continue

    @property
    def dead_man(self) -> bool:
        """Whether the venue itself cancels what rests when ``keep_alive`` is not called for long enough."""
        return False

    async def keep_alive(self, timeout_s: int) -> None:  # noqa: B027 - not every venue needs it
        """Renew the venue's dead man's switch, where it has one."""
