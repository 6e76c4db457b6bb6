"""What a strategy is: a class without I/O that looks at books through a view and says what it would do.

The runner calls ``on_book`` and its like with what the log says, in the log's order, and turns the decisions into
records. The same class runs live, on paper, in replay and in backtest. The laws (tests/unit/test_strategy_conformance):
the same inputs give the same decisions; the clock is the view's, never the wall's; prices, sizes and money are integers;
work for one event is bounded; nothing is decided on a book that is not live.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import msgspec

from market.live_book import LiveBook
from market.pools.mirror_state import ChainView
from market.terms import Terms

Record = dict[str, Any]
Side = Literal["BUY", "SELL"]
LegMode = Literal["SINGLE", "SIMULTANEOUS", "SEQUENTIAL", "HEDGE_OF"]


class StrategyError(Exception):
    """A strategy cannot be run as configured; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One order of a decision; price and size at the instrument's own exponents (Terms)."""

    key: str
    side: Side
    price: int
    size: int
    time_in_force: Literal["GTC", "IOC", "FOK", "POST_ONLY"] = "IOC"
    reduce_only: bool = False
    replaces: str = ""
    """Intent id of an own open order that this one takes the place of: that is cancelled, and over, before this leaves,
    and what it fills meanwhile is taken off ``size``, which is what may still trade as far as the strategy knows."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a strategy wants done, and why. With neither legs nor cancels it is an opportunity that is only reported."""

    kind: str
    group: str
    books: tuple[str, ...]
    """Keys of the books that it looked at, all of which must be live."""
    legs: tuple[Leg, ...] = ()
    cancels: tuple[str, ...] = ()
    """Intent ids of orders to cancel."""
    leg_mode: LegMode = "SINGLE"
    edge: int = 0
    edge_exp: int = 0
    edge_asset: str = ""
    reason: str = ""
    valid_ns: int = 1_000_000_000
    """How long the orders may take to leave, on the log's clock."""
    group_id: str = ""
    """The hedge group to join; empty: a new one when there are several legs."""
    report: bool = True
    """Write an Opportunity; false for the many quotes of a market maker."""


@dataclass(slots=True)
class OpenIntent:
    """An order of this strategy that is not known to be over."""

    id: str
    key: str
    side: Side
    price: int
    size: int
    filled: int
    created_ns: int
    valid_until_ns: int
    group_id: str
    seen: bool = False
    """The gateway has said something about it."""
    canceling: bool = False
    replaces: str = ""

    @property
    def left(self) -> int:
        return self.size - self.filled


@dataclass
class View:
    """What a strategy may look at. Only the runner's loop writes to it."""

    now_ns: int = 0
    """The log's clock."""
    books: dict[str, LiveBook] = field(default_factory=dict)
    terms: dict[str, Terms] = field(default_factory=dict)
    funding: dict[str, Record] = field(default_factory=dict)
    balances: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """(venue, asset) → (amount, exponent), as far as anybody said."""
    chain: ChainView = field(default_factory=ChainView)
    """Heads of chains and the pools that the strategy named to it when it was made."""
    open: dict[str, OpenIntent] = field(default_factory=dict)
    """Own orders that may still trade, by intent id, oldest first."""

    def live(self, key: str) -> LiveBook | None:
        """The book, when it may be traded on."""
        book = self.books.get(key)
        return book if book is not None and book.live else None

    def age_ns(self, key: str) -> int:
        """Log clock less the book's last receipt; 0 at least."""
        return max(0, self.now_ns - self.books[key].ts_received_ns)

    def balance(self, venue: str, asset: str, exponent: int) -> int | None:
        """An amount at this exponent, rounded down; None when nobody said."""
        known = self.balances.get((venue, asset))
        if known is None:
            return None
        amount, own = known
        return amount * 10 ** (own - exponent) if own >= exponent else amount // 10 ** (exponent - own)


class Parameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Parameters that every strategy has; amounts and rates are decimal texts, never floats."""

    venues: tuple[str, ...] = ()
    """Venues to look at; empty: all for which there is an account."""
    symbols: tuple[str, ...] = ()
    """Unified symbols; empty: all that the strategy can use."""
    valid_ms: int = 500
    """How long an intent may take to leave."""


class Strategy(ABC):
    """The interface. Every ``on_`` method gives decisions, and must do a bounded amount of work."""

    kind: ClassVar[str]
    version: ClassVar[str]
    """Grows with every change of what is decided: it is part of each intent's id."""
    parameters_type: ClassVar[type[Parameters]] = Parameters
    timer_ns: ClassVar[int] = 0
    """How often ``on_timer`` is called, on the log's clock; 0: never."""

    def __init__(self, parameters: Any, view: View) -> None:
        self.parameters = parameters
        self.view = view

    def wants(self, terms: Terms) -> bool:
        """Whether this instrument matters; its book is kept only then."""
        p = self.parameters
        return (not p.venues or terms.venue in p.venues) and (not p.symbols or terms.symbol in p.symbols)

    def on_terms(self, terms: Terms) -> None:  # noqa: B027 - most need not know
        """An instrument that it wants appeared or changed."""

    @abstractmethod
    def on_book(self, key: str) -> Sequence[Decision]:
        """A book changed, possibly by several events at once."""

    def on_trade(self, trade: Record) -> Sequence[Decision]:
        """A public trade of an instrument that it wants."""
        return ()

    def on_funding(self, rate: Record) -> Sequence[Decision]:
        """A perpetual's funding rate."""
        return ()

    def on_fill(self, fill: Record) -> Sequence[Decision]:
        """One of its own orders traded; each fill comes once."""
        return ()

    def on_order(self, order: OpenIntent, state: str) -> Sequence[Decision]:
        """One of its own orders is over; ``state`` is the OrderState, or REFUSED by risk, or LOST."""
        return ()

    def on_timer(self) -> Sequence[Decision]:
        """``timer_ns`` of log time have passed."""
        return ()

    def state(self) -> Mapping[str, Any]:
        """All that it remembers beside the view, as JSON; ``restore`` takes it back."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most remember nothing
        """Become what ``state`` described."""

    def on_restored(self) -> None:  # noqa: B027 - most keep nothing beside the view
        """The view's books have their levels again: what was derived from them is derived anew."""
